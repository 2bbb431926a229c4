// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Those who are connected to a device beside its client: who has said nothing yet, and observers.
//!
//! What somebody is follows from the first message. One that says so is an observer; anybody else is the client if there is none,
//! and is told that the device is busy if there is one.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL, ENOSPC};
use vfio_user_protocol::version::MAJOR;
use vfio_user_protocol::{Limits, Proposal, Request};

use super::observer::{refuse, Heard, Observer};
use super::{Listener, Manner, Source};
use crate::backend::Backend;
use crate::connection::{Connection, End, Foreign, Read};
use crate::host::Host;
use crate::notice::Notices;

/// How long nobody is taken after somebody could not be, in nanoseconds.
const LACK_NS: u64 = 100_000_000;

/// Most that may have said nothing yet. Whoever has waited longest goes if there is another one.
const MAX_WAITING: usize = 16;

/// Most observers of a device.
const MAX_OBSERVERS: usize = 4;

/// Those who are connected beside the client.
pub(super) struct Others {
    /// Absent if the one connection was there from the beginning.
    listener: Option<Listener>,
    /// Until when nobody is taken, because there are no descriptors.
    deaf_until_ns: u64,
    waiting: VecDeque<Connection>,
    foreign: Foreign,
    observers: Vec<Observer>,
    /// An observer that does not read is dropped after so long.
    patience_ns: u64,
    notices: Notices,
}

/// Whether the system has no more of something for now.
fn is_lack(error: &std::io::Error) -> bool {
    let lack = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| lack.contains(&errno))
}

/// What an observer says of itself, if this is one's first message, which is whole.
fn observer(connection: &Connection) -> Option<Proposal> {
    let (header, body) = connection.message()?;
    match Request::decode(&header, body, &Limits::DEFAULT) {
        Ok(Request::Version(proposal)) => {
            Some(proposal).filter(|proposal| proposal.observer && proposal.major == MAJOR)
        }
        _ => None,
    }
}

impl Others {
    /// Those who come from there.
    pub(super) fn new(source: Source, manner: &Manner, patience_ns: u64, now_ns: u64) -> Self {
        let foreign = Foreign::default();
        let (listener, waiting) = match source {
            Source::Client(fd) => (None, Some(Connection::new(fd, foreign.clone()))),
            Source::Listener(listener) => (Some(listener), None),
        };
        Self {
            listener,
            deaf_until_ns: 0,
            waiting: waiting.into_iter().collect(),
            foreign,
            observers: Vec::new(),
            patience_ns,
            notices: Notices::new(manner.label.clone(), now_ns),
        }
    }

    /// Whether nobody is there, and nobody will come.
    pub(super) fn are_over(&self) -> bool {
        self.listener.is_none() && self.waiting.is_empty() && self.observers.is_empty()
    }

    /// Whether somebody has said something that was not answered, because a client was about to go.
    pub(super) fn have_spoken(&self) -> bool {
        self.waiting.iter().any(Connection::has_message)
    }

