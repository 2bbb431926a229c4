// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Devices that move: registers, medium, and what is refused.

use crate::machine::*;
use crate::memory::{Blocks, Limited, Memory};
use crate::requests::{FLUSH, OK, OUT};
use devices::blk::{
    words_for, Config, Device, Disk, Incoming, LoadError, Medium, SaveError, SectionId,
    BLOCK_BYTES, BLOCK_SECTION_BYTES, MAX_SECTION_BYTES,
};
use proptest::prelude::*;

type Sections = Vec<(u16, Vec<u8>)>;

pub fn save(device: &Device) -> Sections {
    let mut sections = Vec::new();
    device
        .save::<()>(&mut |id, payload| {
            sections.push((id.get(), payload.to_vec()));
            Ok(())
        })
        .expect("the device is quiet");
    sections
}

/// Nothing of a device of this kind.
pub fn nothing(config: &Config) -> Incoming<Blocks> {
    Incoming::new(config, Blocks::of(config))
}

/// Sends up to so many sections of the medium.
pub fn send(
    disk: &mut Disk<Blocks, Vec<u64>>,
    incoming: &mut Incoming<Blocks>,
    most: usize,
) -> usize {
    let mut payload = Box::new([0; BLOCK_SECTION_BYTES]);
    let left = |disk: &Disk<_, _>| disk.left().0 + disk.left().1;
    for sent in 0..most {
        let before = left(disk);
        let Some((id, len)) = disk.next_section(&mut payload) else {
            return sent;
        };
        assert!(len <= MAX_SECTION_BYTES);
        assert!(left(disk) < before);
        let taken = incoming.section_in_pre_copy(id.get(), &payload[..len]);
        assert_eq!(taken, Ok(()));
    }
    most
}

/// Moves a machine to another host, which has got this much in pre-copy.
pub fn migrate(mut machine: Machine, mut incoming: Incoming<Blocks>) -> Machine {
    machine.device.function_mut().set_running(false);
    assert!(machine.device.function().is_quiesced());
    if !machine.disk.is_sending() {
        machine.disk.start_sending();
    }
    send(&mut machine.disk, &mut incoming, usize::MAX);
    assert_eq!(machine.disk.left(), (0, 0));

    let config = *machine.device.config();
    for (id, payload) in save(&machine.device) {
        assert_eq!(incoming.section(id, &payload), Ok(()));
    }
    let mut device = Device::new(&config).unwrap();
    for vector in 0..device.function().vector_count() {
        device.function_mut().set_route(vector, true);
    }
    let medium = incoming.apply_to(&mut device).unwrap();
    assert_eq!(save(&device), save(&machine.device));
    assert_eq!(&medium, machine.disk.medium());
    device.function_mut().set_running(true);
    let bits = vec![!0; words_for(medium.blocks())];
    machine.device = device;
    machine.disk = Disk::new(medium, bits.clone(), bits).unwrap();
    machine.collect();
    machine
}

fn config() -> Config {
    let mut config = Config::new(1);
    config.queues = 2.try_into().unwrap();
    config.queue_size = 16.try_into().unwrap();
    config
}

/// A machine that has been used: rings in the middle of a lap, blocks, a pending message.
fn used() -> Machine {
    let mut machine = Machine::on(&config());
    for sector in [0, 100, 2000] {
        for _ in 0..3 {
            let data = machine.data();
            machine.memory.put(data, &[sector as u8 | 1; 512]);
            assert_eq!(
                machine.request(OUT, sector, &[(data, 512, false)], false).1,
                OK
            );
        }
    }
    machine.device.function_mut().set_route(1, false);
    assert_eq!(machine.request(FLUSH, 0, &[], true).1, OK);
    machine
}

#[test]
fn a_device_goes_on_where_it_was() {
    let machine = used();
    let sent = machine.sent.clone();
    let mut machine = migrate(machine, nothing(&config()));
    assert_eq!(machine.status(), 0xf);
    // Each queue's once: the message that was kept is one of them.
    assert_eq!(machine.sent, [sent[0], sent[1] + 1, sent[2] + 1]);
    for _ in 0..40 {
        assert_eq!(machine.request(FLUSH, 0, &[], false), (1, OK));
    }
}

#[test]
fn requests_that_were_not_taken_are_found_in_guest_memory() {
    let mut machine = Machine::on(&config());
    machine.device.function_mut().set_running(false);
    let heap = machine.heap;
    machine.memory.put(heap, &FLUSH.to_le_bytes());
    let id = machine.submit(1, &[(heap, 16, false), (heap + 16, 1, true)], None);
    let mut machine = migrate(machine, nothing(&config()));
    machine.serve();
    assert_eq!(machine.queues[1].reap(&machine.memory), Some((id, 1)));
}

