// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Writing a stream.

use super::record::{KIND_BOOL, KIND_INT, KIND_STR};
use super::{
    Phase, CRC_LEN, DEVICE_SECTIONS, END_ID, FORMAT, MAGIC, MANDATORY, MAX_LISTED_PARAMS,
    MAX_SECTION_LEN, MAX_SETUP_LEN, PARAM_HEAD_LEN, SECTION_HEAD_LEN, SETUP_HEAD_LEN,
};
use crate::crc::Crc32;
use crate::value::{model_problem, name_problem, str_problem, Param, Value};
use core::fmt;

/// Where a stream goes: a buffer, a file, a counter.
pub trait Sink {
    /// Why bytes could not be taken.
    type Error;

    /// Takes all of `bytes`, or fails.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}

impl<S: Sink + ?Sized> Sink for &mut S {
    type Error = S::Error;

    fn put(&mut self, bytes: &[u8]) -> Result<(), S::Error> {
        (**self).put(bytes)
    }
}

/// A sink that only counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter {
    /// Bytes put so far.
    pub bytes: usize,
}

impl Sink for Counter {
    type Error = core::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.bytes = self.bytes.saturating_add(bytes.len());
        Ok(())
    }
}

/// A sink of fixed size.
#[derive(Debug)]
pub struct SliceSink<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

/// The slice of a [`SliceSink`] is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceFull;

impl<'a> SliceSink<'a> {
    /// Writes into `buffer` from its start.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// What was written.
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Sink for SliceSink<'_> {
    type Error = SliceFull;

    fn put(&mut self, bytes: &[u8]) -> Result<(), SliceFull> {
        let end = self.len.checked_add(bytes.len()).ok_or(SliceFull)?;
        self.buffer
            .get_mut(self.len..end)
            .ok_or(SliceFull)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }
}

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError<E> {
    /// The sink failed; it may hold a part of the record.
    Sink(E),
    /// The record cannot be expressed, because of this; nothing was put.
    Record(&'static str),
    /// The payload put into a [`SectionWriter`] is longer or shorter than its header says.
    PayloadLength,
}

impl<E> From<E> for WriteError<E> {
    fn from(error: E) -> Self {
        Self::Sink(error)
    }
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(error) => error.fmt(f),
            Self::Record(problem) => f.write_str(problem),
            Self::PayloadLength => f.write_str("the payload has not the length of its section"),
        }
    }
}

/// A sink that keeps the checksum of what it passes on.
struct Summed<'s, S> {
    sink: &'s mut S,
    crc: Crc32,
}

impl<S: Sink> Summed<'_, S> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), S::Error> {
        self.crc.update(bytes);
        self.sink.put(bytes)
    }

    fn finish(self) -> Result<(), S::Error> {
        self.sink.put(&self.crc.value().to_le_bytes())
    }
}

/// Length of a parameter's value in bytes.
fn value_len(value: &Value<'_>) -> usize {
    match value {
        Value::Bool(_) => 1,
        Value::Int(_) => 8,
        Value::Str(text) => text.len(),
    }
}

/// Length of the setup record for this model and these parameters, in bytes.
pub fn setup_len<'p>(model: &str, params: impl Iterator<Item = Param<'p>>) -> usize {
    let params: usize = params
        .map(|param| PARAM_HEAD_LEN + param.name.len() + value_len(&param.value))
        .sum();
    SETUP_HEAD_LEN + model.len() + params + CRC_LEN
}

/// Length of a section with a payload of `payload` bytes, in bytes.
pub const fn section_len(payload: usize) -> usize {
    SECTION_HEAD_LEN + payload + CRC_LEN
}

/// Writes the setup record with which a phase starts.
///
/// `params` is the source's migration parameter list: the parameters in effect. Names are taken to
/// differ from each other, as those of a model's table do.
pub fn write_setup<'p, S, P>(
    sink: &mut S,
    phase: Phase,
    model: &str,
    params: P,
) -> Result<(), WriteError<S::Error>>
where
    S: Sink,
    P: Iterator<Item = Param<'p>> + Clone,
{
    let too_long = |_| WriteError::Record("the setup record is too long");
    let (mut len, mut count, mut problem) = (setup_len(model, core::iter::empty()), 0, None);
    for param in params.clone() {
        len += PARAM_HEAD_LEN + param.name.len() + value_len(&param.value);
        count += 1;
        if name_problem(param.name).is_some() {
            problem = problem.or(Some("a parameter's name is malformed"));
        } else if matches!(param.value, Value::Str(text) if str_problem(text).is_some()) {
            problem = problem.or(Some("a parameter's value is malformed"));
        }
    }
    if len > MAX_SETUP_LEN {
        return Err(WriteError::Record("the setup record is too long"));
    }
    if count > MAX_LISTED_PARAMS {
        return Err(WriteError::Record("there are too many parameters"));
    }
    if model_problem(model).is_some() {
        return Err(WriteError::Record("the device model is malformed"));
    }
    if let Some(problem) = problem {
        return Err(WriteError::Record(problem));
    }

    let mut out = Summed {
        sink,
        crc: Crc32::new(),
    };
    out.put(&setup_head(
        u32::try_from(len).map_err(too_long)?,
        phase,
        u16::try_from(model.len()).map_err(too_long)?,
        u16::try_from(count).map_err(too_long)?,
    ))?;
    out.put(model.as_bytes())?;
    for param in params {
        let kind = match param.value {
            Value::Bool(_) => KIND_BOOL,
            Value::Int(_) => KIND_INT,
            Value::Str(_) => KIND_STR,
        };
        let value_len = u16::try_from(value_len(&param.value)).map_err(too_long)?;
        let name_len = u8::try_from(param.name.len()).map_err(too_long)?;
        let [v0, v1] = value_len.to_le_bytes();
        out.put(&[kind, name_len, v0, v1])?;
        out.put(param.name.as_bytes())?;
        match param.value {
            Value::Bool(value) => out.put(&[u8::from(value)])?,
            Value::Int(value) => out.put(&value.to_le_bytes())?,
            Value::Str(text) => out.put(text.as_bytes())?,
        }
    }
    out.finish()?;
    Ok(())
}

