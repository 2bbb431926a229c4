// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sessions between two devices with a memory in blocks.

use super::*;
use crate::model::tests::{FULL, SMALL};
use crate::reason::Reason;
use crate::stream::{ErrorClass, END_LEN};
use proptest::prelude::*;
use std::cell::Cell;
use std::format;
use std::vec;
use std::vec::Vec;

mod machine;

/// Bytes of a block.
const BLOCK: usize = 16;
/// The section with the register.
const REGISTER: u16 = 0;
/// The section with a block: its number, and what it holds.
const CONTENT: u16 = 1;

/// A register and a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Memory {
    register: u8,
    blocks: Vec<[u8; BLOCK]>,
    /// Of each block: whether it is still to be sent as it was at first, and whether it has changed since.
    first: Vec<bool>,
    dirty: Vec<bool>,
    sending: bool,
    /// Whether what is sent only after the stop would be.
    sending_rest: bool,
    /// Why it cannot be saved.
    busy: bool,
    /// Gives out sections that are none.
    broken: bool,
}

impl Memory {
    fn new(blocks: usize) -> Self {
        Self {
            register: 0,
            blocks: vec![[0; BLOCK]; blocks],
            first: vec![false; blocks],
            dirty: vec![false; blocks],
            sending: false,
            sending_rest: false,
            busy: false,
            broken: false,
        }
    }

    fn start_sending(&mut self) {
        self.sending = true;
        self.first.fill(true);
        self.dirty.fill(false);
    }

    fn stop_sending(&mut self) {
        (self.sending, self.sending_rest) = (false, false);
        self.first.fill(false);
        self.dirty.fill(false);
    }

    fn write(&mut self, block: usize, value: u8) {
        if self.sending && !self.first[block] {
            self.dirty[block] = true;
        }
        self.blocks[block] = [value; BLOCK];
    }

    fn content(&self) -> (u8, &[[u8; BLOCK]]) {
        (self.register, &self.blocks)
    }
}

/// What was loaded so far.
#[derive(Debug)]
struct Incoming {
    register: Option<u8>,
    blocks: Vec<[u8; BLOCK]>,
    phases: Vec<(Phase, u16)>,
}

impl Incoming {
    fn new(blocks: usize) -> Self {
        Self {
            register: None,
            blocks: vec![[0; BLOCK]; blocks],
            phases: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Busy,
    Session(Failure),
}

impl Device for Memory {
    type Error = Trouble;
    type Incoming = Incoming;

    fn error(failure: Failure) -> Trouble {
        Trouble::Session(failure)
    }

    fn saved_size(&self) -> SavedSize {
        SavedSize {
            bytes: 1,
            sections: 1,
        }
    }

    fn save(&self, emit: &mut Emit<'_, Trouble>) -> Result<(), Trouble> {
        emit(REGISTER, &[self.register])?;
        match self.busy {
            true => Err(Trouble::Busy),
            false => Ok(()),
        }
    }

    fn max_sent_section(&self) -> usize {
        match self.blocks.len() {
            0 => 0,
            _ => 1 + BLOCK,
        }
    }

    fn remaining(&self) -> Remaining {
        let size = |set: &[bool]| {
            let sections = set.iter().filter(|is| **is).count();
            SavedSize {
                bytes: sections * (1 + BLOCK),
                sections,
            }
        };
        match self.sending {
            true => Remaining {
                initial: size(&self.first),
                dirty: size(&self.dirty),
            },
            false => Remaining {
                initial: size(&vec![true; self.blocks.len()]),
                dirty: SavedSize::default(),
            },
        }
    }

    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        assert_eq!(payload.len(), 1 + BLOCK);
        let set = match self.first.contains(&true) {
            true => &mut self.first,
            false => &mut self.dirty,
        };
        let block = set.iter().position(|is| *is)?;
        set[block] = false;
        payload[0] = block as u8;
        payload[1..].copy_from_slice(&self.blocks[block]);
        Some((CONTENT, if self.broken { BLOCK + 100 } else { 1 + BLOCK }))
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        [1, 1 + BLOCK].get(usize::from(id)).copied()
    }

    fn load(
        incoming: &mut Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn fmt::Write,
    ) -> Result<(), Refusal> {
        incoming.phases.push((phase, id));
        match (id, payload) {
            (REGISTER, [value]) => incoming.register = Some(*value),
            (CONTENT, [0xff, ..]) => {
                return Err(Refusal {
                    class: ErrorClass::TooBig,
                    reason: "there is no memory for it",
                })
            }
            (_, [block, content @ ..]) => {
                let Some(place) = incoming.blocks.get_mut(usize::from(*block)) else {
                    let _ = write!(reason, "there is no block {block}");
                    return Err(Refusal::invalid("no such block"));
                };
                place.copy_from_slice(content);
            }
            _ => return Err(Refusal::invalid("an empty section")),
        }
        Ok(())
    }

    fn is_complete(incoming: &Incoming) -> bool {
        incoming.register.is_some()
    }

    fn commit(
        &mut self,
        incoming: &mut Incoming,
        reason: &mut dyn fmt::Write,
    ) -> Result<(), Trouble> {
        if incoming.register == Some(0xee) {
            let _ = write!(reason, "the register and the memory contradict each other");
            return Err(Trouble::Busy);
        }
        self.register = incoming.register.ok_or(Trouble::Busy)?;
        self.blocks = core::mem::take(&mut incoming.blocks);
        Ok(())
    }
}

fn values() -> Values<'static> {
    Values::new(&FULL)
}

