// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::registers as reg;
use super::*;

mod messages;

use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x5678,
    revision: 9,
    class: 0x0a_0b0c,
    subsystem_vendor: 0x4321,
    subsystem: 0x8765,
};

fn at(offset: u64, len: usize) -> Access {
    Access::new(offset, len).expect("an access that a bus makes")
}

fn read(space: &ConfigSpace, offset: u8, len: usize) -> u32 {
    space.read(at(offset.into(), len), false)
}

fn write(space: &mut ConfigSpace, offset: u8, len: usize, value: u32) {
    space.write(at(offset.into(), len), value);
}

/// The capabilities as a guest finds them: identifier and offset.
fn capabilities(space: &ConfigSpace) -> Vec<(u8, u8)> {
    let mut found = vec![];
    if read(space, reg::STATUS, 2) & u32::from(reg::status::CAPABILITIES) == 0 {
        return found;
    }
    let mut next = read(space, reg::CAPABILITIES_POINTER, 1) as u8;
    while next != 0 {
        assert!(next >= 0x40 && next % 4 == 0, "{next:#x}");
        found.push((read(space, next, 1) as u8, next));
        next = read(space, next + 1, 1) as u8;
        assert!(found.len() < 48, "the list has no end");
    }
    found
}

#[test]
fn only_aligned_bytes_words_and_dwords_are_accesses() {
    for offset in 0..16 {
        for len in 0..10usize {
            let natural = matches!(len, 1 | 2 | 4) && offset % (len as u64) == 0;
            assert_eq!(
                Access::new(offset, len).is_some(),
                natural,
                "{offset} {len}"
            );
        }
    }
    assert!(Access::new(0xffff_fffc, 4).is_some());
    assert!(Access::new(0x1_0000_0000, 4).is_none());
}

#[test]
fn identity_is_where_the_specification_has_it_and_cannot_be_written() {
    let mut space = Builder::new(IDENTITY).build();
    for offset in (0..=252).step_by(4) {
        write(&mut space, offset, 4, u32::MAX);
    }
    assert_eq!(read(&space, 0x00, 4), 0x5678_1234);
    assert_eq!(read(&space, 0x08, 4), 0x0a0b_0c09);
    assert_eq!(read(&space, 0x2c, 4), 0x8765_4321);
    // No BAR: neither space can be switched on. No pin: it cannot be switched off.
    assert_eq!(read(&space, 0x04, 4), 0x0000_0104);
    assert_eq!(read(&space, 0x3c, 4), 0x0000_00ff);
    let others = (0..=252)
        .step_by(4)
        .filter(|o| ![0, 4, 8, 0x2c, 0x3c].contains(o));
    for offset in others {
        assert_eq!(read(&space, offset, 4), 0, "{offset:#x}");
    }
}

#[test]
fn a_bar_says_its_kind_and_size() {
    let mut builder = Builder::new(IDENTITY);
    builder.bar(0, Bar::Io { size: 32 }).unwrap();
    builder.bar(1, Bar::memory32(4096)).unwrap();
    builder.bar(4, Bar::prefetchable64(1 << 33)).unwrap();
    let mut space = builder.build();
    let bars = |space: &ConfigSpace| {
        (0..6)
            .map(|i| read(space, 0x10 + i * 4, 4))
            .collect::<Vec<_>>()
    };
    assert_eq!(bars(&space), [1, 0, 0, 0, 0xc, 0]);
    for bar in 0..6 {
        write(&mut space, 0x10 + bar * 4, 4, u32::MAX);
    }
    assert_eq!(
        bars(&space),
        [0xffff_ffe1, 0xffff_f000, 0, 0, 0x0000_000c, 0xffff_fffe]
    );
    write(&mut space, 0x14, 4, 0x8123_4fff);
    write(&mut space, 0x24, 4, 0x0000_0013);
    assert_eq!(space.bar_address(1), Some(0x8123_4000));
    assert_eq!(space.bar_address(4), Some(0x12_0000_0000));
    assert_eq!(space.bar_address(5), None);
    write(&mut space, 0x04, 2, 0xffff);
    assert_eq!(read(&space, 0x04, 2), 0x0107);
}

#[test]
fn a_bar_that_cannot_be_is_refused() {
    let mut builder = Builder::new(IDENTITY);
    assert_eq!(
        builder.bar(6, Bar::memory32(16)),
        Err(BuildError::NoSuchBar(6))
    );
    assert_eq!(
        builder.bar(5, Bar::prefetchable64(16)),
        Err(BuildError::NoSuchBar(5))
    );
    assert_eq!(
        builder.bar(0, Bar::memory32(8)),
        Err(BuildError::BarSize(0))
    );
    assert_eq!(
        builder.bar(0, Bar::memory32(0)),
        Err(BuildError::BarSize(0))
    );
    assert_eq!(
        builder.bar(0, Bar::Io { size: 24 }),
        Err(BuildError::BarSize(0))
    );
    builder.bar(1, Bar::prefetchable64(16)).unwrap();
    for index in [1, 2] {
        let taken = builder.bar(index, Bar::memory32(16));
        assert_eq!(taken, Err(BuildError::BarTaken(index)));
    }
    assert_eq!(
        builder.bar(0, Bar::prefetchable64(16)),
        Err(BuildError::BarTaken(0))
    );
    assert_eq!(builder.bar(0, Bar::memory32(16)), Ok(()));
}

