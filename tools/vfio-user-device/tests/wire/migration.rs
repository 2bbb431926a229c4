// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a client does to migrate a device, and the features that there are.

use crate::client::*;
use crate::program::Program;

pub const GET: u32 = 1 << 16;
pub const SET: u32 = 1 << 17;
pub const PROBE: u32 = 1 << 18;

/// Numbers of features.
pub const MIGRATION: u32 = 1;
pub const STATE: u32 = 2;
pub const DATA_SIZE: u32 = 9;
pub const REFUSAL: u32 = 0xff00;

/// Numbers of states.
pub const ERROR: u32 = 0;
pub const STOP: u32 = 1;
pub const RUNNING: u32 = 2;
pub const STOP_COPY: u32 = 3;
pub const RESUMING: u32 = 4;
pub const RUNNING_P2P: u32 = 5;
pub const PRE_COPY: u32 = 6;
pub const PRE_COPY_P2P: u32 = 7;

impl Client {
    /// A feature, with room for any reply: the data of it.
    pub fn feature(&mut self, flags: u32, data: &[u8]) -> Result<Vec<u8>, u32> {
        let body = [&words(&[1 << 20, flags]), data].concat();
        let reply = self.ask(FEATURE, &body)?;
        assert_eq!(reply[..4], words(&[reply.len() as u32]), "argsz");
        assert_eq!(reply[4..8], words(&[flags]));
        Ok(reply[8..].to_vec())
    }

    /// Goes to a state, as QEMU does: with a descriptor 0 that means nothing.
    pub fn go(&mut self, state: u32) -> Result<(), u32> {
        let reply = self.feature(SET | STATE, &words(&[state, 0]))?;
        // A number other than -1 is taken for a descriptor.
        assert_eq!(reply, words(&[state, u32::MAX]));
        Ok(())
    }

    pub fn state(&mut self) -> u32 {
        let reply = self.feature(GET | STATE, &[]).expect("a state");
        assert_eq!(reply[4..], words(&[u32::MAX]));
        u32::from_ne_bytes(reply[..4].try_into().expect("four"))
    }

    /// Why something was refused last.
    pub fn refusal(&mut self) -> String {
        let text = self.feature(GET | REFUSAL, &[]).expect("a text");
        String::from_utf8(text).expect("UTF-8")
    }

    /// The next bytes of saved state, no more than so many.
    pub fn saved(&mut self, most: u32) -> Result<Vec<u8>, u32> {
        let reply = self.ask(MIG_DATA_READ, &words(&[most + 8, most]))?;
        let data = reply[8..].to_vec();
        assert!(data.len() <= most as usize);
        let size = data.len() as u32;
        assert_eq!(reply[..8], words(&[size + 8, size]));
        Ok(data)
    }

    /// All bytes of saved state that there are now.
    pub fn all_saved(&mut self, most: u32) -> Vec<u8> {
        let mut stream = Vec::new();
        loop {
            let piece = self.saved(most).expect("saved state");
            if piece.is_empty() {
                return stream;
            }
            stream.extend(piece);
        }
    }

    /// Gives the device bytes to load.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), u32> {
        let size = bytes.len() as u32;
        let reply = self.ask(MIG_DATA_WRITE, &[&words(&[size + 8, size]), bytes].concat());
        reply.map(|body| assert!(body.is_empty()))
    }

    /// What the device would save if it stopped now. It runs again afterwards.
    pub fn save(&mut self) -> Vec<u8> {
        self.go(STOP_COPY).expect("stop-and-copy");
        let stream = self.all_saved(4096);
        self.go(RUNNING).expect("running");
        stream
    }

    fn data_size(&mut self) -> u64 {
        let reply = self.feature(GET | DATA_SIZE, &[]).expect("a size");
        u64::from_ne_bytes(reply.try_into().expect("eight"))
    }

    pub fn precopy_info(&mut self) -> Result<(u64, u64), u32> {
        let reply = self.ask(PRECOPY_INFO, &words(&[24, 0, 0, 0, 0, 0]))?;
        assert_eq!(reply[..8], words(&[24, 0]));
        let long = |at: usize| u64::from_ne_bytes(reply[at..at + 8].try_into().expect("eight"));
        Ok((long(8), long(16)))
    }
}

/// Puts a character into the receiver of the first port, and values into its registers.
pub fn fill(client: &mut Client) {
    for (register, value) in [(3, 3), (2, 0x81), (4, 3), (7, 0x77), (0, b'U')] {
        client.write(0, register, &[value]).expect("a write");
    }
}

