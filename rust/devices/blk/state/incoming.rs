// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device that is being loaded.

use super::error::LoadError;
use super::{
    queue_flags, vector_flags, write_kind, Config, Device, Function, Medium, MsixEntry, QueueState,
    Reader, SectionId, State, TransportState, Writer, BLOCK_HEAD_BYTES, DEVICE_SECTION_BYTES,
    KIND_BYTES, MAX_QUEUES, MAX_VECTORS, QUEUE_SECTION_BYTES,
};
use crate::pci::MsixState;
use crate::virtio::NO_VECTOR;

/// A device that is being loaded: takes its sections, in any order, and touches no live device until all of them were
/// good. It has a medium of its own, which takes the place of the device's at the end.
///
/// Some 1 KiB, and the medium.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming<M> {
    registers: Registers,
    medium: M,
}

impl<M: Medium> Incoming<M> {
    /// Expects a device of this kind. What comes of its medium goes to `medium`, which is empty.
    pub fn new(config: &Config, medium: M) -> Incoming<M> {
        Incoming {
            registers: Registers {
                config: *config,
                state: reset_state(config),
                seen: 0,
            },
            medium,
        }
    }

    /// What came of the medium.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Takes a section that was saved while the device ran: such are those of the medium only.
    pub fn section_in_pre_copy(&mut self, number: u16, payload: &[u8]) -> Result<(), LoadError> {
        match SectionId::of(number) {
            Some(id) if !id.is_of_medium() => Err(LoadError::Running),
            _ => self.section(number, payload),
        }
    }

    /// Takes a section. One that is refused changes nothing.
    ///
    /// With the last section of the registers all of them are checked together, and it is refused for
    /// what is wrong in any of them: the source hears of it while it can still go on.
    pub fn section(&mut self, number: u16, payload: &[u8]) -> Result<(), LoadError> {
        match self.registers.expected(number, payload.len())? {
            SectionId::BLOCK => load_block(payload, &mut self.medium),
            SectionId::ZERO => load_zero(payload, &mut self.medium),
            id => self.registers.load(id, payload),
        }
    }

    /// Whether every section of the registers came.
    pub fn check(&self) -> Result<(), LoadError> {
        self.registers.check()
    }

    /// Gives the loaded registers to a device, and hands out the medium, which is for it as well. An error leaves all as it was.
    pub fn apply_to(&mut self, device: &mut Device) -> Result<M, LoadError>
    where
        M: Default,
    {
        self.registers.apply_to(device)?;
        Ok(core::mem::take(&mut self.medium))
    }
}

/// All of it but the medium: what checking takes of the stack is not there when memory for a block is looked for.
#[derive(Clone, Debug, PartialEq)]
struct Registers {
    /// The kind that is expected.
    config: Config,
    state: State,
    /// Bit 0: the device's section came; bit 1: the vectors'; bit 2 + i: queue i's.
    seen: u32,
}

impl Registers {
    /// What a number names, if it is a section of this kind of device and has its length.
    fn expected(&self, number: u16, found: usize) -> Result<SectionId, LoadError> {
        let section = SectionId::of(number).ok_or(LoadError::NoSuchSection(number))?;
        let queues = self.config.queues.get();
        let queue = section.queue_index();
        if let Some(index) = queue.filter(|index| *index >= usize::from(queues)) {
            return Err(LoadError::NoSuchQueue { index, queues });
        }
        let expected = section.len(&self.config);
        if found != expected {
            return Err(LoadError::Length {
                section,
                expected,
                found,
            });
        }
        Ok(section)
    }

    fn load(&mut self, id: SectionId, payload: &[u8]) -> Result<(), LoadError> {
        let bit = seen_bit(id);
        if self.seen & bit != 0 {
            return Err(LoadError::Duplicate(id));
        }
        let mut state = self.state;
        match id {
            SectionId::DEVICE => read_device(&self.config, payload, &mut state)?,
            SectionId::VECTORS => read_vectors(payload, &mut state.msix)?,
            _ => {
                let index = id.queue_index().unwrap_or(0);
                if let Some(queue) = state.transport.queues.get_mut(index) {
                    *queue = read_queue(id, payload)?;
                }
            }
        }
        if self.missing(self.seen | bit).is_none() {
            self.check_all(&state)?;
        }
        self.state = state;
        self.seen |= bit;
        Ok(())
    }

    /// Whether a device of the kind that is expected can have these registers.
    fn check_all(&self, state: &State) -> Result<(), LoadError> {
        // It stays where it is made: moved out of the result, it would be on the stack twice.
        match &mut Device::new(&self.config) {
            Ok(device) => {
                let function = device.function_mut();
                function.restore(state).map_err(LoadError::Registers)
            }
            Err(_) => Err(LoadError::Kind),
        }
    }

    /// The first section of the registers that is not among those that came.
    fn missing(&self, seen: u32) -> Option<SectionId> {
        let queues = usize::from(self.config.queues.get());
        [SectionId::DEVICE, SectionId::VECTORS]
            .into_iter()
            .chain((0..queues).filter_map(SectionId::queue))
            .find(|&id| seen & seen_bit(id) == 0)
    }

