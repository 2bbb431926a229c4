// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Registers that are not there, and those that are.

use crate::client::*;
use crate::program::Program;

/// An entry of several writes.
fn entry(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut padded = [0; 8];
    padded[..data.len().min(8)].copy_from_slice(&data[..data.len().min(8)]);
    [access(region, offset, data.len() as u32), padded.to_vec()].concat()
}

fn multi(count: u64, entries: &[Vec<u8>]) -> Vec<u8> {
    [longs(&[count]), entries.concat()].concat()
}

#[test]
fn the_card_s_regions_and_interrupts_are_told() {
    let program = Program::start(&["--m-num-ports=4", "--m-msi=on"]);
    let mut client = program.client();
    for (index, flags, size) in [
        (0, 3, 32),
        (1, 0, 0),
        (5, 0, 0),
        (6, 0, 0),
        (7, 3, 256),
        (8, 0, 0),
    ] {
        let body = client.ask(GET_REGION_INFO, &words(&[32, 0, index, 0, 0, 0, 0, 0]));
        let told = words(&[32, flags, index, 0, size, 0, 0, 0]);
        assert_eq!(body, Ok(told), "region {index}");
    }
    for (index, flags, count) in [(0, 7, 1), (1, 9, 1), (2, 9, 0), (4, 9, 1)] {
        let body = client.ask(GET_IRQ_INFO, &words(&[16, 0, index, 0]));
        let told = words(&[16, flags, index, count]);
        assert_eq!(body, Ok(told), "interrupt {index}");
    }
    let none = client.ask(GET_REGION_IO_FDS, &words(&[16, 0, 0, 0]));
    assert_eq!(none, Ok(words(&[16, 0, 0, 0])));
    let config = client.read(CONFIG, 0, 256).expect("all of it at once");
    // 1b36:0004.
    assert_eq!(config[..4], [0x36, 0x1b, 4, 0]);
    let program = Program::start(&["--m-msi=off"]);
    let mut other = program.client();
    let told = words(&[16, 9, 1, 0]);
    assert_eq!(other.ask(GET_IRQ_INFO, &words(&[16, 0, 1, 0])), Ok(told));
}

#[test]
fn k25_registers_that_are_not_there_are_refused() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for (region, offset, count) in [
        (0, 0, 9),
        (0, 8, 1),
        (0, 7, 2),
        (0, u64::MAX, 1),
        (0, u64::MAX - 3, 4),
        (0, 1 << 40, 1),
        (1, 0, 1),
        (CONFIG, 255, 2),
        (8, 0, 1),
        (9, 0, 1),
        (u32::MAX, 0, 1),
        (CONFIG, 0, (1 << 20) + 1),
        (CONFIG, 0, u32::MAX),
    ] {
        assert_eq!(
            client.read(region, offset, count),
            Err(EINVAL),
            "{region} {offset:#x} {count}"
        );
        if count < 16 {
            let data = vec![0xff; count as usize];
            assert_eq!(
                client.write(region, offset, &data),
                Err(EINVAL),
                "{region} {offset:#x}"
            );
        }
    }
    for (count, data) in [(2, &b"a"[..]), (2, b"abc"), (0, b"a"), (u32::MAX, b"a")] {
        let body = [&access(0, 0, count), data].concat();
        assert_eq!(client.ask(REGION_WRITE, &body), Err(EINVAL), "{count}");
    }
    // Nothing of a register that is there is sixteen bytes of reply.
    assert_eq!(client.read(0, 0, 0), Ok(vec![]));
    assert_eq!(client.write(0, 0, &[]), Ok(()));
    client.in_step();
}

#[test]
fn k27_several_writes_say_how_many_were_carried_out() {
    let program = Program::start(&["--m-num-ports=2"]);
    let mut client = program.client();
    let both = multi(2, &[entry(0, 7, &[1]), entry(0, 15, &[2])]);
    assert_eq!(client.ask(WRITE_MULTI, &both), Ok(longs(&[2])));
    assert_eq!(client.read(0, 7, 1), Ok(vec![1]));
    assert_eq!(client.read(0, 15, 1), Ok(vec![2]));
    // The second one is nowhere, and what is behind it is not carried out.
    let stops = multi(
        3,
        &[entry(0, 7, &[3]), entry(0, 99, &[4]), entry(0, 15, &[5])],
    );
    assert_eq!(client.ask(WRITE_MULTI, &stops), Ok(longs(&[1])));
    assert_eq!(client.read(0, 7, 1), Ok(vec![3]));
    assert_eq!(client.read(0, 15, 1), Ok(vec![2]));
    let most = vec![entry(0, 7, &[6]); 200];
    assert_eq!(
        client.ask(WRITE_MULTI, &multi(200, &most)),
        Ok(longs(&[200]))
    );
    for body in [
        multi(201, &vec![entry(0, 7, &[7]); 201]),
        multi(u64::MAX, &[]),
        multi(u64::MAX / 24 + 1, &[entry(0, 7, &[7])]),
        multi(2, &[entry(0, 7, &[7])]),
        multi(1, &[entry(0, 7, &[7]), entry(0, 7, &[7])]),
        multi(2, &[entry(0, 7, &[7]), entry(0, 0, &[7; 9])]),
    ] {
        assert_eq!(client.ask(WRITE_MULTI, &body), Err(EINVAL));
    }
    assert_eq!(
        client.read(0, 7, 1),
        Ok(vec![6]),
        "a message was carried out in part"
    );
    client.in_step();
}

#[test]
fn k28_questions_need_room_for_their_answers() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for (command, needed) in [
        (GET_INFO, 16),
        (GET_REGION_INFO, 32),
        (GET_REGION_IO_FDS, 16),
        (GET_IRQ_INFO, 16),
    ] {
        for argsz in [0, 1, needed - 1] {
            let body = words(&[argsz, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(client.ask(command, &body), Err(EINVAL), "{command} {argsz}");
        }
        let body = words(&[u32::MAX, 0, 0, 0, 0, 0, 0, 0]);
        let answer = client.ask(command, &body).expect("an answer");
        assert_eq!(answer.len(), needed as usize, "{command}");
    }
    for index in [9, u32::MAX] {
        let body = words(&[32, 0, index, 0, 0, 0, 0, 0]);
        for command in [GET_REGION_INFO, GET_REGION_IO_FDS, GET_IRQ_INFO] {
            assert_eq!(client.ask(command, &body), Err(EINVAL), "{command} {index}");
        }
    }
    // Errors are told by PCI Express alone.
    assert_eq!(
        client.ask(GET_IRQ_INFO, &words(&[16, 0, 3, 0])),
        Err(EINVAL)
    );
    client.in_step();
}
