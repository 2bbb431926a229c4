// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which features a device has, whatever it is, and what is asked of them.

use vfio_user_protocol::feature::{device_state, number, Feature, Operation};
use vfio_user_protocol::refusal::errno::{EINVAL, ENOTTY};

/// There is no descriptor that state goes through: clients take any other number for one.
const NO_DATA_FD: u32 = u32::MAX;

/// Whether a feature can be read, and whether it can be written.
fn operations(feature: u16) -> Option<(bool, bool)> {
    match feature {
        number::MIGRATION
        | number::DMA_LOGGING_REPORT
        | number::MIG_DATA_SIZE
        | number::REFUSAL => Some((true, false)),
        number::DMA_LOGGING_START | number::DMA_LOGGING_STOP => Some((false, true)),
        number::MIG_DEVICE_STATE => Some((true, true)),
        _ => None,
    }
}

/// What is to be done with a feature that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: the client wanted to know whether it exists.
    Nothing,
    /// It is read.
    Get,
    /// It is written.
    Set,
}

/// Whether the request is one for this feature.
///
/// `ENOTTY` for a feature that there is not, `EINVAL` for one that cannot be read or written as is asked.
pub(crate) fn action(feature: &Feature<'_>) -> Result<Action, u32> {
    let (get, set) = operations(feature.number).ok_or(ENOTTY)?;
    let (wants_get, wants_set, action) = match feature.operation {
        Operation::Get => (true, false, Action::Get),
        Operation::Set => (false, true, Action::Set),
        Operation::Probe { get, set } => (get, set, Action::Nothing),
    };
    match (wants_get && !get) || (wants_set && !set) {
        true => Err(EINVAL),
        false => Ok(action),
    }
}

/// The data of a device's state.
pub(crate) fn state_data(state: u32) -> Vec<u8> {
    let words = [state, NO_DATA_FD];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The state that a client wants.
pub(crate) fn wanted_state(feature: &Feature<'_>) -> Result<u32, u32> {
    let state = device_state(feature.data).map_err(|e| e.errno())?;
    feature.has_room(8).map_err(|e| e.errno())?;
    Ok(state)
}
