// SPDX-License-Identifier: GPL-2.0

//! Faults to be switched on in debugfs, for tests of those who look for them.

use crate::dirty_log::{drop_bits, drops_bits};
use core::fmt::{self, Formatter};
use kernel::debugfs::{Dir, File};
use kernel::prelude::*;
use kernel::uaccess::UserSliceReader;

/// The directory `rust_vfio` in debugfs, until it is dropped. Without debugfs: nothing.
///
/// `drop_dirty_bits`: "1" leaves what devices write out of every log of DMA, so that a migration loses it; "0" ends that. Only what is
/// written meanwhile is left out.
pub struct Faults {
    _drop_dirty_bits: Pin<KBox<File<()>>>,
}

impl Faults {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let dir = Dir::new(c"rust_vfio");
        let file = dir.read_write_callback_file(c"drop_dirty_bits", (), &show, &store);
        Ok(Self {
            _drop_dirty_bits: KBox::pin_init(file, GFP_KERNEL)?,
        })
    }
}

fn show(_: &(), f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}", u8::from(drops_bits()))
}

/// `EINVAL` for anything but "0" and "1", with or without a line's end.
fn store(_: &(), text: &mut UserSliceReader) -> Result {
    let mut bytes = [0; 2];
    let len = text.len();
    let bytes = bytes.get_mut(..len).ok_or(EINVAL)?;
    text.read_slice(bytes)?;
    drop_bits(match &*bytes {
        b"0" | b"0\n" => false,
        b"1" | b"1\n" => true,
        _ => return Err(EINVAL),
    });
    Ok(())
}
