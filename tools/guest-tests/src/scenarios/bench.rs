// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The same migration with our card and with the kernel's C sample, side by side.

use anyhow::{Context, Result};

use super::cards::Driver;
use super::scene::Measured;
use super::smooth::compared;

/// Migrations of each card.
const TIMES: usize = 3;

/// Migrates guests with either card and prints what QEMU measured.
pub fn compare() -> Result<()> {
    println!(
        "Live migration of a guest at work (two ports, type 1 container), as QEMU measured it:\n"
    );
    println!("card                      total     downtime    device state      memory");
    for (name, driver) in [("mdev_serial", Driver::MdevSerial), ("mtty", Driver::Mtty)] {
        let mut all = Vec::new();
        for time in 1..=TIMES {
            let measured = compared(&format!("{name}-{time}"), driver)
                .with_context(|| format!("migration {time} of {name}"))?;
            row(name, &measured);
            all.push(measured);
        }
        all.sort_by_key(|measured| measured.total);
        row(&format!("{name}, middle"), &all[TIMES / 2]);
    }
    Ok(())
}

fn row(name: &str, measured: &Measured) {
    let Measured {
        total,
        downtime,
        device,
        ram,
    } = measured;
    println!(
        "{name:<20}  {total:>6} ms  {downtime:>6} ms  {device:>8} bytes  {:>6} KiB",
        ram / 1024
    );
}
