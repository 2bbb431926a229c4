// SPDX-License-Identifier: GPL-2.0 OR MIT

//! MSI and MSI-X.

use super::*;

/// A function with `count` vectors, bus mastering and messages on, all vectors masked.
fn with_msix(count: u16, gate: Gate) -> (ConfigSpace, Msix<32>) {
    let mut builder = Builder::new(IDENTITY);
    builder.bar(1, Bar::memory32(4096)).unwrap();
    let msix = Msix::add_to(&mut builder, count, (1, 0), (1, 0x800), gate).unwrap();
    let mut space = builder.build();
    write(&mut space, reg::COMMAND, 2, u32::from(reg::command::MASTER));
    write(
        &mut space,
        msix.control_offset(),
        2,
        u32::from(reg::msix::ENABLE),
    );
    (space, msix)
}

#[test]
fn the_msix_capability_says_where_table_and_pending_bits_are() {
    let (space, msix) = with_msix(5, Gate::Registers);
    assert_eq!(capabilities(&space), [(0x11, 0x40)]);
    assert_eq!(read(&space, 0x42, 2), 0x8004);
    assert_eq!(read(&space, 0x44, 4), 0x0000_0001);
    assert_eq!(read(&space, 0x48, 4), 0x0000_0801);
    assert_eq!(msix.count(), 5);
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let mut builder = Builder::new(IDENTITY);
    builder.bar(1, Bar::memory32(256)).unwrap();
    let add = |count, table, pba| {
        let mut builder = builder.clone();
        Msix::<32>::add_to(&mut builder, count, table, pba, Gate::Routes).map(|_| ())
    };
    assert_eq!(add(0, (1, 0), (1, 128)), Err(BuildError::Vectors(0)));
    assert_eq!(add(33, (1, 0), (1, 128)), Err(BuildError::Vectors(33)));
    assert_eq!(add(9, (1, 0), (1, 128)), Err(BuildError::Overlap));
    assert_eq!(add(1, (1, 4), (1, 128)), Err(BuildError::Overlap));
    assert_eq!(add(16, (1, 8), (1, 0)), Err(BuildError::OutsideBar(1)));
    assert_eq!(add(8, (1, 0), (1, 252)), Err(BuildError::OutsideBar(1)));
    assert_eq!(add(8, (0, 0), (1, 128)), Err(BuildError::NoSuchBar(0)));
    assert_eq!(add(8, (1, 0), (1, 128)), Ok(()));
}

#[test]
fn the_table_takes_whole_dwords_and_keeps_addresses_aligned() {
    let (space, mut msix) = with_msix(2, Gate::Registers);
    msix.write_table(at(16, 4), 0xfee0_1003, &space);
    msix.write_table(at(20, 4), 0x0000_0001, &space);
    msix.write_table(at(24, 4), 0x0000_4021, &space);
    msix.write_table(at(24, 2), 0xffff, &space);
    msix.write_table(at(28, 1), 0, &space);
    msix.write_table(at(32, 4), 0, &space);
    let entry = MsixEntry {
        address: 0x1_fee0_1000,
        data: 0x4021,
        masked: true,
    };
    assert_eq!(msix.entry(1), Some(&entry));
    assert_eq!(msix.entry(2), None);
    let seen: Vec<_> = (0..9).map(|i| msix.read_table(at(i * 4, 4))).collect();
    assert_eq!(seen, [0, 0, 0, 1, 0xfee0_1000, 1, 0x4021, 1, 0]);
    assert_eq!(msix.read_table(at(25, 1)), 0x40);
}

#[test]
fn a_message_without_eventfd_is_sent_when_there_is_one() {
    let (space, mut msix) = with_msix(4, Gate::Routes);
    msix.fire(2, &space);
    msix.fire(2, &space);
    msix.fire(4, &space);
    assert_eq!(msix.take_due(), 0);
    assert_eq!(msix.read_pending(at(0, 4)), 1 << 2);
    msix.set_route(1, true, &space);
    assert_eq!(msix.take_due(), 0);
    msix.set_route(2, true, &space);
    assert_eq!(msix.take_due(), 1 << 2);
    assert_eq!(msix.take_due(), 0);
    assert_eq!(msix.read_pending(at(0, 4)), 0);
    // The table, which nobody has written, masks everything: that is not asked.
    msix.fire(1, &space);
    assert_eq!(msix.take_due(), 1 << 1);
    msix.set_route(1, false, &space);
    msix.fire(1, &space);
    assert_eq!((msix.take_due(), msix.read_pending(at(0, 1))), (0, 2));
}

