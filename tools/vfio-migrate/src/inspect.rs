// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Taking a saved state apart.

use std::io::{self, Read};

use devices::serial::{SectionId, MAX_PORTS};
use migration::stream::{
    section_len, FormatVersion, Handler, Known, Phase, Reader, Refusal, SectionHeader, SetupRecord,
    StreamError, DEVICE_SECTIONS, MAX_SECTION_LEN,
};
use migration::value::{Kind, Param, Value};

/// The model whose sections have names.
pub const SERIAL_MODEL: &str = "rust-vfio-mdev.example/pci/serial";

/// A parameter's value that outlives the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedParam {
    /// The parameter's name.
    pub name: String,
    /// The type of the value.
    pub kind: Kind,
    /// The value as text.
    pub text: String,
}

/// A record of a saved state. Its checksum was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Says what the source is.
    Setup {
        /// Version of the stream format.
        version: FormatVersion,
        /// The phase that starts.
        phase: Phase,
        /// The device model.
        model: String,
        /// The parameters in effect.
        params: Vec<OwnedParam>,
        /// Length in bytes.
        len: u64,
    },
    /// Holds a part of the state.
    Section {
        /// What part.
        id: u16,
        /// Its name, if the model's sections have names.
        name: Option<String>,
        /// The phase it belongs to.
        phase: Phase,
        /// Whether a reader that does not know it must refuse the stream.
        mandatory: bool,
        /// Length of the payload in bytes.
        payload: usize,
    },
    /// The end: the state is complete.
    End,
}

/// What a saved state holds.
#[derive(Debug)]
pub struct Contents {
    /// The records that are sound, each with where it starts.
    pub records: Vec<(u64, Record)>,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong with the next record, if anything, and the place behind which it starts.
    pub damage: Option<(u64, StreamError)>,
}

/// Takes a saved state apart, up to the first record that is damaged.
pub fn inspect(input: &mut dyn Read) -> io::Result<Contents> {
    let mut reader = Reader::new();
    let mut scratch = vec![0; MAX_SECTION_LEN];
    let mut buffer = vec![0; 64 * 1024];
    let mut list = List::default();
    let mut bytes = 0;
    loop {
        let len = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if len == 0 {
            let damage = reader.finish().err().map(|error| (list.offset, error));
            return Ok(Contents {
                records: list.records,
                bytes,
                damage,
            });
        }
        bytes += len as u64;
        if let Err(error) = reader.push(&buffer[..len], &mut scratch, &mut list) {
            return Ok(Contents {
                damage: Some((list.offset, error)),
                records: list.records,
                bytes,
            });
        }
    }
}

/// Collects records.
#[derive(Default)]
struct List {
    records: Vec<(u64, Record)>,
    /// Where the next record starts.
    offset: u64,
    model: String,
}

impl List {
    fn push(&mut self, record: Record, len: u64) {
        self.records.push((self.offset, record));
        self.offset += len;
    }
}

impl Handler for List {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        let owned = |Param { name, value }: Param<'_>| OwnedParam {
            name: name.to_string(),
            kind: value.kind(),
            text: value.to_string(),
        };
        self.model = record.model.to_string();
        let len = record.len as u64;
        let setup = Record::Setup {
            version: record.version,
            phase: record.phase,
            model: record.model.to_string(),
            params: record.params().map(owned).collect(),
            len,
        };
        self.push(setup, len);
        Ok(())
    }

    fn section_header(&mut self, _: &SectionHeader) -> Result<Known, Refusal> {
        // Whatever it is: it can be listed.
        Ok(Known::Yes)
    }

    fn section(&mut self, header: &SectionHeader, _: &[u8]) -> Result<(), Refusal> {
        let section = Record::Section {
            id: header.id,
            name: section_name(&self.model, header.id),
            phase: header.phase,
            mandatory: header.mandatory,
            payload: header.len,
        };
        self.push(section, section_len(header.len) as u64);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.push(Record::End, section_len(0) as u64);
        Ok(())
    }
}

/// What the section holds, where that is known.
fn section_name(model: &str, id: u16) -> Option<String> {
    let id = id.checked_sub(*DEVICE_SECTIONS.start())?;
    let ports = 0..MAX_PORTS;
    let whole = ports.clone().filter_map(SectionId::port);
    let compact = ports.filter_map(SectionId::compact_port);
    let known = std::iter::once(SectionId::CARD).chain(whole).chain(compact);
    let section = known
        .filter(|_| model == SERIAL_MODEL)
        .find(|section| section.get() == id)?;
    Some(section.to_string())
}

impl OwnedParam {
    /// The value.
    pub fn value(&self) -> Value<'_> {
        match self.kind {
            Kind::Bool => Value::Bool(self.text == "on"),
            Kind::Int => Value::Int(self.text.parse().unwrap_or_default()),
            Kind::Str => Value::Str(&self.text),
        }
    }
}

#[cfg(test)]
mod tests;
