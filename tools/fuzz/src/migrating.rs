// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Two programs with a card each, and what their clients and remote calls do: the input is a list of steps.
//!
//! After each of them it is checked that a failure has changed nothing, that the state of migration is one that leads there, and
//! that nothing but an access, a reset, a state that was loaded and time changes a card. What was saved to its end loads into a
//! fresh card, which then is what the first one was when it stopped, and saves the same.

use std::sync::OnceLock;

use migration::model::{Type, Values};
use vfio_user_device::instance::{Kind, Limits, Offer, Wish};
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::{Access, Request};

use side::Side;
use step::{Operation as Op, Step};

mod card;
mod checks;
mod remote;
mod side;
mod step;

/// Most steps that are taken.
const STEPS: usize = 64;

/// What has come of all the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How often a state that came replaced that of a card.
    pub loaded: usize,
    /// How many pieces of a state, or whole ones, were refused.
    pub refused: usize,
    /// How many streams were read to their end.
    pub saved: usize,
    /// How often somebody was refused because somebody else migrates the card.
    pub busy: usize,
    /// How many sessions ended without that a state was loaded or a stream read to its end.
    pub given_up: usize,
    /// How many sessions had bytes of their stream read while the card ran.
    pub read_ahead: usize,
    /// How many sessions remote calls began.
    pub remote: usize,
    /// How often a client came after another one.
    pub reconnected: usize,
}

/// All that there is.
struct World {
    now_ns: u64,
    sides: [Side; 2],
    outcome: Outcome,
}

/// What both programs offer.
fn ty() -> &'static Type<'static> {
    static OFFER: OnceLock<Offer> = OnceLock::new();
    static TYPE: OnceLock<Type<'static>> = OnceLock::new();
    TYPE.get_or_init(|| {
        OFFER
            .get_or_init(|| Offer::new(&Limits::NONE))
            .ty(Kind::Serial)
    })
}

/// Parameters, by bits: two ports, deep FIFOs, plain state.
fn values(bits: u8) -> Values<'static> {
    let text = |bit: u8, on: &str, off: &str| match bits & bit {
        0 => off.to_string(),
        _ => on.to_string(),
    };
    let wish = Wish {
        params: vec![
            (0, text(1, "2", "1")),
            (1, text(2, "64", "16")),
            (3, text(4, "off", "on")),
        ],
        ..Wish::default()
    };
    wish.values(ty()).expect("parameters of the card")
}

/// Takes the steps of an input. The first byte has the parameters of both cards, four bits each.
///
/// # Panics
///
/// If something is not as it has to be.
pub fn run(input: &[u8]) -> Outcome {
    let Some((parameters, steps)) = input.split_first() else {
        return Outcome::default();
    };
    let mut world = World {
        now_ns: 1,
        sides: [parameters & 0xf, parameters >> 4].map(|bits| Side::new(values(bits))),
        outcome: Outcome::default(),
    };
    for step in Step::all(steps).take(STEPS) {
        world.take(&step);
    }
    for side in &mut world.sides {
        side.goes_to_a_fresh_one(world.now_ns);
    }
    world.outcome
}

impl World {
    fn take(&mut self, step: &Step) {
        let [first, second] = &mut self.sides;
        let (side, other) = match step.second {
            false => (first, second),
            true => (second, first),
        };
        let (now_ns, outcome) = (self.now_ns, &mut self.outcome);
        let number = u32::from(step.number);
        match step.operation {
            Op::Wait => self.now_ns += u64::from(step.number) << (step.bytes[0] % 24),
            Op::Connect => side.connect(step.bytes[0], now_ns, outcome),
            Op::Disconnect => side.disconnect(now_ns, outcome),
            Op::Go => side.go(number, now_ns, outcome),
            Op::Feature => {
                let data = [&step.bytes[..], &[0; 28]].concat();
                let feature = Feature {
                    argsz: 8 + number,
                    number: match step.bytes[3] % 12 {
                        10 => number::REFUSAL,
                        11 => number::PROGRESS,
                        number => number.into(),
                    },
                    operation: match step.bytes[2] % 4 {
                        0 | 1 => Operation::Get,
                        2 => Operation::Set,
                        _ => Operation::Probe {
                            get: step.bytes[1] & 1 != 0,
                            set: step.bytes[1] & 2 != 0,
                        },
                    },
                    data: &data,
                };
                side.ask(&Request::Feature(feature), now_ns, outcome);
            }
            Op::Read => {
                let access = step.access();
                side.ask(&Request::Read(access), now_ns, outcome);
            }
            Op::Write => {
                let (access, data) = (step.access(), &step.bytes);
                let data = &data[..(access.count as usize).min(data.len())];
                let count = data.len() as u32;
                let access = Access { count, ..access };
                side.ask(&Request::Write(access, data), now_ns, outcome);
            }
            Op::Reset => side.reset(now_ns, outcome),
            Op::Save => side.ask(&Request::MigDataRead { size: number }, now_ns, outcome),
            Op::Load => {
                let piece = side.next_piece(other, step.number.into());
                side.ask(&Request::MigDataWrite(&piece), now_ns, outcome);
            }
            Op::LoadBytes => side.ask(&Request::MigDataWrite(&step.bytes), now_ns, outcome),
            Op::Damage => side.damage(other, step),
            Op::PrecopyInfo => side.ask(&Request::PrecopyInfo, now_ns, outcome),
            Op::Raw => {
                let [id, command, ..] = step.bytes;
                side.raw(id, command, step.number, &step.bytes, now_ns, outcome);
            }
            Op::Remote => side.remote(step, other, now_ns, outcome),
        }
    }
}