/// Finds what [`fill`] has put there.
pub fn is_filled(client: &mut Client) {
    for (register, value) in [(3, 3), (4, 3), (7, 0x77), (0, b'U')] {
        assert_eq!(client.read(0, register, 1), Ok(vec![value]), "{register}");
    }
}

#[test]
fn a_client_is_told_what_can_be_migrated_and_how() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // Stop-and-copy, peer-to-peer, pre-copy.
    assert_eq!(client.feature(GET | MIGRATION, &[]), Ok(longs(&[7])));
    for (feature, can) in [
        (MIGRATION, GET),
        (STATE, GET | SET),
        (6, SET),
        (7, SET),
        (8, GET),
        (DATA_SIZE, GET),
        (REFUSAL, GET),
    ] {
        for wanted in [0, GET, SET, GET | SET] {
            let result = client.feature(PROBE | wanted | feature, b"data");
            let expected = match wanted & !can {
                0 => Ok(b"data".to_vec()),
                _ => Err(EINVAL),
            };
            assert_eq!(result, expected, "{feature} {wanted:#x}");
        }
        for wanted in [GET, SET] {
            if can & wanted == 0 {
                assert_eq!(client.feature(wanted | feature, &[0; 64]), Err(EINVAL));
            }
        }
    }
    for feature in [0, 3, 4, 5, 10, 11, 12, 0xff01, 0xffff] {
        for flags in [PROBE, PROBE | GET, PROBE | SET, PROBE | GET | SET, GET, SET] {
            let result = client.feature(flags | feature, &[0; 24]);
            assert_eq!(result, Err(ENOTTY), "{feature} {flags:#x}");
        }
    }
    assert_eq!(client.state(), RUNNING);
    client.in_step();
}

#[test]
fn k30_features_without_sense_are_refused_in_step() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for length in 0..8 {
        assert_eq!(client.ask(FEATURE, &vec![0xff; length]), Err(EINVAL));
    }
    for flags in [0, GET | SET, GET | (1 << 19), (1 << 31) | PROBE] {
        assert_eq!(client.ask(FEATURE, &words(&[64, flags | 1])), Err(EINVAL));
    }
    // Room for the reply, and no less.
    for (flags, room) in [
        (GET | MIGRATION, 16),
        (GET | STATE, 16),
        (GET | DATA_SIZE, 16),
        (GET | REFUSAL, 8),
    ] {
        for argsz in [0, 7, 8, room - 1, room] {
            let result = client.ask(FEATURE, &words(&[argsz, flags]));
            assert_eq!(result.is_ok(), argsz >= room, "{flags:#x} {argsz}");
        }
    }
    // Too little data, or no room to have it back.
    for length in 0..8 {
        let body = [words(&[64, SET | STATE]), vec![STOP as u8; length]].concat();
        assert_eq!(client.ask(FEATURE, &body), Err(EINVAL));
    }
    let body = words(&[15, SET | STATE, STOP, 0]);
    assert_eq!(client.ask(FEATURE, &body), Err(EINVAL));
    assert_eq!(client.state(), RUNNING);
    client.in_step();
}

#[test]
fn k31_states_that_cannot_be_reached_change_nothing_and_say_why() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for from in [
        RUNNING,
        STOP,
        STOP_COPY,
        PRE_COPY,
        RUNNING_P2P,
        PRE_COPY_P2P,
    ] {
        client.go(from).expect("a state");
        for to in [ERROR, 8, 9, 1 << 31, u32::MAX] {
            assert_eq!(client.go(to), Err(EINVAL), "{from} -> {to}");
            assert_eq!(client.state(), from);
            let reason = client.refusal();
            let expected = match to {
                ERROR => "no transition leads from",
                _ => &format!("{to} is not a migration state"),
            };
            assert!(reason.starts_with(expected), "{reason}");
        }
        if from == STOP_COPY {
            for to in [PRE_COPY, PRE_COPY_P2P] {
                assert_eq!(client.go(to), Err(EINVAL));
                assert_eq!(client.state(), from);
            }
        }
        client.go(RUNNING).expect("back");
    }
    assert_eq!(client.refusal(), "4294967295 is not a migration state");
    client.in_step();
}

