// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use rustix::fs::{
    fcntl_add_seals, fcntl_setfl, ftruncate, memfd_create, open, MemfdFlags, Mode, SealFlags,
};
use rustix::io::pread;
use vfio_user_protocol::PAGE;

fn file(size: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("memory", flags).expect("a file of memory");
    ftruncate(&file, size).expect("its size");
    file
}

/// A range of pages: which, and where in the file.
fn pages(address: u64, pages: u64, offset: u64) -> DmaMap {
    DmaMap {
        readable: true,
        writable: true,
        wants_file: false,
        offset: offset * PAGE,
        address: address * PAGE,
        size: pages * PAGE,
    }
}

fn mapped(memory: &mut Memory, map: DmaMap, file: &OwnedFd) {
    let file = file.try_clone().expect("a descriptor");
    memory.map(&map, Some(file)).expect("a range");
}

/// Writes all of it.
fn written(memory: &mut Memory, address: u64, data: &[u8]) {
    assert_eq!(memory.write(address, data), data.len());
}

#[test]
fn copies_go_where_the_range_is_in_the_file() {
    let mut memory = Memory::default();
    let file = file(8 * PAGE);
    mapped(&mut memory, pages(100, 2, 4), &file);
    written(&mut memory, 100 * PAGE + 5, b"hello");
    let mut found = [0; 5];
    pread(&file, &mut found, 4 * PAGE + 5).expect("a read");
    assert_eq!(&found, b"hello");
    let mut found = [0; 5];
    memory.read(100 * PAGE + 5, &mut found).expect("a read");
    assert_eq!(&found, b"hello");
}

#[test]
fn copies_go_on_in_the_next_range_and_not_beyond_the_last() {
    let mut memory = Memory::default();
    let (first, second) = (file(PAGE), file(PAGE));
    mapped(&mut memory, pages(1, 1, 0), &first);
    mapped(&mut memory, pages(2, 1, 0), &second);
    let data: Vec<u8> = (0..=255).cycle().take(2 * PAGE as usize).collect();
    written(&mut memory, PAGE, &data);
    let mut found = vec![0; data.len()];
    memory.read(PAGE, &mut found).expect("both ranges");
    assert_eq!(found, data);
    for (address, len, done) in [
        (PAGE - 1, 2, 0),
        (3 * PAGE - 1, 2, 1),
        (3 * PAGE - 5, 7, 5),
        (0, 1, 0),
        (u64::MAX, 1, 0),
        (u64::MAX, 2, 0),
    ] {
        assert_eq!(memory.read(address, &mut vec![0; len]), Err(EFAULT));
        assert_eq!(memory.write(address, &vec![0; len]), done);
    }
    assert_eq!(memory.read(0, &mut []), Ok(()));
}

#[test]
fn a_file_that_became_shorter_is_an_error_and_does_not_become_longer() {
    let mut memory = Memory::default();
    let file = file(4 * PAGE);
    mapped(&mut memory, pages(0, 4, 0), &file);
    ftruncate(&file, PAGE + 10).expect("a shorter file");
    let mut data = [0; 16];
    assert_eq!(memory.read(0, &mut data), Ok(()));
    // The rest of its last page is there, for nobody else.
    assert_eq!(memory.read(PAGE, &mut data), Ok(()));
    written(&mut memory, PAGE, &data);
    assert_eq!(memory.read(2 * PAGE, &mut data), Err(EFAULT));
    assert_eq!(memory.read(3 * PAGE, &mut data), Err(EFAULT));
    assert_eq!(memory.write(2 * PAGE, &data), 0);
    assert_eq!(memory.write(3 * PAGE, &data), 0);
    let size = fstat(&file).expect("its size").st_size;
    assert_eq!(size as u64, PAGE + 10);
    ftruncate(&file, 0).expect("an empty file");
    assert_eq!(memory.read(0, &mut data), Err(EFAULT));
    // What is there again is reached again.
    ftruncate(&file, 4 * PAGE).expect("a longer file");
    written(&mut memory, 3 * PAGE, &[1; 16]);
    assert_eq!(memory.read(3 * PAGE, &mut data), Ok(()));
    assert_eq!(data, [1; 16]);
}

