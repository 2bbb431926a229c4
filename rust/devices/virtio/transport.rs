// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The common configuration structure (virtio 1.2, 4.1.4.3), the device status machine (2.1) and the
//! interrupt status (4.1.4.5): registers only, guest memory is not touched.

use super::features;
use super::queue::{Queue, QueueState, NO_VECTOR};
use super::ring::{Ring, MAX_QUEUE_SIZE};
use super::work::{Outcome, Turn, Work};
use crate::pci::{Access, Width};

mod state;

pub use state::{StateError, TransportState};

/// Bits of the device status register.
pub mod status {
    /// The driver has noticed the device.
    pub const ACKNOWLEDGE: u8 = 0x01;
    /// The driver knows how to drive it.
    pub const DRIVER: u8 = 0x02;
    /// The driver is set up.
    pub const DRIVER_OK: u8 = 0x04;
    /// The features that the driver accepted are good.
    pub const FEATURES_OK: u8 = 0x08;
    /// The device cannot go on without a reset.
    pub const NEEDS_RESET: u8 = 0x40;
    /// The driver has given up.
    pub const FAILED: u8 = 0x80;
    /// Every bit that there is.
    pub const MASK: u8 = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | NEEDS_RESET | FAILED;
}

/// Bits of the interrupt status register.
pub(super) mod isr {
    /// A queue was served.
    pub(crate) const QUEUE: u8 = 0x1;
    /// The configuration changed, or the device needs a reset.
    pub(crate) const CONFIG: u8 = 0x2;
    pub(crate) const MASK: u8 = QUEUE | CONFIG;
}

/// Offsets in the common configuration structure.
mod offset {
    pub(super) const DEVICE_FEATURE_SELECT: u32 = 0;
    pub(super) const DEVICE_FEATURE: u32 = 4;
    pub(super) const DRIVER_FEATURE_SELECT: u32 = 8;
    pub(super) const DRIVER_FEATURE: u32 = 12;
    pub(super) const CONFIG_VECTOR: u32 = 16;
    pub(super) const DEVICE_STATUS: u32 = 20;
    pub(super) const QUEUE_SELECT: u32 = 22;
    pub(super) const QUEUE_SIZE: u32 = 24;
    pub(super) const QUEUE_VECTOR: u32 = 26;
    pub(super) const QUEUE_ENABLE: u32 = 28;
    pub(super) const QUEUE_DESCRIPTORS: u32 = 32;
    pub(super) const QUEUE_DRIVER: u32 = 40;
    pub(super) const QUEUE_DEVICE: u32 = 48;
    pub(super) const QUEUE_NOTIFY_DATA: u32 = 56;
    pub(super) const QUEUE_RESET: u32 = 58;
}

/// The registers of a virtio device with at most `Q` queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transport<const Q: usize> {
    offered: u64,
    queue_count: u16,
    max_queue_size: u16,
    vectors: u16,

    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    status: u8,
    generation: u8,
    isr: u8,
    queue_select: u16,
    queues: [Queue; Q],

    /// The guest asked for a reset, which waits for the queues that are out.
    reset_wanted: bool,
    running: bool,
    master: bool,
    /// Where the search for a queue to be handed out starts, so that each has its turn.
    search_from: u16,
    /// Vectors to be signalled, a bit each.
    fired: u64,
}

impl<const Q: usize> Transport<Q> {
    /// A device after power-on, not running. Counts beyond what there can be are cut to that.
    pub(super) fn new(
        offered: u64,
        queue_count: u16,
        max_queue_size: u16,
        vectors: u16,
    ) -> Transport<Q> {
        let max_queue_size = max_queue_size.clamp(1, MAX_QUEUE_SIZE);
        Transport {
            offered,
            queue_count: queue_count.min(u16::try_from(Q).unwrap_or(u16::MAX)),
            max_queue_size,
            vectors,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            isr: 0,
            queue_select: 0,
            queues: core::array::from_fn(|_| Queue::new(max_queue_size)),
            reset_wanted: false,
            running: false,
            master: false,
            search_from: 0,
            fired: 0,
        }
    }

    fn queue(&self, index: u16) -> Option<&Queue> {
        let queues = self.queues.get(..usize::from(self.queue_count))?;
        queues.get(usize::from(index))
    }

