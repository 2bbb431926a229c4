// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A session that takes a state in.

use super::{device_id, Buffer, Device};
use crate::check::verify;
use crate::model::Values;
use crate::reason::Reason;
use crate::stream::{
    ErrorClass, Handler, Known, Phase, Reader, Refusal, Scratch, SectionHeader, SetupRecord,
    MAX_SECTION_LEN,
};
use core::fmt::{self, Write};

/// Why the state that came does not become the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError<E> {
    /// The stream was refused, or is not complete.
    Incomplete,
    /// The device does not take it.
    Device(E),
}

/// A session that takes a state in.
#[derive(Debug)]
pub struct Resuming<B, I> {
    reader: Reader,
    scratch: Growing<B>,
    incoming: I,
}

impl<B: Buffer, I> Resuming<B, I> {
    /// Expects a stream; what it brings goes to `incoming`.
    pub fn new(incoming: I) -> Self {
        Self {
            reader: Reader::new(),
            scratch: Growing(B::empty()),
            incoming,
        }
    }

    /// What the stream has brought so far.
    pub const fn incoming(&self) -> &I {
        &self.incoming
    }

    /// The phase that the stream has reached; `None` before the first record was accepted.
    pub const fn phase(&self) -> Option<Phase> {
        self.reader.phase()
    }

    /// Bytes taken so far.
    pub const fn bytes(&self) -> u64 {
        self.reader.bytes()
    }

    /// Whether bytes were refused: no more are taken.
    pub const fn has_refused(&self) -> bool {
        self.reader.error().is_some()
    }

    /// Takes the next bytes of the stream. A refusal's reason is kept, but for [`ErrorClass::Poisoned`] after an earlier one; the
    /// device is what it was.
    pub fn push<D: Device<Incoming = I>>(
        &mut self,
        values: &Values<'_>,
        device: &D,
        bytes: &[u8],
        reason: &mut Reason,
    ) -> Result<(), ErrorClass> {
        let mut judge = Judge {
            values,
            device,
            incoming: &mut self.incoming,
            detail: Detail(None),
        };
        let result = self.reader.push_into(bytes, &mut self.scratch, &mut judge);
        result.map_err(|error| {
            let class = error.class();
            if class != ErrorClass::Poisoned {
                match judge.detail.as_str() {
                    "" => reason.set(format_args!("{error}")),
                    detail => reason.set(format_args!("{detail}")),
                }
            }
            class
        })
    }

    /// Ends the session by replacing the device's state. A refusal leaves it as it was, and its reason.
    pub fn commit<D: Device<Incoming = I>>(
        &mut self,
        device: &mut D,
        reason: &mut Reason,
    ) -> Result<(), CommitError<D::Error>> {
        if let Err(error) = self.reader.finish() {
            // What made an earlier write fail is the better reason.
            if !self.has_refused() {
                reason.set(format_args!("{error}"));
            }
            return Err(CommitError::Incomplete);
        }
        reason.clear();
        device.commit(&mut self.incoming, reason).map_err(|error| {
            if reason.as_str().is_empty() {
                reason.set(format_args!("the sections do not fit together"));
            }
            CommitError::Device(error)
        })
    }
}

/// Room for what a stream brings, which is mostly far less than the format allows.
#[derive(Debug)]
struct Growing<B>(B);

impl<B: Buffer> Scratch for Growing<B> {
    fn most(&self) -> usize {
        MAX_SECTION_LEN
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.0.lengthen(len).ok()?;
        self.0.bytes_mut().get_mut(..len)
    }
}

/// Decides about the records of an incoming stream.
struct Judge<'a, D: Device> {
    values: &'a Values<'a>,
    device: &'a D,
    incoming: &'a mut D::Incoming,
    detail: Detail,
}

/// More than a [`Refusal`] can say. There is room for it once something is said, which mostly nothing is.
struct Detail(Option<Reason>);

impl Detail {
    fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Reason::as_str)
    }
}

impl Write for Detail {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.get_or_insert_with(Reason::none).write_str(text)
    }
}

impl<D: Device> Handler for Judge<'_, D> {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        for (n, reason) in verify(record.model, record.params(), self.values).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            // What does not fit is cut.
            let _ = write!(self.detail, "{separator}{reason}");
        }
        match self.detail.as_str() {
            "" => Ok(()),
            _ => Err(Refusal::invalid(
                "the source is not compatible with this device",
            )),
        }
    }

    fn section_header(&mut self, header: &SectionHeader) -> Result<Known, Refusal> {
        match device_id(header.id).and_then(|id| self.device.section_len(id)) {
            None => Ok(Known::No),
            Some(max) if header.len <= max => Ok(Known::Yes),
            Some(max) => {
                // What does not fit is cut.
                let _ = write!(
                    self.detail,
                    "section {:#x} has {} bytes, this device reads {max}",
                    header.id, header.len
                );
                Err(Refusal {
                    class: ErrorClass::TooBig,
                    reason: "a section is too long",
                })
            }
        }
    }

    fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
        let id = device_id(header.id).ok_or(Refusal::invalid("the section is not a device's"))?;
        D::load(self.incoming, header.phase, id, payload, &mut self.detail)
    }

    fn end(&mut self) -> Result<(), Refusal> {
        match D::is_complete(self.incoming) {
            true => Ok(()),
            false => Err(Refusal::invalid(
                "a section that the state needs is missing",
            )),
        }
    }
}
