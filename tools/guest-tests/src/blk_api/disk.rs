// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A disk and a driver that has set it up: by its registers, and requests through its rings.

use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};

use super::ring::{Buffer, Ring, BASE};
use crate::mdev::{Mdev, MdevType};
use crate::v2_api::check::{equal, Named};
use crate::vfio::interrupt::{MSIX, TRIGGER};
use crate::vfio::{abi, Access, Device, Dma, Event, IrqSet, Mapping};

/// The region of the configuration space.
pub const CONFIG: u32 = abi::VFIO_PCI_CONFIG_REGION_INDEX;
/// The region of the registers.
pub const REGISTERS: u32 = 4;

/// Where in the registers' region the common configuration is.
pub const COMMON: u64 = 0x0000;
/// Where the interrupt status is.
pub const ISR: u64 = 0x1000;
/// Where the configuration of a disk is.
pub const DEVICE: u64 = 0x2000;
/// Where the notification registers are.
pub const NOTIFY: u64 = 0x3000;

/// A request that reads.
pub const IN: u32 = 0;
/// A request that writes.
pub const OUT: u32 = 1;
/// A request that makes what was written last.
pub const FLUSH: u32 = 4;
/// A request for the serial number.
pub const GET_ID: u32 = 8;
/// A request that discards.
pub const DISCARD: u32 = 11;
/// A request that writes zeroes.
pub const WRITE_ZEROES: u32 = 13;

/// The answer: it is done.
pub const OK: u8 = 0;
/// The answer: it failed.
pub const IOERR: u8 = 1;
/// The answer: there is no such request.
pub const UNSUPP: u8 = 2;

/// Device status: set up.
pub const READY: u8 = 0x0f;
/// Device status: broken.
pub const NEEDS_RESET: u8 = 0x40;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a block.
pub const BLOCK: usize = 32 * 1024;
/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Bytes of memory that the device can access. Each queue has a share: its ring, then requests, then data.
pub const MEMORY: usize = 4 << 20;
/// A queue's share, and where in it requests and data are.
const SHARE: usize = 0x8_0000;
const REQUESTS: usize = 0x2000;
const DATA: usize = 0x1_0000;
/// What of its share a request takes.
const REQUEST: usize = 256;
/// How many requests there is room for.
pub const SLOTS: usize = (DATA - REQUESTS) / REQUEST;

/// What parameters a disk has that are not as for a new one.
pub type Parameters<'a> = &'a [(&'a str, &'a str)];

/// An instance of a disk.
pub fn instance(parameters: Parameters<'_>) -> Result<Mdev> {
    let instance = MdevType::find("mdev_blk-any")?.create()?;
    for (name, value) in parameters {
        let file = format!("migration/{name}");
        instance
            .set_attribute(&file, value)
            .with_context(|| format!("{file} = {value}"))?;
    }
    Ok(instance)
}

/// An open disk, the memory that it accesses, and its driver's queues. One driver can go on with another disk.
pub struct Disk {
    /// The disk.
    pub device: Arc<Device>,
    /// The memory.
    pub memory: Arc<Mapping>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// By vector: where interrupts arrive.
    pub events: Vec<Event>,
}

/// A queue of a disk and its share of the memory.
pub struct Queue {
    /// The disk.
    pub device: Arc<Device>,
    /// The memory of all queues.
    pub memory: Arc<Mapping>,
    /// Where chains are handed over.
    pub ring: Ring,
    /// Its number.
    pub index: usize,
}

/// Opens a disk, and gives it the memory.
pub fn open(access: Access, instance: &Mdev, memory: &Arc<Mapping>) -> Result<Arc<Device>> {
    let device = access.open(instance)?;
    device
        .map_dma(BASE, memory, Dma::ReadWrite)
        .named("mapping memory")?;
    Ok(Arc::new(device))
}

/// Memory for a driver and its disks.
pub fn memory() -> Result<Arc<Mapping>> {
    Ok(Arc::new(Mapping::of_memory(MEMORY).named("memory")?))
}

