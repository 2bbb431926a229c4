// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Controlling many devices by JSON on a unix socket.
//!
//! Messages are framed as in QEMU's machine protocol (QMP): a greeting, `execute` with `arguments`, `return` or `error`, events. The
//! same socket takes JSON-RPC 2.0: `method` with `params`, `result` or `error`, batches, notifications. There is one table of
//! [commands], whichever envelope a wish comes in.
//!
//! | module | subject |
//! |---|---|
//! | [`framing`] | bytes that come, as texts of one JSON value each |
//! | [`envelope`] | what such a text wants, and what is answered |
//! | [`commands`] | the commands that there are |
//! | [`files`] | files that state goes to and comes from |
//! | [`client`] | one client of the socket |
//!
//! Each client has a thread of its own, and waits for nobody but itself. How many there are, how long a message is and how deep it
//! nests is bounded; a client that does not read what it is told is not listened to, and dropped in the end.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use anyhow::Result;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;

use crate::registry::Registry;
use crate::server::Listener;

pub mod client;
pub mod commands;
pub mod envelope;
pub mod files;
pub mod framing;

use client::Client;

/// Most clients at a time.
pub const MAX_CLIENTS: usize = 64;

/// A socket on which devices are controlled.
#[derive(Debug)]
pub struct Place {
    /// Where clients come from.
    pub listener: Listener,
    /// Whether they are greeted, as those of QMP expect. Those of JSON-RPC do not.
    pub greets: bool,
}

/// How clients are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A client that leaves what it is told unread for so long is dropped, and a transfer of state that does not get on is given up.
    pub patience: Duration,
    /// Makes whoever is at the other end of it end the program.
    pub end: Arc<UnixStream>,
}

/// Takes clients until something comes through `signals`.
pub fn serve(
    registry: &Registry,
    places: &[Place],
    settings: &Settings,
    signals: &UnixStream,
) -> Result<()> {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let mut files = vec![PollFd::new(signals, PollFlags::IN)];
        let listeners = places.iter().map(|place| place.listener.as_fd());
        files.extend(listeners.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = files.iter().map(|f| !f.revents().is_empty()).collect();
        if ready.first() == Some(&true) {
            return Ok(());
        }
        for (place, ready) in places.iter().zip(ready.iter().skip(1)) {
            if !ready {
                continue;
            }
            match place.listener.accept() {
                Ok(None) => {}
                Ok(Some(socket)) => begin(registry, place.greets, settings, socket, &count),
                // There may be no descriptor for it. Others go on, and one of them may end.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// One of the clients that there can be.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let seat = Self(count.clone());
        (before < MAX_CLIENTS).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a client by a thread of its own.
fn begin(
    registry: &Registry,
    greets: bool,
    settings: &Settings,
    socket: OwnedFd,
    count: &Arc<AtomicUsize>,
) {
    let Some(seat) = Seat::take(count) else {
        let text = envelope::full(MAX_CLIENTS);
        // One who does not hear it sees that the connection ends.
        let _ = rustix::net::send(&socket, text.as_bytes(), client::FLAGS);
        return;
    };
    let Ok(client) = Client::new(socket, registry.clone(), greets, settings.clone()) else {
        return;
    };
    let builder = Builder::new().name("control".to_string());
    // Without a thread there is no client.
    let _ = builder.spawn(move || {
        let _seat = seat;
        client.run();
    });
}