#[test]
fn k33_and_k34_saved_state_moves_in_its_session_only() {
    let program = Program::start(&[]);
    let mut client = program.client();
    fill(&mut client);
    let sizes = [(8, 0), (16, 8), (15, 8), (0, 0), (u32::MAX, u32::MAX)];
    let is_sound = |argsz: u32, size: u32| size <= 1 << 20 && argsz >= 8 + size;
    for state in [RUNNING, STOP, RUNNING_P2P, RESUMING] {
        client.go(state).expect("a state");
        for (argsz, size) in sizes {
            let result = client.ask(MIG_DATA_READ, &words(&[argsz, size]));
            assert_eq!(result, Err(EINVAL), "{state}");
        }
        assert_eq!(client.saved(8), Err(EINVAL));
        assert_eq!(client.refusal(), "no state is being saved");
        assert_eq!(client.precopy_info(), Err(EINVAL));
    }
    assert_eq!(client.load(&[]), Ok(()));
    assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
    fill(&mut client);
    for state in [RUNNING, STOP, STOP_COPY, PRE_COPY] {
        client.go(RUNNING).expect("a state");
        client.go(state).expect("a state");
        for bytes in [&b""[..], b"data"] {
            assert_eq!(client.load(bytes), Err(EINVAL), "{state}");
            assert_eq!(client.refusal(), "no state is being loaded");
        }
    }
    // In a session, sizes without sense take nothing from it.
    client.go(STOP_COPY).expect("a state");
    let whole = client.data_size();
    for (argsz, size) in sizes {
        if !is_sound(argsz, size) {
            let result = client.ask(MIG_DATA_READ, &words(&[argsz, size]));
            assert_eq!(result, Err(EINVAL), "{argsz} {size}");
        }
    }
    assert_eq!(client.saved(0), Ok(vec![]));
    assert_eq!(client.data_size(), whole);
    let stream = client.all_saved(1 << 20);
    assert!(stream.len() as u64 <= whole && !stream.is_empty());
    assert_eq!(client.saved(100), Ok(vec![]));
    // And to write: more than there is, and more than may be.
    client.go(RESUMING).expect("a state");
    for (size, data) in [(5, &b"data"[..]), (u32::MAX, b""), ((1 << 20) + 1, b"")] {
        let body = [&words(&[8, size]), data].concat();
        assert_eq!(client.ask(MIG_DATA_WRITE, &body), Err(EINVAL));
    }
    assert_eq!(client.load(&stream), Ok(()));
    client.go(RUNNING).expect("loaded");
    is_filled(&mut client);
}

#[test]
fn what_is_left_is_told_while_the_device_runs() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let whole = client.data_size();
    client.go(PRE_COPY).expect("a state");
    let (initial, dirty) = client.precopy_info().expect("what is left");
    assert!(initial > 0 && dirty == 0);
    for argsz in [0, 23] {
        let body = words(&[argsz, 0, 0, 0, 0, 0]);
        assert_eq!(client.ask(PRECOPY_INFO, &body), Err(EINVAL));
    }
    let first = client.saved(5).expect("five bytes");
    assert_eq!(client.precopy_info(), Ok((initial - first.len() as u64, 0)));
    let rest = client.all_saved(1 << 20);
    assert_eq!(first.len() + rest.len(), initial as usize);
    assert_eq!(client.precopy_info(), Ok((0, 0)));
    // A device that runs has no end: nothing now is no error.
    assert_eq!(client.saved(10), Ok(vec![]));
    client.go(PRE_COPY_P2P).expect("a state");
    assert_eq!(client.precopy_info(), Ok((0, 0)));
    client.go(STOP_COPY).expect("a state");
    assert_eq!(client.precopy_info(), Err(EINVAL));
    let last = client.all_saved(1 << 20);
    assert!(last.len() as u64 <= whole && !last.is_empty());
    // Never 0, which would be no size.
    assert!(client.data_size() > 0);
}

#[test]
fn k37_a_reset_ends_a_session_in_every_state() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for state in [
        RUNNING,
        STOP,
        STOP_COPY,
        RESUMING,
        RUNNING_P2P,
        PRE_COPY,
        PRE_COPY_P2P,
    ] {
        fill(&mut client);
        client.go(state).expect("a state");
        assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
        assert_eq!(client.state(), RUNNING);
        assert_eq!(client.saved(8), Err(EINVAL));
        assert_eq!(client.load(b"data"), Err(EINVAL));
        // Power-on state, and no time stands still.
        assert_eq!(client.read(0, 7, 1), Ok(vec![0]), "{state}");
        fill(&mut client);
        is_filled(&mut client);
    }
}
