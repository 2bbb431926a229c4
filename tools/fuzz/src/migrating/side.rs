// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One of the programs, and what its client does.

use std::os::fd::OwnedFd;

use migration::fsm::State;
use migration::model::Values;
use vfio_user_device::backend::Backend;
use vfio_user_device::host::{Descriptors, Host, Next, Outgoing};
use vfio_user_device::model::{Model, Owner, SessionName};
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL};
use vfio_user_protocol::{Header, Limits, Progress, Request};

use super::card::{Card, Contents, Sections, Watched};
use super::guest::Guest;
use super::step::Step;
use super::vectors::Vectors;
use super::Outcome;
use crate::with_checksums;

/// A card as it can be seen without a trace.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) card: Sections,
    pub(super) progress: Progress,
    pub(super) owner: Option<Owner>,
}

impl Look {
    pub(super) fn state(&self) -> State {
        State::try_from(self.progress.state).expect("a migration state")
    }
}

/// A program with its card.
pub(super) struct Side<C: Card> {
    pub(super) values: Values<'static>,
    pub(super) card: Watched<C>,
    pub(super) host: Host<Model<'static, Watched<C>>>,
    /// What was agreed on with its client, if there is one.
    pub(super) agreed: Option<Limits>,
    pub(super) is_connected: bool,
    /// Whether there was a client before.
    pub(super) had_client: bool,
    /// The remote call's session.
    pub(super) remote: Option<SessionName>,
    /// What was read of the session's stream.
    pub(super) read: Vec<u8>,
    /// The card when it stopped to be saved.
    pub(super) stopped: Option<Sections>,
    /// Whether the session has done what it was begun for.
    pub(super) is_complete: bool,
    /// The stream that it is sent, and how much of that it was sent.
    pub(super) feed: (Vec<u8>, usize),
    /// The card after what has happened last.
    pub(super) seen: Option<Look>,
    /// What it has beside its registers, if that is known.
    pub(super) contents: Option<Contents>,
    pub(super) guest: Guest,
    pub(super) vectors: Vectors,
}

impl<C: Card> Side<C> {
    pub(super) fn new(values: Values<'static>) -> Self {
        let card = Watched::power_on(&values);
        Self {
            host: Host::new(Model::new(card.clone(), values.clone())),
            values,
            card,
            agreed: None,
            is_connected: false,
            had_client: false,
            remote: None,
            read: Vec::new(),
            stopped: None,
            is_complete: false,
            feed: (Vec::new(), 0),
            seen: None,
            contents: None,
            guest: Guest::new(),
            vectors: Vectors::default(),
        }
    }

    pub(super) fn look(&self) -> Look {
        Look {
            card: self.card.state(),
            progress: self.host.backend().progress(),
            owner: self.host.backend().owner(),
        }
    }

    /// The card at this time, which it may be another one for.
    pub(super) fn look_at(&mut self, now_ns: u64) -> Look {
        let before = self.seen.take().unwrap_or_else(|| self.look());
        self.host.tick(now_ns);
        let now = self.look();
        if !before.state().is_running() || !self.is_connected {
            assert_eq!(now, before, "time passes for a card that does not run");
        }
        assert_eq!((now.progress, now.owner), (before.progress, before.owner));
        now
    }

    pub(super) fn connect(&mut self, kind: u8, now_ns: u64, outcome: &mut Outcome) {
        if self.is_connected {
            return;
        }
        let before = self.look();
        self.host.connected(now_ns);
        self.is_connected = true;
        outcome.reconnected += usize::from(std::mem::replace(&mut self.had_client, true));
        assert_eq!(self.look(), before);
        let text: &[u8] = match kind % 3 {
            0 => b"",
            1 => b"{\"capabilities\":{\"max_data_xfer_size\":64}}\0",
            _ => b"{\"capabilities\":{\"write_multiple\":true}}\0",
        };
        let body = [&[0; 4], text].concat();
        self.message(1, 1, &body, now_ns, outcome);
        assert!(self.agreed.is_some());
    }

    pub(super) fn disconnect(&mut self, now_ns: u64, outcome: &mut Outcome) {
        if !self.is_connected {
            return;
        }
        let before = self.look_at(now_ns);
        self.host.disconnected(now_ns);
        self.guest.is_off();
        self.vectors.clear();
        (self.is_connected, self.agreed) = (false, None);
        let after = self.look();
        if before.owner == Some(Owner::Remote) {
            assert_eq!(after, before, "a remote call's session goes on");
        } else {
            self.runs_as_it_was(&before, &after);
        }
        self.is_sound(&before, after, outcome);
    }

    pub(super) fn go(&mut self, target: u32, now_ns: u64, outcome: &mut Outcome) {
        let data = [target.to_ne_bytes(), [0xff; 4]].concat();
        let feature = Feature {
            argsz: 16,
            number: number::MIG_DEVICE_STATE,
            operation: Operation::Set,
            data: &data,
        };
        let before = self.look_at(now_ns);
        let Some(answer) = self.answer(&Request::Feature(feature), now_ns, outcome) else {
            return;
        };
        let from = before.state();
        let wanted = match State::try_from(target) {
            _ if before.owner == Some(Owner::Remote) => Err(EBUSY),
            Err(_) | Ok(State::Error) => Err(EINVAL),
            Ok(State::PreCopy | State::PreCopyP2p) if from == State::StopCopy => Err(EINVAL),
            // It depends on what came.
            Ok(to) if from == State::Resuming && to != from => return,
            Ok(_) => Ok(()),
        };
        assert_eq!(answer.map(|_| ()), wanted, "{from} to {target}");
    }

