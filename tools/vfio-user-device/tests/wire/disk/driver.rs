// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest's driver of the disk: registers by messages, requests through a packed ring in memory that the program has the file of
//! (virtio 1.2, 2.8.21 and 2.8.22).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{fence, Ordering};

use rustix::io::{pread, pwrite};

use crate::client::*;
use crate::memory::memory;
use crate::migration::*;
use crate::program::Program;

pub const MODEL: &str = "rust-vfio-mdev.example/pci/blk";

/// Where the memory is for the device, and how much there is.
pub const BASE: u64 = 0x4000_0000;
pub const SIZE: u64 = 8 << 20;
/// Where in it the first queue's ring, a request's header and status, and data are.
pub const RING: u64 = 0;
pub const HEADER: u64 = 0x2000;
pub const STATUS: u64 = 0x3000;
pub const DATA: u64 = 0x10_0000;
/// From one queue's ring to the next one's.
const RING_STEP: u64 = 0x4000;

/// The region of the registers, and what is where in it.
pub const REGISTERS: u32 = 4;
pub const COMMON: u64 = 0;
pub const DEVICE: u64 = 0x2000;
pub const NOTIFY: u64 = 0x3000;
/// From one queue's notification register to the next one's.
const NOTIFY_STEP: u64 = 4;

/// Requests.
pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;

/// Device status: set up, and broken.
pub const READY: u8 = 0x0f;
pub const NEEDS_RESET: u8 = 0x40;

pub const SECTOR: u64 = 512;
pub const BLOCK: u64 = 32 << 10;

/// A vector a queue, after that of changes.
pub const CHANGED: usize = 0;
pub const DONE: usize = 1;

pub const MSIX: u32 = 2;

/// Most descriptors that go with one message.
const MAX_FDS: usize = 16;

/// A program with a disk.
pub fn start(arguments: &[&str]) -> Program {
    Program::start(&[&["--migration-model", MODEL][..], arguments].concat())
}

/// A packed ring as its driver keeps it: one chain at a time is with the device.
#[derive(Clone)]
pub struct Ring {
    /// Which queue's it is.
    pub queue: u16,
    pub size: u16,
    /// Where the next chain goes, and the lap.
    pub next: u16,
    pub wrap: bool,
}

impl Ring {
    /// Where in memory that of a queue is.
    fn place(queue: u16) -> u64 {
        RING + u64::from(queue) * RING_STEP
    }
}

/// A guest.
pub struct Guest {
    pub client: Client,
    pub memory: OwnedFd,
    /// That of the queue in use: the first one, unless a test takes another.
    pub ring: Ring,
    /// Those of the other queues.
    pub others: Vec<Ring>,
    pub events: Vec<OwnedFd>,
}

impl Guest {
    /// A client with memory, whose device nobody has set up.
    pub fn off(program: &Program) -> Self {
        let mut guest = Self {
            client: program.client(),
            memory: memory(SIZE),
            ring: Ring {
                queue: 0,
                size: 0,
                next: 0,
                wrap: true,
            },
            others: Vec::new(),
            events: Vec::new(),
        };
        guest.map();
        guest
    }

    /// A guest whose driver has set the disk up, with an eventfd a vector.
    pub fn on(program: &Program) -> Self {
        let mut guest = Self::off(program);
        guest.route();
        guest.set_up();
        guest
    }

    /// A guest that is at work goes on with this device: its memory is there, and its ring.
    pub fn taking(program: &Program, memory: OwnedFd, ring: Ring) -> Self {
        let mut guest = Self {
            client: program.client(),
            memory,
            ring,
            others: Vec::new(),
            events: Vec::new(),
        };
        guest.map();
        guest.route();
        guest
    }

    /// The client's memory is the device's, all of it.
    fn map(&mut self) {
        let body = range(3, 0, BASE, SIZE);
        let fds = [self.memory.as_fd()];
        let answer = self.client.ask_with(DMA_MAP, &body, &fds);
        assert_eq!(answer.result, Ok(vec![]));
    }