/// The fixed part of a setup record of this format version.
fn setup_head(len: u32, phase: Phase, model_len: u16, count: u16) -> [u8; SETUP_HEAD_LEN] {
    let [m0, m1, m2, m3, m4, m5, m6, m7] = MAGIC;
    let ([a0, a1], [i0, i1]) = (FORMAT.major.to_le_bytes(), FORMAT.minor.to_le_bytes());
    let [l0, l1, l2, l3] = len.to_le_bytes();
    let ([n0, n1], [c0, c1]) = (model_len.to_le_bytes(), count.to_le_bytes());
    [
        m0,
        m1,
        m2,
        m3,
        m4,
        m5,
        m6,
        m7,
        a0,
        a1,
        i0,
        i1, //
        l0,
        l1,
        l2,
        l3,
        phase as u8,
        0,
        n0,
        n1,
        c0,
        c1,
        0,
        0,
    ]
}

/// Writes one of the device model's own sections.
pub fn write_section<S: Sink>(
    sink: &mut S,
    id: u16,
    mandatory: bool,
    payload: &[u8],
) -> Result<(), WriteError<S::Error>> {
    let mut section = SectionWriter::begin(sink, id, mandatory, payload.len())?;
    section.put(payload)?;
    section.finish()
}

/// Makes a section of a payload that is in place: `buffer` begins with [`SECTION_HEAD_LEN`] bytes for
/// the header, then `len` bytes of payload, and has room for the checksum. Returns the section's length.
pub fn frame_section(
    buffer: &mut [u8],
    id: u16,
    mandatory: bool,
    len: usize,
) -> Result<usize, WriteError<SliceFull>> {
    if !DEVICE_SECTIONS.contains(&id) {
        return Err(WriteError::Record("the section id is not a device's"));
    }
    let flags = if mandatory { MANDATORY } else { 0 };
    let head = section_head(id, flags, len).ok_or(WriteError::Record(TOO_LONG))?;
    let covered = SECTION_HEAD_LEN + len;
    let (covered, rest) = buffer
        .split_at_mut_checked(covered)
        .ok_or(WriteError::Sink(SliceFull))?;
    let sum = rest.first_chunk_mut::<CRC_LEN>();
    let (place, sum) = match (covered.first_chunk_mut::<SECTION_HEAD_LEN>(), sum) {
        (Some(place), Some(sum)) => (place, sum),
        _ => return Err(WriteError::Sink(SliceFull)),
    };
    *place = head;
    *sum = Crc32::of(covered).to_le_bytes();
    Ok(section_len(len))
}

/// The header of a section; `None` if it is too long.
fn section_head(id: u16, flags: u16, len: usize) -> Option<[u8; SECTION_HEAD_LEN]> {
    let len = u32::try_from(len).ok().filter(|_| len <= MAX_SECTION_LEN)?;
    let ([i0, i1], [f0, f1]) = (id.to_le_bytes(), flags.to_le_bytes());
    let [l0, l1, l2, l3] = len.to_le_bytes();
    Some([i0, i1, f0, f1, l0, l1, l2, l3])
}

const TOO_LONG: &str = "the section is too long";

/// Writes the end section, with which the stream is complete.
pub fn write_end<S: Sink>(sink: &mut S) -> Result<(), WriteError<S::Error>> {
    SectionWriter::head(sink, END_ID, MANDATORY, 0)?.finish()
}

/// Writes a section of the device model whose payload comes in pieces. Itself a [`Sink`] for them.
pub struct SectionWriter<'s, S> {
    out: Summed<'s, S>,
    left: usize,
}

impl<'s, S: Sink> SectionWriter<'s, S> {
    /// Starts a section with a payload of `len` bytes, at most
    /// [`MAX_SECTION_LEN`]; `id` is one of [`DEVICE_SECTIONS`].
    pub fn begin(
        sink: &'s mut S,
        id: u16,
        mandatory: bool,
        len: usize,
    ) -> Result<Self, WriteError<S::Error>> {
        if !DEVICE_SECTIONS.contains(&id) {
            return Err(WriteError::Record("the section id is not a device's"));
        }
        Self::head(sink, id, if mandatory { MANDATORY } else { 0 }, len)
    }

    fn head(
        sink: &'s mut S,
        id: u16,
        flags: u16,
        len: usize,
    ) -> Result<Self, WriteError<S::Error>> {
        let head = section_head(id, flags, len).ok_or(WriteError::Record(TOO_LONG))?;
        let mut out = Summed {
            sink,
            crc: Crc32::new(),
        };
        out.put(&head)?;
        Ok(Self { out, left: len })
    }

    /// Ends the section. Fails if not all of the payload was put.
    pub fn finish(self) -> Result<(), WriteError<S::Error>> {
        if self.left != 0 {
            return Err(WriteError::PayloadLength);
        }
        self.out.finish()?;
        Ok(())
    }
}

impl<S: Sink> Sink for SectionWriter<'_, S> {
    type Error = WriteError<S::Error>;

    /// Puts a piece of the payload. Fails, and puts nothing, if it is longer than what is left.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or(WriteError::PayloadLength)?;
        self.out.put(bytes)?;
        Ok(())
    }
}
