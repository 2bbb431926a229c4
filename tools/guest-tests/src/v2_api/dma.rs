// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Devices that access guest memory, by the one that does nothing else.

use crate::ktap::Suite;

mod access;
mod failure;
mod logging;
mod messages;
mod quiet;
mod waiting;

pub use waiting::in_another_process;

pub(super) fn add(suite: &mut Suite) {
    access::add(suite);
    messages::add(suite);
    logging::add(suite);
    quiet::add(suite);
    waiting::add(suite);
    failure::add(suite);
}