/// Reads a register of up to 8 bytes.
pub fn get(device: &Device, offset: u64, length: usize) -> Result<u64> {
    let mut bytes = [0; 8];
    let read = device.read(REGISTERS, offset, &mut bytes[..length]);
    equal("bytes read", read.named("reading a register")?, length)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes a register.
pub fn set(device: &Device, offset: u64, length: usize, value: u64) -> Result<()> {
    let written = device.write(REGISTERS, offset, &value.to_le_bytes()[..length]);
    equal(
        "bytes written",
        written.named("writing a register")?,
        length,
    )
}

/// The device status register.
pub fn status(device: &Device) -> Result<u8> {
    Ok(get(device, COMMON + 20, 1)? as u8)
}

/// Whether the device may access memory and send messages, and whether it uses its pin.
pub fn set_command(device: &Device, command: u16) -> Result<()> {
    let written = device.write(CONFIG, 4, &command.to_le_bytes());
    equal("bytes written", written.named("the command register")?, 2)
}

/// Ties an eventfd to a vector, or none.
pub fn set_event(device: &Device, vector: u32, event: Option<&Event>) -> Result<()> {
    let number = event.map_or(-1, Event::number);
    let set = IrqSet {
        start: vector,
        ..IrqSet::eventfd(MSIX, TRIGGER, number)
    };
    device
        .set_irqs(&set)
        .named(format!("eventfd of vector {vector}"))
}

impl Disk {
    /// A disk that a driver has set up, with an eventfd for each vector.
    pub fn new(access: Access, instance: &Mdev) -> Result<Self> {
        let memory = memory()?;
        Self::with(open(access, instance, &memory)?, memory)
    }

    /// The same of an open device.
    pub fn with(device: Arc<Device>, memory: Arc<Mapping>) -> Result<Self> {
        let mut disk = Self {
            device,
            memory,
            queues: Vec::new(),
            events: Vec::new(),
        };
        disk.start()?;
        disk.route()?;
        Ok(disk)
    }

    /// Ties a new eventfd to each vector.
    pub fn route(&mut self) -> Result<()> {
        let vectors = self
            .device
            .irq(MSIX)
            .named("VFIO_DEVICE_GET_IRQ_INFO")?
            .count;
        self.events.clear();
        for vector in 0..vectors {
            let event = Event::new()?;
            set_event(&self.device, vector, Some(&event))?;
            self.events.push(event);
        }
        Ok(())
    }

    /// What a driver does at start: accepts all features, and sets all queues up.
    pub fn start(&mut self) -> Result<()> {
        let device = self.device.clone();
        let device = &*device;
        set_command(device, 6)?;
        // MSI-X on.
        let written = device.write(CONFIG, 0x42, &[0, 0x80]).named("MSI-X on")?;
        equal("bytes written", written, 2)?;
        set(device, COMMON + 20, 1, 0)?;
        equal("the status after a reset", status(device)?, 0)?;
        set(device, COMMON + 20, 1, 3)?;
        for word in 0..2 {
            set(device, COMMON, 4, word)?;
            let offered = get(device, COMMON + 4, 4)?;
            set(device, COMMON + 8, 4, word)?;
            set(device, COMMON + 12, 4, offered)?;
        }
        set(device, COMMON + 20, 1, 0xb)?;
        equal("the status with features", status(device)?, 0xb)?;
        set(device, COMMON + 16, 2, 0)?;
        let count = get(device, COMMON + 18, 2)? as usize;
        ensure!(count * SHARE <= MEMORY, "{count} queues");
        self.queues.clear();
        for index in 0..count {
            set(device, COMMON + 22, 2, index as u64)?;
            let size = get(device, COMMON + 24, 2)? as u16;
            let ring = Ring::new(&self.memory, index * SHARE, size);
            set(device, COMMON + 26, 2, index as u64 + 1)?;
            for (register, place) in [
                (32, ring.descriptors),
                (40, ring.driver()),
                (48, ring.device()),
            ] {
                let address = BASE + place as u64;
                set(device, COMMON + register, 4, address & 0xffff_ffff)?;
                set(device, COMMON + register + 4, 4, address >> 32)?;
            }
            set(device, COMMON + 28, 2, 1)?;
            self.queues.push(Queue {
                device: self.device.clone(),
                memory: self.memory.clone(),
                ring,
                index,
            });
        }
        set(device, COMMON + 20, 1, READY.into())?;
        equal(
            "the status of a disk that is set up",
            status(device)?,
            READY,
        )
    }

    /// The first queue.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queues[0]
    }

    /// The driver goes on with another disk, which was given the same memory.
    pub fn move_to(&mut self, device: Arc<Device>) -> Result<()> {
        self.device = device;
        for queue in &mut self.queues {
            queue.device = self.device.clone();
        }
        self.route()
    }

    /// Capacity in bytes.
    pub fn capacity(&self) -> Result<usize> {
        Ok(get(&self.device, DEVICE, 8)? as usize * SECTOR)
    }
}

