// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Two programs with a card each, and what their clients and remote calls do: the input is a list of steps.
//!
//! After each of them it is checked that a failure has changed nothing, that the state of migration is one that leads there, and
//! that nothing but an access, a reset, work, a state that was loaded and time changes a card. What was saved to its end loads into a
//! fresh card, which then is what the first one was when it stopped, and saves the same. Memory is written where the card may, when
//! it may, and a log has all of that; eventfds are signalled that the card has, while it runs.

use std::sync::OnceLock;

use migration::model::{Type, Values};
use vfio_user_device::blk::VirtioDisk;
use vfio_user_device::instance::{Kind, Limits, Offer, Wish};
use vfio_user_device::serial::SerialCard;
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::{Access, Request};

use card::Card;
use side::Side;
use step::{Operation as Op, Step};

mod card;
mod checks;
mod guest;
mod memory;
mod remote;
mod side;
mod step;
mod vectors;

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
    /// How many requests of a guest's driver were done.
    pub served: usize,
    /// How many interrupts were told.
    pub interrupts: usize,
    /// How many pages were told to have been written.
    pub told: usize,
    /// How often memory was taken away while a request was with the card.
    pub taken_away: usize,
}

/// All that there is.
struct World<C: Card> {
    now_ns: u64,
    sides: [Side<C>; 2],
    outcome: Outcome,
}

/// What both programs offer.
fn ty(kind: Kind) -> &'static Type<'static> {
    static OFFER: OnceLock<Offer> = OnceLock::new();
    static TYPES: OnceLock<[Type<'static>; 2]> = OnceLock::new();
    let offer = OFFER.get_or_init(|| Offer::new(&Limits::NONE));
    let types = TYPES.get_or_init(|| Kind::ALL.map(|kind| offer.ty(kind)));
    let is_it = |ty: &&Type<'_>| ty.model.name == kind.model().name;
    types.iter().find(is_it).expect("a type of the kind")
}

/// Parameters, by bits.
fn values<C: Card>(bits: u8) -> Values<'static> {
    let param = |(bit, (position, on, off)): (usize, &(usize, &str, &str))| {
        let text = if bits & (1 << bit) != 0 { on } else { off };
        (*position, text.to_string())
    };
    let wish = Wish {
        params: C::PARAMETERS.iter().enumerate().map(param).collect(),
        ..Wish::default()
    };
    wish.values(ty(C::KIND)).expect("parameters of the card")
}

/// Takes the steps of an input, with serial cards.
///
/// # Panics
///
/// If something is not as it has to be.
pub fn run_serial(input: &[u8]) -> Outcome {
    run::<SerialCard>(input)
}

/// The same with disks.
///
/// # Panics
///
/// If something is not as it has to be.
pub fn run_disk(input: &[u8]) -> Outcome {
    run::<VirtioDisk>(input)
}

/// The first byte has the parameters of both cards, four bits each.
fn run<C: Card>(input: &[u8]) -> Outcome {
    let Some((parameters, steps)) = input.split_first() else {
        return Outcome::default();
    };
    let mut world = World::<C> {
        now_ns: 1,
        sides: [parameters & 0xf, parameters >> 4].map(|bits| Side::new(values::<C>(bits))),
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

impl<C: Card> World<C> {
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
                let access = step.access::<C>();
                side.ask(&Request::Read(access), now_ns, outcome);
            }
            Op::Write => {
                let (access, data) = (step.access::<C>(), &step.bytes);
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
            Op::Map => side.map(step, now_ns, outcome),
            Op::Unmap => side.unmap(step, now_ns, outcome),
            Op::Irqs => side.irqs(step, now_ns, outcome),
            Op::Log => side.log(step, now_ns, outcome),
            Op::Work => side.work(step.number, now_ns, outcome),
            Op::Poke => side.guest.put(step.number.into(), &step.bytes),
            Op::Resize => side.resize(step),
            Op::SetUp => side.set_up(now_ns, outcome),
            Op::Request => side.request(step, now_ns, outcome),
            Op::Move => side.guest.become_that(&other.guest),
        }
    }
}
