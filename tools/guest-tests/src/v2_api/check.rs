// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Assertions whose failure says what was asked, what came and what should have come.

use std::fmt::{Debug, Display};

use anyhow::{bail, Context};

use crate::vfio::{self, Errno};

/// Fails unless `got` is `wanted`.
pub fn equal<T: PartialEq + Debug>(what: impl Display, got: T, wanted: T) -> anyhow::Result<()> {
    if got != wanted {
        bail!("{what}: got {got:?}, expected {wanted:?}");
    }
    Ok(())
}

/// Fails unless `got` is `wanted`; shows them in hexadecimal.
pub fn equal_hex(what: impl Display, got: u64, wanted: u64) -> anyhow::Result<()> {
    if got != wanted {
        bail!("{what}: got {got:#x}, expected {wanted:#x}");
    }
    Ok(())
}

/// Fails unless the call failed with `errno`.
pub fn refused<T: Debug>(
    what: impl Display,
    result: vfio::Result<T>,
    errno: Errno,
) -> anyhow::Result<()> {
    match result {
        Err(got) if got == errno => Ok(()),
        Err(got) => bail!("{what}: failed with {got:?}, expected {errno:?}"),
        Ok(value) => bail!("{what}: succeeded with {value:?}, expected {errno:?}"),
    }
}

/// Names the call that failed.
pub trait Named<T> {
    /// Adds `what` to an error.
    fn named(self, what: impl Display + Send + Sync + 'static) -> anyhow::Result<T>;
}

impl<T> Named<T> for vfio::Result<T> {
    fn named(self, what: impl Display + Send + Sync + 'static) -> anyhow::Result<T> {
        self.context(what)
    }
}

/// Fails unless two byte strings are the same; shows where they start to differ.
pub fn same_bytes(what: impl Display, got: &[u8], wanted: &[u8]) -> anyhow::Result<()> {
    if let Some(place) = got.iter().zip(wanted).position(|(a, b)| a != b) {
        let show = |bytes: &[u8]| format!("{:02x?}", &bytes[place..bytes.len().min(place + 16)]);
        bail!(
            "{what}: byte {place} differs: got {}, expected {}",
            show(got),
            show(wanted)
        );
    }
    equal(format!("{what}: length"), got.len(), wanted.len())
}
