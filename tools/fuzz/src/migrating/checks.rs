// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What has to hold.

use migration::fsm::State;
use migration::model::Values;
use migration::session::Device as _;
use vfio_user_device::host::CAPABILITIES;
use vfio_user_protocol::feature::{number, Operation};
use vfio_user_protocol::progress::Phase;
use vfio_user_protocol::refusal::errno::EBUSY;
use vfio_user_protocol::{Limits, Request};

use super::card::{Card, Contents, Sections, Watched};
use super::side::{Look, Side};
use super::Outcome;

impl<C: Card> Side<C> {
    /// A session was given up: nothing but that is left of it.
    pub(super) fn runs_as_it_was(&self, before: &Look, after: &Look) {
        assert_eq!((after.state(), after.owner), (State::Running, None));
        match before.state().is_running() {
            true => assert_eq!(after.card, before.card),
            false => assert_eq!(
                after.card,
                Watched::<C>::resumed(&self.values, &before.card)
            ),
        }
    }

    /// A failure has changed nothing; but a stream that was refused is for good.
    pub(super) fn has_failed(
        &self,
        before: &Look,
        after: &Look,
        request: Option<&Request<'_>>,
        errno: u32,
        outcome: &mut Outcome,
    ) {
        assert_eq!(after.card, before.card, "{request:?}");
        assert_eq!(after.owner, before.owner, "{request:?}");
        let is_stream = matches!(request, Some(Request::MigDataWrite(_)));
        outcome.busy += usize::from(errno == EBUSY);
        if errno != EBUSY && before.state() == State::Resuming {
            let is_state = matches!(request, Some(Request::Feature(feature))
                if feature.number == number::MIG_DEVICE_STATE);
            outcome.refused += usize::from(is_stream || is_state);
        }
        match is_stream {
            true => {
                let (now, then) = (after.progress, before.progress);
                assert_eq!((now.state, now.sessions), (then.state, then.sessions));
                assert!(now.bytes >= then.bytes);
            }
            false => assert_eq!(after.progress, before.progress, "{request:?}"),
        }
    }

    pub(super) fn has_succeeded(
        &mut self,
        before: &Look,
        after: &Look,
        request: &Request<'_>,
        answer: &[u8],
        outcome: &mut Outcome,
    ) {
        match request {
            Request::Version(proposal) => {
                assert!(self.agreed.is_none());
                self.agreed = Some(CAPABILITIES.limits(proposal));
                assert_eq!(after, before);
            }
            // A card changes by being read, too.
            Request::Read(_) | Request::Write(..) | Request::WriteMulti(_) => {
                assert_eq!(
                    (after.progress, after.owner),
                    (before.progress, before.owner)
                );
            }
            Request::Reset => assert_eq!(after.state(), State::Running),
            Request::Feature(feature)
                if (feature.number, feature.operation)
                    == (number::MIG_DEVICE_STATE, Operation::Set) =>
            {
                self.has_gone(before, after, outcome);
            }
            Request::MigDataRead { size } => {
                assert_eq!((&after.card, after.owner), (&before.card, before.owner));
                let bytes = answer.get(8..).expect("the head of the data");
                assert!(bytes.len() <= *size as usize);
                self.was_read(after, bytes, *size as usize, outcome);
            }
            Request::MigDataWrite(bytes) => {
                assert_eq!((&after.card, after.owner), (&before.card, before.owner));
                let bytes = before.progress.bytes + bytes.len() as u64;
                assert_eq!(after.progress.bytes, bytes);
            }
            _ => assert_eq!(after, before, "{request:?}"),
        }
    }

    /// Bytes of the stream were read.
    pub(super) fn was_read(
        &mut self,
        look: &Look,
        bytes: &[u8],
        most: usize,
        outcome: &mut Outcome,
    ) {
        if look.state() != State::StopCopy && self.read.is_empty() {
            outcome.read_ahead += usize::from(!bytes.is_empty());
        }
        self.read.extend(bytes);
        assert_eq!(look.progress.bytes, self.read.len() as u64);
        let ended = bytes.len() < most && look.state() == State::StopCopy;
        // The end is read once, and can be asked for again.
        if let Some(stopped) = ended.then(|| self.stopped.take()).flatten() {
            outcome.saved += 1;
            self.is_complete = true;
            let contents = self.card.contents(true);
            self.is_whole(&self.read, &stopped, &contents);
        }
    }