    fn queue_mut(&mut self, index: u16) -> Option<&mut Queue> {
        let queues = self.queues.get_mut(..usize::from(self.queue_count))?;
        queues.get_mut(usize::from(index))
    }

    fn has(&self, feature: u64) -> bool {
        self.status & status::FEATURES_OK != 0 && self.driver_features & feature != 0
    }

    /// Reads the common configuration. Beyond its end: zeroes.
    pub(super) fn read_common(&self, access: Access) -> u32 {
        access.of_dword(self.common_dword(access.dword()))
    }

    fn common_dword(&self, at: u32) -> u32 {
        let selected = self.queue(self.queue_select);
        let part = |address: fn(&Queue) -> u64, high: bool| {
            let address = selected.map_or(0, address);
            if high {
                (address >> 32) as u32
            } else {
                address as u32
            }
        };
        match at {
            offset::DEVICE_FEATURE_SELECT => self.device_feature_select,
            offset::DEVICE_FEATURE => feature_word(self.offered, self.device_feature_select),
            offset::DRIVER_FEATURE_SELECT => self.driver_feature_select,
            offset::DRIVER_FEATURE => {
                feature_word(self.driver_features, self.driver_feature_select)
            }
            offset::CONFIG_VECTOR => pair(self.config_vector, self.queue_count),
            offset::DEVICE_STATUS => {
                let [low, high] = self.queue_select.to_le_bytes();
                u32::from_le_bytes([self.status, self.generation, low, high])
            }
            offset::QUEUE_SIZE => match selected {
                Some(queue) => pair(queue.size, queue.vector),
                None => pair(0, NO_VECTOR),
            },
            offset::QUEUE_ENABLE => match selected {
                // What is to be added to the notification offset is the queue's own number.
                Some(queue) => pair(queue.enabled.into(), self.queue_select),
                None => 0,
            },
            offset::QUEUE_DESCRIPTORS => part(|queue| queue.descriptors, false),
            0x24 => part(|queue| queue.descriptors, true),
            offset::QUEUE_DRIVER => part(|queue| queue.driver, false),
            0x2c => part(|queue| queue.driver, true),
            offset::QUEUE_DEVICE => part(|queue| queue.device, false),
            0x34 => part(|queue| queue.device, true),
            offset::QUEUE_NOTIFY_DATA => {
                pair(0, selected.is_some_and(|queue| queue.reset_wanted).into())
            }
            _ => 0,
        }
    }

    /// Writes the common configuration. A field is written by its own width, and a 64-bit one by its
    /// halves (4.1.3.1); other writes are ignored. While a reset is under way all are.
    pub(super) fn write_common(&mut self, access: Access, value: u32) {
        if self.reset_wanted {
            return;
        }
        // The width was checked by the access itself.
        let (byte, word) = (value as u8, value as u16);
        match (access.offset(), access.width()) {
            (offset::DEVICE_FEATURE_SELECT, Width::Dword) => self.device_feature_select = value,
            (offset::DRIVER_FEATURE_SELECT, Width::Dword) => self.driver_feature_select = value,
            (offset::DRIVER_FEATURE, Width::Dword) => self.accept_features(value),
            (offset::CONFIG_VECTOR, Width::Word) => self.config_vector = self.vector(word),
            (offset::DEVICE_STATUS, Width::Byte) => self.set_status(byte),
            (offset::QUEUE_SELECT, Width::Word) => self.queue_select = word,
            (offset::QUEUE_VECTOR, Width::Word) => {
                let vector = self.vector(word);
                if let Some(queue) = self.queue_mut(self.queue_select) {
                    queue.vector = vector;
                }
            }
            (offset::QUEUE_ENABLE, Width::Word) if word == 1 => self.enable_queue(),
            (offset::QUEUE_RESET, Width::Word) if word == 1 => self.reset_queue(),
            (at, width) => self.place_queue(at, width, value),
        }
    }

    /// The vector that is kept of one that was written.
    fn vector(&self, written: u16) -> u16 {
        match written < self.vectors {
            true => written,
            false => NO_VECTOR,
        }
    }