impl Queue {
    /// Where its data are, as an offset in the memory.
    pub fn data(&self) -> usize {
        self.index * SHARE + DATA
    }

    fn slot(&self, slot: usize) -> usize {
        assert!(slot < SLOTS);
        self.index * SHARE + REQUESTS + slot * REQUEST
    }

    /// Adds a request: header, these buffers, status. `slot` is where header, status and table are. Returns its ID.
    pub fn add(
        &mut self,
        slot: usize,
        kind: u32,
        sector: u64,
        data: &[Buffer],
        indirect: bool,
    ) -> u16 {
        let at = self.slot(slot);
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        header.push(0xff);
        self.memory.put(at, &header);
        let mut buffers = vec![(at, 16, false)];
        buffers.extend(data);
        buffers.push((at + 16, 1, true));
        assert!(buffers.len() * 16 + 32 <= REQUEST);
        self.ring.add(&buffers, indirect.then_some(at + 32))
    }

    /// The answer in a slot.
    pub fn answer(&self, slot: usize) -> u8 {
        self.memory.get(self.slot(slot) + 16, 1)[0]
    }

    /// Where that answer is, as an offset in the memory.
    pub fn answer_place(&self, slot: usize) -> usize {
        self.slot(slot) + 16
    }

    /// Writes the notification register.
    pub fn notify(&self) -> Result<()> {
        set(
            &self.device,
            NOTIFY + 4 * self.index as u64,
            2,
            self.index as u64,
        )
    }

    /// Has a request done, which a notification does while nobody else serves. Returns bytes written and the answer.
    pub fn request(
        &mut self,
        kind: u32,
        sector: u64,
        data: &[Buffer],
        indirect: bool,
    ) -> Result<(u32, u8)> {
        let id = self.add(0, kind, sector, data, indirect);
        self.notify()?;
        match self.ring.take()? {
            Some((done, written)) if done == id => Ok((written, self.answer(0))),
            other => bail!("request {id} was notified, and {other:?} is done"),
        }
    }

    /// Has these bytes written.
    pub fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<()> {
        let data = self.data();
        self.memory.put(data, bytes);
        let buffers = [(data, bytes.len() as u32, false)];
        let answer = self.request(OUT, sector, &buffers, false)?;
        equal(
            format!("the answer to writing at sector {sector}"),
            answer,
            (1, OK),
        )
    }

    /// Has so many bytes read.
    pub fn read(&mut self, sector: u64, length: usize) -> Result<Vec<u8>> {
        let data = self.data();
        self.memory.put(data, &vec![0xa5; length]);
        let buffers = [(data, length as u32, true)];
        let answer = self.request(IN, sector, &buffers, true)?;
        let wanted = (length as u32 + 1, OK);
        equal(
            format!("the answer to reading at sector {sector}"),
            answer,
            wanted,
        )?;
        Ok(self.memory.get(data, length))
    }
}

/// Bytes that tell where and when they were written.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}
