// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Interrupts: as a monitor sets them up, and as none does.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::pipe::pipe;

use crate::client::*;
use crate::program::Program;

const INTX: u32 = 0;
const MSI: u32 = 1;

/// Flags: what is given, and what is done.
const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

/// Lets the first port ask for an interrupt: its transmitter is empty.
fn interrupt(client: &mut Client) {
    client.write(0, 1, &[2]).expect("a write");
}

/// What the port asks for is served, and it asks for no more.
fn serve(client: &mut Client) {
    client.write(0, 1, &[0]).expect("a write");
}

#[test]
fn intx_is_told_once_until_it_is_unmasked() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let event = event();
    client
        .irqs([EVENTFD | TRIGGER, INTX, 0, 1], &[], &[event.as_fd()])
        .expect("INTx");
    interrupt(&mut client);
    assert!(signalled(&event, NOW));
    client.write(0, 7, &[1]).expect("a write");
    assert!(!signalled(&event, NOW), "it masks itself");
    client
        .irqs([NONE | UNMASK, INTX, 0, 1], &[], &[])
        .expect("unmask");
    assert!(signalled(&event, NOW), "the port still asks");
    serve(&mut client);
    client
        .irqs([NONE | UNMASK, INTX, 0, 1], &[], &[])
        .expect("unmask");
    assert!(!signalled(&event, NOW));
    client
        .irqs([BOOL | MASK, INTX, 0, 1], &[1], &[])
        .expect("mask");
    interrupt(&mut client);
    assert!(!signalled(&event, NOW), "it is masked");
    client
        .irqs([BOOL | UNMASK, INTX, 0, 1], &[0], &[])
        .expect("unmask nothing");
    assert!(!signalled(&event, NOW));
    client
        .irqs([BOOL | UNMASK, INTX, 0, 1], &[1], &[])
        .expect("unmask");
    assert!(signalled(&event, NOW));
    client
        .irqs([NONE | TRIGGER, INTX, 0, 1], &[], &[])
        .expect("by hand");
    assert!(signalled(&event, NOW));
    // No eventfd, then none of it, then a reset, which takes no interrupt away.
    client
        .irqs([EVENTFD | TRIGGER, INTX, 0, 1], &[], &[])
        .expect("no eventfd");
    client
        .irqs([NONE | UNMASK, INTX, 0, 1], &[], &[])
        .expect("unmask");
    assert!(!signalled(&event, NOW));
    client
        .irqs([NONE | TRIGGER, INTX, 0, 0], &[], &[])
        .expect("off");
    assert_eq!(
        client.irqs([NONE | UNMASK, INTX, 0, 1], &[], &[]),
        Err(EINVAL)
    );
}

#[test]
fn msi_is_a_message_for_each_time() {
    let program = Program::start(&["--m-msi=on"]);
    let mut client = program.client();
    let event = event();
    client
        .irqs([EVENTFD | TRIGGER, MSI, 0, 1], &[], &[event.as_fd()])
        .expect("MSI");
    // The guest switches it on: bus master, and the capability's enable bit.
    let config = client.read(CONFIG, 0, 256).expect("a read");
    let mut at = usize::from(config[0x34]);
    while config[at] != 5 {
        at = usize::from(config[at + 1]);
        assert!(at != 0, "no MSI capability");
    }
    client.write(CONFIG, 4, &[5, 0]).expect("a write");
    client.write(CONFIG, at as u64 + 2, &[1]).expect("a write");
    for _ in 0..3 {
        interrupt(&mut client);
        assert!(signalled(&event, NOW));
        assert!(!signalled(&event, NOW));
        serve(&mut client);
    }
    client
        .irqs([BOOL | TRIGGER, MSI, 0, 1], &[1], &[])
        .expect("by hand");
    assert!(signalled(&event, NOW));
    client
        .irqs([NONE | TRIGGER, MSI, 0, 0], &[], &[])
        .expect("off");
    interrupt(&mut client);
    assert!(!signalled(&event, NOW));
}