#[test]
fn a_sealed_file_is_not_written() {
    let mut memory = Memory::default();
    let file = file(PAGE);
    mapped(&mut memory, pages(0, 1, 0), &file);
    fcntl_add_seals(&file, SealFlags::WRITE).expect("a seal");
    assert_eq!(memory.write(0, &[1]), 0);
}

#[test]
fn nothing_is_appended_whatever_the_client_says_of_the_file() {
    let mut memory = Memory::default();
    let file = file(2 * PAGE);
    mapped(&mut memory, pages(0, 2, 0), &file);
    fcntl_setfl(&file, OFlags::APPEND).expect("a flag");
    written(&mut memory, PAGE - 1, b"ab");
    let size = fstat(&file).expect("its size").st_size;
    assert_eq!(size as u64, 2 * PAGE);
    let mut found = [0; 2];
    pread(&file, &mut found, PAGE - 1).expect("a read");
    assert_eq!(&found, b"ab");
}

#[test]
fn a_copy_goes_on_where_another_part_of_the_file_begins() {
    let mut memory = Memory::default();
    let size = 16 << 20;
    let file = file(size);
    mapped(&mut memory, pages(0, size / PAGE, 0), &file);
    let data: Vec<u8> = (0..=250).cycle().take(size as usize).collect();
    written(&mut memory, 0, &data);
    let mut found = vec![0; data.len()];
    pread(&file, &mut found, 0).expect("a read");
    assert!(found == data, "written otherwise");
    memory.read(0, &mut found[5..]).expect("a read");
    assert!(found[5..] == data[..data.len() - 5], "read otherwise");
}

/// The files that this process has mapped of this name.
fn mappings(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("what is mapped");
    maps.lines().filter(|line| line.contains(name)).count()
}

#[test]
fn memory_that_goes_is_let_go_and_no_more_than_a_few_parts_are_mapped() {
    let name = format!("let-go-{}", std::process::id());
    let file = memfd_create(&name, MemfdFlags::CLOEXEC).expect("a file of memory");
    ftruncate(&file, 64 << 20).expect("its size");
    let mut memory = Memory::default();
    let range = pages(0, (64 << 20) / PAGE, 0);
    mapped(&mut memory, range, &file);
    for at in (0..64 << 20).step_by(1 << 20) {
        written(&mut memory, at, &[1]);
        memory.read((64 << 20) - 1 - at, &mut [0]).expect("a read");
        let count = mappings(&name);
        assert!((1..=4).contains(&count), "{count}");
    }
    let unmap = DmaUnmap {
        argsz: 24,
        all: false,
        address: 0,
        size: 64 << 20,
    };
    memory.unmap(&unmap).expect("a whole range");
    assert_eq!(mappings(&name), 0);
    mapped(&mut memory, range, &file);
    written(&mut memory, 0, &[1]);
    memory.clear();
    assert_eq!(mappings(&name), 0);
}

/// Where the system has set huge pages aside.
#[test]
fn huge_pages_are_read_and_written() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
    let file = memfd_create("huge", flags).expect("a file of huge pages");
    let page = fstat(&file).expect("the file").st_blksize as u64;
    ftruncate(&file, page).expect("its size");
    let free = std::fs::read_to_string("/proc/meminfo").expect("what there is");
    if free.contains("HugePages_Free:        0\n") {
        return;
    }
    let mut memory = Memory::default();
    // As QEMU has it: the range is no multiple of the file's pages.
    mapped(&mut memory, pages(0, 160, 0), &file);
    mapped(&mut memory, pages(256, 256, 256), &file);
    written(&mut memory, 5000, b"huge");
    written(&mut memory, 256 * PAGE, b"too");
    let mut found = [0; 4];
    memory.read(5000, &mut found).expect("a read");
    assert_eq!(&found, b"huge");
    pread(&file, &mut found, 256 * PAGE).expect("a read");
    assert_eq!(&found, b"too\0");
    ftruncate(&file, 0).expect("an empty file");
    assert_eq!(memory.read(5000, &mut found), Err(EFAULT));
    assert_eq!(memory.write(5000, &found), 0);
}