/// A reader: its chunk, and what it has read.
#[derive(Default)]
struct Out {
    chunk: Chunk<Vec<u8>>,
    stream: Vec<u8>,
}

impl Out {
    /// Reads once, at most so many bytes. Returns how many.
    fn read(&mut self, saving: &mut Saving<Vec<u8>>, device: &mut Memory, most: usize) -> usize {
        saving.fill(&mut self.chunk, device).expect("a piece");
        let count = self.chunk.len().min(most);
        saving.hand_out(count);
        self.stream.extend(&self.chunk.bytes()[..count]);
        self.chunk.consume(count);
        count
    }

    fn read_all(&mut self, saving: &mut Saving<Vec<u8>>, device: &mut Memory, most: usize) {
        while self.read(saving, device, most) > 0 {}
    }
}

/// What refused a stream: the class, or the device at the end; and the reason.
type Refused = (Option<ErrorClass>, std::string::String);

/// Loads a stream, in pieces of this length.
fn load(into: &mut Memory, stream: &[u8], step: usize) -> Result<Vec<(Phase, u16)>, Refused> {
    let mut reason = Reason::none();
    let mut resuming: Resuming<Vec<u8>, Incoming> = Resuming::new(Incoming::new(into.blocks.len()));
    for piece in stream.chunks(step) {
        if let Err(class) = resuming.push(&values(), into, piece, &mut reason) {
            assert!(resuming.has_refused());
            let again = resuming.push(&values(), into, piece, &mut reason);
            assert_eq!(again, Err(ErrorClass::Poisoned));
            assert_eq!(
                resuming.commit(into, &mut reason),
                Err(CommitError::Incomplete)
            );
            return Err((Some(class), reason.as_str().into()));
        }
    }
    assert_eq!(resuming.bytes(), stream.len() as u64);
    match resuming.commit(into, &mut reason) {
        Ok(()) => Ok(resuming.incoming().phases.clone()),
        Err(_) => Err((None, reason.as_str().into())),
    }
}

/// A stream of a device with so many blocks, through both phases.
fn saved(device: &mut Memory) -> Vec<u8> {
    let mut saving = Saving::pre_copy(&values()).expect("a session");
    device.start_sending();
    let mut out = Out::default();
    out.read_all(&mut saving, device, 7);
    saving.stop(&values(), device).expect("a stop");
    out.read_all(&mut saving, device, 7);
    out.stream
}