#[test]
fn k29_requests_that_make_no_sense_change_nothing() {
    let program = Program::start(&["--m-msi=on"]);
    let mut client = program.client();
    let good = event();
    client
        .irqs([EVENTFD | TRIGGER, INTX, 0, 1], &[], &[good.as_fd()])
        .expect("INTx");
    client.in_step();
    let before = program.descriptors();
    let (reader, writer) = pipe().expect("a pipe");
    let other: OwnedFd = event();
    let two = [other.as_fd(), other.as_fd()];
    let one = &two[..1];
    let refused: &[([u32; 4], &[u8], &[_])] = &[
        // Two kinds of data, two actions, none of either, what there is not.
        ([NONE | BOOL | TRIGGER, INTX, 0, 1], &[1], &[]),
        ([NONE | MASK | UNMASK, INTX, 0, 1], &[], &[]),
        ([NONE, INTX, 0, 1], &[], &[]),
        ([TRIGGER, INTX, 0, 1], &[], &[]),
        ([0, INTX, 0, 0], &[], &[]),
        ([NONE | TRIGGER | 64, INTX, 0, 0], &[], &[]),
        ([u32::MAX, INTX, 0, 1], &[], &[]),
        // Interrupts that there are not.
        ([NONE | TRIGGER, 2, 0, 0], &[], &[]),
        ([NONE | TRIGGER, 3, 0, 0], &[], &[]),
        ([NONE | TRIGGER, 5, 0, 0], &[], &[]),
        ([NONE | TRIGGER, u32::MAX, 0, 0], &[], &[]),
        ([NONE | TRIGGER, INTX, 1, 0], &[], &[]),
        ([NONE | UNMASK, INTX, 0, 2], &[], &[]),
        ([NONE | UNMASK, INTX, u32::MAX, 1], &[], &[]),
        ([NONE | UNMASK, INTX, 1, u32::MAX], &[], &[]),
        ([NONE | TRIGGER, MSI, 0, u32::MAX], &[], &[]),
        // Not as much data as interrupts.
        ([BOOL | UNMASK, INTX, 0, 1], &[], &[]),
        ([BOOL | UNMASK, INTX, 0, 1], &[1, 1], &[]),
        ([EVENTFD | TRIGGER, INTX, 0, 1], &[], &two),
        ([EVENTFD | TRIGGER, INTX, 0, 0], &[], one),
        ([EVENTFD | TRIGGER, INTX, 0, 0], &[], &[]),
        ([NONE | UNMASK, INTX, 0, 1], &[], one),
        ([BOOL | UNMASK, INTX, 0, 1], &[1], one),
        // What an eventfd does not do, and what is none.
        ([EVENTFD | MASK, INTX, 0, 1], &[], one),
        ([EVENTFD | UNMASK, INTX, 0, 1], &[], one),
        ([NONE | MASK, MSI, 0, 1], &[], &[]),
        ([EVENTFD | TRIGGER, INTX, 0, 1], &[], &[reader.as_fd()]),
        ([EVENTFD | TRIGGER, INTX, 0, 1], &[], &[writer.as_fd()]),
        // Two kinds of interrupts at a time.
        ([EVENTFD | TRIGGER, MSI, 0, 1], &[], one),
        ([NONE | TRIGGER, MSI, 0, 0], &[], &[]),
    ];
    for (fields, data, fds) in refused {
        let result = client.irqs(*fields, data, fds);
        assert_eq!(result, Err(EINVAL), "{fields:?} {data:?} {}", fds.len());
    }
    program.has_descriptors(before);
    interrupt(&mut client);
    assert!(signalled(&good, NOW), "INTx is not as it was");
    assert!(!signalled(&other, NOW));
}

#[test]
fn k29_an_eventfd_that_is_full_keeps_nobody_waiting() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let full = event();
    client
        .irqs([EVENTFD | TRIGGER, INTX, 0, 1], &[], &[full.as_fd()])
        .expect("INTx");
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).expect("a full counter");
    // And it would wait, if it were not looked at.
    let flags = fcntl_getfl(&full).expect("flags");
    fcntl_setfl(&full, flags & !OFlags::NONBLOCK).expect("flags");
    interrupt(&mut client);
    client
        .irqs([NONE | TRIGGER, INTX, 0, 1], &[], &[])
        .expect("by hand");
    client.in_step();
}