    /// The state was changed from one to another.
    pub(super) fn has_gone(&mut self, before: &Look, after: &Look, outcome: &mut Outcome) {
        let (from, to) = (before.state(), after.state());
        if from == State::Resuming && to != from {
            outcome.loaded += 1;
            self.is_complete = true;
            self.contents = None;
            // What came need not be what it was sent as, but it is a state that a card can be in.
            self.goes_on(&after.card);
        } else if !from.is_running() && to.is_running() {
            assert_eq!(
                after.card,
                Watched::<C>::resumed(&self.values, &before.card)
            );
        } else {
            assert_eq!(after.card, before.card, "{from} to {to}");
        }
        if after.progress.sessions != before.progress.sessions {
            self.read.clear();
        }
        if to == State::StopCopy && from != to {
            self.stopped = Some(after.card.clone());
        }
        if to == State::Resuming && from != to {
            self.feed = (Vec::new(), 0);
        }
        assert!(to != State::Error);
        assert!(from != State::StopCopy || !matches!(to, State::PreCopy | State::PreCopyP2p));
    }

    /// What is to hold whatever happens, after what has happened last and before.
    pub(super) fn is_sound(&mut self, before: &Look, look: Look, outcome: &mut Outcome) {
        let was = before.state();
        let state = look.state();
        let phases: &[Phase] = match state {
            State::PreCopy | State::PreCopyP2p => &[Phase::PreCopy],
            State::StopCopy => &[Phase::StopCopy],
            State::Resuming => &[Phase::Setup, Phase::PreCopy, Phase::StopCopy],
            _ => &[Phase::None],
        };
        let progress = look.progress;
        assert!(phases.contains(&progress.phase), "{state}: {progress:?}");
        let begun = progress.sessions - before.progress.sessions;
        let same = was == state || (was.is_saving() && state.is_saving());
        let begins = state.has_session() && !same;
        assert_eq!(begun, u64::from(begins), "{was} to {state}");
        assert_eq!(
            look.owner.is_none(),
            state == State::Running,
            "{state}: {:?}",
            look.owner
        );
        assert!(!begins || progress.bytes == 0);
        if was.has_session() && !same {
            let is_complete = std::mem::take(&mut self.is_complete);
            outcome.given_up += usize::from(!is_complete);
        }
        // Only work, and a state that was loaded, change what there is beside registers.
        if !state.is_saving() {
            let now = self.card.contents(false);
            if let Some(before) = &self.contents {
                assert!(*before == now, "other contents: {was} to {state}");
            }
            self.contents = Some(now);
        }
        self.guest.look(false);
        // A card that does not run tells nobody of anything.
        let signalled = self.vectors.signalled();
        assert!(signalled == 0 || was.is_running() || state.is_running());
        outcome.interrupts += signalled;
        self.seen = Some(look);
    }

    /// A stream that was read to its end makes a fresh card what the saved one was, and of that the same is saved.
    pub(super) fn is_whole(&self, stream: &[u8], stopped: &Sections, contents: &Contents) {
        let fresh = Self::of_stream(&self.values, stream);
        let is_it = |card: &Watched<C>| {
            assert_eq!(&card.state(), stopped);
            assert!(&card.contents(false) == contents, "other contents");
        };
        is_it(&fresh.card);
        let has_more = fresh.card.max_sent_section() > 0;
        let again = fresh.saved();
        match has_more {
            // It may have been sent in another order, and more than once.
            true => is_it(&Self::of_stream(&self.values, &again).card),
            false => assert!(stream.ends_with(&again), "{again:?} is saved of {stream:?}"),
        }
    }

    /// This state can be saved, and loaded.
    pub(super) fn goes_on(&self, sections: &Sections) {
        // The state is checked as it is loaded.
        let resumed = Watched::<C>::resumed(&self.values, sections);
        let again = Watched::<C>::resumed(&self.values, &resumed);
        assert_eq!(again, resumed);
    }

    /// A fresh card that a stream was loaded into, and which is stopped.
    pub(super) fn of_stream(values: &Values<'static>, stream: &[u8]) -> Self {
        let (mut side, mut outcome) = (Self::new(values.clone()), Outcome::default());
        side.connect(0, 0, &mut outcome);
        side.go(State::Resuming.as_u32(), 0, &mut outcome);
        for piece in stream.chunks(stream.len().div_ceil(16).max(100)) {
            side.ask(&Request::MigDataWrite(piece), 0, &mut outcome);
        }
        side.go(State::Stop.as_u32(), 0, &mut outcome);
        assert_eq!((outcome.refused, outcome.loaded), (0, 1));
        side
    }

    /// Reads a stream to its end.
    pub(super) fn read_all(&mut self, now_ns: u64, outcome: &mut Outcome) {
        let size = Limits::DEFAULT.max_data_xfer_size;
        let mut wanted = size as usize;
        while self.read.len() % size as usize == 0 && wanted > 0 {
            let before = self.read.len();
            self.ask(&Request::MigDataRead { size }, now_ns, outcome);
            wanted = self.read.len() - before;
        }
    }

    /// What is saved of a card that is stopped.
    pub(super) fn saved(mut self) -> Vec<u8> {
        let mut outcome = Outcome::default();
        self.go(State::StopCopy.as_u32(), 0, &mut outcome);
        // Without a check of its own, which would not end.
        self.stopped = None;
        self.read_all(0, &mut outcome);
        self.read
    }
}