#[test]
fn the_function_mask_and_the_bus_master_bit_hold_messages_back() {
    let (mut space, mut msix) = with_msix(4, Gate::Registers);
    let control = msix.control_offset();
    msix.write_table(at(12, 4), 0, &space);
    write(&mut space, control, 2, 0xc000);
    msix.update(&space);
    msix.fire(0, &space);
    assert_eq!((msix.take_due(), msix.read_pending(at(0, 1))), (0, 1));
    write(&mut space, reg::COMMAND, 2, 0);
    write(&mut space, control, 2, 0x8000);
    msix.update(&space);
    assert_eq!((msix.take_due(), msix.read_pending(at(0, 1))), (0, 1));
    write(&mut space, reg::COMMAND, 2, 4);
    msix.update(&space);
    assert_eq!((msix.take_due(), msix.read_pending(at(0, 1))), (1, 0));
}

#[test]
fn messages_that_are_not_enabled_are_not_kept() {
    let (mut space, mut msix) = with_msix(4, Gate::Registers);
    msix.fire(1, &space);
    write(&mut space, msix.control_offset(), 2, 0);
    msix.update(&space);
    msix.fire(0, &space);
    assert_eq!(msix.read_pending(at(0, 1)), 0);
}

#[test]
fn a_saved_table_is_checked() {
    let (space, mut msix) = with_msix(3, Gate::Routes);
    msix.write_table(at(0, 4), 0x1000, &space);
    msix.set_route(1, true, &space);
    msix.fire(1, &space);
    msix.fire(2, &space);
    let state = msix.state();
    // What was due is not lost: nobody has sent it.
    assert_eq!(state.pending, 0b110);
    let (_, mut other) = with_msix(3, Gate::Routes);
    other.restore(&state).unwrap();
    assert_eq!(other.take_due(), 0);
    other.set_route(1, true, &space);
    assert_eq!(other.take_due(), 0b010);
    assert_eq!(other.state().entries, state.entries);

    let before = other.clone();
    let mut bad = |change: fn(&mut MsixState<32>)| {
        let mut state = state;
        change(&mut state);
        let refused = other.restore(&state);
        assert_eq!(other, before);
        refused
    };
    assert_eq!(bad(|s| s.pending = 8), Err(MsixStateError::Pending));
    assert_eq!(
        bad(|s| s.entries[2].address = 2),
        Err(MsixStateError::Address(2))
    );
    assert_eq!(
        bad(|s| s.entries[3].masked = false),
        Err(MsixStateError::Unused(3))
    );
}

#[test]
fn msi_puts_the_vector_into_the_data() {
    let mut builder = Builder::new(IDENTITY);
    let mut msi = Msi::add_to(&mut builder, 4, true, Gate::Registers).unwrap();
    let mut space = builder.build();
    write(&mut space, reg::COMMAND, 2, 4);
    write(&mut space, 0x44, 4, 0xfee0_0003);
    write(&mut space, 0x48, 4, 1);
    write(&mut space, 0x4c, 4, 0xffff_00ff);
    write(&mut space, 0x50, 4, u32::MAX);
    assert_eq!(read(&space, 0x42, 2), 0x0184);
    assert_eq!(read(&space, 0x50, 4), 0xf);
    msi.fire(0, &space);
    assert_eq!(msi.pending(), 0, "not enabled");
    // Four vectors asked for, and eight: as many as there are.
    for control in [0x0021, 0x0031] {
        write(&mut space, 0x42, 2, control);
        assert_eq!(msi.vectors_enabled(&space), 4);
    }
    assert_eq!(msi.address(&space), 0x1_fee0_0000);
    assert_eq!((msi.data(0, &space), msi.data(2, &space)), (0xfc, 0xfe));
    msi.fire(3, &space);
    assert_eq!((msi.take_due(), msi.pending()), (0, 8));
    write(&mut space, 0x50, 4, 0x7);
    msi.update(&space);
    assert_eq!((msi.take_due(), msi.pending()), (8, 0));
    // One vector in use: it stands for all.
    write(&mut space, 0x42, 2, 0x0001);
    write(&mut space, 0x50, 4, 0);
    msi.update(&space);
    msi.fire(3, &space);
    assert_eq!((msi.take_due(), msi.data(3, &space)), (1, 0xff));
    assert_eq!(
        Msi::add_to(&mut Builder::new(IDENTITY), 3, false, Gate::Routes),
        Err(BuildError::Vectors(3))
    );
    assert_eq!(
        Msi::add_to(&mut Builder::new(IDENTITY), 64, false, Gate::Routes),
        Err(BuildError::Vectors(64))
    );
}

