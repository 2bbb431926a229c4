// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the fuzz targets for device models share: a guest's memory, and a disk that a driver has set up.

use devices::blk::{words_for, Blocks, Config, Device, Disk, Heap};
use devices::virtio::{Barrier, Fault, GuestMemory, COMMON_BAR, NOTIFY_OFFSET};

/// Where memory starts.
pub const BASE: u64 = 0x1000;

/// Size of the queue: its descriptors are at [`BASE`], and behind them the two event suppression structures.
pub const QUEUE_SIZE: u16 = 16;

/// Memory from [`BASE`] on; what is elsewhere faults.
#[derive(Clone, Debug)]
pub struct Memory(pub Vec<u8>);

impl Memory {
    fn range(&self, address: u64, len: usize) -> Result<std::ops::Range<usize>, Fault> {
        assert!(
            address.checked_add(len as u64 - 1).is_some(),
            "{address:#x}"
        );
        let start = address.checked_sub(BASE).ok_or(Fault)?;
        let start = usize::try_from(start).map_err(|_| Fault)?;
        match start.checked_add(len) {
            Some(end) if end <= self.0.len() => Ok(start..end),
            _ => Err(Fault),
        }
    }
}

impl GuestMemory for Memory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        let range = self.range(address, into.len())?;
        into.copy_from_slice(&self.0[range]);
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        let range = self.range(address, from.len())?;
        self.0[range].copy_from_slice(from);
        Ok(())
    }

    fn barrier(&mut self, _: Barrier) {}
}

/// The kind of disk that is fuzzed: 1 MiB, two queues, everything that can be offered.
pub fn config() -> Config {
    let mut config = Config::new(1);
    config.queues = 2.try_into().expect("a number of queues");
    config.queue_size = u64::from(QUEUE_SIZE).try_into().expect("a queue size");
    config.write_zeroes = true;
    config
}

/// A disk of this kind with nothing on it.
pub fn disk(config: &Config) -> Disk<Blocks<Heap>, Vec<u64>> {
    let bits = vec![0; words_for(config.capacity.blocks())];
    let disk = Disk::new(Blocks::of(config), bits.clone(), bits);
    disk.expect("a bit a block")
}

/// How a driver reaches a disk's registers.
pub trait Registers {
    /// Writes configuration space.
    fn write_config(&mut self, offset: u64, bytes: &[u8]);
    /// Writes the common BAR.
    fn write(&mut self, offset: u64, bytes: &[u8]);
    /// Reads it.
    fn read(&mut self, offset: u64, bytes: &mut [u8]);
}

impl Registers for Device {
    fn write_config(&mut self, offset: u64, bytes: &[u8]) {
        self.function_mut().write_config(offset, bytes);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.function_mut().write_bar(COMMON_BAR, offset, bytes);
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) {
        self.function_mut().read_bar(COMMON_BAR, offset, bytes);
    }
}

/// What a driver does at start; the first queue is at [`BASE`]. The device runs.
pub fn start(device: &mut Device) {
    device.function_mut().set_running(true);
    set_up(device, &[BASE]);
}

/// The same for queues at these addresses, each with the vector that is its own. Their sizes.
pub fn set_up(device: &mut impl Registers, queues: &[u64]) -> Vec<u16> {
    device.write_config(4, &[6, 0]);
    device.write_config(0x42, &[0, 0x80]);
    device.write(20, &[0]);
    device.write(20, &[3]);
    for select in 0u32..2 {
        device.write(0, &select.to_le_bytes());
        device.write(8, &select.to_le_bytes());
        let mut word = [0; 4];
        device.read(4, &mut word);
        device.write(12, &word);
    }
    device.write(20, &[0xb]);
    let mut sizes = Vec::new();
    for (queue, place) in (0u16..).zip(queues) {
        device.write(22, &queue.to_le_bytes());
        device.write(26, &(queue + 1).to_le_bytes());
        let mut size = [0; 2];
        device.read(24, &mut size);
        let size = u16::from_le_bytes(size);
        let driver = place + u64::from(size) * 16;
        for (offset, address) in [(32, *place), (40, driver), (48, driver + 4)] {
            device.write(offset, &address.to_le_bytes());
        }
        device.write(28, &[1, 0]);
        sizes.push(size);
    }
    device.write(20, &[0xf]);
    assert_eq!(status(device), 0xf);
    sizes
}

/// The device status register.
pub fn status(device: &mut impl Registers) -> u8 {
    let mut status = [0];
    device.read(20, &mut status);
    status[0]
}

/// Writes the notification register of the first queue.
pub fn notify(device: &mut Device) {
    device
        .function_mut()
        .write_bar(COMMON_BAR, NOTIFY_OFFSET.into(), &[0, 0]);
}