/// What a source does while it is saved.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize, u8),
    SetRegister(u8),
    Read(usize),
    /// A read whose bytes do not arrive.
    Lost(usize),
    /// Cancelled, and begun again.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8usize, any::<u8>()).prop_map(|(block, value)| Step::Write(block, value)),
        1 => (0..0xeeu8).prop_map(Step::SetRegister),
        4 => (1..100usize).prop_map(Step::Read),
        1 => (1..100usize).prop_map(Step::Lost),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    /// However writes, reads and states alternate, the destination is what the source was when it stopped, and all sizes are true.
    #[test]
    fn the_destination_is_what_the_source_was(
        pre_copy in any::<bool>(),
        before in steps(),
        after in steps(),
        read in 1..200usize,
        write in 1..200usize,
    ) {
        let mut source = Memory::new(8);
        source.write(3, 1);
        let mut out = Out::default();
        let begin = |source: &mut Memory| {
            let announced = data_size::<Vec<u8>, _>(&values(), source, None);
            let saving = match pre_copy {
                true => Saving::pre_copy(&values()).expect("a session"),
                false => Saving::stop_copy(&values(), source).expect("a session"),
            };
            source.start_sending();
            (saving, announced)
        };
        let (mut saving, mut announced) = begin(&mut source);
        if pre_copy {
            let left = saving.left(&source);
            prop_assert!(left.initial > 0 && left.dirty == 0 && left.last == 0);
        }
        let mut last_initial = usize::MAX;
        for step in if pre_copy { before } else { Vec::new() } {
            match step {
                Step::Write(block, value) => source.write(block, value),
                Step::SetRegister(value) => source.register = value,
                Step::Read(most) => {
                    let left = saving.left(&source);
                    let count = out.read(&mut saving, &mut source, most);
                    prop_assert_eq!(count == 0, left.initial + left.dirty == 0);
                }
                Step::Lost(most) => {
                    let left = saving.left(&source);
                    saving.fill(&mut out.chunk, &mut source).expect("a piece");
                    let count = out.chunk.len().min(most);
                    saving.hand_out(count);
                    saving.take_back(count);
                    prop_assert_eq!(saving.left(&source), left);
                }
                Step::Restart => {
                    source.stop_sending();
                    out = Out::default();
                    (saving, announced) = begin(&mut source);
                    last_initial = usize::MAX;
                }
            }
            let left = saving.left(&source);
            prop_assert!(left.initial <= last_initial);
            prop_assert_eq!(left.last, 0);
            prop_assert_eq!(saving.is_readable(&source), left.initial + left.dirty > 0);
            let size = data_size(&values(), &source, Some(&saving));
            prop_assert!(size > left.initial + left.dirty);
            prop_assert_eq!(saving.bytes(), out.stream.len() as u64);
            last_initial = left.initial;
        }
        if pre_copy {
            announced = data_size(&values(), &source, Some(&saving));
            announced += out.stream.len();
            saving.stop(&values(), &source).expect("a stop");
        }
        let stopped = source.clone();
        // It is read in any way; nothing of it changes any more.
        for step in after {
            let (Step::Read(most) | Step::Lost(most)) = step else { continue };
            let left = saving.left(&source).total();
            let count = out.read(&mut saving, &mut source, most);
            prop_assert_eq!(saving.left(&source).total(), left - count);
        }
        out.read_all(&mut saving, &mut source, read);
        prop_assert_eq!(saving.left(&source), Left::default());
        prop_assert!(!saving.is_readable(&source) && !saving.has_more(&source));
        prop_assert!(out.stream.len() <= announced, "{} > {announced}", out.stream.len());
        prop_assert_eq!(data_size(&values(), &source, Some(&saving)), END_LEN);

        let mut destination = Memory::new(8);
        load(&mut destination, &out.stream, write).expect("a stream");
        prop_assert_eq!(destination.content(), stopped.content());
    }

    #[test]
    fn reads_of_any_length_give_the_same_bytes(most in 1..2000usize, writes in 0..8usize) {
        let stream = |most| {
            let mut source = Memory::new(8);
            let mut saving = Saving::pre_copy(&values()).expect("a session");
            source.start_sending();
            let mut out = Out::default();
            out.read_all(&mut saving, &mut source, most);
            for block in 0..writes {
                source.write(block, 5);
            }
            out.read_all(&mut saving, &mut source, most);
            saving.stop(&values(), &source).expect("a stop");
            out.read_all(&mut saving, &mut source, most);
            out.stream
        };
        prop_assert_eq!(stream(most), stream(1));
    }
}

#[test]
fn a_change_that_is_not_sent_again_is_missed_at_the_destination() {
    let mut source = Memory::new(8);
    let mut saving = Saving::pre_copy(&values()).expect("a session");
    source.start_sending();
    let mut out = Out::default();
    out.read_all(&mut saving, &mut source, 100);
    source.write(5, 9);
    source.dirty[5] = false;
    saving.stop(&values(), &source).expect("a stop");
    out.read_all(&mut saving, &mut source, 100);
    let mut destination = Memory::new(8);
    load(&mut destination, &out.stream, 100).expect("a stream");
    assert_ne!(destination.content(), source.content());
}

