// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A PCI card as the guest's sysfs shows it.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};

use super::config_space;

/// The content of a file in sysfs, without the newline.
pub fn text(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_string())
}

/// Addresses of the first BAR of the card at `place` in sysfs.
pub fn bar0(place: &Path) -> Result<Range<u64>> {
    let path = place.join("resource");
    let table = text(&path)?;
    let parse = || {
        // A line has start, last address and flags.
        let mut numbers = table.lines().next()?.split(' ');
        let mut number = || u64::from_str_radix(numbers.next()?.strip_prefix("0x")?, 16).ok();
        Some(number()?..number()?.checked_add(1)?)
    };
    parse().with_context(|| format!("{}: {table:?}", path.display()))
}

/// Identification numbers of the capabilities of the card at `place` in sysfs, read from the card now.
pub fn capabilities(place: &Path) -> Result<Vec<u8>> {
    let path = place.join("config");
    let read = || {
        let mut config = [0; config_space::BYTES];
        File::open(&path)?.read_exact(&mut config)?;
        std::io::Result::Ok(config)
    };
    let config = read().with_context(|| path.display().to_string())?;
    config_space::capabilities(&config).with_context(|| path.display().to_string())
}
