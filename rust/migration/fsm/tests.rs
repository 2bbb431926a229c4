// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use std::format;
use std::vec;
use std::vec::Vec;

const SUPPORTS: [Support; 4] = [
    Support {
        precopy: false,
        p2p: false,
    },
    Support {
        precopy: false,
        p2p: true,
    },
    Support {
        precopy: true,
        p2p: false,
    },
    Support {
        precopy: true,
        p2p: true,
    },
];

/// The arcs that the description of the states in linux/vfio.h lists, with P2P and pre-copy.
const DESCRIBED: [(State, State); 15] = {
    use State::*;
    [
        (RunningP2p, Stop),
        (StopCopy, Stop),
        (Resuming, Stop),
        (PreCopy, Running),
        (RunningP2p, Running),
        (PreCopyP2p, RunningP2p),
        (Running, RunningP2p),
        (Stop, RunningP2p),
        (Running, PreCopy),
        (RunningP2p, PreCopyP2p),
        (Stop, StopCopy),
        (PreCopy, PreCopyP2p),
        (PreCopyP2p, PreCopy),
        (PreCopyP2p, StopCopy),
        (Stop, Resuming),
    ]
};

/// The arcs of a device: those described, where a state the device lacks is merged into the state
/// it refines ("the states behave as though the device was fully running if not supported").
fn arcs_of(support: Support) -> Vec<(State, State)> {
    let merge = |state| match state {
        State::RunningP2p if !support.p2p => State::Running,
        State::PreCopyP2p if !support.p2p => State::PreCopy,
        state => state,
    };
    let mut arcs = Vec::new();
    for (from, to) in DESCRIBED {
        let (from, to) = (merge(from), merge(to));
        let touches_precopy = [from, to]
            .iter()
            .any(|s| matches!(s, State::PreCopy | State::PreCopyP2p));
        let is_there = support.precopy || !touches_precopy;
        if from != to && is_there && !arcs.contains(&(from, to)) {
            arcs.push((from, to));
        }
    }
    arcs
}

/// The legal paths of least length: not through a saving state, unless the whole path stays in the
/// saving group, nor through RESUMING, which loses the loaded state.
fn shortest_paths(support: Support, from: State, to: State) -> Vec<Vec<State>> {
    let arcs = arcs_of(support);
    let mut paths = vec![vec![from]];
    for _ in 0..State::ALL.len() {
        let found: Vec<_> = paths
            .iter()
            .filter(|path| path.last() == Some(&to))
            .filter(|path| {
                let all_saving = path.iter().all(|state| state.is_saving());
                let inner = &path[1..path.len().max(2) - 1];
                all_saving || !inner.iter().any(|state| state.has_session())
            })
            .cloned()
            .collect();
        if !found.is_empty() {
            return found;
        }
        paths = paths
            .iter()
            .flat_map(|path| {
                let last = path[path.len() - 1];
                arcs.iter()
                    .filter(move |(from, _)| *from == last)
                    .map(move |(_, next)| [path.as_slice(), &[*next]].concat())
            })
            .collect();
    }
    Vec::new()
}

fn walk(support: Support, from: State, to: State) -> Result<Vec<State>, TransitionError> {
    let mut path = vec![from];
    let mut state = from;
    while state != to {
        state = next(state, to, support)?;
        path.push(state);
        assert!(path.len() <= State::ALL.len(), "no end: {path:?}");
    }
    Ok(path)
}

#[test]
fn every_walk_takes_the_one_shortest_legal_path() {
    for support in SUPPORTS {
        for from in State::ALL {
            for to in State::ALL {
                let supported = from.is_supported(support) && to.is_supported(support);
                if from == State::Error || to == State::Error || !supported {
                    continue;
                }
                let legal = shortest_paths(support, from, to);
                match walk(support, from, to) {
                    Ok(path) => assert_eq!(legal, [path], "{from} to {to} with {support:?}"),
                    Err(error) => {
                        assert_eq!(error, TransitionError::Blocked { from, to });
                        assert_eq!(from, State::StopCopy);
                        assert!(matches!(to, State::PreCopy | State::PreCopyP2p));
                    }
                }
            }
        }
    }
}

#[test]
fn stop_copy_to_pre_copy_is_blocked() {
    for support in SUPPORTS {
        for to in [State::PreCopy, State::PreCopyP2p] {
            let expected = match to.is_supported(support) {
                true => TransitionError::Blocked {
                    from: State::StopCopy,
                    to,
                },
                false => TransitionError::Unsupported(to),
            };
            assert_eq!(next(State::StopCopy, to, support), Err(expected));
        }
    }
}

#[test]
fn a_failed_device_answers_so_whatever_is_asked() {
    for support in SUPPORTS {
        for to in State::ALL {
            assert_eq!(
                next(State::Error, to, support),
                Err(TransitionError::Failed)
            );
        }
    }
}

#[test]
fn error_cannot_be_asked_for() {
    for support in SUPPORTS {
        for from in State::ALL.into_iter().filter(|&s| s != State::Error) {
            let expected = match from.is_supported(support) {
                true => TransitionError::Blocked {
                    from,
                    to: State::Error,
                },
                false => TransitionError::Unsupported(from),
            };
            assert_eq!(next(from, State::Error, support), Err(expected));
        }
    }
}

