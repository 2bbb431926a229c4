// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Clients come and go; the program stays as it was.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Child;

use rustix::process::{kill_process, Pid, Signal};

use crate::client::*;
use crate::memory::memory;
use crate::program::{command, with_fd, Program};

#[test]
fn ten_thousand_connections_leave_no_descriptor_behind() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    drop(client);
    let (ram, interrupt) = (memory(1 << 20), event());
    for n in 0..10_000 {
        let mut client = program.connect();
        match n % 4 {
            // Gone before a word was said, after one, with its memory and interrupts set up, and in the middle of a message.
            0 => {}
            1 => client.agree(),
            2 => {
                client.agree();
                let body = range(3, 0, 0, 1 << 20);
                assert!(client
                    .ask_with(DMA_MAP, &body, &[ram.as_fd()])
                    .result
                    .is_ok());
                client
                    .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
                    .expect("INTx");
            }
            _ => {
                client.raw(&sound(1, VERSION, &version(0, 0, QEMU)));
                client.raw_with(&[1, 0, 2], &[ram.as_fd()]);
            }
        }
    }
    let mut client = program.client();
    client.in_step();
    assert_eq!(program.descriptors(), before);
}

#[test]
fn what_a_client_set_up_goes_with_it_and_the_device_stays() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let interrupt = event();
    client
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    assert!(client.ask(DMA_MAP, &range(3, 0, 0, 4096)).is_ok());
    client.write(0, 7, &[0x42]).expect("a write");
    drop(client);
    let mut client = program.client();
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x42]));
    assert!(
        client.ask(DMA_MAP, &range(3, 0, 0, 4096)).is_ok(),
        "the memory is still mapped"
    );
    client.write(0, 1, &[2]).expect("a write");
    assert!(!signalled(&interrupt, NOW), "the interrupt is still told");
}

#[test]
fn sigterm_ends_it_with_and_without_a_client_and_in_the_middle_of_a_message() {
    for (connected, bytes) in [(false, 0), (true, 0), (true, 10)] {
        let program = Program::start(&[]);
        // Signals are taken before clients are.
        let mut client = program.client();
        client.in_step();
        client.raw(&sound(1, RESET, &[])[..bytes]);
        if !connected {
            drop(client);
            program.signal(Signal::TERM);
        } else {
            program.signal(Signal::TERM);
            client.is_closed();
        }
        assert_eq!(program.end().code(), Some(0));
    }
}

/// Starts the program with a socket of its own making at `socket`, and waits until it says that it is ready.
fn with_path(socket: &Path, notify: &UnixDatagram, name: &OsStr) -> Child {
    let mut command = command();
    command.arg("--socket-path").arg(socket);
    let child = command.env("NOTIFY_SOCKET", name).spawn();
    let mut said = [0; 64];
    let length = notify.recv(&mut said).expect("it is ready in time");
    assert_eq!(&said[..length], b"READY=1");
    child.expect("the program starts")
}

fn connect(socket: &Path) -> Client {
    Client::new(UnixStream::connect(socket).expect("a connection"))
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), Signal::TERM).expect("the program runs");
}

#[test]
fn a_socket_that_the_program_made_goes_with_it_and_no_other_does() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    let ready = directory.path().join("ready");
    let notify = UnixDatagram::bind(&ready).expect("a socket");
    notify.set_read_timeout(Some(SOON)).expect("a limit");
    let mut child = with_path(&socket, &notify, ready.as_os_str());
    connect(&socket).agree();
    terminate(&child);
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    assert!(!socket.exists(), "the socket is still there");

    // By a name that is no file's.
    let name = format!("vfio-user-device-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let notify = UnixDatagram::bind_addr(&address).expect("a socket");
    notify.set_read_timeout(Some(SOON)).expect("a limit");
    let mut child = with_path(&socket, &notify, OsStr::new(&format!("@{name}")));
    connect(&socket).agree();
    fs::remove_file(&socket).expect("a file");
    fs::write(&socket, "somebody else's").expect("a file");
    terminate(&child);
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    assert_eq!(fs::read(&socket).expect("a file"), b"somebody else's");
}

#[test]
fn a_connection_is_served_until_it_ends() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut command = command();
    command.args(["--fd=3", "--m-num-ports=4"]);
    let mut child = with_fd(command, theirs.into());
    let mut client = Client::new(ours);
    client.agree();
    client.in_step();
    drop(client);
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}
