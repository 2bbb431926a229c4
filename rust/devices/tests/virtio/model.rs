// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A driver does whatever it likes; a plain array of bytes says what has to be read.

use crate::machine::Machine;
use crate::migration::{migrate, nothing, send};
use crate::requests::{DISCARD, IN, OK, OUT, WRITE_ZEROES};
use devices::blk::{Config, SECTOR_BYTES};
use proptest::prelude::*;

const SECTOR: usize = SECTOR_BYTES as usize;
const SECTORS: u64 = 2048;

#[derive(Clone, Debug)]
enum Step {
    Write {
        queue: usize,
        sector: u64,
        sectors: u64,
        seed: u8,
        cuts: Vec<u32>,
        indirect: bool,
    },
    Read {
        queue: usize,
        sector: u64,
        sectors: u64,
        cuts: Vec<u32>,
        indirect: bool,
    },
    Zero {
        sector: u64,
        sectors: u64,
        discard: bool,
        unmap: bool,
    },
    Reset,
    /// Some blocks are sent, then the rest at stop.
    Migrate {
        sections: usize,
    },
    /// Blocks are sent while the guest goes on.
    Send {
        sections: usize,
    },
}

fn any_place() -> impl Strategy<Value = (u64, u64)> {
    (0..SECTORS, 1u64..80).prop_map(|(sector, n)| (sector, n.min(SECTORS - sector)))
}

fn any_step() -> impl Strategy<Value = Step> {
    let cuts = || prop::collection::vec(1u32..3000, 0..5);
    prop_oneof![
        8 => (0usize..3, any_place(), any::<u8>(), cuts(), any::<bool>()).prop_map(
            |(queue, (sector, sectors), seed, cuts, indirect)| Step::Write { queue, sector, sectors, seed, cuts, indirect }
        ),
        8 => (0usize..3, any_place(), cuts(), any::<bool>()).prop_map(
            |(queue, (sector, sectors), cuts, indirect)| Step::Read { queue, sector, sectors, cuts, indirect }
        ),
        3 => ((0..SECTORS, 1u64..400), any::<bool>(), any::<bool>()).prop_map(
            |((sector, n), discard, unmap)| Step::Zero { sector, sectors: n.min(SECTORS - sector), discard, unmap }
        ),
        1 => Just(Step::Reset),
        2 => (0usize..6).prop_map(|sections| Step::Migrate { sections }),
        2 => (0usize..6).prop_map(|sections| Step::Send { sections }),
    ]
}

/// Cuts `len` bytes at `at` into buffers; the last one takes what is left.
fn cut(at: u64, len: u32, cuts: &[u32], writable: bool) -> Vec<(u64, u32, bool)> {
    let (mut at, mut left) = (at, len);
    let mut buffers = Vec::new();
    for &cut in cuts.iter().filter(|cut| **cut > 0) {
        if cut < left {
            buffers.push((at, cut, writable));
            at += u64::from(cut);
            left -= cut;
        }
    }
    buffers.push((at, left, writable));
    buffers
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_reads_as_it_was_written_wherever_it_is(
        size in prop::sample::select(&[16u64, 64, 256][..]),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut config = Config::new(1);
        config.queues = 3.try_into().unwrap();
        config.queue_size = size.try_into().unwrap();
        config.write_zeroes = true;
        let mut machine = Machine::on(&config);
        let mut model = vec![0u8; SECTORS as usize * SECTOR];
        // What the destination has already.
        let mut sent = nothing(&config);
        for step in steps {
            match step {
                Step::Write { queue, sector, sectors, seed, cuts, indirect } => {
                    let len = sectors as usize * SECTOR;
                    let bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(7) ^ seed).collect();
                    let data = machine.data();
                    machine.memory.put(data, &bytes);
                    let buffers = cut(data, len as u32, &cuts, false);
                    let answer = machine.request_on(queue, OUT, sector, &buffers, indirect);
                    prop_assert_eq!(answer, (1, OK));
                    model[sector as usize * SECTOR..][..len].copy_from_slice(&bytes);
                }
                Step::Read { queue, sector, sectors, cuts, indirect } => {
                    let len = sectors as usize * SECTOR;
                    let data = machine.data();
                    machine.memory.put(data, &vec![0xa5; len]);
                    let buffers = cut(data, len as u32, &cuts, true);
                    let answer = machine.request_on(queue, IN, sector, &buffers, indirect);
                    prop_assert_eq!(answer, (len as u32 + 1, OK));
                    prop_assert_eq!(machine.memory.get(data, len), &model[sector as usize * SECTOR..][..len]);
                }
                Step::Zero { sector, sectors, discard, unmap } => {
                    let data = machine.data();
                    let flags = u32::from(unmap && !discard);
                    machine.memory.put(data, &sector.to_le_bytes());
                    machine.memory.put(data + 8, &(sectors as u32).to_le_bytes());
                    machine.memory.put(data + 12, &flags.to_le_bytes());
                    let kind = if discard { DISCARD } else { WRITE_ZEROES };
                    let answer = machine.request_on(0, kind, 0, &[(data, 16, false)], false);
                    prop_assert_eq!(answer, (1, OK));
                    model[sector as usize * SECTOR..][..sectors as usize * SECTOR].fill(0);
                }
                Step::Reset => {
                    machine.set_status(0);
                    machine.start(u64::MAX);
                }
                Step::Send { sections } => {
                    if !machine.disk.is_sending() {
                        machine.disk.start_sending();
                        sent = nothing(&config);
                    }
                    send(&mut machine.disk, &mut sent, sections);
                }
                Step::Migrate { sections } => {
                    if machine.disk.is_sending() {
                        send(&mut machine.disk, &mut sent, sections);
                    }
                    let already = core::mem::replace(&mut sent, nothing(&config));
                    machine = migrate(machine, already);
                }
            }
            prop_assert_eq!(machine.error, None);
        }
    }
}
