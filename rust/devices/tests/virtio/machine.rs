// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest with a disk: the device, its medium, the guest's memory, and a driver that finds everything by the
//! capability list.

use crate::driver::{Buffer, Queue};
use crate::memory::{Blocks, Memory, BASE};
use devices::blk::{serve, words_for, Config, Device, Disk, Scratch};
use devices::pci::vectors;
use devices::virtio::{GuestMemory, RingError};

pub const ACKNOWLEDGE_DRIVER: u8 = 3;
pub const FEATURES_OK: u8 = 8;
pub const DRIVER_OK: u8 = 4;
pub const NEEDS_RESET: u8 = 0x40;

/// Where a structure is: BAR and offset.
pub type Place = (usize, u64);

/// The structures that the capability list leads to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    pub common: Place,
    pub notify: Place,
    pub multiplier: u32,
    pub isr: Place,
    pub device: Place,
    pub window: u64,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub device: Device,
    pub disk: Disk<Blocks, Vec<u64>>,
    pub memory: Memory,
    pub queues: Vec<Queue>,
    pub places: Places,
    /// Where the memory that queues do not take begins.
    pub heap: u64,
    /// Messages that were sent, by vector.
    pub sent: Vec<u32>,
    pub error: Option<RingError>,
    pub scratch: Box<Scratch>,
}

pub fn read_config(device: &mut Device, offset: u64, len: usize) -> u32 {
    let mut bytes = [0; 4];
    device.function_mut().read_config(offset, &mut bytes[..len]);
    u32::from_le_bytes(bytes)
}

pub fn find(device: &mut Device) -> Places {
    let mut places = Places::default();
    let mut at = u64::from(read_config(device, 0x34, 1));
    while at != 0 {
        if read_config(device, at, 1) == 9 {
            let bar = read_config(device, at + 4, 1) as usize;
            let offset = read_config(device, at + 8, 4);
            let place = (bar, u64::from(offset));
            match read_config(device, at + 3, 1) {
                1 => places.common = place,
                2 => {
                    places.notify = place;
                    places.multiplier = read_config(device, at + 16, 4);
                }
                3 => places.isr = place,
                4 => places.device = place,
                5 => places.window = at,
                other => panic!("structure {other}"),
            }
        }
        at = u64::from(read_config(device, at + 1, 1));
    }
    places
}

impl Machine {
    /// Power-on: the device runs, and is nobody's.
    pub fn off(config: &Config) -> Machine {
        let mut device = Device::new(config).expect("a device");
        let bits = vec![0; words_for(config.capacity.blocks())];
        let disk = Disk::new(Blocks::of(config), bits.clone(), bits);
        device.function_mut().set_running(true);
        let places = find(&mut device);
        let vector_count = usize::from(device.function().vector_count());
        for vector in 0..vector_count {
            device.function_mut().set_route(vector as u16, true);
        }
        Machine {
            device,
            disk: disk.expect("a bit a block"),
            memory: Memory::new(3 << 20),
            queues: Vec::new(),
            places,
            heap: BASE,
            sent: vec![0; vector_count],
            error: None,
            scratch: Box::default(),
        }
    }

    /// With a driver that accepted all features.
    pub fn on(config: &Config) -> Machine {
        let mut machine = Machine::off(config);
        machine.start(u64::MAX);
        machine
    }

    pub fn read(&mut self, (bar, at): Place, offset: u64, len: usize) -> u32 {
        let mut bytes = [0; 4];
        let function = self.device.function_mut();
        function.read_bar(bar, at + offset, &mut bytes[..len]);
        u32::from_le_bytes(bytes)
    }

    pub fn write(&mut self, (bar, at): Place, offset: u64, len: usize, value: u32) {
        let bytes = value.to_le_bytes();
        let function = self.device.function_mut();
        function.write_bar(bar, at + offset, &bytes[..len]);
        self.collect();
    }

    pub fn common(&mut self, offset: u64, len: usize) -> u32 {
        self.read(self.places.common, offset, len)
    }

    pub fn set_common(&mut self, offset: u64, len: usize, value: u32) {
        self.write(self.places.common, offset, len, value);
    }

    pub fn status(&mut self) -> u8 {
        self.common(20, 1) as u8
    }

    pub fn set_status(&mut self, status: u8) {
        self.set_common(20, 1, status.into());
    }

    pub fn offered(&mut self) -> u64 {
        self.set_common(0, 4, 1);
        let high = self.common(4, 4);
        self.set_common(0, 4, 0);
        (u64::from(high) << 32) | u64::from(self.common(4, 4))
    }

