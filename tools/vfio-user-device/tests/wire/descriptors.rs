// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A program has so many descriptors for all of its devices. None of their clients uses them up.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::Stdio;

use crate::client::*;
use crate::control::Many;
use crate::memory::{memory, unmap};
use crate::program::Program;

const EMFILE: u32 = 24;

/// Maps a page of a new file as the `n`th one.
fn map_new(client: &mut Client, n: u64) -> Result<Vec<u8>, u32> {
    let file = memory(4096);
    let body = range(3, 0, n << 13, 4096);
    client.ask_with(DMA_MAP, &body, &[file.as_fd()]).result
}

#[test]
fn memory_of_a_client_is_in_so_many_files_and_in_as_many_ranges_as_there_may_be() {
    let mut program = Program::with_stderr(&[], Stdio::piped());
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    // What a guest's IOMMU makes of one file: more ranges than the client may have files.
    let one = memory(4096);
    for n in 0..600 {
        let answer = client.ask_with(DMA_MAP, &range(3, 0, n << 13, 4096), &[one.as_fd()]);
        assert_eq!(answer.result, Ok(vec![]), "range {n}");
    }
    assert_eq!(program.descriptors(), before + 1);
    for n in 600..600 + 511 {
        assert_eq!(map_new(&mut client, n), Ok(vec![]), "file {n}");
    }
    assert_eq!(map_new(&mut client, 2000), Err(EMFILE));
    let mut lines = BufReader::new(program.stderr());
    let mut line = String::new();
    lines.read_line(&mut line).expect("a reason");
    assert!(
        line.contains("the client's memory is in 512 files already"),
        "{line}"
    );
    // Nothing has changed, and a file that goes makes room for another one.
    assert_eq!(program.descriptors(), before + 512);
    let body = unmap(0, 2000 << 13, 4096);
    assert_eq!(client.ask(DMA_UNMAP, &body), Err(ENOENT));
    let body = unmap(0, 700 << 13, 4096);
    assert_eq!(client.ask(DMA_UNMAP, &body), Ok(body));
    assert_eq!(map_new(&mut client, 2000), Ok(vec![]));
    // The next client begins with none.
    drop(client);
    let mut client = program.client();
    client.in_step();
    assert_eq!(program.descriptors(), before);
    assert_eq!(map_new(&mut client, 0), Ok(vec![]));
}

#[test]
fn who_sends_all_the_files_there_can_be_keeps_no_client_from_another_device() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.add(&many, "greedy");
    qmp.add(&many, "other");
    let mut greedy = many.client("greedy");
    greedy.in_step();
    many.limit_descriptors(200);
    let refused = (0..400).find_map(|n| map_new(&mut greedy, n).err());
    assert_eq!(refused, Some(EMFILE));
    // Whoever comes is taken, with interrupts; so is somebody who adds a device.
    let mut other = many.client("other");
    let interrupt = event();
    other
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    other.in_step();
    qmp.add(&many, "third");
    many.client("third").in_step();
    // The greedy one keeps what it has.
    let body = unmap(0, 0, 4096);
    assert_eq!(greedy.ask(DMA_UNMAP, &body), Ok(body));
    greedy.in_step();
}

#[test]
fn a_header_in_pieces_brings_no_more_descriptors_than_a_message_may_have() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    let events: Vec<_> = (0..16).map(|_| event()).collect();
    let fds: Vec<_> = events.iter().map(AsFd::as_fd).collect();
    // Somebody who waits, and is not answered before the message is whole.
    let mut waiting = program.connect();
    let bytes = sound(1, GET_INFO, &words(&[16, 0, 0, 0]));
    for byte in &bytes[..15] {
        waiting.raw_with(std::slice::from_ref(byte), &fds);
    }
    // The program has looked at all that came before when it answers: to a third one, who came later.
    let mut third = program.connect();
    third.raw(&bytes);
    let answer = third.answer().expect("a reply");
    assert_eq!(answer.result, Err(EBUSY));
    client.in_step();
    assert_eq!(program.descriptors(), before + 1);
    waiting.raw(&bytes[15..]);
    assert_eq!(waiting.answer().expect("a reply").result, Err(EBUSY));
}
