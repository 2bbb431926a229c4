// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The disk works behind the socket, whatever its guest does.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::Instant;

use rustix::fs::ftruncate;

use crate::client::*;
use crate::migration::*;
use crate::program::Program;
pub use driver::MODEL;
use driver::*;

mod driver;
mod log;
mod migrating;

/// Sees that a request is done of which no interrupt tells: not at once, as the device does it between two messages.
fn becomes_done(guest: &mut Guest, request: (u64, bool)) {
    let end = Instant::now() + SOON;
    while !guest.is_done(request) {
        assert!(Instant::now() < end, "the request is not done");
        guest.client.in_step();
    }
}

#[test]
fn the_disk_s_regions_and_interrupts_are_told() {
    let program = start(&["--m-num-queues=3"]);
    let mut client = program.client();
    for (index, flags, size) in [
        (0, 0, 0),
        (1, 3, 4096),
        (4, 3, 0x4000),
        (7, 3, 256),
        (8, 0, 0),
    ] {
        let body = client.ask(GET_REGION_INFO, &words(&[32, 0, index, 0, 0, 0, 0, 0]));
        let told = words(&[32, flags, index, 0, size, 0, 0, 0]);
        assert_eq!(body, Ok(told), "region {index}");
    }
    // Vectors may be added while others are in use, and there is no MSI.
    for (index, flags, count) in [(0, 7, 1), (1, 9, 0), (2, 1, 4), (4, 9, 1)] {
        let body = client.ask(GET_IRQ_INFO, &words(&[16, 0, index, 0]));
        let told = words(&[16, flags, index, count]);
        assert_eq!(body, Ok(told), "interrupt {index}");
    }
    let config = client.read(CONFIG, 0, 256).expect("all of it at once");
    // 1af4:1042.
    assert_eq!(config[..4], [0xf4, 0x1a, 0x42, 0x10]);
}

#[test]
fn what_is_written_is_read_back() {
    let program = start(&["--m-capacity-mib=8"]);
    let mut guest = Guest::on(&program);
    assert_eq!(guest.register(DEVICE, 8), (8 << 20) / SECTOR);
    assert_eq!(guest.read(0, 4096), vec![0; 4096], "an empty medium");
    let last = (8 << 20) / SECTOR - 1;
    for (sector, len) in [
        (0, 512),
        (1, 4096),
        (BLOCK / SECTOR - 3, 70_144),
        (last, 512),
    ] {
        guest.write(sector, &pattern(len, sector));
    }
    assert_eq!(guest.request(FLUSH, 0, 0), 0);
    for (sector, len) in [(1, 4096), (BLOCK / SECTOR - 3, 70_144), (last, 512)] {
        assert_eq!(guest.read(sector, len), pattern(len, sector), "{sector}");
    }
    assert_eq!(guest.request(IN, last, 1024), 1, "beyond its end");
    assert_eq!(guest.request(77, 0, 0), 2, "no such request");
    // A reset of the device leaves the medium; a new driver finds it.
    assert_eq!(guest.client.ask(RESET, &[]), Ok(vec![]));
    guest.set_up();
    assert_eq!(guest.read(last, 512), pattern(512, last));
}

#[test]
fn a_message_without_an_eventfd_waits_for_one() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    guest.write(0, &pattern(512, 0));
    while signalled(&guest.events[DONE], NOW) {}
    let off = guest.client.irqs([0x24, MSIX, DONE as u32, 1], &[], &[]);
    assert_eq!(off, Ok(()), "its eventfd is taken away");
    let request = guest.add(FLUSH, 0, 0);
    guest.notify();
    becomes_done(&mut guest, request);
    guest.client.in_step();
    assert!(!signalled(&guest.events[DONE], NOW));
    let fds = [guest.events[DONE].as_fd()];
    let on = guest.client.irqs([0x24, MSIX, DONE as u32, 1], &[], &fds);
    assert_eq!(on, Ok(()));
    assert!(signalled(&guest.events[DONE], NOW), "it was kept");
    assert!(!signalled(&guest.events[CHANGED], NOW));
    // By hand, and by none: another index is in use.
    let by_hand = guest.client.irqs([0x21, MSIX, DONE as u32, 1], &[], &[]);
    assert_eq!(by_hand, Ok(()));
    assert!(signalled(&guest.events[DONE], NOW));
    for (index, start, count) in [(0, 0, 1), (MSIX, 0, 3), (MSIX, 2, 1), (MSIX, u32::MAX, 2)] {
        let fds: Vec<_> = (0..count).map(|_| guest.events[DONE].as_fd()).collect();
        let refused = guest.client.irqs([0x24, index, start, count], &[], &fds);
        assert_eq!(refused, Err(EINVAL), "{index} {start} {count}");
    }
    assert_eq!(guest.client.irqs([0x21, MSIX, 0, 0], &[], &[]), Ok(()));
    assert_eq!(guest.client.irqs([0x21, MSIX, 1, 1], &[], &[]), Err(EINVAL));
}