#[test]
fn a_section_that_was_begun_is_delivered_whole_across_the_stop() {
    let mut source = Memory::new(2);
    let mut saving = Saving::pre_copy(&values()).expect("a session");
    source.start_sending();
    let mut out = Out::default();
    let setup = stream::setup_len(values().model().name, values().effective());
    assert_eq!(out.read(&mut saving, &mut source, usize::MAX), setup);
    assert_eq!(out.read(&mut saving, &mut source, 1), 1);
    // It changes while it is on its way: it comes again.
    source.write(0, 7);
    saving.stop(&values(), &source).expect("a stop");
    out.read_all(&mut saving, &mut source, usize::MAX);
    let mut destination = Memory::new(2);
    let phases = load(&mut destination, &out.stream, usize::MAX).expect("a stream");
    assert_eq!(
        phases,
        [
            (Phase::PreCopy, CONTENT),
            (Phase::StopCopy, CONTENT),
            (Phase::StopCopy, CONTENT),
            (Phase::StopCopy, REGISTER),
        ]
    );
    assert_eq!(destination.content(), source.content());
}

#[test]
fn a_stop_that_fails_changes_nothing() {
    let mut source = Memory::new(2);
    let mut saving = Saving::pre_copy(&values()).expect("a session");
    source.start_sending();
    let left = saving.left(&source);
    source.busy = true;
    assert_eq!(saving.stop(&values(), &source), Err(Trouble::Busy));
    assert_eq!(
        (saving.left(&source), saving.phase()),
        (left, Phase::PreCopy)
    );
    source.busy = false;
    let mut out = Out::default();
    out.read_all(&mut saving, &mut source, 50);
    saving.stop(&values(), &source).expect("a stop");
    out.read_all(&mut saving, &mut source, 50);
    assert!(load(&mut Memory::new(2), &out.stream, 50).is_ok());
}

#[test]
fn a_device_without_bulk_state_is_saved_in_one_piece() {
    let mut source = Memory::new(0);
    source.register = 4;
    let mut saving = Saving::stop_copy(&values(), &source).expect("a session");
    let mut out = Out::default();
    let size = data_size::<Vec<u8>, _>(&values(), &source, None);
    assert_eq!(out.read(&mut saving, &mut source, usize::MAX), size);
    assert_eq!(out.read(&mut saving, &mut source, usize::MAX), 0);
    let mut destination = Memory::new(0);
    load(&mut destination, &out.stream, 1).expect("a stream");
    assert_eq!(destination.register, 4);
}

#[test]
fn a_device_that_breaks_the_format_ends_the_stream_for_good() {
    let mut source = Memory::new(2);
    let mut saving: Saving<Vec<u8>> = Saving::stop_copy(&values(), &source).expect("a session");
    source.start_sending();
    source.broken = true;
    let mut chunk = Chunk::new();
    saving
        .fill(&mut chunk, &mut source)
        .expect("a setup record");
    chunk.consume(usize::MAX);
    for _ in 0..3 {
        let result = saving.fill(&mut chunk, &mut source);
        assert!(matches!(result, Err(Trouble::Session(Failure::Record(_)))));
        // The section is lost, so nothing may follow it as if it were not.
        source.broken = false;
    }
}

#[test]
fn refusals_have_a_class_and_a_reason_and_change_nothing() {
    let mut source = Memory::new(3);
    source.write(2, 5);
    let stream = saved(&mut source);
    // The number of block 2, in its section.
    let at = stream
        .windows(9)
        .position(|bytes| bytes == [2, 5, 5, 5, 5, 5, 5, 5, 5])
        .expect("the block");
    let changed = |block: u8| {
        let mut stream = stream.clone();
        stream[at] = block;
        let sum = crate::crc::Crc32::of(&stream[at - 8..at + 1 + BLOCK]).to_le_bytes();
        stream[at + 1 + BLOCK..at + 5 + BLOCK].copy_from_slice(&sum);
        stream
    };
    let untouched = Memory::new(3);
    for (stream, class, reason) in [
        (changed(3), Some(ErrorClass::Invalid), "there is no block 3"),
        (
            changed(0xff),
            Some(ErrorClass::TooBig),
            "section 0x0101: there is no memory for it",
        ),
        (
            stream[..stream.len() - 1].to_vec(),
            None,
            "the stream stops before its end section",
        ),
    ] {
        let mut destination = untouched.clone();
        let (found, why) = load(&mut destination, &stream, 64).expect_err("a refusal");
        assert_eq!((found, why.as_str()), (class, reason));
        assert_eq!(destination, untouched);
    }
    // A block is refused in pre-copy, before the device has stopped.
    let mut pushed = Resuming::<Vec<u8>, _>::new(Incoming::new(3));
    let result = pushed.push(&values(), &untouched, &changed(3), &mut Reason::none());
    assert_eq!(
        (result, pushed.phase()),
        (Err(ErrorClass::Invalid), Some(Phase::PreCopy))
    );

    source.register = 0xee;
    let mut destination = untouched.clone();
    let (class, why) = load(&mut destination, &saved(&mut source), 64).expect_err("a refusal");
    assert_eq!(class, None);
    assert_eq!(
        why.as_str(),
        "the register and the memory contradict each other"
    );
    assert_eq!(destination, untouched);
}

