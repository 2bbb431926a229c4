// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A PCI card as the guest's sysfs shows it, and the driver that has it.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use super::line::Interrupt;
use super::{config_space, CARDS};

/// Where the guest's kernel lists PCI devices.
const DEVICES: &str = "/sys/bus/pci/devices";
/// Where it lists ttys.
const TTYS: &str = "/sys/class/tty";

/// A card under test.
pub struct Card {
    /// Its directory in sysfs.
    place: PathBuf,
    /// How it interrupts.
    interrupt: Interrupt,
    /// The number of the interrupt.
    irq: u32,
}

impl Card {
    /// The directories of all cards under test, in the order of bus addresses.
    pub fn places() -> Result<Vec<PathBuf>> {
        let mut places = entries(DEVICES)?;
        places.retain(|place| CARDS.contains(&numbers(place)));
        Ok(places)
    }

    /// The card at `place`, of which `line` is one of the ttySN.
    pub fn at(place: PathBuf, line: u32) -> Result<Self> {
        let irq = text(Path::new(&format!("{TTYS}/ttyS{line}/irq")))?
            .parse()
            .context("irq")?;
        // The directory lists the vectors of a card whose driver asked for messages.
        let msi = place.join("msi_irqs").join(format!("{irq}")).exists();
        Ok(Self {
            place,
            interrupt: if msi { Interrupt::Msi } else { Interrupt::Intx },
            irq,
        })
    }

    /// Its directory in sysfs.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// How it interrupts.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt
    }

    /// PCI vendor and device number.
    pub fn numbers(&self) -> (u16, u16) {
        numbers(&self.place)
    }

    /// Has the driver let go of the card and take it anew; returns the numbers of its ttySN, as [`lines_of`] does.
    pub fn rebind(&mut self) -> Result<Vec<u32>> {
        let link = self.place.join("driver");
        let driver = link
            .canonicalize()
            .with_context(|| link.display().to_string())?;
        let name = self.place.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let write = |file: &str| {
            let path = driver.join(file);
            fs::write(&path, &name).with_context(|| format!("{name} > {}", path.display()))
        };
        write("unbind")?;
        ensure!(
            lines_of(&self.place)?.is_empty(),
            "{name} has ports that no driver has"
        );
        write("bind")?;
        let lines = lines_of(&self.place)?;
        let first = lines.first();
        let first = first.with_context(|| format!("the driver made no port of {name}"))?;
        *self = Self::at(self.place.clone(), *first)?;
        Ok(lines)
    }

    /// How often the guest's kernel handled its interrupt, on all processors.
    pub fn interrupts(&self) -> Result<u64> {
        let table = text(Path::new("/proc/interrupts"))?;
        let prefix = format!("{}:", self.irq);
        let row = table
            .lines()
            .find_map(|row| row.trim_start().strip_prefix(&prefix));
        let row =
            row.with_context(|| format!("interrupt {} is not in /proc/interrupts", self.irq))?;
        Ok(row
            .split_ascii_whitespace()
            .map_while(|word| word.parse::<u64>().ok())
            .sum())
    }
}

/// Numbers of the ttySN that the guest's driver made of the card at `place` in sysfs, in the order of its ports.
pub fn lines_of(place: &Path) -> Result<Vec<u32>> {
    let device = place
        .canonicalize()
        .with_context(|| place.display().to_string())?;
    let mut lines = Vec::new();
    for tty in entries(TTYS)? {
        let name = tty
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(line) = name
            .strip_prefix("ttyS")
            .and_then(|line| line.parse::<u32>().ok())
        else {
            continue;
        };
        if tty
            .canonicalize()
            .is_ok_and(|path| path.starts_with(&device))
        {
            lines.push(line);
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

/// The paths in a directory, sorted.
fn entries(directory: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).context(directory.to_string())? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// PCI vendor and device number of the card at `place`; 0, which no card has, for what cannot be read.
fn numbers(place: &Path) -> (u16, u16) {
    let hex = |name: &str| {
        let number = text(&place.join(name)).ok();
        number
            .and_then(|number| u16::from_str_radix(number.trim_start_matches("0x"), 16).ok())
            .unwrap_or(0)
    };
    (hex("vendor"), hex("device"))
}

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