    /// Where the selected queue lies, and its size: until it is enabled.
    fn place_queue(&mut self, at: u32, width: Width, value: u32) {
        let max_size = self.max_queue_size;
        let Some(queue) = self.queue_mut(self.queue_select) else {
            return;
        };
        if queue.enabled {
            return;
        }
        let low = |old: u64| (old & !0xffff_ffff) | u64::from(value);
        let high = |old: u64| (old & 0xffff_ffff) | (u64::from(value) << 32);
        match (at, width) {
            (offset::QUEUE_SIZE, Width::Word) => {
                let size = value as u16;
                if size != 0 && size <= max_size {
                    queue.size = size;
                }
            }
            (offset::QUEUE_DESCRIPTORS, Width::Dword) => queue.descriptors = low(queue.descriptors),
            (0x24, Width::Dword) => queue.descriptors = high(queue.descriptors),
            (offset::QUEUE_DRIVER, Width::Dword) => queue.driver = low(queue.driver),
            (0x2c, Width::Dword) => queue.driver = high(queue.driver),
            (offset::QUEUE_DEVICE, Width::Dword) => queue.device = low(queue.device),
            (0x34, Width::Dword) => queue.device = high(queue.device),
            _ => {}
        }
    }

    /// Until the features are settled, a driver can change its mind.
    fn accept_features(&mut self, word: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let word = u64::from(word);
        match self.driver_feature_select {
            0 => self.driver_features = (self.driver_features & !0xffff_ffff) | word,
            1 => self.driver_features = (self.driver_features & 0xffff_ffff) | (word << 32),
            _ => {}
        }
    }