    pub(super) fn reset(&mut self, now_ns: u64, outcome: &mut Outcome) {
        if self.answer(&Request::Reset, now_ns, outcome).is_some() {
            let after = self.look();
            assert_eq!((after.state(), after.owner), (State::Running, None));
            assert_eq!(after.card, Watched::<C>::power_on(&self.values).state());
        }
    }

    pub(super) fn ask(&mut self, request: &Request<'_>, now_ns: u64, outcome: &mut Outcome) {
        self.answer(request, now_ns, outcome);
    }

    /// The body of the answer, or the error number, if there is somebody who asks.
    pub(super) fn answer(
        &mut self,
        request: &Request<'_>,
        now_ns: u64,
        outcome: &mut Outcome,
    ) -> Option<Result<Vec<u8>, u32>> {
        self.answer_with(request, Vec::new(), now_ns, outcome)
    }

    /// The same for a request with descriptors.
    pub(super) fn answer_with(
        &mut self,
        request: &Request<'_>,
        files: Vec<OwnedFd>,
        now_ns: u64,
        outcome: &mut Outcome,
    ) -> Option<Result<Vec<u8>, u32>> {
        let mut bytes = Vec::new();
        request.encode(1, false, &mut bytes);
        let header = Header::parse(bytes.first_chunk()?);
        self.message_with(&header, bytes.get(Header::LEN..)?, files, now_ns, outcome)
    }

    /// A message that nobody who speaks the protocol would send.
    pub(super) fn raw(
        &mut self,
        id: u8,
        command: u8,
        number: u16,
        bytes: &[u8],
        now_ns: u64,
        outcome: &mut Outcome,
    ) {
        let mut body = number.to_ne_bytes().to_vec();
        body.extend(bytes);
        body.resize(usize::from(number % 64), id);
        self.message(id, (command % 20).into(), &body, now_ns, outcome);
    }

    /// Has a message answered, and looks at what has changed.
    pub(super) fn message(
        &mut self,
        id: u8,
        command: u16,
        body: &[u8],
        now_ns: u64,
        outcome: &mut Outcome,
    ) -> Option<Result<Vec<u8>, u32>> {
        let mut head = [0; Header::LEN];
        head[..2].copy_from_slice(&u16::from(id).to_ne_bytes());
        head[2..4].copy_from_slice(&command.to_ne_bytes());
        let len = (Header::LEN + body.len()) as u32;
        head[4..8].copy_from_slice(&len.to_ne_bytes());
        self.message_with(&Header::parse(&head), body, Vec::new(), now_ns, outcome)
    }

    fn message_with(
        &mut self,
        header: &Header,
        body: &[u8],
        files: Vec<OwnedFd>,
        now_ns: u64,
        outcome: &mut Outcome,
    ) -> Option<Result<Vec<u8>, u32>> {
        if !self.is_connected {
            return None;
        }
        let before = self.look_at(now_ns);
        let limits = self.agreed.unwrap_or(Limits::DEFAULT);
        let request = Request::decode(header, body, &limits);
        let mut out = Outgoing::default();
        let sent = files
            .iter()
            .map(|file| file.try_clone().expect("a descriptor"));
        let fds = Descriptors {
            fds: sent.collect(),
            lost: false,
            foreign: false,
        };
        let next = self.host.message(header, body, fds, now_ns, &mut out);
        assert_eq!(next, Next::Continue);
        let (reply, answer) = out.bytes.split_first_chunk().expect("a reply");
        let reply = Header::parse(reply);
        assert!(reply.is_reply() && (reply.id, reply.command) == (header.id, header.command));
        assert!(reply.size as usize == out.bytes.len() && out.file.is_none());
        let after = self.look();
        let result = match (reply.error(), request) {
            (Some(errno), request) => {
                assert!(answer.is_empty() && errno != 0);
                self.has_failed(&before, &after, request.ok().as_ref(), errno, outcome);
                self.vectors.were_refused(files);
                Err(errno)
            }
            (None, Ok(request)) => {
                self.has_succeeded(&before, &after, &request, answer, outcome);
                self.is_set_up_by(&request, files, answer, outcome);
                Ok(answer.to_vec())
            }
            (None, Err(refusal)) => panic!("an answer to what is no request: {refusal}"),
        };
        self.is_sound(&before, after, outcome);
        Some(result)
    }

    /// The next bytes that the card is sent of what the other one has saved.
    pub(super) fn next_piece(&mut self, other: &Side<C>, most: usize) -> Vec<u8> {
        self.follow(other);
        let (stream, sent) = &mut self.feed;
        let rest = stream.get(*sent..).unwrap_or_default();
        let piece = rest.get(..most.min(rest.len())).unwrap_or_default();
        *sent += piece.len();
        piece.to_vec()
    }

    /// Takes over what the other one has saved since.
    pub(super) fn follow(&mut self, other: &Side<C>) {
        let (stream, _) = &mut self.feed;
        if let Some(more) = other.read.get(stream.len()..) {
            stream.extend(more);
        }
    }

    /// Changes a byte of what the card is sent; and the checksums, so that what is behind them is reached.
    pub(super) fn damage(&mut self, other: &Side<C>, step: &Step) {
        self.follow(other);
        let (stream, sent) = &mut self.feed;
        let at = usize::from(step.number);
        if let Some(byte) = stream.get_mut(at).filter(|_| at >= *sent) {
            *byte ^= step.bytes[0];
            if step.bytes[1] & 1 != 0 {
                *stream = with_checksums(stream);
            }
        }
    }
}