#[test]
fn loading_looks_at_no_guest_memory_and_signals_nothing() {
    let machine = used();
    let sections = save(&machine.device);
    let mut incoming = nothing(&config());
    for (id, payload) in &sections {
        incoming.section(*id, payload).unwrap();
    }
    let mut device = Device::new(&config()).unwrap();
    for vector in 0..3 {
        device.function_mut().set_route(vector, true);
    }
    incoming.apply_to(&mut device).unwrap();
    assert_eq!(device.function_mut().take_messages(), 0);
    assert!(device.function_mut().begin().is_none());
    device.function_mut().set_running(true);
    assert_eq!(device.function_mut().take_messages(), 0b110);
}

#[test]
fn a_device_that_is_being_served_is_not_saved_or_replaced() {
    let mut machine = used();
    let sections = save(&machine.device);
    machine.notify(0);
    let work = machine.device.function_mut().begin().expect("a queue");
    let busy = machine.device.save::<()>(&mut |_, _| Ok(()));
    assert_eq!(busy, Err(SaveError::Busy));
    let mut incoming = nothing(&config());
    machine.disk.start_sending();
    assert_eq!(send(&mut machine.disk, &mut incoming, 100), 3);
    for (id, payload) in &sections {
        incoming.section(*id, payload).unwrap();
    }
    let before = (machine.device.clone(), incoming.clone());
    assert!(matches!(
        incoming.apply_to(&mut machine.device),
        Err(LoadError::Registers(_))
    ));
    assert_eq!((&machine.device, &incoming), (&before.0, &before.1));
    drop(work);
}

#[test]
fn sizes_are_what_they_are_said_to_be() {
    for queues in [1, 16] {
        let mut config = config();
        config.queues = queues.try_into().unwrap();
        let sections = save(&Device::new(&config).unwrap());
        let bytes: usize = sections.iter().map(|(_, payload)| payload.len()).sum();
        assert_eq!(bytes, Device::saved_bytes(&config));
        assert_eq!(sections.len(), Device::saved_sections(&config));
        for (id, payload) in &sections {
            assert_eq!(
                SectionId::of(*id).map(|id| id.len(&config)),
                Some(payload.len())
            );
        }
    }
    assert!(size_of::<Device>() <= 3400, "{}", size_of::<Device>());
    let incoming = size_of::<Incoming<Blocks>>();
    assert!(incoming <= 1200, "{incoming}");
    let longest = migration::stream::section_len(MAX_SECTION_BYTES);
    assert!(longest <= 64 * 1024, "{longest}");
}

#[test]
fn sections_that_are_missing_twice_or_of_another_kind_are_refused() {
    let sections = save(&used().device);
    for left_out in 0..sections.len() {
        let mut incoming = nothing(&config());
        for (at, (id, payload)) in sections.iter().enumerate() {
            if at != left_out {
                incoming.section(*id, payload).unwrap();
            }
        }
        let missing = LoadError::Missing(SectionId::of(sections[left_out].0).unwrap());
        assert_eq!(incoming.check(), Err(missing));
        assert_eq!(
            incoming.apply_to(&mut Device::new(&config()).unwrap()),
            Err(missing)
        );
    }
    let mut incoming = nothing(&config());
    let (id, payload) = &sections[1];
    incoming.section(*id, payload).unwrap();
    let twice = incoming.section(*id, payload);
    assert_eq!(
        twice,
        Err(LoadError::Duplicate(SectionId::of(*id).unwrap()))
    );
    assert_eq!(
        incoming.section(0x99, payload),
        Err(LoadError::NoSuchSection(0x99))
    );
    assert!(matches!(
        incoming.section(0x12, payload),
        Err(LoadError::NoSuchQueue {
            index: 2,
            queues: 2
        })
    ));
    let mut other = config();
    other.read_only = true;
    let refused = nothing(&other).section(sections[0].0, &sections[0].1);
    assert_eq!(refused, Err(LoadError::Kind));
}

#[test]
fn registers_that_were_saved_while_the_device_ran_are_refused() {
    let mut incoming = nothing(&config());
    for (id, payload) in save(&used().device) {
        let refused = incoming.section_in_pre_copy(id, &payload);
        assert_eq!(refused, Err(LoadError::Running), "{id:#x}");
        assert_eq!(incoming.section(id, &payload), Ok(()));
    }
    // Also those of a queue that there is not.
    let refused = incoming.section_in_pre_copy(0x12, &[]);
    assert_eq!(refused, Err(LoadError::Running));
    let refused = incoming.section_in_pre_copy(0x99, &[]);
    assert_eq!(refused, Err(LoadError::NoSuchSection(0x99)));
    assert_eq!(incoming.check(), Ok(()));
}

