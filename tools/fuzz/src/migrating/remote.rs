// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What remote calls do.

use migration::fsm::State;
use vfio_user_device::model::{Owner, Purpose, Refusal};
use vfio_user_protocol::refusal::errno::EBUSY;

use super::card::{Card, Watched};
use super::side::Side;
use super::step::Step;
use super::Outcome;

impl<C: Card> Side<C> {
    /// A remote call.
    pub(super) fn remote(
        &mut self,
        step: &Step,
        other: &Side<C>,
        now_ns: u64,
        outcome: &mut Outcome,
    ) {
        let before = self.look_at(now_ns);
        let (most, session) = (usize::from(step.number), self.remote);
        let kind = step.bytes[0] % 8;
        let piece = match kind {
            3 => self.next_piece(other, most),
            _ => Vec::new(),
        };
        let model = self.host.backend_mut();
        let result: Result<(), Refusal> = match (kind, session) {
            (0, _) => model.begin(Purpose::Save, now_ns).map(|name| {
                (self.remote, self.stopped) = (Some(name), Some(before.card.clone()));
                self.read.clear();
            }),
            (1, _) => model.begin(Purpose::Load, now_ns).map(|name| {
                (self.remote, self.feed) = (Some(name), (Vec::new(), 0));
                self.read.clear();
            }),
            (2, Some(name)) => model.next_saved(name, most).map(|bytes| {
                let look = self.look();
                self.was_read(&look, &bytes, most, outcome);
            }),
            (3, Some(name)) => model.next_loaded(name, &piece),
            (4, Some(name)) => model.put_into_effect(name, now_ns),
            (5, Some(name)) => model.finish(name, now_ns),
            (6, Some(name)) => {
                model.abandon(name, now_ns);
                Ok(())
            }
            (7, _) => model.remote_reset(now_ns),
            _ => return,
        };
        let after = self.look();
        let was_ours = before.owner == Some(Owner::Remote);
        let (from, to) = (before.state(), after.state());
        match (kind, result) {
            (_, Err(refusal)) => {
                assert!(!refusal.reason.is_empty() && refusal.errno != 0);
                outcome.busy += usize::from(refusal.errno == EBUSY);
                outcome.refused += usize::from(was_ours && from == State::Resuming);
                match kind {
                    4 | 5 if was_ours && after.owner.is_none() => {
                        self.runs_as_it_was(&before, &after)
                    }
                    3 => assert_eq!(after.card, before.card),
                    _ => assert_eq!(after, before, "{}", refusal.reason),
                }
            }
            (0..=3, Ok(())) => {
                outcome.remote += usize::from(kind < 2);
                assert_eq!(after.card, before.card);
            }
            (4 | 5, Ok(())) if from == State::Resuming => {
                outcome.loaded += 1;
                self.is_complete = true;
                self.contents = None;
                self.goes_on(&after.card);
            }
            (6, Ok(())) if was_ours && after.owner.is_none() => {
                self.runs_as_it_was(&before, &after)
            }
            (7, Ok(())) => {
                assert_eq!(after.card, Watched::<C>::power_on(&self.values).state());
            }
            (_, Ok(())) if !from.is_running() && to.is_running() => {
                assert_eq!(
                    after.card,
                    Watched::<C>::resumed(&self.values, &before.card)
                );
            }
            (_, Ok(())) => assert_eq!(after.card, before.card),
        }
        self.is_sound(&before, after, outcome);
    }

    /// Whatever has happened, the card is saved by its next user, and loaded elsewhere.
    pub(super) fn goes_to_a_fresh_one(&mut self, now_ns: u64) {
        if let Some(name) = self.remote.take() {
            self.host.backend_mut().abandon(name, now_ns);
            self.seen = None;
        }
        let mut outcome = Outcome::default();
        self.disconnect(now_ns, &mut outcome);
        self.connect(0, now_ns, &mut outcome);
        self.go(State::StopCopy.as_u32(), now_ns, &mut outcome);
        self.read_all(now_ns, &mut outcome);
        assert_eq!(outcome.saved, 1);
    }
}