#[test]
fn what_may_not_be_read_or_written_is_not() {
    let mut memory = Memory::default();
    let file = file(PAGE);
    let read_only = DmaMap {
        writable: false,
        ..pages(0, 1, 0)
    };
    let write_only = DmaMap {
        readable: false,
        ..pages(1, 1, 0)
    };
    mapped(&mut memory, read_only, &file);
    mapped(&mut memory, write_only, &file);
    memory
        .map(&pages(2, 1, 0), None)
        .expect("a range that cannot be reached");
    let mut byte = [0];
    assert_eq!(memory.read(0, &mut byte), Ok(()));
    assert_eq!(memory.write(0, &byte), 0);
    assert_eq!(memory.read(PAGE, &mut byte), Err(EFAULT));
    written(&mut memory, PAGE, &byte);
    assert_eq!(memory.read(2 * PAGE, &mut byte), Err(EFAULT));
    assert_eq!(memory.write(2 * PAGE, &byte), 0);
}

proptest! {
    /// A list of which page belongs to which range says the same.
    #[test]
    fn ranges_are_what_a_list_of_pages_says(
        steps in proptest::collection::vec((any::<bool>(), 0u64..24, 1u64..8), 1..60)
    ) {
        let mut memory = Memory::default();
        let mut owner: [Option<(u64, u64)>; 32] = [None; 32];
        for (maps, first, count) in steps {
            let span = first as usize..(first + count) as usize;
            if maps {
                let free = owner[span.clone()].iter().all(Option::is_none);
                let result = memory.map(&pages(first, count, 0), None);
                prop_assert_eq!(result, if free { Ok(()) } else { Err(EEXIST) });
                if free {
                    owner[span].fill(Some((first, count)));
                }
            } else {
                let is_whole = owner[span.start] == Some((first, count));
                let unmap = DmaUnmap { argsz: 24, all: false, address: first * PAGE, size: count * PAGE };
                let result = memory.unmap(&unmap);
                prop_assert_eq!(result, if is_whole { Ok(()) } else { Err(ENOENT) });
                if is_whole {
                    owner[span].fill(None);
                }
            }
            let mut ranges: Vec<_> = owner.iter().flatten().collect();
            ranges.dedup();
            prop_assert_eq!(memory.len(), ranges.len());
        }
    }
}

#[test]
fn the_reason_has_the_number_that_holds() {
    let reason = files::Refused::Client.reason();
    assert!(reason.contains(&format!(" {} files ", files::MAX_FILES)));
}

#[test]
fn a_file_that_was_opened_in_another_way_is_another_one() {
    let mut memory = Memory::default();
    let writable = file(PAGE);
    let path = format!("/proc/self/fd/{}", writable.as_raw_fd());
    let again = |flags| open(&path, flags | OFlags::CLOEXEC, Mode::empty()).expect("the file");
    let mut map = pages(1, 1, 0);
    map.writable = false;
    let read_only = again(OFlags::RDONLY);
    memory.map(&map, Some(read_only)).expect("a range");
    // What is mapped can be read.
    map.address = 0;
    let write_only = again(OFlags::WRONLY);
    assert_eq!(memory.map(&map, Some(write_only)), Err(EINVAL));
    mapped(&mut memory, pages(2, 1, 0), &writable);
    written(&mut memory, 2 * PAGE, &[7]);
    assert_eq!(memory.write(PAGE, &[8]), 0);
    let mut found = [0];
    memory.read(PAGE, &mut found).expect("a read");
    assert_eq!(found, [7]);
}