    /// A new eventfd for each vector, in as many messages as it takes.
    fn route(&mut self) {
        let info = self.client.ask(GET_IRQ_INFO, &words(&[16, 0, MSIX, 0]));
        let info = info.expect("MSI-X");
        let count = u32::from_ne_bytes(info[12..].try_into().expect("four"));
        self.events = (0..count).map(|_| event()).collect();
        let fds: Vec<_> = self.events.iter().map(AsFd::as_fd).collect();
        for (start, fds) in (0..).step_by(MAX_FDS).zip(fds.chunks(MAX_FDS)) {
            let vectors = [0x24, MSIX, start, fds.len() as u32];
            assert_eq!(self.client.irqs(vectors, &[], fds), Ok(()), "{start}");
        }
    }

    pub fn put(&self, at: u64, bytes: &[u8]) {
        assert_eq!(pwrite(&self.memory, bytes, at), Ok(bytes.len()));
    }

    pub fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert_eq!(pread(&self.memory, &mut bytes[..], at), Ok(len));
        bytes
    }

    pub fn register(&mut self, at: u64, len: u32) -> u64 {
        let mut bytes = self.client.read(REGISTERS, at, len).expect("a register");
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().expect("eight"))
    }

    pub fn set(&mut self, at: u64, len: usize, value: u64) {
        let bytes = &value.to_le_bytes()[..len];
        self.client.write(REGISTERS, at, bytes).expect("a register");
    }

    pub fn status(&mut self) -> u8 {
        self.register(COMMON + 20, 1) as u8
    }

    /// What a driver does at start: it accepts all features, and sets the queues up.
    pub fn set_up(&mut self) {
        // Bus master, and MSI-X on.
        self.client.write(CONFIG, 4, &[6, 0]).expect("a write");
        self.client
            .write(CONFIG, 0x42, &[0, 0x80])
            .expect("a write");
        self.set(COMMON + 20, 1, 0);
        self.set(COMMON + 20, 1, 3);
        for word in 0..2 {
            self.set(COMMON, 4, word);
            let offered = self.register(COMMON + 4, 4);
            self.set(COMMON + 8, 4, word);
            self.set(COMMON + 12, 4, offered);
        }
        self.set(COMMON + 20, 1, 0xb);
        assert_eq!(self.status(), 0xb, "features");
        self.set(COMMON + 16, 2, CHANGED as u64);
        let count = self.register(COMMON + 18, 2) as u16;
        self.ring = self.set_up_queue(0);
        self.others = (1..count).map(|queue| self.set_up_queue(queue)).collect();
        self.set(COMMON + 20, 1, READY.into());
        assert_eq!(self.status(), READY);
    }

    /// Sets a queue up, with the vector that is its own.
    fn set_up_queue(&mut self, queue: u16) -> Ring {
        self.set(COMMON + 22, 2, queue.into());
        let size = self.register(COMMON + 24, 2) as u16;
        let (ring, places) = (Ring::place(queue), u64::from(size) * 16);
        self.put(ring, &vec![0; places as usize + 8]);
        let vector = DONE as u64 + u64::from(queue);
        self.set(COMMON + 26, 2, vector);
        assert_eq!(self.register(COMMON + 26, 2), vector, "queue {queue}");
        for (register, place) in [(32, ring), (40, ring + places), (48, ring + places + 4)] {
            self.set(COMMON + register, 4, (BASE + place) & 0xffff_ffff);
            self.set(COMMON + register + 4, 4, (BASE + place) >> 32);
        }
        self.set(COMMON + 28, 2, 1);
        Ring {
            queue,
            size,
            next: 0,
            wrap: true,
        }
    }

    /// Puts a descriptor where the next one goes: address, length, flags but for the lap's.
    pub fn describe(&mut self, address: u64, len: u32, flags: u16) -> (u64, u16) {
        let at = Ring::place(self.ring.queue) + u64::from(self.ring.next) * 16;
        let lap = if self.ring.wrap { 0x0080 } else { 0x8000 };
        self.put(at, &address.to_le_bytes());
        self.put(at + 8, &len.to_le_bytes());
        self.put(at + 12, &7u16.to_le_bytes());
        self.ring.next += 1;
        if self.ring.next == self.ring.size {
            self.ring.next = 0;
            self.ring.wrap = !self.ring.wrap;
        }
        (at + 14, flags | lap)
    }

    /// Makes a request available: header, data if there are some, status. The device is not told. Where it will be used.
    pub fn add(&mut self, kind: u32, sector: u64, len: u32) -> (u64, bool) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.put(HEADER, &header);
        self.put(STATUS, &[0xff]);
        let lap = self.ring.wrap;
        let (first, flags) = self.describe(BASE + HEADER, 16, 1);
        if len > 0 {
            let writes = if kind == OUT { 0 } else { 2 };
            let (at, flags) = self.describe(BASE + DATA, len, 1 | writes);
            self.put(at, &flags.to_le_bytes());
        }
        let (at, last) = self.describe(BASE + STATUS, 1, 2);
        self.put(at, &last.to_le_bytes());
        fence(Ordering::Release);
        self.put(first, &flags.to_le_bytes());
        (first, lap)
    }

    pub fn notify(&mut self) {
        let queue = u64::from(self.ring.queue);
        self.set(NOTIFY + queue * NOTIFY_STEP, 2, queue);
    }

    /// Whether that request is done.
    pub fn is_done(&self, (at, lap): (u64, bool)) -> bool {
        let flags = self.get(at, 2);
        let flags = u16::from_le_bytes([flags[0], flags[1]]);
        let wanted = if lap { 0x8080 } else { 0 };
        flags & 0x8080 == wanted
    }

    /// Waits for the interrupt that tells that it is.
    pub fn wait(&self, request: (u64, bool)) {
        let vector = DONE + usize::from(self.ring.queue);
        // There may have been one that told of something else.
        while !self.is_done(request) {
            assert!(signalled(&self.events[vector], SOON), "no interrupt");
        }
    }

    /// Has a request done, and returns its status.
    pub fn request(&mut self, kind: u32, sector: u64, len: u32) -> u8 {
        let request = self.add(kind, sector, len);
        self.notify();
        self.wait(request);
        self.get(STATUS, 1)[0]
    }

    pub fn write(&mut self, sector: u64, bytes: &[u8]) {
        self.put(DATA, bytes);
        assert_eq!(self.request(OUT, sector, bytes.len() as u32), 0, "written");
    }

    pub fn read(&mut self, sector: u64, len: usize) -> Vec<u8> {
        self.put(DATA, &vec![0xa5; len]);
        assert_eq!(self.request(IN, sector, len as u32), 0, "read");
        self.get(DATA, len)
    }

    /// Reads the first sector to an address, which may be nowhere, and returns the status.
    pub fn read_to(&mut self, address: u64) -> u8 {
        self.put(HEADER, &[0; 16]);
        let lap = self.ring.wrap;
        let (first, flags) = self.describe(BASE + HEADER, 16, 1);
        let (at, data) = self.describe(address, 512, 1 | 2);
        self.put(at, &data.to_le_bytes());
        let (at, last) = self.describe(BASE + STATUS, 1, 2);
        self.put(at, &last.to_le_bytes());
        // The device sees the rest once it sees the first.
        self.put(first, &flags.to_le_bytes());
        self.notify();
        self.wait((first, lap));
        self.get(STATUS, 1)[0]
    }

    /// The pages of the memory that the device wrote since that was asked last, if there is a log.
    pub fn pages_written(&mut self) -> Vec<u64> {
        let asked = longs(&[BASE, SIZE, 4096]);
        let reply = self.client.feature(GET | 8, &asked).expect("a report");
        let bits = reply[24..].iter().enumerate();
        let bits = bits.flat_map(|(byte, bits)| {
            (0..8)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| byte as u64 * 8 + bit)
        });
        bits.collect()
    }
}

/// Bytes that tell where and when they were written.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}
