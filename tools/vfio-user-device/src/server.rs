// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The loop that waits for clients, for whoever controls the program, and for time.
//!
//! A device has one client at a time, which is whoever says something first. Whoever comes while there is one and says something is
//! told that it is busy; who has said nothing can be the next client when that one is gone. Observers are beside it.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::time::{clock_gettime, ClockId};

use crate::backend::Backend;
use crate::connection::{Connection, End, Read};
use crate::host::{Host, Next, Outgoing};
use crate::notice::Notices;

mod observer;
mod others;
mod source;

use others::Others;
pub use source::{Listener, Source};

/// Messages that are carried out before anybody else is looked at again.
const BATCH: usize = 64;

/// What goes on with a device that somebody wanted something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is served further.
    GoOn,
    /// It is not.
    End,
}

/// Who, beside its clients, wants something of a device.
pub trait Control<B: Backend> {
    /// Readable when something is wanted.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Does what is wanted. What the client said before that has been carried out.
    fn attend(&mut self, host: &mut Host<B>, now_ns: u64) -> Then;
    /// Something may have changed.
    fn observe(&mut self, host: &Host<B>);
}

/// Signals, which come through a socket: each of them ends the program.
#[derive(Debug)]
pub struct Signals<'s>(pub &'s UnixStream);

impl<B: Backend> Control<B> for Signals<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn attend(&mut self, _: &mut Host<B>, _: u64) -> Then {
        Then::End
    }

    fn observe(&mut self, _: &Host<B>) {}
}

/// The system's time.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// How a device is served.
#[derive(Clone, Debug)]
pub struct Manner {
    /// A client that leaves replies unread for so long is dropped.
    pub patience: Duration,
    /// What a line on standard error about the device begins with.
    pub label: String,
}

/// Serves a device until whoever controls it ends that, or the only client is gone.
pub fn serve<B: Backend>(
    host: &mut Host<B>,
    source: Source,
    control: &mut impl Control<B>,
    manner: Manner,
) -> Result<()> {
    let now = now_ns();
    let patience_ns = u64::try_from(manner.patience.as_nanos()).unwrap_or(u64::MAX);
    let mut server = Server {
        host,
        control,
        patience_ns,
        others: Others::new(source, &manner, patience_ns, now),
        notices: Notices::new(manner.label, now),
    };
    while let Some(connection) = server.first()? {
        if server.client(connection)? == Left::End {
            break;
        }
    }
    Ok(())
}

/// Why there is no client any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It is gone.
    Client,
    /// The device is not served any longer.
    End,
}

/// What became of a client after some of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    /// It goes on.
    Continue,
    /// Nothing more is heard, and it ends when everything has been said.
    Closes,
    /// It is gone.
    Gone,
}

struct Server<'s, B: Backend, C: Control<B>> {
    host: &'s mut Host<B>,
    control: &'s mut C,
    patience_ns: u64,
    others: Others,
    notices: Notices,
}