    /// A driver sets bits, and clears them all at once by writing 0 (2.1.1). Bits that it may not set
    /// at this point are left out, by which it sees that it was refused.
    fn set_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        let mut new = value & status::MASK & !status::NEEDS_RESET & !self.status;
        if new & status::FEATURES_OK != 0
            && !features::acceptable(self.offered, self.driver_features)
        {
            new &= !status::FEATURES_OK;
        }
        if (self.status | new) & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        self.status |= new;
    }

    /// Back to what it was after power-on. If queues are out, as soon as they came back.
    pub(super) fn reset(&mut self) {
        if !self.is_quiesced() {
            self.reset_wanted = true;
            return;
        }
        self.clear();
    }

    /// All registers as after power-on, in place.
    fn clear(&mut self) {
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.config_vector = NO_VECTOR;
        self.status = 0;
        self.generation = 0;
        self.isr = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = Queue::new(self.max_queue_size);
        }
        self.reset_wanted = false;
        self.search_from = 0;
        self.fired = 0;
    }

    fn enable_queue(&mut self) {
        if self.status & status::FEATURES_OK == 0 {
            return;
        }
        let Some(queue) = self.queue_mut(self.queue_select) else {
            return;
        };
        if !queue.enabled && queue.out.is_none() && queue.enable().is_err() {
            self.needs_reset();
        }
    }

    fn reset_queue(&mut self) {
        if !self.has(features::RING_RESET) {
            return;
        }
        let max_size = self.max_queue_size;
        if let Some(queue) = self.queue_mut(self.queue_select) {
            match queue.out {
                Some(_) => queue.reset_wanted = true,
                None => *queue = Queue::new(max_size),
            }
        }
    }

    /// The device cannot go on without a reset (2.1.2), and says so to a driver that is set up.
    fn needs_reset(&mut self) {
        if self.status & status::NEEDS_RESET != 0 {
            return;
        }
        self.status |= status::NEEDS_RESET;
        if self.status & status::DRIVER_OK != 0 {
            self.signal_config();
        }
    }

    fn signal_config(&mut self) {
        self.isr |= isr::CONFIG;
        self.fire(self.config_vector);
    }

    fn fire(&mut self, vector: u16) {
        if vector < self.vectors {
            self.fired |= 1u64.checked_shl(vector.into()).unwrap_or(0);
        }
    }

    /// The device's own configuration changed.
    pub(super) fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.status & status::DRIVER_OK != 0 {
            self.signal_config();
        }
    }

    /// The interrupt status. Reading takes the interrupt back.
    pub(super) fn take_isr(&mut self) -> u8 {
        core::mem::take(&mut self.isr)
    }

    pub(super) fn isr(&self) -> u8 {
        self.isr
    }

    /// Vectors to be signalled, a bit each; each is told once.
    pub(super) fn take_fired(&mut self) -> u64 {
        core::mem::take(&mut self.fired)
    }

    /// A queue's notification register was written.
    pub(super) fn notify(&mut self, index: u32) {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        if let Some(queue) = self.queue_mut(index) {
            queue.due = Some(Turn::First);
        }
    }

    /// All enabled queues may have something in them.
    fn notify_all(&mut self) {
        for queue in &mut self.queues {
            if queue.enabled {
                queue.due = Some(Turn::First);
            }
        }
    }

    /// Whether the function may access memory. When it may again, rings are looked at: what was notified
    /// in between was not seen.
    pub(super) fn set_master(&mut self, master: bool) {
        if master && !self.master {
            self.notify_all();
        }
        self.master = master;
    }

    /// Whether queues are handed out. When they are again, each is looked at and each vector is
    /// signalled once: a notification and an interrupt can have been lost on the way.
    pub(super) fn set_running(&mut self, running: bool) {
        if running && !self.running {
            self.notify_all();
            for index in 0..self.queue_count {
                if let Some(queue) = self.queue(index).filter(|queue| queue.enabled) {
                    let vector = queue.vector;
                    self.isr |= isr::QUEUE;
                    self.fire(vector);
                }
            }
        }
        self.running = running;
    }

    /// Whether no queue is out.
    pub(super) fn is_quiesced(&self) -> bool {
        !self.queues.iter().any(|queue| queue.out.is_some())
    }

    fn serves(&self) -> bool {
        let stopped = status::NEEDS_RESET | status::FAILED;
        self.running
            && self.master
            && !self.reset_wanted
            && self.status & status::DRIVER_OK != 0
            && self.status & stopped == 0
    }

    /// Hands out a queue that was notified, if there is one that may be served.
    pub(super) fn begin(&mut self) -> Option<Work> {
        if !self.serves() {
            return None;
        }
        let indirect = self.has(features::INDIRECT_DESC);
        let features = self.driver_features;
        let from = self.search_from;
        for index in (from..self.queue_count).chain(0..from) {
            let Some(queue) = self.queue_mut(index) else {
                continue;
            };
            match (queue.ring(), queue.due) {
                (Some(place), Some(turn)) if queue.out.is_none() => {
                    queue.due = None;
                    queue.out = Some(turn);
                    let ring = Ring::new(place, queue.next, indirect);
                    self.search_from = index + 1;
                    return Some(Work::new(index, features, turn, ring));
                }
                _ => {}
            }
        }
        None
    }

    /// Whether there is a queue to be handed out, or will be unless the one that is out for its first turn needs no other.
    pub(super) fn has_work(&self) -> bool {
        let has_work = |queue: &Queue| match queue.out {
            Some(turn) => queue.due.is_some() || turn == Turn::First,
            None => queue.due.is_some() && queue.enabled,
        };
        self.serves() && self.queues.iter().any(has_work)
    }

    /// Takes a queue back.
    pub(super) fn finish(&mut self, work: Work, outcome: &Outcome) {
        let (index, max_size) = (work.queue(), self.max_queue_size);
        let Some(queue) = self.queue_mut(index) else {
            return;
        };
        if queue.out.take().is_none() {
            return;
        }
        queue.next = work.ring.next();
        if outcome.more {
            // One that was notified since starts again, which does for both.
            queue.due = queue.due.or(Some(Turn::Last));
        }
        let vector = queue.vector;
        if core::mem::take(&mut queue.reset_wanted) {
            *queue = Queue::new(max_size);
        }
        if self.reset_wanted {
            if self.is_quiesced() {
                self.reset();
            }
            return;
        }
        if outcome.interrupt {
            self.isr |= isr::QUEUE;
            self.fire(vector);
        }
        if outcome.error.is_some() {
            self.needs_reset();
        }
    }
}

/// 32 of 64 bits; beyond them: zeroes.
fn feature_word(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Two 16-bit fields that share a dword, the one at the lower offset first.
fn pair(low: u16, high: u16) -> u32 {
    (u32::from(high) << 16) | u32::from(low)
}
