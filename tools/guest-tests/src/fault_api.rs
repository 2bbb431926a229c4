// SPDX-License-Identifier: GPL-2.0 OR MIT

//! System calls in which something fails that does not fail in practice: each allocation of memory, and each copy from or to user
//! space, one after the other. Such a call fails as a whole, with the errno that says so, and changes nothing; afterwards all works.
//!
//! The kernel can be asked for it if it was built with CONFIG_FAULT_INJECTION (Documentation/fault-injection/).

use std::time::Duration;

use crate::ktap::Suite;
use crate::v2_api::card::Card;

/// Adds functions as tests once for each way to open a device, which the function is given and which ends the name.
macro_rules! tests_both_ways {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        for access in $crate::vfio::Access::ALL {
            $($suite.test(format!("{}_{}", stringify!($name), access.name()), move || {
                $crate::kernel::needs_access(access)?;
                $name(access)
            });)+
        }
    };
}

mod injection;
mod v1;
mod v2;

/// The time for one test: hundreds of system calls, on a kernel that checks every step.
const LIMIT: Duration = Duration::from_secs(180);

/// All tests.
pub fn suite() -> Suite {
    let mut suite = Suite::new();
    suite.limit(LIMIT);
    v2::add(&mut suite);
    v1::add(&mut suite);
    suite
}

/// What sysfs says of a card's session: its phase, the bytes that were given or taken, and which session it is.
fn session(card: &Card) -> anyhow::Result<[String; 3]> {
    let files = ["phase", "bytes", "sessions"];
    let files = files.map(|name| card.instance.attribute(&format!("migration/{name}")));
    let [phase, bytes, sessions] = files;
    Ok([phase?, bytes?, sessions?])
}