    /// What to wait for: a file each of the observers, and then others.
    pub(super) fn files(&self, now_ns: u64) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self.listener.iter();
        let listener = listener.filter(move |_| now_ns >= self.deaf_until_ns);
        let others = self.waiting.iter().map(AsFd::as_fd);
        let others = others.chain(listener.map(AsFd::as_fd));
        let others = others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        self.observers.iter().map(Observer::file).chain(others)
    }

    /// Nanoseconds until somebody is to be looked at, whatever comes.
    pub(super) fn wake_after_ns(&self, now_ns: u64) -> Option<u64> {
        let deaf = Some(self.deaf_until_ns).filter(|until| now_ns < *until);
        let due = self.observers.iter().filter_map(Observer::due_ns);
        let first = due.chain(deaf).min();
        first.map(|at| at.saturating_sub(now_ns))
    }

    /// Looks after those of whom something has come: the bits of `ready` are in the order of [`Others::files`]; one behind them all
    /// stands for who has spoken before. Gives the client, if there was none.
    pub(super) fn look<B: Backend>(
        &mut self,
        ready: u32,
        client: Option<&Connection>,
        host: &Host<B>,
        now_ns: u64,
    ) -> Result<Option<Connection>> {
        let mut is_ready = (0..u32::BITS).map(|bit| (ready >> bit) & 1 != 0);
        let Self {
            observers, notices, ..
        } = self;
        // Each of them says one thing before the client is looked at again.
        observers.retain_mut(|observer| match is_ready.next() {
            Some(true) => match observer.hear() {
                Heard::Gone => false,
                Heard::Stays => true,
                Heard::Refused(reason) => {
                    notices.tell(&format!("an observer was refused: {reason}"), now_ns);
                    true
                }
            },
            _ => true,
        });
        let mut come = None;
        if is_ready.any(|ready| ready) {
            come = self.newcomers(client, now_ns);
            self.take_one(client.is_some(), now_ns)?;
        }
        self.tell(host, now_ns);
        Ok(come)
    }

    /// Looks after those who have said nothing yet. Gives the client, if there was none.
    fn newcomers(&mut self, client: Option<&Connection>, now_ns: u64) -> Option<Connection> {
        let mut come = None;
        for _ in 0..self.waiting.len() {
            let Some(mut other) = self.waiting.pop_front() else {
                break;
            };
            match other.read() {
                Ok(Read::Wait) => self.waiting.push_back(other),
                Ok(Read::Message) => match observer(&other) {
                    Some(proposal) => self.welcome(other, &proposal, now_ns),
                    None if client.is_none() && come.is_none() => come = Some(other),
                    // A client that is gone is in nobody's way, even if not all that it said has been heard: whoever comes after it
                    // must not find it here. So that is looked at last.
                    None if client.is_some_and(Connection::has_ended) => {
                        self.waiting.push_back(other);
                    }
                    None => turn_away(other, EBUSY),
                },
                // As a client is answered.
                Err(End::Lost(error)) if client.is_none() => {
                    refuse(&mut other, &error.header, EINVAL);
                }
                Err(_) => {}
            }
        }
        come
    }

    fn welcome(&mut self, other: Connection, proposal: &Proposal, now_ns: u64) {
        if self.observers.len() >= MAX_OBSERVERS {
            let what = format!("an observer was refused: there are {MAX_OBSERVERS} already");
            self.notices.tell(&what, now_ns);
            return turn_away(other, ENOSPC);
        }
        match Observer::welcome(other, proposal) {
            Ok(observer) => self.observers.push(observer),
            Err(reason) => self
                .notices
                .tell(&format!("an observer was refused: {reason}"), now_ns),
        }
    }

    /// Takes one who has come, if somebody has.
    fn take_one(&mut self, has_client: bool, now_ns: u64) -> Result<()> {
        let listener = self.listener.as_ref();
        let Some(listener) = listener.filter(|_| now_ns >= self.deaf_until_ns) else {
            return Ok(());
        };
        match listener.accept() {
            Ok(None) => {}
            Ok(Some(socket)) => {
                if self.waiting.len() >= MAX_WAITING {
                    self.waiting.pop_front();
                }
                let connection = Connection::new(socket, self.foreign.clone());
                self.waiting.push_back(connection);
            }
            // The client, or somebody else, may have all the descriptors that there can be. That is no reason to end.
            Err(error) if has_client || is_lack(&error) => {
                self.deaf_until_ns = now_ns.saturating_add(LACK_NS);
            }
            Err(error) => return Err(error).context("no client can be taken"),
        }
        Ok(())
    }

    /// Tells observers what is new.
    pub(super) fn tell<B: Backend>(&mut self, host: &Host<B>, now_ns: u64) {
        if self.observers.is_empty() {
            return;
        }
        if self.observers.iter().any(Observer::waits) {
            let backend = host.backend();
            let (progress, refusal) = (backend.progress(), backend.last_refusal());
            for observer in &mut self.observers {
                observer.tell(&progress, refusal, now_ns);
            }
        }
        let patience_ns = self.patience_ns;
        self.observers
            .retain_mut(|observer| observer.send(now_ns, patience_ns));
    }
}

/// Answers somebody who does not get what he came for, and whom nobody hears any longer.
fn turn_away(mut other: Connection, errno: u32) {
    let header = other.message().map(|(header, _)| header);
    if let Some(header) = header {
        refuse(&mut other, &header, errno);
    }
}
