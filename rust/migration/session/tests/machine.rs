// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The arcs of the state machine, as a device takes them.

use super::*;
use crate::fsm::{Arc, State, Support};
use crate::session::machine::{Machine, Migratable, Refused, Session};

const ALL: Support = Support {
    precopy: true,
    p2p: true,
};

const SUPPORTS: [Support; 4] = [
    Support {
        precopy: false,
        p2p: false,
    },
    Support {
        precopy: true,
        p2p: false,
    },
    Support {
        precopy: false,
        p2p: true,
    },
    ALL,
];

impl Migratable for Memory {
    fn incoming(&self) -> Result<Incoming, Trouble> {
        match self.busy {
            true => Err(Trouble::Busy),
            false => Ok(Incoming::new(self.blocks.len())),
        }
    }

    fn start_sending(&mut self) {
        Memory::start_sending(self);
    }

    fn send_rest(&mut self) {
        assert!(self.sending && !self.sending_rest);
        self.sending_rest = true;
    }

    fn stop_sending(&mut self) {
        Memory::stop_sending(self);
    }
}

/// A device with its machine.
struct Machined {
    device: Memory,
    machine: Machine<Vec<u8>, Incoming>,
    reason: Reason,
    support: Support,
    /// What was announced: a session's name, and whether it saves.
    opened: Vec<(u64, bool)>,
    /// Whether a session that is announced is prevented.
    is_shut: bool,
}

impl Machined {
    fn new(support: Support) -> Self {
        Self {
            device: Memory::new(3),
            machine: Machine::default(),
            reason: Reason::none(),
            support,
            opened: Vec::new(),
            is_shut: false,
        }
    }

    fn go(&mut self, target: u32) -> Result<(), Refused<Trouble>> {
        let target = self.machine.target(target, &mut self.reason)?;
        while let Some(arc) = self.machine.next(target, self.support, &mut self.reason)? {
            let (opened, is_shut) = (&mut self.opened, self.is_shut);
            let open = |id, saves| {
                opened.push((id, saves));
                match is_shut {
                    true => Err(Trouble::Busy),
                    false => Ok(()),
                }
            };
            let device = &mut self.device;
            self.machine
                .take(arc, &values(), device, &mut self.reason, open)?;
        }
        Ok(())
    }

    fn to(&mut self, target: State) {
        assert_eq!(self.go(target.as_u32()), Ok(()), "{target}");
        assert_eq!(self.machine.state(), target);
    }