/// What can be done to MSI-X from outside.
#[derive(Clone, Debug)]
enum Step {
    Control(u16),
    Master(bool),
    Mask(u16, bool),
    Route(u16, bool),
    Fire(u16),
    Take,
    SaveAndLoad,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop::sample::select(&[0x8000, 0xc000, 0x8000, 0x0000][..]).prop_map(Step::Control),
        1 => any::<bool>().prop_map(Step::Master),
        4 => (0u16..6, any::<bool>()).prop_map(|(v, m)| Step::Mask(v, m)),
        4 => (0u16..6, any::<bool>()).prop_map(|(v, m)| Step::Route(v, m)),
        8 => (0u16..6).prop_map(Step::Fire),
        2 => Just(Step::Take),
        1 => Just(Step::SaveAndLoad),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Kept by the test itself: for each vector, whether an interrupt happened that was not told. It is
    /// told at the first moment at which everything on its way is open, and not before.
    #[test]
    fn no_message_is_lost_invented_or_early(
        by_routes in any::<bool>(),
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        const COUNT: u16 = 5;
        let gate = if by_routes { Gate::Routes } else { Gate::Registers };
        let (mut space, mut msix) = with_msix(COUNT, gate);
        let (mut control, mut master) = (0x8000u16, true);
        let (mut masked, mut routed) = ([true; 5], [false; 5]);
        let (mut happened, mut went) = ([false; 5], [false; 5]);
        for step in steps {
            match step {
                Step::Control(value) => {
                    control = value;
                    write(&mut space, msix.control_offset(), 2, value.into());
                    msix.update(&space);
                }
                Step::Master(on) => {
                    master = on;
                    write(&mut space, reg::COMMAND, 2, if on { 4 } else { 0 });
                    msix.update(&space);
                }
                Step::Mask(vector, mask) => {
                    if vector < COUNT {
                        masked[usize::from(vector)] = mask;
                    }
                    msix.write_table(at(u64::from(vector) * 16 + 12, 4), mask.into(), &space);
                }
                Step::Route(vector, there) => {
                    if vector < COUNT {
                        routed[usize::from(vector)] = there;
                    }
                    msix.set_route(vector, there, &space);
                }
                Step::Fire(vector) => {
                    if vector < COUNT {
                        happened[usize::from(vector)] = true;
                    }
                    msix.fire(vector, &space);
                }
                Step::Take => {
                    let due = msix.take_due();
                    let expected = (0..5).fold(0, |set, v| set | (u64::from(went[v]) << v));
                    prop_assert_eq!(due, expected);
                    went = [false; 5];
                }
                Step::SaveAndLoad => {
                    let mut other = with_msix(COUNT, gate).1;
                    other.restore(&msix.state()).expect("what was saved loads");
                    for vector in 0..COUNT {
                        other.set_route(vector, routed[usize::from(vector)], &space);
                    }
                    other.update(&space);
                    for v in 0..5 {
                        happened[v] |= core::mem::take(&mut went[v]);
                    }
                    msix = other;
                }
            }
            if !by_routes && control & 0x8000 == 0 {
                happened = [false; 5];
            }
            for v in 0..5 {
                let open = master && match by_routes {
                    true => routed[v],
                    false => control == 0x8000 && !masked[v],
                };
                if open && happened[v] {
                    happened[v] = false;
                    went[v] = true;
                }
            }
            // What is due and what is disabled at once: the registers' owner gave it up.
            if !by_routes && control & 0x8000 == 0 {
                went = [false; 5];
            }
            let shown = (0..5).fold(0, |set, v| set | (u32::from(happened[v]) << v));
            prop_assert_eq!(msix.read_pending(at(0, 4)), shown);
        }
    }
}
