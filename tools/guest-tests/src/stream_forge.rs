// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saved device state, taken apart and put together again with anything changed.
//!
//! The layout is the one that `migration::stream` documents for format version 1.0. It is read and written here from that
//! document alone: tests that used the driver's own code could not see its mistakes. Lengths, counts and checksums follow
//! from the content unless a test sets them.

use anyhow::{ensure, Context, Result};

/// First bytes of a setup record.
pub const MAGIC: [u8; 8] = [0x89, 0xff, 0x56, 0x46, 0x49, 0x4f, 0x0d, 0x0a];
/// Phase of a setup record: pre-copy.
pub const PRE_COPY: u8 = 1;
/// Phase of a setup record: stop-and-copy.
pub const STOP_COPY: u8 = 2;
/// Id of the last section.
pub const END: u16 = 0;
/// Flag of a section that must be understood.
pub const MANDATORY: u16 = 1;
/// Longest payload of a section, in bytes.
pub const MAX_SECTION: u32 = 64 * 1024;
/// Longest setup record, in bytes.
pub const MAX_SETUP: u32 = 4096;

/// A stream as its records.
#[derive(Clone, Debug)]
pub struct Stream {
    /// In the order of the stream.
    pub records: Vec<Record>,
}

/// One record.
#[derive(Clone, Debug)]
pub enum Record {
    /// Says what the source is.
    Setup(Setup),
    /// Holds a part of the state.
    Section(Section),
    /// Any bytes.
    Raw(Vec<u8>),
}

/// A setup record.
#[derive(Clone, Debug)]
pub struct Setup {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Format version, major.
    pub major: u16,
    /// Format version, minor.
    pub minor: u16,
    /// Length of the record if it is not to be the real one.
    pub length: Option<u32>,
    /// [`PRE_COPY`] or [`STOP_COPY`].
    pub phase: u8,
    /// The byte at 17 and the two at 22, which are 0.
    pub reserved: (u8, u16),
    /// Length of the model if it is not to be the real one.
    pub model_length: Option<u16>,
    /// Number of parameters if it is not to be the real one.
    pub count: Option<u16>,
    /// Device model.
    pub model: Vec<u8>,
    /// Migration parameters.
    pub params: Vec<Param>,
    /// What follows the parameters.
    pub tail: Vec<u8>,
    /// What is xored to the checksum.
    pub damage: u32,
}

/// One migration parameter of a setup record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// 1 bool, 2 int, 3 str.
    pub kind: u8,
    /// Name.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// A section.
#[derive(Clone, Debug)]
pub struct Section {
    /// What it holds.
    pub id: u16,
    /// [`MANDATORY`] or 0.
    pub flags: u16,
    /// Length of the payload if it is not to be the real one.
    pub length: Option<u32>,
    /// Content.
    pub payload: Vec<u8>,
    /// What is xored to the checksum.
    pub damage: u32,
}

/// Reads fields off the front of bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .context("the stream ends within a record")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        Ok(self
            .take(bytes)?
            .iter()
            .rev()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
}

impl Stream {
    /// Takes a good stream apart.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut records = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (record, length) = if rest.starts_with(&MAGIC) {
                Setup::parse(rest)?
            } else {
                Section::parse(rest)?
            };
            let again = record.encode();
            ensure!(
                again == rest[..length],
                "record {} does not come out as it went in",
                records.len()
            );
            records.push(record);
            rest = &rest[length..];
        }
        Ok(Self { records })
    }

    /// The bytes of the stream.
    pub fn encode(&self) -> Vec<u8> {
        self.records.iter().flat_map(Record::encode).collect()
    }

    /// Where each record starts, and the end.
    pub fn boundaries(&self) -> Vec<usize> {
        let mut place = 0;
        let mut places = vec![0];
        for record in &self.records {
            place += record.encode().len();
            places.push(place);
        }
        places
    }

    /// A copy with its first setup record changed.
    pub fn with_setup(&self, change: impl FnOnce(&mut Setup)) -> Self {
        let mut copy = self.clone();
        let setup = copy.records.iter_mut().find_map(|record| match record {
            Record::Setup(setup) => Some(setup),
            _ => None,
        });
        change(setup.expect("a stream has a setup record"));
        copy
    }

    /// A copy with section `index`, counted without the end, changed.
    pub fn with_section(&self, index: usize, change: impl FnOnce(&mut Section)) -> Self {
        let mut copy = self.clone();
        let section = copy.sections_mut().nth(index);
        change(section.expect("as many sections as the saved state"));
        copy
    }

    /// A copy with a record inserted before record `index`.
    pub fn with_record(&self, index: usize, record: Record) -> Self {
        let mut copy = self.clone();
        copy.records.insert(index, record);
        copy
    }

    /// A copy without record `index`.
    pub fn without_record(&self, index: usize) -> Self {
        let mut copy = self.clone();
        copy.records.remove(index);
        copy
    }

    /// The sections, without the end.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.records.iter().filter_map(|record| match record {
            Record::Section(section) if section.id != END => Some(section),
            _ => None,
        })
    }

    /// The sections, without the end.
    fn sections_mut(&mut self) -> impl Iterator<Item = &mut Section> {
        self.records.iter_mut().filter_map(|record| match record {
            Record::Section(section) if section.id != END => Some(section),
            _ => None,
        })
    }
}

