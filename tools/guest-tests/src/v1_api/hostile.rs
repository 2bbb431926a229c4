// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Users of the migration region that make mistakes or mean harm. The numbers in the names are those of the list of hostile
//! cases in the project's notes on the protocol: 1 to 20 are about version 1. Case 19 is in `threads`, case 20 in `ownership`.

use crate::ktap::Suite;

mod header;
mod session;

pub(super) fn add(suite: &mut Suite) {
    header::add(suite);
    session::add(suite);
}
