// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Several devices: each is a program of its own, and what is done to one touches no other.

use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::*;
use crate::migration::*;
use crate::program::Program;

#[test]
fn k39_who_floods_one_device_reaches_no_other() {
    let (flooded, other) = (Program::start(&[]), Program::start(&[]));
    let mut client = other.client();
    fill(&mut client);
    client.go(PRE_COPY).expect("a session");
    let (socket, ended): (UnixStream, _) = {
        let hostile = flooded.client();
        let socket = hostile.socket.try_clone().expect("a socket");
        let (tell, ended) = mpsc::channel();
        thread::spawn(move || {
            let mut hostile = hostile;
            // Resets and changes of state, as fast as they are taken, whose results nobody wants to know.
            let mut batch = Vec::new();
            for state in [STOP_COPY, RUNNING, RESUMING] {
                let body = words(&[16, SET | STATE, state, 0]);
                batch.extend(message(1, FEATURE, 32, NO_REPLY, &body));
                batch.extend(message(1, RESET, 16, NO_REPLY, &[]));
            }
            let batch = batch.repeat(500);
            while std::io::Write::write_all(&mut hostile.socket, &batch).is_ok() {}
            let _ = tell.send(());
        });
        (socket, ended)
    };
    let began = Instant::now();
    for _ in 0..500 {
        assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    }
    assert!(began.elapsed() < SOON, "the other device starves");
    assert_eq!(client.state(), PRE_COPY);
    socket.shutdown(std::net::Shutdown::Both).expect("an end");
    ended
        .recv_timeout(Duration::from_secs(30))
        .expect("the flood has ended");
    client.go(RUNNING).expect("the end of the session");
    is_filled(&mut client);
    flooded.client().in_step();
}
