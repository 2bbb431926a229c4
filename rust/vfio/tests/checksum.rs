// SPDX-License-Identifier: GPL-2.0

//! KUnit: the checksum of streams, which the kernel makes where the processor can.

use ::migration::crc::Crc32;
use kernel::prelude::*;

/// More bytes than are ever done by tables alone.
const BYTES: usize = 600;

/// The remainder of the division, bit by bit, as the definition has it.
fn divided(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ (0u32.wrapping_sub(carry) & 0xedb8_8320);
        }
    }
    !crc
}

/// Bytes without a pattern.
fn noise() -> Result<KVec<u8>> {
    let mut bytes = KVec::from_elem(0u8, BYTES, GFP_KERNEL)?;
    let mut noise = 0x9e37_79b9u32;
    for byte in bytes.iter_mut() {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        *byte = (noise >> 24) as u8;
    }
    Ok(bytes)
}

#[kunit_tests(rust_vfio_checksum)]
mod cases {
    use super::*;

    #[test]
    fn a_checksum_is_the_same_whoever_makes_it() -> Result {
        let bytes = noise()?;
        for start in 0..9 {
            for end in (start..=bytes.len()).step_by(7) {
                let piece = &bytes[start..end];
                assert_eq!(Crc32::of(piece), divided(piece));
            }
        }
        Ok(())
    }

    #[test]
    fn a_checksum_can_be_made_of_pieces_of_any_size() -> Result {
        let bytes = noise()?;
        let whole = divided(&bytes);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut crc = Crc32::new();
            crc.update(first);
            crc.update(second);
            assert_eq!(crc.value(), whole);
        }
        Ok(())
    }
}