#[test]
fn more_vectors_than_a_message_has_descriptors_come_in_two() {
    let program = start(&["--m-num-queues=16"]);
    let mut guest = Guest::on(&program);
    let info = guest.client.ask(GET_IRQ_INFO, &words(&[16, 0, MSIX, 0]));
    assert_eq!(info, Ok(words(&[16, 1, MSIX, 17])));
    let rings: Vec<Ring> = std::iter::once(guest.ring.clone())
        .chain(std::mem::take(&mut guest.others))
        .collect();
    assert_eq!(rings.len(), 16);
    // All at once they are one too many. That changes nothing: each leads where it did.
    let others: Vec<_> = guest.events.iter().map(|_| event()).collect();
    let fds: Vec<_> = others.iter().map(AsFd::as_fd).collect();
    let all = guest.client.irqs([0x24, MSIX, 0, 17], &[], &fds);
    assert_eq!(all, Err(EINVAL));
    for ring in rings {
        let queue = ring.queue;
        guest.ring = ring;
        // What came before is told by now.
        guest.client.in_step();
        for event in &guest.events {
            while signalled(event, NOW) {}
        }
        let request = guest.add(FLUSH, 0, 0);
        guest.notify();
        becomes_done(&mut guest, request);
        // The request is done before its interrupt is told; another answer comes after both.
        guest.client.in_step();
        let told = guest.events.iter().map(|event| signalled(event, NOW));
        let told: Vec<usize> = (0..)
            .zip(told)
            .filter_map(|(n, is)| is.then_some(n))
            .collect();
        assert_eq!(told, [DONE + usize::from(queue)], "queue {queue}");
        assert_eq!(guest.get(STATUS, 1), [0], "queue {queue}");
        // What one queue has written the next one reads.
        let sector = u64::from(queue);
        if let Some(before) = sector.checked_sub(1) {
            assert_eq!(guest.read(before, 512), pattern(512, before));
        }
        guest.write(sector, &pattern(512, sector));
    }
    assert!(!others.iter().any(|event| signalled(event, NOW)));
}

#[test]
fn a_device_that_may_not_access_memory_leaves_it_alone() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    for state in [RUNNING_P2P, STOP, PRE_COPY_P2P, STOP_COPY] {
        guest.client.go(state).expect("a state");
        let request = guest.add(FLUSH, 0, 0);
        guest.notify();
        for _ in 0..3 {
            guest.client.in_step();
        }
        assert!(!guest.is_done(request), "{state}");
        guest.client.go(RUNNING).expect("running");
        guest.wait(request);
        assert_eq!(guest.get(STATUS, 1), [0]);
    }
    // Pre-copy is as good as running.
    guest.client.go(PRE_COPY).expect("pre-copy");
    assert_eq!(guest.request(FLUSH, 0, 0), 0);
}

#[test]
fn who_takes_over_a_disk_at_work_says_first_where_memory_is() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    guest.write(9, &pattern(512, 9));
    // A request that the device has not seen when its client goes.
    let request = guest.add(FLUSH, 0, 0);
    let Guest {
        client,
        memory,
        ring,
        ..
    } = guest;
    drop(client);
    let mut client = program.client();
    for _ in 0..3 {
        client.in_step();
    }
    drop(client);
    let mut guest = Guest::taking(&program, memory, ring);
    guest.wait(request);
    assert_eq!(guest.status(), READY);
    assert_eq!(guest.read(9, 512), pattern(512, 9));
}

