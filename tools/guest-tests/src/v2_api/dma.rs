// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Devices that access guest memory, by the one that does nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::ktap::Suite;

mod access;
mod failure;
mod logging;
mod mapped;
mod messages;
mod quiet;
mod waiting;

pub use mapped::map_all;
pub use waiting::in_another_process;

pub(super) fn add(suite: &mut Suite) {
    access::add(suite);
    messages::add(suite);
    logging::add(suite);
    quiet::add(suite);
    waiting::add(suite);
    failure::add(suite);
    mapped::add(suite);
}

/// Does something again and again on another thread until `act` has ended. The failure of either.
fn again_until(
    again: impl Fn() -> anyhow::Result<()> + Sync,
    act: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| -> anyhow::Result<()> {
            while !ended.load(Ordering::Relaxed) {
                again()?;
            }
            Ok(())
        });
        let result = act();
        ended.store(true, Ordering::Relaxed);
        let other = other.join();
        // What it failed with is why `act` waited for nothing, if it did.
        other.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        result
    })
}
