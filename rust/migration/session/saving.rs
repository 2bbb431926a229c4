// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A session that gives a state out.

use super::{stop_copy_len, wire_id, Buffer, Device, Failure, NoMemory, Remaining};
use crate::model::Values;
use crate::stream::{self, Phase, Sink, SECTION_HEAD_LEN};
use core::mem;

/// Bytes of the stream on their way to whoever reads it. They are the reader's until all were read: a session makes more only
/// when there are none.
#[derive(Debug)]
pub struct Chunk<B> {
    buffer: B,
    start: usize,
    end: usize,
}

impl<B: Buffer> Chunk<B> {
    /// No bytes, and no memory.
    pub fn new() -> Self {
        Self {
            buffer: B::empty(),
            start: 0,
            end: 0,
        }
    }

    /// The bytes that were not read yet.
    pub fn bytes(&self) -> &[u8] {
        self.buffer
            .bytes()
            .get(self.start..self.end)
            .unwrap_or_default()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether all were read.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first of them were read.
    pub fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
    }

    /// Takes what is in `from`, which is empty afterwards.
    fn take(&mut self, from: &mut B) {
        mem::swap(&mut self.buffer, from);
        from.truncate(0);
        self.start = 0;
        self.end = self.buffer.bytes().len();
    }
}

impl<B: Buffer> Default for Chunk<B> {
    fn default() -> Self {
        Self::new()
    }
}

/// What is left of a stream, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Of pre-copy: the setup record, and what bulk state was there when it began.
    pub initial: usize,
    /// Of pre-copy: bulk state that has changed since, and was not sent again.
    pub dirty: usize,
    /// Of stop-and-copy, beside bulk state.
    pub last: usize,
}

impl Left {
    /// All of it.
    pub const fn total(self) -> usize {
        self.initial
            .saturating_add(self.dirty)
            .saturating_add(self.last)
    }
}

/// A session that gives the state out.
#[derive(Debug)]
pub struct Saving<B> {
    phase: Phase,
    /// What comes next, before bulk state.
    head: B,
    /// What comes after all bulk state.
    tail: B,
    /// Bytes in the reader's chunk that were not handed out yet.
    unread: usize,
    /// Whether those are dirty ones.
    unread_is_dirty: bool,
    /// Bytes handed out since the session started.
    bytes: u64,
    /// A section was lost, because the device model broke a limit of the format.
    broken: Option<Failure>,
}

impl<B: Buffer> Saving<B> {
    /// Starts with the setup record of pre-copy. The device is to begin sending its bulk state.
    pub fn pre_copy(values: &Values<'_>) -> Result<Self, Failure> {
        let mut saving = Self::new(Phase::PreCopy);
        setup(&mut saving.head, Phase::PreCopy, values)?;
        Ok(saving)
    }

    /// Starts with a device that has stopped. It is to begin sending its bulk state.
    pub fn stop_copy<D: Device>(values: &Values<'_>, device: &D) -> Result<Self, D::Error> {
        let mut saving = Self::new(Phase::StopCopy);
        saving.put_state(values, device)?;
        Ok(saving)
    }

    fn new(phase: Phase) -> Self {
        Self {
            phase,
            head: B::empty(),
            tail: B::empty(),
            unread: 0,
            unread_is_dirty: false,
            bytes: 0,
            broken: None,
        }
    }

    /// The device has stopped: what of pre-copy was not read yet is followed by the rest. Nothing has changed if this fails.
    pub fn stop<D: Device>(&mut self, values: &Values<'_>, device: &D) -> Result<(), D::Error> {
        let before = self.head.bytes().len();
        self.put_state(values, device).inspect_err(|_| {
            self.head.truncate(before);
            self.tail.truncate(0);
        })?;
        self.phase = Phase::StopCopy;
        Ok(())
    }

    /// Puts everything of stop-and-copy in place but bulk state.
    fn put_state<D: Device>(&mut self, values: &Values<'_>, device: &D) -> Result<(), D::Error> {
        let len = stop_copy_len(values, device);
        let head = &mut self.head;
        // Without bulk state nothing comes between.
        let last = match device.max_sent_section() {
            0 => {
                head.reserve(len)
                    .map_err(|NoMemory| D::error(Failure::NoMemory))?;
                setup(head, Phase::StopCopy, values).map_err(D::error)?;
                head
            }
            _ => {
                setup(head, Phase::StopCopy, values).map_err(D::error)?;
                let reserved = self.tail.reserve(len);
                reserved.map_err(|NoMemory| D::error(Failure::NoMemory))?;
                &mut self.tail
            }
        };
        device.save(&mut |id, payload| section(last, id, payload).map_err(D::error))?;
        stream::write_end(&mut Put(last)).map_err(|error| D::error(error.into()))
    }

