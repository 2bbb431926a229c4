// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The guest's memory: which ranges are taken and which are not. (What is read and written there, the program's own tests say.)

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::pipe::pipe;

use crate::client::*;
use crate::program::Program;

/// A file of memory.
pub fn memory(size: u64) -> OwnedFd {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC).expect("a file of memory");
    ftruncate(&file, size).expect("its size");
    file
}

pub fn unmap(flags: u32, address: u64, size: u64) -> Vec<u8> {
    [words(&[24, flags]), longs(&[address, size])].concat()
}

#[test]
fn memory_comes_and_goes_as_with_qemu() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    let ram = memory(2 << 30);
    // What QEMU maps of a machine of 128 MiB: memory with a descriptor, ROM without.
    let ranges = [
        (3, 0, 0, 0xa_0000),
        (1, 0, 0xc_0000, 0x4_0000),
        (3, 0x10_0000, 0x10_0000, 127 << 20),
        (1, 0, 0xfffc_0000, 0x4_0000),
    ];
    for _ in 0..3 {
        for (flags, offset, address, size) in ranges {
            let fds = [ram.as_fd()];
            let fds = if flags == 3 { &fds[..] } else { &[] };
            let answer = client.ask_with(DMA_MAP, &range(flags, offset, address, size), fds);
            assert_eq!(answer.result, Ok(vec![]));
        }
        // Both pieces of memory are in one file.
        assert_eq!(program.descriptors(), before + 1);
        for (_, _, address, size) in ranges {
            let body = unmap(0, address, size);
            assert_eq!(client.ask(DMA_UNMAP, &body), Ok(body));
        }
        assert_eq!(program.descriptors(), before);
    }
}

#[test]
fn k19_ranges_that_are_none_are_refused() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let top = !0xfff;
    for (offset, address, size) in [
        (0, 0, 0),
        (0, 0x1001, 0x1000),
        (0, 0, 0x1001),
        (1, 0, 0x1000),
        (0, top, 0x2000),
        (0, 1 << 63, top),
        (top, 0, 0x1000),
        (0, 0, u64::MAX),
    ] {
        let refused = client.ask(DMA_MAP, &range(3, offset, address, size));
        assert_eq!(refused, Err(EINVAL), "{offset:#x} {address:#x} {size:#x}");
    }
    client.in_step();
    // The last page there is can be one.
    assert_eq!(client.ask(DMA_MAP, &range(3, 0, top, 0x1000)), Ok(vec![]));
}

#[test]
fn k20_ranges_do_not_overlap() {
    let program = Program::start(&[]);
    let mut client = program.client();
    assert!(client.ask(DMA_MAP, &range(3, 0, 0x2000, 0x2000)).is_ok());
    for (address, size) in [
        (0x2000, 0x2000),
        (0x1000, 0x2000),
        (0x3000, 0x1000),
        (0x3000, 0x9000),
        (0, 1 << 40),
    ] {
        let refused = client.ask(DMA_MAP, &range(3, 0, address, size));
        assert_eq!(refused, Err(EEXIST), "{address:#x}");
    }
    for address in [0x1000, 0x4000] {
        assert!(client.ask(DMA_MAP, &range(3, 0, address, 0x1000)).is_ok());
    }
    client.in_step();
}

#[test]
fn k21_more_ranges_than_there_may_be_are_refused_and_the_rest_stays() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for n in 0..65535u64 {
        client.tell(DMA_MAP, &range(1, 0, n << 13, 0x1000));
    }
    let refused = client.ask(DMA_MAP, &range(1, 0, 65535 << 13, 0x1000));
    assert_eq!(refused, Err(28), "ENOSPC");
    let body = unmap(0, 7 << 13, 0x1000);
    assert!(client.ask(DMA_UNMAP, &body).is_ok());
    assert!(client
        .ask(DMA_MAP, &range(1, 0, 65535 << 13, 0x1000))
        .is_ok());
    client.in_step();
}

#[test]
fn k22_flags_that_make_no_sense_are_refused() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for flags in [0, 4, 8, 12, 0x10, 0x13, u32::MAX] {
        assert_eq!(client.ask(DMA_MAP, &range(flags, 0, 0, 4096)), Err(EINVAL));
    }
    // It says that there is a descriptor.
    for flags in [4 | 3, 8 | 3] {
        assert_eq!(client.ask(DMA_MAP, &range(flags, 0, 0, 4096)), Err(EINVAL));
        let ram = memory(4096);
        let answer = client.ask_with(DMA_MAP, &range(flags, 0, 0, 4096), &[ram.as_fd()]);
        assert_eq!(answer.result, Ok(vec![]), "{flags}");
        assert!(client.ask(DMA_UNMAP, &unmap(2, 0, 0)).is_ok());
    }
    client.in_step();
}