#[test]
fn capabilities_form_a_list_in_the_order_they_were_added() {
    let mut builder = Builder::new(IDENTITY);
    assert_eq!(capabilities(&builder.clone().build()), []);
    assert_eq!(builder.capability(9, &[1, 2, 3], &[]), Ok(0x40));
    assert_eq!(builder.capability(0x77, &[0xff; 4], &[0, 0xf0]), Ok(0x48));
    let msi = Msi::add_to(&mut builder, 4, true, Gate::Registers).unwrap();
    let mut space = builder.build();
    assert_eq!(capabilities(&space), [(9, 0x40), (0x77, 0x48), (5, 0x50)]);
    assert_eq!(msi.control_offset(), 0x52);
    assert_eq!(read(&space, 0x40, 4), 0x0201_4809);
    write(&mut space, 0x48, 4, 0);
    write(&mut space, 0x4c, 4, 0);
    assert_eq!(read(&space, 0x48, 4), 0x0fff_5077);
    write(&mut space, 0x4a, 2, 0xaaaa);
    assert_eq!(read(&space, 0x4a, 2), 0xafff);
    space.reset();
    assert_eq!(read(&space, 0x4a, 2), 0x0fff);
}

#[test]
fn a_capability_that_does_not_fit_is_refused_and_changes_nothing() {
    let mut builder = Builder::new(IDENTITY);
    assert_eq!(builder.capability(9, &[0; 190], &[]), Ok(0x40));
    let before = builder.clone().build();
    assert_eq!(builder.capability(9, &[], &[]), Err(BuildError::Full));
    assert_eq!(builder.build(), before);
    let mut builder = Builder::new(IDENTITY);
    assert_eq!(builder.capability(9, &[0; 191], &[]), Err(BuildError::Full));
    assert_eq!(
        builder.capability(9, &[0; 2], &[0; 3]),
        Err(BuildError::Mask)
    );
    assert_eq!(capabilities(&builder.build()), []);
}

#[test]
fn the_status_register_shows_an_interrupt_that_the_command_register_holds_back() {
    let mut builder = Builder::new(IDENTITY);
    builder.interrupt_pin().unwrap();
    let mut space = builder.build();
    write(&mut space, 0x04, 2, u32::from(reg::command::INTX_DISABLE));
    assert!(!space.intx_enabled());
    for (offset, len, seen) in [
        (4, 4, 0x0008_0400),
        (6, 2, 8),
        (6, 1, 8),
        (7, 1, 0),
        (4, 2, 0x400),
        (8, 4, 0x0a0b_0c09),
    ] {
        assert_eq!(space.read(at(offset, len), true), seen, "{offset} {len}");
    }
}

#[test]
fn another_layout_is_not_restored() {
    let mut builder = Builder::new(IDENTITY);
    builder.bar(1, Bar::memory32(4096)).unwrap();
    let mut space = builder.clone().build();
    write(&mut space, 0x14, 4, 0xfeed_0000);
    let mut other = builder.clone().build();
    assert_eq!(other.restore(space.stored()), Ok(()));
    assert_eq!(other, space);
    builder.capability(9, &[0; 6], &[]).unwrap();
    let mut longer = builder.build();
    let before = longer.clone();
    assert_eq!(longer.restore(space.stored()), Err(reg::STATUS));
    assert_eq!(longer, before);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_cannot_be_written_stays_and_a_narrow_access_is_a_part_of_a_wide_one(
        writes in prop::collection::vec((0u64..300, prop::sample::select(&[1usize, 2, 4][..]), any::<u32>()), 0..60),
    ) {
        let mut builder = Builder::new(IDENTITY);
        builder.interrupt_pin().unwrap();
        builder.bar(0, Bar::Io { size: 64 }).unwrap();
        builder.bar(2, Bar::prefetchable64(1 << 20)).unwrap();
        Msi::add_to(&mut builder, 8, true, Gate::Registers).unwrap();
        let fresh = builder.build();
        let mut space = fresh.clone();
        // The bits that a write of ones after zeroes shows to be writable.
        let mut ones = fresh.clone();
        for offset in (0..=252).step_by(4) {
            write(&mut ones, offset, 4, u32::MAX);
        }
        let mut model = *fresh.stored();
        for (offset, len, value) in writes {
            let Some(access) = Access::new(offset, len) else { continue };
            space.write(access, value);
            for (i, byte) in value.to_le_bytes().into_iter().take(len).enumerate() {
                let i = offset as usize + i;
                if let Some(place) = model.get_mut(i) {
                    let mask = ones.stored()[i] ^ fresh.stored()[i];
                    *place = (*place & !mask) | (byte & mask);
                }
            }
        }
        prop_assert_eq!(space.stored(), &model);
        for offset in 0..256u64 {
            prop_assert_eq!(space.read(at(offset, 1), false), u32::from(model[offset as usize]));
        }
        space.reset();
        prop_assert_eq!(space, fresh);
    }
}