    fn check(&self) -> Result<(), LoadError> {
        match self.missing(self.seen) {
            Some(section) => Err(LoadError::Missing(section)),
            None => Ok(()),
        }
    }

    fn apply_to(&self, device: &mut Device) -> Result<(), LoadError> {
        self.check()?;
        if *device.config() != self.config {
            return Err(LoadError::OtherDevice);
        }
        let function: &mut Function = device.function_mut();
        function.restore(&self.state).map_err(LoadError::Registers)
    }
}

fn seen_bit(id: SectionId) -> u32 {
    match id {
        SectionId::DEVICE => 1,
        SectionId::VECTORS => 2,
        // At most 4 << 15.
        id => 4 << id.queue_index().unwrap_or(0),
    }
}

fn reset_state(config: &Config) -> State {
    State {
        space: [0; 256],
        msix: MsixState {
            entries: [MsixEntry::RESET; MAX_VECTORS],
            pending: 0,
        },
        transport: TransportState {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            isr: 0,
            queue_select: 0,
            queues: [QueueState::reset(config.queue_size.get()); MAX_QUEUES],
        },
    }
}

fn zero(section: SectionId, holds: bool) -> Result<(), LoadError> {
    match holds {
        true => Ok(()),
        false => Err(LoadError::Unused(section)),
    }
}

fn read_device(config: &Config, payload: &[u8], state: &mut State) -> Result<(), LoadError> {
    let section = SectionId::DEVICE;
    let mut own = [0; KIND_BYTES];
    write_kind(config, &mut Writer::new(&mut own));
    let mut input = Reader::new(payload);
    if input.slice(KIND_BYTES) != own {
        return Err(LoadError::Kind);
    }
    state.space = input.get();
    let transport = &mut state.transport;
    transport.device_feature_select = input.u32();
    transport.driver_feature_select = input.u32();
    transport.driver_features = input.u64();
    transport.config_vector = input.u16();
    transport.status = input.u8();
    transport.generation = input.u8();
    transport.isr = input.u8();
    zero(section, input.u8() == 0)?;
    transport.queue_select = input.u16();
    Ok(())
}

fn read_vectors(payload: &[u8], msix: &mut MsixState<MAX_VECTORS>) -> Result<(), LoadError> {
    let section = SectionId::VECTORS;
    let (pending, entries) = payload.split_at_checked(8).unwrap_or_default();
    msix.pending = Reader::new(pending).u64();
    for (entry, bytes) in msix.entries.iter_mut().zip(entries.chunks_exact(16)) {
        let mut input = Reader::new(bytes);
        entry.address = input.u64();
        entry.data = input.u32();
        let flags = input.u32();
        zero(section, flags & !vector_flags::MASKED == 0)?;
        entry.masked = flags != 0;
    }
    Ok(())
}

fn read_queue(section: SectionId, payload: &[u8]) -> Result<QueueState, LoadError> {
    let mut input = Reader::new(payload);
    let size = input.u16();
    let flags = input.u8();
    zero(section, flags & !queue_flags::MASK == 0 && input.u8() == 0)?;
    Ok(QueueState {
        size,
        enabled: flags & queue_flags::ENABLED != 0,
        next_wrap: flags & queue_flags::WRAP != 0,
        vector: input.u16(),
        next_index: input.u16(),
        descriptors: input.u64(),
        driver: input.u64(),
        device: input.u64(),
    })
}

fn no_such_block(block: u32, count: u32, medium: &impl Medium) -> Option<LoadError> {
    let blocks = medium.blocks();
    let end = block.checked_add(count);
    (count == 0 || end.is_none_or(|end| end > blocks)).then_some(LoadError::NoSuchBlock {
        block,
        count,
        blocks,
    })
}

fn load_block(payload: &[u8], medium: &mut impl Medium) -> Result<(), LoadError> {
    let (head, data) = payload
        .split_at_checked(BLOCK_HEAD_BYTES)
        .unwrap_or_default();
    let mut input = Reader::new(head);
    let block = input.u32();
    zero(SectionId::BLOCK, input.u32() == 0)?;
    if let Some(error) = no_such_block(block, 1, medium) {
        return Err(error);
    }
    medium
        .write(block, 0, data)
        .map_err(|_| LoadError::NoSpace(block))
}

fn load_zero(payload: &[u8], medium: &mut impl Medium) -> Result<(), LoadError> {
    let mut input = Reader::new(payload);
    let (block, count) = (input.u32(), input.u32());
    if let Some(error) = no_such_block(block, count, medium) {
        return Err(error);
    }
    for block in (block..).take(count as usize) {
        medium.free(block);
    }
    Ok(())
}

const _: () = assert!(DEVICE_SECTION_BYTES == KIND_BYTES + 256 + 24);
const _: () = assert!(QUEUE_SECTION_BYTES == 8 + 3 * 8);
