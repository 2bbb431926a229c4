// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Rings full of anything: the kernel stays whole, the call ends, and a reset recovers.

use anyhow::Result;

use super::disk::*;
use super::ring::BASE;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::check::equal;

pub(super) fn add(suite: &mut Suite) {
    tests!(suite, a_reset_recovers_from_a_thousand_hostile_rings);
}

const RINGS: u64 = 1000;

/// A generator of numbers (xorshift64*), the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    fn one_of<const N: usize>(&mut self, values: [u64; N]) -> u64 {
        values[self.below(N as u64) as usize]
    }

    /// A descriptor of which a part makes sense; tables and headers are at `heap`.
    fn descriptor(&mut self, heap: u64) -> [u8; 16] {
        let place = heap + self.below(0x100) * 16;
        let anything = self.next();
        let address = self.one_of([
            place,
            place,
            place,
            place + 1,
            BASE - 1,
            0,
            u64::MAX - 7,
            anything,
        ]);
        let length = self.one_of([16, 16, 1, 512, 32, 4096, 0, 0xffff_ffff, 17, 65536]);
        let flags = self.below(8) | self.one_of([0x80, 0x80, 0x80, 0x8000, 0x8080, 0]);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&(self.next() as u16).to_le_bytes());
        bytes[14..].copy_from_slice(&(flags as u16).to_le_bytes());
        bytes
    }
}

fn a_reset_recovers_from_a_thousand_hostile_rings() -> Result<()> {
    let parameters = [
        ("capacity-mib", "1"),
        ("queue-size", "16"),
        ("write-zeroes", "on"),
    ];
    let instance = instance(&parameters)?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut broken, mut served) = (0, 0);
    for ring in 0..RINGS {
        let queue = disk.queue();
        let (at, heap) = (queue.ring.descriptors, queue.data());
        let mut bytes = Vec::new();
        for _ in 0..16 {
            bytes.extend(numbers.descriptor(BASE + heap as u64));
        }
        queue.memory.put(at, &bytes);
        bytes.clear();
        for index in 0..0x100 {
            let mut sixteen = numbers.descriptor(BASE + heap as u64);
            if index % 4 == 0 {
                let kind = numbers.one_of([0, 1, 4, 8, 11, 13, 5]);
                sixteen[..8].copy_from_slice(&kind.to_le_bytes());
                let sector = numbers.one_of([0, 1, 2047, 2048, u64::MAX]);
                sixteen[8..].copy_from_slice(&sector.to_le_bytes());
            }
            bytes.extend(sixteen);
        }
        queue.memory.put(heap, &bytes);
        // Some begin with a request that is good.
        if ring % 2 == 0 {
            queue.add(0, IN, 0, &[(heap, 512, true)], ring % 4 == 0);
        }
        queue.notify()?;
        match status(&disk.device)? {
            READY => served += 1,
            found => {
                equal(
                    format!("the status after ring {ring}"),
                    found,
                    READY | NEEDS_RESET,
                )?;
                broken += 1;
            }
        }
        disk.start()?;
        if ring % 20 == 0 {
            let answer = disk.queue().request(FLUSH, 0, &[], true)?;
            equal(format!("the answer after ring {ring}"), answer, (1, OK))?;
        }
    }
    crate::diag!("{broken} rings were broken, {served} were served or empty");
    // Both kinds are among them.
    equal(
        "whether there are both",
        broken > RINGS / 4 && served > RINGS / 50,
        true,
    )?;
    drop(disk);
    instance.remove()
}
