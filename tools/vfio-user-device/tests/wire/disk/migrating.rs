// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The disk's contents go along while they are written.

use super::driver::*;
use crate::client::*;
use crate::migration::*;
use crate::program::Program;

const MIB: u64 = 1 << 20;

/// A medium as the test knows it, and writes through a guest.
struct Known(Vec<u8>);

impl Known {
    fn new(mib: u64) -> Self {
        Self(vec![0; (mib * MIB) as usize])
    }

    fn write(&mut self, guest: &mut Guest, sector: u64, len: usize, seed: u64) {
        let bytes = pattern(len, seed);
        guest.write(sector, &bytes);
        let at = (sector * SECTOR) as usize;
        self.0[at..at + len].copy_from_slice(&bytes);
    }

    /// Sees that all of the medium is so.
    fn is_there(&self, guest: &mut Guest) {
        for (at, wanted) in (0u64..)
            .step_by(MIB as usize)
            .zip(self.0.chunks(MIB as usize))
        {
            let found = guest.read(at / SECTOR, wanted.len());
            assert!(found == wanted, "the MiB at {at:#x} is another");
        }
    }
}

fn disk(mib: u64) -> Program {
    start(&[&format!("--m-capacity-mib={mib}")])
}

#[test]
fn what_is_written_in_pre_copy_arrives() {
    let (source, destination) = (disk(8), disk(8));
    let mut guest = Guest::on(&source);
    let mut to = destination.client();
    let mut known = Known::new(8);
    for (n, sector) in (0u64..).zip([0, 3000, 8191, 16_000]) {
        known.write(&mut guest, sector, 100 * 1024, n);
    }
    let log = [longs(&[4096]), words(&[0, 0])].concat();
    assert!(guest.client.feature(SET | 6, &log).is_ok());
    to.go(RESUMING).expect("resuming");
    guest.client.go(PRE_COPY).expect("pre-copy");
    let (initial, dirty) = guest.client.precopy_info().expect("what is left");
    assert!(initial > 4 * 100 * 1024 && dirty == 0, "{initial} {dirty}");
    // Between two pieces something is written that was sent, and something that was not.
    for n in 10..30 {
        let piece = guest.client.saved(50_000).expect("saved state");
        to.load(&piece).expect("a piece");
        known.write(&mut guest, n * 37 % 200, 4096, n);
        known.write(&mut guest, 16_000 + n, 512, n);
    }
    let (initial, dirty) = guest.client.precopy_info().expect("what is left");
    assert!(initial < 100 * 1024 && dirty > 0, "{initial} {dirty}");
    to.load(&guest.client.all_saved(1 << 16)).expect("the rest");
    assert_eq!(guest.client.precopy_info(), Ok((0, 0)));
    // What comes after that goes with the registers.
    known.write(&mut guest, 5000, 512, 77);
    guest.pages_written();
    known.write(&mut guest, 5001, 512, 78);
    assert_eq!(guest.pages_written(), [RING / 4096, STATUS / 4096]);
    let request = guest.add(FLUSH, 0, 0);
    guest.client.go(STOP_COPY).expect("stop-and-copy");
    let rest = guest.client.all_saved(1 << 16);
    assert!(rest.len() < 4 * BLOCK as usize, "{}", rest.len());
    to.load(&rest).expect("the registers");
    to.go(RUNNING).expect("running");
    // Whoever has loaded it has no memory, and may look at registers.
    for _ in 0..3 {
        assert_eq!(to.read(REGISTERS, 20, 1), Ok(vec![READY]));
    }
    drop(to);
    assert!(!guest.is_done(request));
    let Guest {
        client,
        memory,
        ring,
        ..
    } = guest;
    drop(client);
    let mut guest = Guest::taking(&destination, memory, ring);
    guest.wait(request);
    known.is_there(&mut guest);
    known.write(&mut guest, 1, 512, 99);
    known.is_there(&mut guest);
}

#[test]
fn equal_disks_have_equal_streams_whatever_became_of_them() {
    let (source, destination) = (disk(8), disk(8));
    let mut guest = Guest::on(&source);
    Known::new(8).write(&mut guest, 70, 200 * 1024, 5);
    let stream = guest.client.save();
    let mut to = Guest::on(&destination);
    Known::new(8).write(&mut to, 9000, 200 * 1024, 6);
    to.client.go(RESUMING).expect("resuming");
    // One byte at a time at the beginning, then whatever comes.
    for piece in stream[..600].chunks(1).chain(stream[600..].chunks(4099)) {
        to.client.load(piece).expect("a piece");
    }
    to.client.go(STOP).expect("put into effect");
    to.client.go(STOP_COPY).expect("stop-and-copy");
    assert!(to.client.all_saved(4096) == stream, "another stream");
}

#[test]
fn a_disk_of_another_kind_is_refused_and_changes_nothing() {
    let source = disk(8);
    let stream = Guest::on(&source).client.save();
    for (arguments, why) in [
        (
            &["--m-capacity-mib=16"][..],
            "capacity-mib: source has 8, this device has 16",
        ),
        (
            &["--m-capacity-mib=8", "--m-num-queues=2"],
            "num-queues: source has 1, this device has 2",
        ),
        (&["--m-capacity-mib=8", "--m-serial=x"], "serial: "),
    ] {
        let program = start(arguments);
        let mut guest = Guest::on(&program);
        guest.write(7, &pattern(512, 7));
        guest.client.go(RESUMING).expect("resuming");
        assert_eq!(guest.client.load(&stream), Err(EINVAL), "{arguments:?}");
        assert!(
            guest.client.refusal().contains(why),
            "{}",
            guest.client.refusal()
        );
        assert_eq!(guest.client.ask(RESET, &[]), Ok(vec![]));
        guest.set_up();
        assert_eq!(guest.read(7, 512), pattern(512, 7));
    }
    // A card's state is no disk's.
    let card = Program::start(&[]).client().save();
    let program = disk(8);
    let mut client = program.client();
    client.go(RESUMING).expect("resuming");
    assert_eq!(client.load(&card), Err(EINVAL));
}

#[test]
fn half_a_stream_leaves_the_medium_that_there_was() {
    let (source, destination) = (disk(8), disk(8));
    let mut guest = Guest::on(&source);
    Known::new(8).write(&mut guest, 0, 300 * 1024, 5);
    let stream = guest.client.save();
    let mut to = Guest::on(&destination);
    let mut known = Known::new(8);
    known.write(&mut to, 0, 300 * 1024, 6);
    for cut in [stream.len() / 2, stream.len() - 1] {
        to.client.go(RESUMING).expect("resuming");
        to.client.load(&stream[..cut]).expect("half of it");
        assert_eq!(to.client.go(STOP), Err(EINVAL), "it is not complete");
        assert_eq!(to.client.ask(RESET, &[]), Ok(vec![]));
        to.set_up();
        known.is_there(&mut to);
    }
    // A flipped bit in a block.
    let mut broken = stream.clone();
    let at = broken.len() / 2;
    broken[at] ^= 1;
    to.client.go(RESUMING).expect("resuming");
    assert_eq!(to.client.load(&broken), Err(EINVAL));
    let Guest {
        client,
        memory,
        ring,
        ..
    } = to;
    drop(client);
    known.is_there(&mut Guest::taking(&destination, memory, ring));
}