impl Record {
    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Setup(setup) => setup.encode(),
            Self::Section(section) => section.encode(),
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

impl Setup {
    fn parse(bytes: &[u8]) -> Result<(Record, usize)> {
        let mut fields = Cursor(bytes);
        fields.take(8)?;
        let (major, minor) = (fields.number(2)? as u16, fields.number(2)? as u16);
        let length = fields.number(4)? as usize;
        let (phase, first) = (fields.number(1)? as u8, fields.number(1)? as u8);
        let (model, count) = (fields.number(2)? as usize, fields.number(2)?);
        let second = fields.number(2)? as u16;
        let model = fields.take(model)?.to_vec();
        let params = (0..count)
            .map(|_| Param::parse(&mut fields))
            .collect::<Result<_>>()?;
        let read = bytes.len() - fields.0.len();
        let tail = fields
            .take(
                length
                    .checked_sub(read + 4)
                    .context("a setup record shorter than its fields")?,
            )?
            .to_vec();
        fields.take(4)?;
        let setup = Self {
            magic: MAGIC,
            major,
            minor,
            length: None,
            phase,
            reserved: (first, second),
            model_length: None,
            count: None,
            model,
            params,
            tail,
            damage: 0,
        };
        Ok((Record::Setup(setup), length))
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = self.model.clone();
        for param in &self.params {
            param.encode(&mut body);
        }
        body.extend_from_slice(&self.tail);
        let length = self.length.unwrap_or(24 + body.len() as u32 + 4);

        let mut bytes = self.magic.to_vec();
        bytes.extend(self.major.to_le_bytes());
        bytes.extend(self.minor.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend([self.phase, self.reserved.0]);
        bytes.extend(
            self.model_length
                .unwrap_or(self.model.len() as u16)
                .to_le_bytes(),
        );
        bytes.extend(self.count.unwrap_or(self.params.len() as u16).to_le_bytes());
        bytes.extend(self.reserved.1.to_le_bytes());
        bytes.extend(body);
        with_checksum(bytes, self.damage)
    }

    /// The parameter called `name`.
    pub fn param(&mut self, name: &str) -> Option<&mut Param> {
        self.params
            .iter_mut()
            .find(|param| param.name == name.as_bytes())
    }
}

impl Param {
    /// An int parameter.
    pub fn int(name: &str, value: u64) -> Self {
        Self {
            kind: 2,
            name: name.into(),
            value: value.to_le_bytes().to_vec(),
        }
    }

    /// A str parameter.
    pub fn text(name: &str, value: &str) -> Self {
        Self {
            kind: 3,
            name: name.into(),
            value: value.into(),
        }
    }

    fn parse(fields: &mut Cursor<'_>) -> Result<Self> {
        let kind = fields.number(1)? as u8;
        let (name, value) = (fields.number(1)? as usize, fields.number(2)? as usize);
        Ok(Self {
            kind,
            name: fields.take(name)?.to_vec(),
            value: fields.take(value)?.to_vec(),
        })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend([self.kind, self.name.len() as u8]);
        bytes.extend((self.value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.extend_from_slice(&self.value);
    }
}

impl Section {
    /// A section with that id and content.
    pub fn new(id: u16, flags: u16, payload: &[u8]) -> Self {
        Self {
            id,
            flags,
            length: None,
            payload: payload.to_vec(),
            damage: 0,
        }
    }

    fn parse(bytes: &[u8]) -> Result<(Record, usize)> {
        let mut fields = Cursor(bytes);
        let (id, flags) = (fields.number(2)? as u16, fields.number(2)? as u16);
        let length = fields.number(4)? as usize;
        let payload = fields.take(length)?;
        fields.take(4)?;
        Ok((
            Record::Section(Self::new(id, flags, payload)),
            8 + length + 4,
        ))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.id.to_le_bytes().to_vec();
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(
            self.length
                .unwrap_or(self.payload.len() as u32)
                .to_le_bytes(),
        );
        bytes.extend_from_slice(&self.payload);
        with_checksum(bytes, self.damage)
    }
}

/// Appends the checksum, changed by `damage`.
fn with_checksum(mut bytes: Vec<u8>, damage: u32) -> Vec<u8> {
    let sum = crc32fast::hash(&bytes) ^ damage;
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests;
