// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which migration states a card goes through, in the words of protocol v2, whatever QEMU speaks.
//!
//! A QEMU of protocol v2 reports each state in an event. One of protocol v1 has no such event, but traces each value of
//! `device_state` that it has written; it writes the value that the field has already in some cases, and these are reported too.

use qapi::qmp::{Event, VfioMigrationState as State};

use super::timeline::What;
use super::version::Protocol;
use crate::qmp::Message;

/// What a QEMU of protocol v1 traces after it has written `device_state`.
const TRACE: &str = "vfio_migration_set_state";

/// A card as QEMU calls it.
#[derive(Clone, Debug)]
pub struct CardName {
    /// Its number in the machine.
    pub number: usize,
    /// The instance's name, which is the last part of its sysfs path.
    pub instance: String,
}

impl CardName {
    /// What QEMU calls it.
    pub fn id(&self) -> String {
        format!("card{}", self.number)
    }
}

/// The state that a card went to, if that is what happened.
pub fn state_of(protocol: Protocol, what: &What, card: &CardName) -> Option<State> {
    match (protocol, what) {
        (Protocol::V2, What::Qmp(Message::Event(Event::VFIO_MIGRATION { data, .. })))
            if data.device_id == card.id() =>
        {
            Some(data.device_state)
        }
        (Protocol::V1, What::Trace(line)) => {
            let (instance, bits) = traced(line)?;
            (instance == card.instance).then_some(state_of_bits(bits)?)
        }
        _ => None,
    }
}

/// The instance and the `device_state` of a line of the trace, which looks like `vfio_migration_set_state  (UUID) state 3`.
pub fn traced(line: &str) -> Option<(&str, u32)> {
    let rest = line.strip_prefix(TRACE)?.trim_start().strip_prefix('(')?;
    let (instance, rest) = rest.split_once(')')?;
    let bits = rest.trim_start().strip_prefix("state ")?;
    Some((instance, bits.trim_end().parse().ok()?))
}

/// The instance and the bytes of its state in a line of the trace such as `vfio_save_buffer  (UUID) Offset 0x1000 size 0x178 pending 0x178`
/// of a QEMU of protocol v1, or `vfio_save_block  (UUID) data_size 376`.
pub fn saved(line: &str) -> Option<(&str, u64)> {
    let (event, rest) = line.split_once('(')?;
    let (instance, rest) = rest.split_once(')')?;
    let word = |key: &str| rest.split_once(key)?.1.split_whitespace().next();
    let bytes = match event.trim_end() {
        "vfio_save_buffer" => u64::from_str_radix(word(" size 0x")?, 16),
        "vfio_save_block" => word(" data_size ")?.parse(),
        _ => return None,
    };
    Some((instance, bytes.ok()?))
}

/// The state that `device_state` of protocol v1 stands for: bit 0 is running, bit 1 saving, bit 2 resuming (linux/vfio.h of
/// Linux 5.8 to 5.17). None for the error state and for what is no state.
pub fn state_of_bits(bits: u32) -> Option<State> {
    match bits {
        0b000 => Some(State::stop),
        0b001 => Some(State::running),
        0b010 => Some(State::stop_copy),
        0b011 => Some(State::pre_copy),
        0b100 => Some(State::resuming),
        _ => None,
    }
}

/// The names of states, for people.
pub fn names(states: &[State]) -> String {
    let names: Vec<_> = states.iter().map(qapi::Enum::name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "vfio_migration_set_state  (0b1c) state 3";

    fn card(instance: &str) -> CardName {
        CardName {
            number: 0,
            instance: instance.into(),
        }
    }

    #[test]
    fn a_written_state_is_known_by_its_instance() {
        let what = What::Trace(LINE.into());
        assert_eq!(
            state_of(Protocol::V1, &what, &card("0b1c")),
            Some(State::pre_copy)
        );
        assert_eq!(state_of(Protocol::V1, &what, &card("ffff")), None);
        assert_eq!(state_of(Protocol::V2, &what, &card("0b1c")), None);
    }

    #[test]
    fn other_traces_are_no_states() {
        for line in [
            "vfio_migration_set_state  (0b1c) new state STOP, recover state ERROR",
            "vfio_migration_state_notifier  (0b1c) state setup",
            "vfio_migration_set_state",
        ] {
            assert_eq!(traced(line), None, "{line}");
        }
    }

    #[test]
    fn sizes_are_read_from_the_trace_of_what_was_saved_and_from_no_other() {
        let v1 = "vfio_save_buffer  (99d2) Offset 0x1000 size 0x178 pending 0x178";
        assert_eq!(saved(v1), Some(("99d2", 0x178)));
        let v2 = "vfio_save_block  (99d2) data_size 376";
        assert_eq!(saved(v2), Some(("99d2", 376)));
        for line in [
            "vfio_save_cleanup  (99d2) size 0x178",
            "vfio_save_block  (99d2) data_size -1",
            "vfio_save_block",
        ] {
            assert_eq!(saved(line), None, "{line}");
        }
    }

    #[test]
    fn error_and_invalid_bits_are_no_states() {
        for bits in [0b101, 0b110, 0b111, 8] {
            assert_eq!(state_of_bits(bits), None);
        }
    }
}