    /// The phase that the stream has reached.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes handed out since the session started.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is left, with what is in the reader's chunk.
    pub fn left<D: Device>(&self, device: &D) -> Left {
        let Remaining { initial, dirty } = bulk(device);
        let (head, tail) = (self.head.bytes().len(), self.tail.bytes().len());
        let mut left = Left {
            initial: initial.framed(),
            dirty: dirty.framed(),
            last: tail,
        };
        match self.phase {
            Phase::PreCopy => left.initial = left.initial.saturating_add(head),
            Phase::StopCopy => left.last = left.last.saturating_add(head),
        }
        let unread = match self.unread_is_dirty {
            true => &mut left.dirty,
            false => &mut left.initial,
        };
        *unread = unread.saturating_add(self.unread);
        left
    }

    /// Whether there is more than is in the reader's chunk.
    pub fn has_more<D: Device>(&self, device: &D) -> bool {
        !self.head.bytes().is_empty() || !self.tail.bytes().is_empty() || !bulk(device).is_nothing()
    }

    /// Whether there is something to be read.
    pub fn is_readable<D: Device>(&self, device: &D) -> bool {
        self.unread > 0 || self.has_more(device)
    }

    /// Makes the next piece if the chunk has been read: it is empty afterwards only if there is nothing now. Nothing has
    /// changed if this fails.
    ///
    /// A session has one chunk.
    pub fn fill<D: Device>(
        &mut self,
        chunk: &mut Chunk<B>,
        device: &mut D,
    ) -> Result<(), D::Error> {
        if let Some(failure) = self.broken {
            return Err(D::error(failure));
        }
        if !chunk.is_empty() {
            return Ok(());
        }
        self.unread_is_dirty = false;
        if !self.head.bytes().is_empty() {
            chunk.take(&mut self.head);
        } else {
            let left = bulk(device);
            if !left.is_nothing() {
                self.unread_is_dirty = left.initial.sections == 0;
                send(chunk, device).map_err(|failure| {
                    // Memory is asked for before the device gives a section away.
                    if failure != Failure::NoMemory {
                        self.broken = Some(failure);
                    }
                    D::error(failure)
                })?;
            }
            if chunk.is_empty() && !self.tail.bytes().is_empty() {
                chunk.take(&mut self.tail);
            }
        }
        self.unread = chunk.len();
        Ok(())
    }

    /// Bytes of the chunk are handed out.
    pub fn hand_out(&mut self, count: usize) {
        let count = count.min(self.unread);
        self.unread -= count;
        self.bytes += count as u64;
    }

    /// Bytes that were handed out could not be delivered, and are still in the chunk.
    pub fn take_back(&mut self, count: usize) {
        self.unread += count;
        self.bytes = self.bytes.saturating_sub(count as u64);
    }
}

/// What a device still has to send.
fn bulk<D: Device>(device: &D) -> Remaining {
    match device.max_sent_section() {
        0 => Remaining::default(),
        _ => device.remaining(),
    }
}

/// Has the device put its next section into an empty chunk.
fn send<B: Buffer, D: Device>(chunk: &mut Chunk<B>, device: &mut D) -> Result<(), Failure> {
    let most = device.max_sent_section();
    let lengthened = chunk.buffer.lengthen(stream::section_len(most));
    lengthened.map_err(|NoMemory| Failure::NoMemory)?;
    // It may have held more, which is none of the section's business.
    let buffer = chunk
        .buffer
        .bytes_mut()
        .get_mut(..stream::section_len(most));
    let buffer = buffer.unwrap_or_default();
    let payload = buffer.get_mut(SECTION_HEAD_LEN..SECTION_HEAD_LEN + most);
    let Some((id, len)) = device.next_section(payload.unwrap_or_default()) else {
        return Ok(());
    };
    let end = stream::frame_section(buffer, wire_id(id)?, true, len)?;
    (chunk.start, chunk.end) = (0, end);
    Ok(())
}

/// A buffer that a stream goes to.
struct Put<'a, B>(&'a mut B);

impl<B: Buffer> Sink for Put<'_, B> {
    type Error = NoMemory;

    fn put(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        self.0.append(bytes)
    }
}

fn setup<B: Buffer>(out: &mut B, phase: Phase, values: &Values<'_>) -> Result<(), Failure> {
    let (model, params) = (values.model().name, values.effective());
    Ok(stream::write_setup(&mut Put(out), phase, model, params)?)
}

fn section<B: Buffer>(out: &mut B, id: u16, payload: &[u8]) -> Result<(), Failure> {
    Ok(stream::write_section(
        &mut Put(out),
        wire_id(id)?,
        true,
        payload,
    )?)
}