/// Sees that the device says that it needs a reset, and works after one.
fn recovers(guest: &mut Guest, what: &str) {
    assert!(signalled(&guest.events[CHANGED], SOON), "{what}");
    assert_eq!(guest.status(), READY | NEEDS_RESET, "{what}");
    guest.set_up();
    guest.write(3, &pattern(512, 3));
    assert_eq!(guest.read(3, 512), pattern(512, 3), "{what}");
}

#[test]
fn a_ring_without_sense_needs_a_reset_and_nothing_else_happens() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    for (what, address, len, flags) in [
        ("an empty buffer", BASE + DATA, 0, 0),
        ("the end of the address space", u64::MAX - 3, 16, 0),
        ("a chain without an end", BASE + DATA, 16, 1),
        ("a table in a table's place", BASE + DATA, 17, 4),
        ("no room for a status", BASE + DATA, 16, 0),
        ("a header that is not mapped", 0x1000, 16, 0),
    ] {
        let places = if flags == 1 { guest.ring.size } else { 1 };
        let mut first = None;
        for _ in 0..places {
            let (at, all) = guest.describe(address, len, flags);
            match first {
                None => first = Some((at, all)),
                Some(_) => guest.put(at, &all.to_le_bytes()),
            }
        }
        let (at, all) = first.expect("a descriptor");
        guest.put(at, &all.to_le_bytes());
        guest.notify();
        recovers(&mut guest, what);
    }
    // Data that are nowhere are an error of the request, and the ring goes on.
    assert_eq!(guest.read_to(BASE + SIZE - 256), 1, "an I/O error");
    assert_eq!(guest.read(3, 512), pattern(512, 3));
}

#[test]
fn why_a_disk_needs_a_reset_is_told_once() {
    let mut program = Program::with_stderr(&["--migration-model", MODEL], Stdio::piped());
    let mut lines = BufReader::new(program.stderr()).lines();
    let mut guest = Guest::on(&program);
    let mut tells = |why: &str| {
        let line = lines.next().expect("a reason").expect("a line");
        let wanted = format!("vfio-user-device: the device needs a reset: {why}");
        assert_eq!(line, wanted);
    };
    let (at, flags) = guest.describe(BASE + DATA, 0, 0);
    guest.put(at, &flags.to_le_bytes());
    guest.notify();
    recovers(&mut guest, "an empty buffer");
    tells("a descriptor has length 0");
    // Nobody can look at the ring.
    ftruncate(&guest.memory, 0).expect("a shorter file");
    guest.notify();
    assert!(signalled(&guest.events[CHANGED], SOON));
    tells("a ring could not be accessed");
    drop(guest);
    drop(program);
    assert!(lines.next().is_none(), "nothing else was told");
}

#[test]
fn k23_memory_that_shrinks_under_a_disk_ends_nobody() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    ftruncate(&guest.memory, DATA).expect("a shorter file");
    assert_eq!(guest.request(IN, 0, 4096), 1, "an I/O error");
    let request = guest.add(FLUSH, 0, 0);
    ftruncate(&guest.memory, 0).expect("a shorter file");
    guest.notify();
    assert!(signalled(&guest.events[CHANGED], SOON));
    assert_eq!(guest.status(), READY | NEEDS_RESET);
    ftruncate(&guest.memory, SIZE).expect("its size");
    assert!(!guest.is_done(request), "nothing has been written");
    guest.set_up();
    guest.write(3, &pattern(512, 3));
    assert_eq!(guest.read(3, 512), pattern(512, 3));
}

#[test]
fn k39_a_queue_full_of_work_keeps_nobody_waiting() {
    let program = start(&["--m-queue-size=256"]);
    let mut guest = Guest::on(&program);
    // As much as there is room for, each of 6 MiB.
    let mut requests = Vec::new();
    for _ in 0..80 {
        requests.push(guest.add(IN, 0, 6 << 20));
    }
    let last = requests[79];
    guest.notify();
    guest.client.in_step();
    assert!(
        !guest.is_done(last),
        "it was done before a question was answered"
    );
    let mut answered = 0;
    while !guest.is_done(last) {
        guest.client.in_step();
        answered += 1;
    }
    assert!(answered >= 10, "{answered} answers in between");
    assert_eq!(guest.get(STATUS, 1), [0]);
}