#[test]
fn states_a_device_lacks_are_refused_as_start_and_as_target() {
    for support in SUPPORTS {
        for state in State::ALL.into_iter().filter(|s| !s.is_supported(support)) {
            assert_eq!(
                next(State::Running, state, support),
                Err(TransitionError::Unsupported(state))
            );
            assert_eq!(
                next(state, State::Running, support),
                Err(TransitionError::Unsupported(state))
            );
        }
    }
    let unsupported = |precopy, p2p| {
        let support = Support { precopy, p2p };
        let lacks = |s: &State| !s.is_supported(support);
        State::ALL.into_iter().filter(lacks).collect::<Vec<_>>()
    };
    use State::*;
    assert_eq!(unsupported(true, true), []);
    assert_eq!(unsupported(false, true), [PreCopy, PreCopyP2p]);
    assert_eq!(unsupported(true, false), [RunningP2p, PreCopyP2p]);
    assert_eq!(unsupported(false, false), [RunningP2p, PreCopy, PreCopyP2p]);
}

#[test]
fn every_step_is_an_arc_the_device_uses_and_every_such_arc_is_a_step() {
    for support in SUPPORTS {
        let mut met = Vec::new();
        for from in State::ALL {
            for to in State::ALL {
                match next_arc(from, to, support) {
                    Ok(Some(arc)) => {
                        assert_eq!(Ok(arc.to()), next(from, to, support));
                        assert_eq!(arc.from(), from);
                        assert!(arc.is_used_with(support), "{arc} with {support:?}");
                        met.push(arc);
                    }
                    Ok(None) => assert_eq!(from, to),
                    Err(error) => assert_eq!(next(from, to, support), Err(error)),
                }
            }
        }
        for arc in Arc::ALL {
            assert_eq!(met.contains(&arc), arc.is_used_with(support), "{arc}");
            let is_described = arcs_of(support).contains(&arc.ends());
            assert_eq!(is_described, arc.is_used_with(support), "{arc}");
        }
    }
}

#[test]
fn sessions_open_and_end_where_the_description_says() {
    let opening: Vec<_> = Arc::ALL.into_iter().filter(|a| a.opens_session()).collect();
    assert_eq!(
        opening,
        [
            Arc::StopToResuming,
            Arc::StopToStopCopy,
            Arc::RunningToPreCopy,
            Arc::RunningP2pToPreCopyP2p,
        ]
    );
    let ending: Vec<_> = Arc::ALL.into_iter().filter(|a| a.ends_session()).collect();
    assert_eq!(
        ending,
        [
            Arc::ResumingToStop,
            Arc::StopCopyToStop,
            Arc::PreCopyToRunning,
            Arc::PreCopyP2pToRunningP2p,
        ]
    );
}

#[test]
fn numbers_are_those_of_the_header() {
    let numbers = [
        (0, State::Error, "ERROR"),
        (1, State::Stop, "STOP"),
        (2, State::Running, "RUNNING"),
        (3, State::StopCopy, "STOP_COPY"),
        (4, State::Resuming, "RESUMING"),
        (5, State::RunningP2p, "RUNNING_P2P"),
        (6, State::PreCopy, "PRE_COPY"),
        (7, State::PreCopyP2p, "PRE_COPY_P2P"),
    ];
    for (number, state, name) in numbers {
        assert_eq!(State::try_from(number), Ok(state));
        assert_eq!(state.as_u32(), number);
        assert_eq!(format!("{state}"), name);
    }
    for number in [8, 9, 0x100, u32::MAX] {
        assert_eq!(State::try_from(number), Err(UnknownState(number)));
    }
}

#[test]
fn feature_flags_are_those_of_the_header() {
    let flags: Vec<_> = SUPPORTS.iter().map(|support| support.flags()).collect();
    assert_eq!(flags, [1, 3, 5, 7]);
}

mod v1 {
    use super::super::v1::{target, State, TargetError};
    use super::super::{next, Support};
    use std::vec::Vec;

    #[test]
    fn only_the_six_combinations_of_bits_are_states() {
        let legal: Vec<u32> = (0..=u32::from(u16::MAX))
            .filter(|&bits| State::try_from(bits).is_ok())
            .collect();
        assert_eq!(legal, [0b000, 0b001, 0b010, 0b011, 0b100, 0b110]);
        for bit in 3..32 {
            let bits = (1 << bit) | 0b001;
            assert_eq!(State::try_from(bits), Err(TargetError::Malformed(bits)));
        }
    }

    /// Every transition: those of the protocol's diagram, those that real clients make, and staying.
    #[test]
    fn transitions_are_those_drawn_and_those_clients_make() {
        let allowed = [
            "0>0", "1>1", "2>2", "3>3", "4>4", // staying
            "1>0", "1>2", "2>0", "1>3", "3>2", "1>4", "4>1", // drawn
            "0>1", "0>2", "0>4", "2>1", "3>1", // made by clients
        ];
        for from in State::ALL {
            for bits in 0..8 {
                let name = std::format!("{}>{bits}", from.bits());
                let is_allowed = allowed.contains(&name.as_str());
                assert_eq!(target(from, bits).is_ok(), is_allowed, "{name}");
            }
        }
    }

    #[test]
    fn the_error_state_is_left_by_reset_only() {
        for bits in 0..=16 {
            assert_eq!(target(State::Error, bits), Err(TargetError::Failed));
        }
    }

    #[test]
    fn every_transition_has_a_way_in_v2() {
        for p2p in [false, true] {
            let support = Support { precopy: true, p2p };
            for from in State::ALL {
                for to in State::ALL.into_iter().filter(|to| from.may_go_to(*to)) {
                    let mut state = from.v2();
                    for _ in 0..8 {
                        state = next(state, to.v2(), support).unwrap();
                    }
                    assert_eq!(State::from_v2(state), to);
                }
            }
        }
    }
}
