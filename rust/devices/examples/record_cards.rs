// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Writes the states of which `tests/data` keeps one for every kind of card of every release:
//!
//! ```text
//! cargo run -p devices --example record_cards -- tests/data/<release>
//! ```
//!
//! To be run once, when a release is made. Afterwards the files never change: they stand for the
//! states that users have kept. What is in them is in `tests/recorded_cards.rs`.

use devices::serial::{Card, Config, FifoDepth, PortCount};
use migration::stream::{
    write_end, write_section, write_setup, Phase, Sink, WriteError, DEVICE_SECTIONS,
};
use migration::value::{Param, Value};
use std::convert::Infallible;
use std::path::Path;

/// A sink that grows.
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn main() {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: record_cards DIRECTORY");
        std::process::exit(2);
    };
    let directory = Path::new(&directory);
    for config in configs() {
        let path = directory.join(format!("{}.stream", name(&config)));
        let result = match record(config) {
            Ok(state) => std::fs::write(&path, state).map_err(|error| error.to_string()),
            Err(error) => Err(format!("{error:?}")),
        };
        if let Err(error) = result {
            eprintln!("record_cards: {}: {error}", path.display());
            std::process::exit(1);
        }
    }
}

/// Every kind of card.
fn configs() -> Vec<Config> {
    let mut all = Vec::new();
    for ports in PortCount::ALL {
        for (fifo_depth, auto_flow) in [
            (FifoDepth::Sixteen, true),
            (FifoDepth::SixtyFour, true),
            (FifoDepth::SixtyFour, false),
        ] {
            for (msi, compact_state) in [(false, false), (false, true), (true, false), (true, true)]
            {
                all.push(Config {
                    ports,
                    fifo_depth,
                    auto_flow,
                    msi,
                    compact_state,
                });
            }
        }
    }
    all
}

/// What a card's file is called.
fn name(config: &Config) -> String {
    let mut name = format!(
        "{}-ports-fifo-{}",
        config.ports.get(),
        config.fifo_depth.get()
    );
    for (given, word) in [
        (!config.auto_flow, "-no-flow"),
        (config.msi, "-msi"),
        (config.compact_state, "-compact"),
    ] {
        if given {
            name += word;
        }
    }
    name
}

/// The migration parameters in effect.
fn params(config: &Config) -> Vec<Param<'static>> {
    let param = |name, value| Param { name, value };
    let mut params = vec![param("num-ports", Value::Int(config.ports.get().into()))];
    if config.fifo_depth == FifoDepth::SixtyFour {
        params.push(param("fifo-depth", Value::Int(64)));
    }
    for (given, name, value) in [
        (config.msi, "msi", true),
        (config.compact_state, "compact-state", true),
        (!config.auto_flow, "auto-flow", false),
    ] {
        if given {
            params.push(param(name, Value::Bool(value)));
        }
    }
    params
}

/// The stream of a card that was used for ten seconds.
fn record(config: Config) -> Result<Vec<u8>, WriteError<Infallible>> {
    let model = "rust-vfio-mdev.example/pci/serial";
    let params = params(&config);
    let card = used(config);
    let mut out = Bytes(Vec::new());
    write_setup(&mut out, Phase::PreCopy, model, params.iter().copied())?;
    write_setup(&mut out, Phase::StopCopy, model, params.iter().copied())?;
    card.save(&mut |id, payload| {
        write_section(&mut out, DEVICE_SECTIONS.start() + id.get(), true, payload)
    })?;
    write_end(&mut out)?;
    Ok(out.0)
}

const SECOND: u64 = 1_000_000_000;

/// A card at the end of ten seconds, with something in every field.
fn used(config: Config) -> Card {
    let mut card = Card::new(config);
    let start = 1000 * SECOND;
    card.set_time(start);
    card.write_config(0x3c, &[11]);
    card.write_config(0x10, &0xc0e0_u32.to_le_bytes());
    card.write_config(0x04, &0x0507_u16.to_le_bytes());
    if config.msi {
        card.write_config(0x44, &0xfee0_1000_u64.to_le_bytes());
        card.write_config(0x4c, &0x4041_u16.to_le_bytes());
        card.write_config(0x42, &[1]);
    }
    let ports = u16::from(config.ports.get());
    if ports > 3 {
        waits_for_a_time_out(&mut card, 3 * 8);
    }
    if ports > 1 {
        has_had_a_break(&mut card, 8, start);
    }
    card.set_time(start + 9 * SECOND);
    if ports > 2 {
        has_begun_a_break(&mut card, 2 * 8);
    }
    has_more_than_it_can_hold(&mut card, &config);
    card.set_time(start + 10 * SECOND);
    // What is sent as it comes up has been sent.
    card.take_msi();
    card
}

/// The divisor, then 8 bits, no parity.
fn divisor(card: &mut Card, port: u16, divisor: u16) {
    card.write_bar0(port + 3, &[0x83]);
    card.write_bar0(port, &divisor.to_le_bytes());
    card.write_bar0(port + 3, &[0x03]);
}

/// 9600 baud, the FIFOs at their longest, a full receiver and four bytes on the way. With automatic
/// flow control the receiver stops the transmitter at its trigger level, one byte; there the others
/// wait.
fn has_more_than_it_can_hold(card: &mut Card, config: &Config) {
    let large = config.fifo_depth == FifoDepth::SixtyFour;
    divisor(card, 0, 12);
    // The 64 bytes can be switched on only like the divisor.
    card.write_bar0(3, &[0x83]);
    card.write_bar0(2, &[if large { 0x21 } else { 0x01 }]);
    card.write_bar0(3, &[0x03]);
    card.write_bar0(4, &[if large { 0x2b } else { 0x0b }]);
    card.write_bar0(7, &[0x5a]);
    card.write_bar0(1, &[0x05]);
    let on_the_way = if large && config.auto_flow { 0 } else { 4 };
    for byte in 0..config.fifo_depth.get() + on_the_way {
        card.write_bar0(0, &[0x20 + byte]);
    }
}

/// 115200 baud, a byte, a break, another byte.
fn has_had_a_break(card: &mut Card, port: u16, start: u64) {
    divisor(card, port, 1);
    card.write_bar0(port + 2, &[0x01]);
    card.write_bar0(port + 4, &[0x03]);
    card.write_bar0(port + 7, &[0xa5]);
    card.write_bar0(port, b"x");
    card.write_bar0(port + 3, &[0x43]);
    card.set_time(start + SECOND);
    card.write_bar0(port + 3, &[0x03]);
    card.write_bar0(port, b"y");
    card.write_bar0(port + 1, &[0x04]);
}

/// The slowest divisor, no FIFOs, changed modem lines, and a line that has been spacing since now.
fn has_begun_a_break(card: &mut Card, port: u16) {
    divisor(card, port, 0xffff);
    card.write_bar0(port + 7, &[0x33]);
    card.write_bar0(port + 1, &[0x0a]);
    card.write_bar0(port + 4, &[0x03]);
    card.write_bar0(port + 3, &[0x43]);
}

/// The slowest divisor, and one byte below the trigger level of eight.
fn waits_for_a_time_out(card: &mut Card, port: u16) {
    divisor(card, port, 0xffff);
    card.write_bar0(port + 2, &[0x81]);
    card.write_bar0(port + 1, &[0x01]);
    card.write_bar0(port, &[0x42]);
}
