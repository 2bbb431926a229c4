// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A test that is alone in its process: another one may be starting a program, which has a copy of every descriptor for a moment, and
//! would be the last one that has it.

// The other tests use more of them.
#[allow(dead_code)]
#[path = "wire/client.rs"]
mod client;
#[allow(dead_code)]
#[path = "wire/program.rs"]
mod program;

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
use rustix::process::Signal;

use client::*;
use program::Program;

/// A connection whose closing takes until its other end, which is returned, has taken all that was said, or is gone.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    // The other end takes little, whatever this one has sent.
    set_socket_recv_buffer_size(&listener, 4096).expect("a size");
    let address = listener.local_addr().expect("its address");
    let mut stream = TcpStream::connect(address).expect("a connection");
    let (other, _) = listener.accept().expect("a connection");
    set_socket_linger(&stream, Some(SOON * 100)).expect("a linger");
    stream.set_nonblocking(true).expect("a stream");
    let full = loop {
        if let Err(error) = stream.write(&[0; 65536]) {
            break error.kind();
        }
    };
    assert_eq!(full, ErrorKind::WouldBlock);
    (stream, other)
}

#[test]
fn a_descriptor_that_is_slow_to_close_keeps_nobody_waiting() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let mut others = Vec::new();
    // The program is to be the last that has them.
    program.stop();
    for _ in 0..4 {
        let (stream, other) = lingering();
        others.push(other);
        let body = range(3, 0, 0, 4096);
        client.raw_with(&sound(9, DMA_MAP, &body), &[stream.as_fd()]);
    }
    program.signal(Signal::CONT);
    for _ in 0..4 {
        let answer = client.answer().expect("a reply");
        assert_eq!(answer.result, Err(EINVAL));
    }
    client.in_step();
    // As many as there may be. Until one is closed, the device's clients can give it nothing more.
    let ram = memfd_create("memory", MemfdFlags::CLOEXEC).expect("a file of memory");
    ftruncate(&ram, 4096).expect("its size");
    let mut map = || client.ask_with(DMA_MAP, &range(3, 0, 0, 4096), &[ram.as_fd()]);
    assert_eq!(map().result, Err(EINVAL));
    drop(others);
    let end = Instant::now() + SOON;
    while map().result.is_err() {
        assert!(Instant::now() < end, "nothing is closed");
    }
    client.in_step();
}
