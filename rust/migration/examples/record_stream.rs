// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Writes the stream of which `tests/data` keeps one for every released format version:
//!
//! ```text
//! cargo run -p migration --example record_stream > tests/data/format-<major>.<minor>.stream
//! ```
//!
//! To be run once, when a version is released. Afterwards the file never changes: it stands for the
//! states that users have kept.

use migration::stream::{write_end, write_section, write_setup, Phase, Sink};
use migration::value::{Param, Value};
use std::io::{self, Write};

/// A sink that is a writer.
struct Out<W>(W);

impl<W: Write> Sink for Out<W> {
    type Error = io::Error;

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

fn main() {
    if let Err(error) = record(&mut Out(io::stdout().lock())) {
        eprintln!("record_stream: cannot write the stream: {error}");
        std::process::exit(1);
    }
}

fn record(
    out: &mut Out<io::StdoutLock<'_>>,
) -> Result<(), migration::stream::WriteError<io::Error>> {
    let param = |name, value| Param { name, value };
    let params = [
        param("num-ports", Value::Int(4)),
        param("msi", Value::Bool(true)),
        param("label", Value::Str("größe")),
    ];
    let model = "example.org/pci/card";

    write_setup(out, Phase::PreCopy, model, params.into_iter())?;
    write_section(out, 0x0100, true, b"read ahead")?;
    write_setup(out, Phase::StopCopy, model, params.into_iter())?;
    write_section(out, 0x0100, true, b"the rest")?;
    write_section(out, 0x0101, true, b"")?;
    write_section(out, 0x0f00, false, b"may be skipped")?;
    write_end(out)
}