    /// Accepts what is offered of `features`; says whether that was good.
    pub fn negotiate(&mut self, features: u64) -> bool {
        let accepted = self.offered() & features;
        self.set_status(ACKNOWLEDGE_DRIVER);
        for select in 0..2 {
            self.set_common(8, 4, select);
            self.set_common(12, 4, (accepted >> (select * 32)) as u32);
        }
        self.set_status(ACKNOWLEDGE_DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// Places a queue and enables it.
    pub fn enable(&mut self, index: u16, queue: &Queue) {
        self.set_common(22, 2, index.into());
        self.set_common(24, 2, queue.size.into());
        self.set_common(26, 2, u32::from(index) + 1);
        for (offset, address) in [
            (32, queue.descriptors),
            (40, queue.driver),
            (48, queue.device),
        ] {
            self.set_common(offset, 4, address as u32);
            self.set_common(offset + 4, 4, (address >> 32) as u32);
        }
        self.set_common(28, 2, 1);
    }

    /// What a driver does at start.
    pub fn start(&mut self, features: u64) {
        self.master(true);
        // MSI-X on; its vectors are routed by whoever embeds the device.
        self.device.function_mut().write_config(0x42, &[0x00, 0x80]);
        assert!(self.negotiate(features));
        self.set_common(16, 2, 0);
        self.queues.clear();
        self.heap = BASE;
        let count = self.common(18, 2) as u16;
        for index in 0..count {
            self.set_common(22, 2, index.into());
            let queue = Queue::at(self.heap, self.common(24, 2) as u16);
            self.heap = (queue.device + 4).next_multiple_of(4096);
            let len = queue.device + 4 - queue.descriptors;
            self.memory.put(queue.descriptors, &vec![0; len as usize]);
            self.enable(index, &queue);
            self.queues.push(queue);
        }
        self.set_status(ACKNOWLEDGE_DRIVER | FEATURES_OK | DRIVER_OK);
    }

    pub fn master(&mut self, on: bool) {
        let command = if on { 6 } else { 2 };
        self.device.function_mut().write_config(4, &[command, 0]);
        self.collect();
    }

    pub fn submit(&mut self, queue: usize, buffers: &[Buffer], table: Option<u64>) -> u16 {
        self.queues[queue].submit(&mut self.memory, buffers, table)
    }

    pub fn notify(&mut self, queue: usize) {
        let offset = queue as u64 * u64::from(self.places.multiplier);
        self.write(self.places.notify, offset, 2, queue as u32);
    }

    /// Takes the messages that are to be sent.
    pub fn collect(&mut self) {
        for vector in vectors(self.device.function_mut().take_messages()) {
            self.sent[usize::from(vector)] += 1;
        }
    }

    /// Serves what there is.
    pub fn serve(&mut self) {
        let mut memory = std::mem::replace(&mut self.memory, Memory::new(0));
        self.serve_in(&mut memory);
        self.memory = memory;
    }

    /// The same with memory that is looked after elsewhere.
    pub fn serve_in(&mut self, memory: &mut impl GuestMemory) {
        let geometry = *self.device.geometry();
        while let Some(mut work) = self.device.function_mut().begin() {
            let disk = &mut self.disk;
            let outcome = serve(&mut work, &geometry, memory, disk, &mut self.scratch);
            self.error = self.error.or(outcome.error);
            self.device.function_mut().finish(work, &outcome);
            self.collect();
        }
    }

    /// Has a request done: header, then these buffers, then the status. Returns the number of bytes
    /// written and the status.
    pub fn request(
        &mut self,
        kind: u32,
        sector: u64,
        data: &[Buffer],
        indirect: bool,
    ) -> (u32, u8) {
        self.request_on(0, kind, sector, data, indirect)
    }

    /// The same on this queue.
    pub fn request_on(
        &mut self,
        queue: usize,
        kind: u32,
        sector: u64,
        data: &[Buffer],
        indirect: bool,
    ) -> (u32, u8) {
        let (header, status, table) = (self.heap, self.heap + 16, self.heap + 32);
        self.memory.put(header, &kind.to_le_bytes());
        self.memory.put(header + 4, &[0xee; 4]);
        self.memory.put(header + 8, &sector.to_le_bytes());
        self.memory.put(status, &[0xff]);
        let mut buffers = vec![(header, 16, false)];
        buffers.extend(data);
        buffers.push((status, 1, true));
        let id = self.submit(queue, &buffers, indirect.then_some(table));
        self.notify(queue);
        self.serve();
        let (found, len) = self.queues[queue]
            .reap(&self.memory)
            .expect("the request is done");
        assert_eq!(found, id);
        (len, self.memory.get(status, 1)[0])
    }

    /// Room for data, behind what [`Machine::request`] uses.
    pub fn data(&self) -> u64 {
        self.heap + 0x2000
    }
}