    fn read(&mut self, out: &mut Out) {
        match self.machine.session_mut() {
            Some(Session::Saving(saving)) => out.read_all(saving, &mut self.device, 7),
            _ => panic!("no saving session"),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), ErrorClass> {
        match self.machine.session_mut() {
            Some(Session::Resuming(resuming)) => {
                resuming.push(&values(), &self.device, bytes, &mut self.reason)
            }
            _ => panic!("no resuming session"),
        }
    }

    /// Whether the session is the one of the state, and the device knows of it.
    fn is_sound(&self) -> bool {
        let state = self.machine.state();
        let (saves, loads) = match self.machine.session() {
            None => (false, false),
            Some(Session::Saving(_)) => (true, false),
            Some(Session::Resuming(_)) => (false, true),
        };
        saves == state.is_saving()
            && loads == (state == State::Resuming)
            && self.device.sending == saves
            && self.device.sending_rest == (state == State::StopCopy)
            && self.machine.precopy_left(&self.device).is_some()
                == matches!(state, State::PreCopy | State::PreCopyP2p)
            && self.machine.sessions() == self.opened.len() as u64
    }
}

#[test]
fn a_state_goes_from_one_device_to_another_by_every_kind_of_machine() {
    for support in SUPPORTS {
        let (mut from, mut to) = (Machined::new(support), Machined::new(support));
        from.device.register = 0x5a;
        from.device.write(1, 9);
        let mut out = Out::default();
        if support.precopy {
            from.to(State::PreCopy);
            let session = |from: &Machined| {
                let session = from.machine.session().expect("a session");
                (session.phase(), session.bytes())
            };
            assert_eq!(session(&from), (Some(Phase::PreCopy), 0));
            from.read(&mut out);
            assert_eq!(session(&from).1, out.stream.len() as u64);
            let left = from.machine.precopy_left(&from.device);
            assert_eq!(left, Some(Left::default()));
            from.device.write(2, 7);
            let left = from.machine.precopy_left(&from.device);
            assert!(left.is_some_and(|left| left.initial == 0 && left.dirty > 1 + BLOCK));
        }
        from.to(State::StopCopy);
        from.read(&mut out);
        from.to(State::Stop);
        assert!(from.is_sound());
        assert_eq!(from.opened, [(1, true)]);

        to.reason.set(format_args!("something earlier"));
        to.to(State::Resuming);
        assert_eq!(to.reason.as_str(), "");
        assert_eq!(to.push(&out.stream), Ok(()));
        to.to(State::Running);
        assert_eq!(to.device.content(), from.device.content());
        assert_eq!(to.opened, [(1, false)]);
        assert!(to.is_sound());
    }
}

#[test]
fn a_stream_that_was_refused_keeps_the_device_where_it_is() {
    let mut to = Machined::new(ALL);
    to.device.register = 3;
    to.to(State::Resuming);
    assert_eq!(to.push(&[0; 64]), Err(ErrorClass::Invalid));
    let reason = std::string::String::from(to.reason.as_str());
    assert!(!reason.is_empty());
    for target in [State::Stop, State::Running, State::StopCopy] {
        assert_eq!(to.go(target.as_u32()), Err(Refused::Incomplete));
        assert_eq!(to.machine.state(), State::Resuming);
        assert_eq!(to.reason.as_str(), reason);
    }
    assert!(to.is_sound());
    to.machine.reset(&mut to.device);
    assert_eq!(to.machine.state(), State::Running);
    assert!(to.is_sound());
    assert_eq!(to.device.register, 3);
    // A new session does not remember.
    assert!(!to.machine.is_in(1));
    to.to(State::Resuming);
    assert_eq!(to.machine.sessions(), 2);
    assert!(to.machine.is_in(2) && !to.machine.is_in(1));
    assert_eq!(to.go(1), Err(Refused::Incomplete));
    assert!(to.reason.as_str() != reason);
}

#[test]
fn what_a_device_does_not_do_leaves_it_in_the_last_state() {
    let mut device = Machined::new(ALL);
    device.device.busy = true;
    let busy = Err(Refused::Device(Trouble::Busy));
    assert_eq!(device.go(State::StopCopy.as_u32()), busy);
    assert_eq!(device.machine.state(), State::Stop);
    assert_eq!(device.go(State::Resuming.as_u32()), busy);
    device.to(State::PreCopy);
    assert_eq!(device.go(State::StopCopy.as_u32()), busy);
    assert_eq!(device.machine.state(), State::PreCopyP2p);
    assert!(device.is_sound());
    device.device.busy = false;
    device.to(State::StopCopy);
    let mut out = Out::default();
    device.read(&mut out);
    assert!(load(&mut Memory::new(3), &out.stream, 64).is_ok());
}

#[test]
fn a_session_that_nobody_can_be_told_of_does_not_begin() {
    let mut device = Machined::new(ALL);
    device.is_shut = true;
    let busy = Err(Refused::Device(Trouble::Busy));
    for (from, to) in [
        (State::Running, State::PreCopy),
        (State::RunningP2p, State::PreCopyP2p),
        (State::Stop, State::StopCopy),
        (State::Stop, State::Resuming),
    ] {
        device.to(from);
        device.opened.clear();
        assert!(!device.machine.is_in(0) && !device.machine.is_in(1));
        assert_eq!(device.go(to.as_u32()), busy);
        assert_eq!(device.opened, [(1, to != State::Resuming)]);
        assert_eq!(device.machine.state(), from);
        assert_eq!(device.machine.sessions(), 0);
        assert!(!device.machine.is_in(0) && !device.machine.is_in(1));
        assert!(device.machine.session().is_none() && !device.device.sending);
    }
}

#[test]
fn a_device_that_has_failed_is_left_by_a_reset_only() {
    let mut device = Machined::new(ALL);
    device.to(State::PreCopy);
    device.machine.fail(&mut device.device);
    assert_eq!(device.machine.state(), State::Error);
    assert!(device.is_sound());
    for target in (0..10).chain([u32::MAX]) {
        device.reason.clear();
        assert_eq!(device.go(target), Err(Refused::Failed), "{target}");
        assert_eq!(
            device.reason.as_str(),
            "the device has failed and must be reset"
        );
    }
    device.machine.reset(&mut device.device);
    device.to(State::StopCopy);
}

proptest! {
    #[test]
    fn wherever_a_walk_leads_there_is_the_session_of_that_state(
        support in 0usize..4,
        targets in proptest::collection::vec(0u32..10, 0..30),
    ) {
        let mut device = Machined::new(SUPPORTS[support]);
        for target in targets {
            let before = device.machine.state();
            device.reason.clear();
            match device.go(target) {
                Ok(()) => prop_assert_eq!(device.machine.state().as_u32(), target),
                // Nothing was loaded, so nothing leads out.
                Err(Refused::Incomplete) => {
                    prop_assert_eq!(device.machine.state(), State::Resuming);
                    device.machine.reset(&mut device.device);
                }
                Err(refused) => {
                    prop_assert_eq!(refused, Refused::NoPath);
                    prop_assert_eq!(device.machine.state(), before);
                    prop_assert!(!device.reason.as_str().is_empty());
                }
            }
            prop_assert!(device.is_sound());
            let arcs = Arc::ALL.iter().filter(|arc| arc.from() == device.machine.state());
            prop_assert!(arcs.count() > 0);
        }
    }
}