#[test]
fn other_parameters_are_refused_with_the_first_record() {
    let mut saving: Saving<Vec<u8>> = Saving::pre_copy(&Values::new(&SMALL)).expect("a session");
    let mut out = Out::default();
    out.read(&mut saving, &mut Memory::new(0), usize::MAX);
    let (class, why) = load(&mut Memory::new(0), &out.stream, 16).expect_err("a refusal");
    assert_eq!(class, Some(ErrorClass::Invalid));
    assert!(why.contains("num-ports"), "{why}");
}

/// A buffer that can hold only so much.
#[derive(Debug)]
struct Scarce(Vec<u8>);

std::thread_local! {
    static MOST: Cell<usize> = const { Cell::new(0) };
}

impl Buffer for Scarce {
    fn empty() -> Self {
        Self(Vec::new())
    }
    fn bytes(&self) -> &[u8] {
        &self.0
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        match self.0.len() + more <= MOST.get() {
            true => Ok(()),
            false => Err(NoMemory),
        }
    }
    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        self.reserve(bytes.len())?;
        self.0.extend(bytes);
        Ok(())
    }
    fn lengthen(&mut self, len: usize) -> Result<(), NoMemory> {
        self.reserve(len.saturating_sub(self.0.len()))?;
        self.0.resize(len.max(self.0.len()), 0);
        Ok(())
    }
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// Whatever there is no memory for can be tried again, and nothing is lost.
#[test]
fn want_of_memory_loses_nothing() {
    let no_memory = Trouble::Session(Failure::NoMemory);
    MOST.set(10);
    assert_eq!(
        Saving::<Scarce>::pre_copy(&values()).err(),
        Some(Failure::NoMemory)
    );
    MOST.set(usize::MAX);
    let mut source = Memory::new(3);
    let mut saving = Saving::<Scarce>::pre_copy(&values()).expect("a session");
    source.start_sending();
    let (mut chunk, mut read) = (Chunk::new(), Vec::new());
    saving.fill(&mut chunk, &mut source).expect("a piece");
    read.extend(chunk.bytes());
    saving.hand_out(chunk.len());
    chunk.consume(usize::MAX);

    MOST.set(10);
    let left = saving.left(&source);
    let result = saving.fill(&mut chunk, &mut source);
    assert_eq!(result, Err(no_memory));
    assert_eq!(saving.stop(&values(), &source), Err(no_memory));
    assert_eq!(
        (saving.left(&source), saving.phase()),
        (left, Phase::PreCopy)
    );
    MOST.set(usize::MAX);
    saving.stop(&values(), &source).expect("a stop");
    loop {
        saving.fill(&mut chunk, &mut source).expect("a piece");
        if chunk.is_empty() {
            break;
        }
        read.extend(chunk.bytes());
        saving.hand_out(chunk.len());
        chunk.consume(usize::MAX);
    }
    let mut destination = Memory::new(3);
    load(&mut destination, &read, 33).expect("a stream");

    // The longest buffer is that of one section, or of what is saved at the end.
    let longest = stream::section_len(1 + BLOCK).max(stop_copy_len(&values(), &source));
    MOST.set(longest);
    let mut resuming = Resuming::<Scarce, _>::new(Incoming::new(3));
    let pushed = resuming.push(&values(), &source, &read, &mut Reason::none());
    assert_eq!(pushed, Ok(()));
    MOST.set(4);
    let mut reason = Reason::none();
    let mut resuming = Resuming::<Scarce, _>::new(Incoming::new(3));
    let pushed = resuming.push(&values(), &source, &read, &mut reason);
    assert_eq!(pushed, Err(ErrorClass::TooBig));
    assert_eq!(reason.as_str(), format!("{}", stream::StreamError::NoRoom));
}
