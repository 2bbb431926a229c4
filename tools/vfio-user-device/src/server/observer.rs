// SPDX-License-Identifier: GPL-2.0 OR MIT

//! An observer: somebody who is told how a device's migration goes on, beside its client.
//!
//! It asks, and is answered when something is different from what it was told before; it is not heard until then. So it has one
//! answer to read at most, and costs the program a connection and nothing that grows. Of a change of bytes alone it is told ten
//! times a second at most.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL, EPERM};
use vfio_user_protocol::{Header, Limits, Progress, Proposal, Reply, Request};

use crate::connection::{Connection, End, Read};
use crate::host::{Outgoing, CAPABILITIES};

/// Longest message of an observer. Those that have a meaning are shorter by far.
const MAX_MESSAGE: usize = 4096;

/// How long nothing is told of bytes after something was told, in nanoseconds.
const QUIET_NS: u64 = 100_000_000;

/// What an observer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    progress: Progress,
    /// Why migrating was refused last.
    refusal: String,
}

/// What an observer wants to know: the progress, which it is to be told when there is news.
#[derive(Clone, Copy, Debug)]
struct Asked {
    header: Header,
    /// Most bytes of reply that it takes.
    argsz: u32,
}

/// What has become of an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It stays.
    Stays,
    /// It stays, and was refused something, for this reason.
    Refused(&'static str),
    /// It is gone, or to go.
    Gone,
}

/// Somebody who is told how the migration goes on.
#[derive(Debug)]
pub(super) struct Observer {
    connection: Connection,
    asked: Option<Asked>,
    told: Option<Told>,
    told_ns: u64,
    /// When it is told of bytes that it has asked for too early.
    due_ns: Option<u64>,
    /// When it is given up, while what it was told waits for room.
    give_up_ns: Option<u64>,
}

