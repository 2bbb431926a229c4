// SPDX-License-Identifier: GPL-2.0

//! The CRC-32 of the kernel, where the processor has instructions for it.
//!
//! The crate is part of the modules if the kernel can use such instructions at all (`CONFIG_CRC32_ARCH`, as distributions have it).
//! Whether the processor has them is found out when the kernel starts.
//!
//! C header: `include/linux/crc32.h`

/// Adds bytes to a sum, which is inverted neither before nor after. `None` if the processor has no instructions for it: the kernel
/// would take one byte at a time.
pub fn update(sum: u32, bytes: &[u8]) -> Option<u32> {
    // SAFETY: The function can be called in any context, and tells a number.
    let with_instructions = unsafe { vfio_bindings::crc32_optimizations() };
    if with_instructions & vfio_bindings::CRC32_LE_OPTIMIZATION == 0 {
        return None;
    }
    // SAFETY: `bytes` is a live slice, so so many bytes can be read from there on, and nobody writes them meanwhile. The function can
    // be called in any context.
    Some(unsafe { vfio_bindings::crc32_le(sum, bytes.as_ptr().cast(), bytes.len()) })
}