impl<B: Backend, C: Control<B>> Server<'_, B, C> {
    /// The next client, whose first message is there; none if the device is not to be served any longer.
    fn first(&mut self) -> Result<Option<Connection>> {
        while !self.others.are_over() {
            let now = now_ns();
            let control = PollFd::from_borrowed_fd(self.control.fd(), PollFlags::IN);
            let mut files = vec![control];
            files.extend(self.others.files(now));
            // Who spoke while the last client was about to go.
            let (timeout, spoken) = match self.others.have_spoken() {
                true => (Some(0), SPOKEN),
                false => (self.others.wake_after_ns(now), 0),
            };
            wait(&mut files, timeout)?;
            let ready = ready(&files) | spoken;
            if ready & 1 != 0 && self.attend() == Then::End {
                return Ok(None);
            }
            let come = self.others.look(ready >> 1, None, self.host, now_ns())?;
            if come.is_some() {
                return Ok(come);
            }
        }
        Ok(None)
    }

    /// Does what is wanted of the device beside its client.
    fn attend(&mut self) -> Then {
        let then = self.control.attend(self.host, now_ns());
        self.control.observe(self.host);
        then
    }

    /// Serves one client.
    fn client(&mut self, connection: Connection) -> Result<Left> {
        self.host.connected(now_ns());
        self.control.observe(self.host);
        self.others.tell(self.host, now_ns());
        let left = self.converse(connection);
        self.host.disconnected(now_ns());
        self.control.observe(self.host);
        self.others.tell(self.host, now_ns());
        left
    }

    fn converse(&mut self, mut connection: Connection) -> Result<Left> {
        // When the client is given up, while replies wait for room.
        let mut give_up_at: Option<u64> = None;
        let mut closes = false;
        loop {
            let now = now_ns();
            let left = [
                self.host.wake_after_ns(now),
                give_up_at.map(|at| at.saturating_sub(now)),
                self.others.wake_after_ns(now),
            ];
            // What it said first was heard before it was the client.
            let has_message = connection.has_message() && !connection.is_full() && !closes;
            let timeout = match has_message || self.host.has_work() {
                true => Some(0),
                false => left.into_iter().flatten().min(),
            };
            let interest = match connection.is_full() {
                // Whoever does not read what he is told is not listened to.
                true => PollFlags::OUT,
                false => PollFlags::IN,
            };
            let mut files = vec![
                PollFd::from_borrowed_fd(self.control.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(connection.as_fd(), interest),
            ];
            files.extend(self.others.files(now));
            wait(&mut files, timeout)?;
            let ready = ready(&files);
            let (is_wanted, is_ready, others_ready) = (ready & 1 != 0, ready & 2 != 0, ready >> 2);
            self.host.tick(now_ns());
            if is_ready || has_message || is_wanted {
                let heard = match is_wanted {
                    // What was said before comes before. A guest's writes may not have been read yet.
                    true => self.hear_out(&mut connection, closes),
                    false => self.talk(&mut connection, closes),
                };
                match heard {
                    (Talk::Gone, _) => return Ok(Left::Client),
                    (talk, has_moved) => {
                        closes |= talk == Talk::Closes;
                        give_up_at = give_up_at.filter(|_| !has_moved);
                    }
                }
            }
            if is_wanted && self.attend() == Then::End {
                return Ok(Left::End);
            }
            // A part of it for each turn, so that neither keeps the other waiting.
            let news = match self.host.has_work() {
                true => self.host.work(),
                false => None,
            };
            let now = now_ns();
            if let Some(news) = news {
                self.notices.tell(&news, now);
            }
            if !connection.is_full() {
                give_up_at = None;
                if closes {
                    return Ok(Left::Client);
                }
            } else if now >= *give_up_at.get_or_insert(now.saturating_add(self.patience_ns)) {
                return Ok(Left::Client);
            }
            self.others
                .look(others_ready, Some(&connection), self.host, now)?;
        }
    }

    /// Carries out what the client has said by now, as far as it reads the replies.
    fn hear_out(&mut self, connection: &mut Connection, closes: bool) -> (Talk, bool) {
        let until = connection.heard().saturating_add(connection.unread());
        let mut has_moved = false;
        loop {
            let before = connection.heard();
            let (talk, moved) = self.talk(connection, closes);
            has_moved |= moved;
            let heard = connection.heard();
            if talk != Talk::Continue || heard == before || heard >= until {
                return (talk, has_moved);
            }
        }
    }

    /// Carries out a bounded number of messages and sends the replies. Says whether something was sent, too.
    fn talk(&mut self, connection: &mut Connection, mut closes: bool) -> (Talk, bool) {
        let mut has_moved = false;
        for _ in 0..BATCH {
            if !connection.is_full() && !closes {
                match self.step(connection) {
                    Ok(Some(Next::Continue)) => {}
                    Ok(Some(Next::Close)) => closes = true,
                    Ok(None) => break,
                    Err(End::Gone) => return (Talk::Gone, has_moved),
                    Err(End::Lost(error)) => {
                        let mut out = Outgoing::default();
                        Host::<B>::refuse_frame(&error.header, &mut out);
                        connection.queue(out);
                        closes = true;
                    }
                }
            }
            match connection.send() {
                Ok(sent) => has_moved |= sent > 0,
                Err(_) => return (Talk::Gone, has_moved),
            }
            if connection.is_full() || closes {
                break;
            }
        }
        match closes {
            true => (Talk::Closes, has_moved),
            false => (Talk::Continue, has_moved),
        }
    }

    /// Carries one message out, if a whole one is there.
    fn step(&mut self, connection: &mut Connection) -> Result<Option<Next>, End> {
        match connection.read()? {
            Read::Wait => Ok(None),
            Read::Message => {
                let mut out = Outgoing::default();
                let host = &mut *self.host;
                let now = now_ns();
                let next = connection.take(|header, body, descriptors| {
                    host.message(header, body, descriptors, now, &mut out)
                });
                connection.queue(out);
                // Whoever has the reply finds others to know.
                self.control.observe(host);
                self.others.tell(host, now);
                if let Some(reason) = host.take_refusal() {
                    self.notices.tell(&format!("refused: {reason}"), now);
                }
                Ok(next)
            }
        }
    }
}

/// A bit of no file's.
const SPOKEN: u32 = 1 << 31;

/// Which of the files are ready: a bit each, in their order. There are fewer than there are bits.
fn ready(files: &[PollFd<'_>]) -> u32 {
    let bits = files.iter().zip(0..u32::BITS);
    let ready = bits.filter(|(file, _)| !file.revents().is_empty());
    ready.fold(0, |all, (_, bit)| all | (1 << bit))
}

/// Waits for one of the files, for no longer than so many nanoseconds.
fn wait(files: &mut [PollFd<'_>], timeout_ns: Option<u64>) -> Result<()> {
    let timeout = timeout_ns.map(|left| Timespec {
        tv_sec: (left / 1_000_000_000) as _,
        tv_nsec: (left % 1_000_000_000) as _,
    });
    match poll(files, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}