#[test]
fn blocks_that_there_are_not_are_refused() {
    let mut incoming = Incoming::new(&config(), Blocks::with(32, Limited(0)));
    let mut payload = vec![0; BLOCK_SECTION_BYTES];
    payload[0] = 32;
    let block = SectionId::BLOCK.get();
    assert!(matches!(
        incoming.section(block, &payload),
        Err(LoadError::NoSuchBlock {
            block: 32,
            count: 1,
            blocks: 32
        })
    ));
    payload[0] = 31;
    payload[4] = 1;
    assert_eq!(
        incoming.section(block, &payload),
        Err(LoadError::Unused(SectionId::BLOCK))
    );
    for (first, count) in [(0u32, 0u32), (0, 33), (32, 1), (u32::MAX, 1), (1, u32::MAX)] {
        let payload = [first.to_le_bytes(), count.to_le_bytes()].concat();
        let refused = incoming.section(SectionId::ZERO.get(), &payload);
        assert!(
            matches!(refused, Err(LoadError::NoSuchBlock { .. })),
            "{first} {count}"
        );
    }
    payload[4] = 0;
    assert_eq!(
        incoming.section(block, &payload),
        Err(LoadError::NoSpace(31))
    );
    assert_eq!(incoming.medium(), &Blocks::of(&config()));
}

#[test]
fn what_is_left_to_send_falls_and_only_writing_makes_it_rise() {
    let mut machine = used();
    // Blocks 0, 1 and 31.
    assert_eq!(machine.disk.left(), (3, 0));
    machine.disk.start_sending();
    assert_eq!(machine.disk.left(), (3, 0));
    let mut incoming = nothing(&config());
    send(&mut machine.disk, &mut incoming, 1);
    let write = |machine: &mut Machine, sector| {
        let data = machine.data();
        assert_eq!(
            machine.request(OUT, sector, &[(data, 512, false)], false).1,
            OK
        );
    };
    // Block 31 is going to be sent anyway; block 0 was, and block 7 is new.
    write(&mut machine, 2000);
    assert_eq!(machine.disk.left(), (2, 0));
    write(&mut machine, 0);
    write(&mut machine, 7 * 64);
    write(&mut machine, 7 * 64 + 1);
    assert_eq!(machine.disk.left(), (2, 2));
    assert_eq!(send(&mut machine.disk, &mut incoming, 100), 4);
    assert_eq!(machine.disk.left(), (0, 0));
    assert_eq!(incoming.medium(), machine.disk.medium());
    machine.disk.stop_sending();
    assert_eq!(machine.disk.left(), (4, 0));
    write(&mut machine, 0);
    assert_eq!(machine.disk.left(), (4, 0));
}

#[test]
fn a_row_of_blocks_that_were_freed_is_one_section() {
    let mut machine = Machine::off(&config());
    let mut blocks = Blocks::of(&config());
    for block in 0..32 {
        blocks.write(block, 0, &[1]).unwrap();
    }
    assert!(machine.disk.replace(blocks).is_ok());
    machine.disk.start_sending();
    let mut incoming = nothing(&config());
    assert_eq!(send(&mut machine.disk, &mut incoming, 100), 32);
    use devices::blk::Backend;
    let len = BLOCK_BYTES as u64;
    machine.disk.zero(3 * len, 20 * len, true).unwrap();
    machine.disk.write(10 * len, &[5]).unwrap();
    assert_eq!(send(&mut machine.disk, &mut incoming, 100), 3);
    assert_eq!(incoming.medium(), machine.disk.medium());
}

#[test]
fn a_disk_needs_a_bit_for_each_block() {
    let blocks = |count| Blocks::with(count, Limited::default());
    assert!(Disk::new(blocks(65), vec![0; 1], vec![0; 2]).is_none());
    assert!(Disk::new(blocks(65), vec![0; 2], vec![0; 1]).is_none());
    assert!(Disk::new(blocks(65), vec![0; 2], vec![0; 2]).is_some());
    let mut disk = Disk::new(blocks(65), vec![0; 2], vec![0; 3]).unwrap();
    assert_eq!(disk.replace(blocks(129)), Err(blocks(129)));
    assert_eq!(disk.replace(blocks(128)), Ok(blocks(65)));
    assert_eq!(disk.replace(blocks(1)), Ok(blocks(128)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A state that somebody changed is refused without effect, or makes a device that any driver can use.
    #[test]
    fn a_changed_state_is_refused_or_makes_a_sound_device(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let machine = used();
        let mut sections = save(&machine.device);
        for (section, byte, value) in changes {
            let (_, payload) = section.get_mut(&mut sections);
            *byte.get_mut(payload) = value;
        }
        let mut incoming = nothing(&config());
        let mut result = Ok(());
        for (id, payload) in &sections {
            result = result.and_then(|()| incoming.section(*id, payload));
        }
        let mut other = Machine::on(&config());
        let before = other.device.clone();
        match result {
            Err(_) => {
                prop_assert!(incoming.apply_to(&mut other.device).is_err());
                prop_assert_eq!(&other.device, &before);
            }
            Ok(()) => {
                // What was accepted at the last section is not refused later.
                incoming.apply_to(&mut other.device).unwrap();
                prop_assert_eq!(save(&other.device), sections);
                other.memory = Memory { accesses: 0, ..machine.memory.clone() };
                other.device.function_mut().set_running(true);
                other.serve();
                other.set_status(0);
                prop_assert_eq!(other.status(), 0);
                other.start(u64::MAX);
                prop_assert_eq!(other.request(FLUSH, 0, &[], false), (1, OK));
            }
        }
    }
}