#[test]
fn k23_descriptors_that_are_no_memory_are_closed_and_files_that_shrink_end_nobody() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    let (reader, writer) = pipe().expect("a pipe");
    let (left, _right) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let directory = tempfile::tempdir().expect("a directory");
    let writable = memory(8192);
    let read_only = format!("/proc/self/fd/{}", writable.as_raw_fd());
    let none: [OwnedFd; 6] = [
        reader,
        writer,
        left.into(),
        File::open(directory.path()).expect("a directory").into(),
        File::open(&read_only).expect("a file").into(),
        memory(4095),
    ];
    for fd in &none {
        let answer = client.ask_with(DMA_MAP, &range(3, 0, 0, 4096), &[fd.as_fd()]);
        assert_eq!(answer.result, Err(EINVAL), "{fd:?}");
    }
    // What nobody has a use for is closed beside all that.
    program.has_descriptors(before);
    let answer = client.ask_with(DMA_MAP, &range(1, 4096, 0, 4096), &[none[4].as_fd()]);
    assert_eq!(
        answer.result,
        Ok(vec![]),
        "what is only read may be read-only"
    );
    let ram = memory(1 << 20);
    let answer = client.ask_with(DMA_MAP, &range(3, 0, 1 << 20, 1 << 20), &[ram.as_fd()]);
    assert_eq!(answer.result, Ok(vec![]));
    ftruncate(&ram, 0).expect("a shorter file");
    client.in_step();
}

#[test]
fn a_file_that_is_no_memory_is_refused_with_a_reason() {
    let mut program = Program::with_stderr(&[], Stdio::piped());
    let mut client = program.client();
    let mut lines = BufReader::new(program.stderr()).lines();
    // A file of a page, in which nobody keeps memory.
    let file = File::open("/sys/devices/system/cpu/online").expect("a file of sysfs");
    for (command, body) in [
        (DMA_MAP, range(1, 0, 0, 4096)),
        (SET_IRQS, words(&[20, 0x24, 0, 0, 1])),
    ] {
        let answer = client.ask_with(command, &body, &[file.as_fd()]);
        assert_eq!(answer.result, Err(EINVAL), "{command}");
        let line = lines.next().expect("a reason").expect("a line");
        assert!(
            line.contains("neither an eventfd nor memory"),
            "{command}: {line}"
        );
    }
    let shared = tempfile::tempfile_in("/dev/shm").expect("a file");
    ftruncate(&shared, 4096).expect("its size");
    let answer = client.ask_with(DMA_MAP, &range(3, 0, 0, 4096), &[shared.as_fd()]);
    assert_eq!(answer.result, Ok(vec![]));
}

#[test]
fn k24_what_is_no_whole_range_does_not_go() {
    let program = Program::start(&[]);
    let mut client = program.client();
    assert!(client.ask(DMA_MAP, &range(3, 0, 0x1000, 0x3000)).is_ok());
    for (flags, address, size, why) in [
        (0, 0x1000, 0x1000, ENOENT),
        (0, 0x2000, 0x2000, ENOENT),
        (0, 0x1000, 0x4000, ENOENT),
        (0, 0x9000, 0x1000, ENOENT),
        (0, 0x1000, 0, EINVAL),
        (0, u64::MAX, 2, EINVAL),
        // A bitmap is asked for by features, whatever its size.
        (1, 0x1000, 0x3000, EINVAL),
        (1, 0, u64::MAX, EINVAL),
        (2, 0x1000, 0, EINVAL),
        (2, 0, 0x3000, EINVAL),
        (3, 0, 0, EINVAL),
        (4, 0x1000, 0x3000, EINVAL),
    ] {
        let refused = client.ask(DMA_UNMAP, &unmap(flags, address, size));
        assert_eq!(refused, Err(why), "{flags} {address:#x} {size:#x}");
    }
    // All of it is there.
    let refused = client.ask(DMA_MAP, &range(3, 0, 0x1000, 0x1000));
    assert_eq!(refused, Err(EEXIST));
    let all = unmap(2, 0, 0);
    assert_eq!(client.ask(DMA_UNMAP, &all), Ok(all));
    assert!(client.ask(DMA_MAP, &range(3, 0, 0x1000, 0x1000)).is_ok());
}