impl Observer {
    /// Takes up somebody whose first message says that it is an observer, and answers that.
    pub(super) fn welcome(
        mut connection: Connection,
        proposal: &Proposal,
    ) -> Result<Self, &'static str> {
        let mut out = Outgoing::default();
        let agreed = connection.take(|header, _, descriptors| {
            if descriptors.lost || !descriptors.fds.is_empty() {
                put(header, &mut out, |out| header.put_error(out, EINVAL));
                return Err("descriptors belong to no version");
            }
            let data = CAPABILITIES.answer(proposal);
            let reply = Reply::Version {
                minor: 0,
                data: &data,
            };
            put(header, &mut out, |out| reply.encode(header, out));
            Ok(())
        });
        connection.queue(out);
        if let Some(Err(reason)) = agreed {
            // Whoever does not read it learns it from the end of the connection.
            let _ = connection.send();
            return Err(reason);
        }
        connection.limit(MAX_MESSAGE);
        Ok(Self {
            connection,
            asked: None,
            told: None,
            told_ns: 0,
            due_ns: None,
            give_up_ns: None,
        })
    }

    /// What to wait for.
    pub(super) fn file(&self) -> PollFd<'_> {
        let interest = match (self.connection.is_full(), self.asked) {
            (true, _) => PollFlags::OUT,
            // It has nothing to say now but that it goes.
            (false, Some(_)) => PollFlags::RDHUP,
            (false, None) => PollFlags::IN,
        };
        PollFd::from_borrowed_fd(self.connection.as_fd(), interest)
    }

    /// When it is to be looked at, whatever it does.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns.into_iter().chain(self.give_up_ns).min()
    }

    /// Looks after it: something has come, or there is room, or it is gone.
    pub(super) fn hear(&mut self) -> Heard {
        if self.connection.is_full() {
            return Heard::Stays;
        }
        if self.asked.is_some() {
            return Heard::Gone;
        }
        match self.connection.read() {
            Ok(Read::Wait) => Heard::Stays,
            Ok(Read::Message) => self.message(),
            Err(End::Gone) => Heard::Gone,
            Err(End::Lost(error)) => {
                refuse(&mut self.connection, &error.header, EINVAL);
                Heard::Gone
            }
        }
    }

    /// Carries one message out. What an observer wants of the device is refused, whatever it is.
    fn message(&mut self) -> Heard {
        let mut out = Outgoing::default();
        let mut asked = None;
        let carried_out = self.connection.take(|header, body, descriptors| {
            let request = Request::decode(header, body, &Limits::DEFAULT);
            let result = match request {
                _ if descriptors.lost || !descriptors.fds.is_empty() => {
                    Err((EINVAL, "descriptors belong to none of its messages"))
                }
                Err(refusal) => Err((refusal.errno(), "the message makes no sense")),
                Ok(Request::Version(_)) => Err((EBUSY, "the version was agreed on")),
                Ok(Request::Feature(feature)) if feature.number == number::PROGRESS => {
                    match feature.operation {
                        Operation::Get => {
                            asked = Some(Asked {
                                header: *header,
                                argsz: feature.argsz,
                            });
                            Ok(())
                        }
                        Operation::Probe { set: false, .. } => {
                            put(header, &mut out, |out| {
                                Reply::Feature(feature).encode(header, out)
                            });
                            Ok(())
                        }
                        _ => Err((EINVAL, "progress is read only")),
                    }
                }
                Ok(_) => Err((EPERM, "an observer reads progress, and nothing else")),
            };
            if let Err((errno, _)) = result {
                put(header, &mut out, |out| header.put_error(out, errno));
            }
            result
        });
        self.asked = asked.filter(|asked: &Asked| !asked.header.no_reply());
        self.connection.queue(out);
        match carried_out {
            Some(Err((_, reason))) => Heard::Refused(reason),
            _ => Heard::Stays,
        }
    }

    /// Whether it has asked and was not answered.
    pub(super) fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// Tells it how things are, if it has asked and was told something else before, or only fewer bytes and not just now.
    pub(super) fn tell(&mut self, progress: &Progress, refusal: &str, now_ns: u64) {
        self.due_ns = None;
        let Some(Asked { header, argsz }) = self.asked else {
            return;
        };
        if let Some(told) = &self.told {
            let same = told.refusal == refusal
                && Progress {
                    bytes: progress.bytes,
                    ..told.progress
                } == *progress;
            if same && told.progress == *progress {
                return;
            }
            let from_ns = self.told_ns.saturating_add(QUIET_NS);
            if same && now_ns < from_ns {
                self.due_ns = Some(from_ns);
                return;
            }
        }
        self.asked = None;
        let data = progress.encode(refusal);
        let feature = Feature {
            argsz,
            number: number::PROGRESS,
            operation: Operation::Get,
            data: &data,
        };
        let mut out = Outgoing::default();
        match feature.has_room(data.len()) {
            Ok(()) => {
                Reply::Feature(feature).encode(&header, &mut out.bytes);
                self.told = Some(Told {
                    progress: *progress,
                    refusal: refusal.to_string(),
                });
                self.told_ns = now_ns;
            }
            Err(refusal) => header.put_error(&mut out.bytes, refusal.errno()),
        }
        self.connection.queue(out);
    }

    /// Sends what there is room for. Whether it stays: who does not read for so long goes.
    pub(super) fn send(&mut self, now_ns: u64, patience_ns: u64) -> bool {
        if self.connection.is_full() && self.connection.send().is_err() {
            return false;
        }
        if !self.connection.is_full() {
            self.give_up_ns = None;
            return true;
        }
        now_ns
            < *self
                .give_up_ns
                .get_or_insert(now_ns.saturating_add(patience_ns))
    }
}

/// Puts an answer into a message, unless none is wanted.
fn put(header: &Header, out: &mut Outgoing, encode: impl FnOnce(&mut Vec<u8>)) {
    if !header.no_reply() {
        encode(&mut out.bytes);
    }
}

/// Answers a message that is not carried out, as far as there is room.
pub(super) fn refuse(connection: &mut Connection, header: &Header, errno: u32) {
    let mut out = Outgoing::default();
    put(header, &mut out, |out| header.put_error(out, errno));
    connection.queue(out);
    let _ = connection.send();
}
