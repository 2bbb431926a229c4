// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which processors of the test machine programs may use: all but the first, if there is another one.
//!
//! A guest of this machine that ran on the first one would be lost sooner or later. Whenever a processor that QEMU emulates
//! restores the state of its x87 unit (`XRSTOR`: at nearly every switch of tasks), it clears a flag of the first one, with no
//! regard for what that one does (`cpu_clear_ignne`, read in QEMU 10.0 and 10.2). Bits of the same word say whether that one is
//! in a guest with nested paging and whether it takes interrupts, and a change of them at the same moment is undone.

use anyhow::{ensure, Context, Result};
use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity, CpuSet};

/// The processor that QEMU emulates first.
const FIRST: usize = 0;

/// Keeps this thread, and all that it will start, away from the first processor.
pub fn leave_the_first() -> Result<()> {
    let mut usable = usable()?;
    if has_first_of_several(&usable) {
        usable.unset(FIRST);
        sched_setaffinity(None, &usable).context("sched_setaffinity")?;
    }
    Ok(())
}

/// Sees that whoever started this thread kept it away from the first processor.
pub fn expect_not_the_first() -> Result<()> {
    ensure!(
        !has_first_of_several(&usable()?),
        "a guest started from here might run on the machine's first processor, where the emulator would lose it"
    );
    Ok(())
}

/// Keeps this thread on the processor that it runs on now.
pub fn stay_on_this_processor() -> Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).context("sched_setaffinity")
}

fn usable() -> Result<CpuSet> {
    sched_getaffinity(None).context("sched_getaffinity")
}

/// Where there is only one processor, nothing else can interfere with it.
fn has_first_of_several(set: &CpuSet) -> bool {
    set.is_set(FIRST) && set.count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(processors: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        processors.iter().for_each(|&number| set.set(number));
        set
    }

    #[test]
    fn the_first_is_to_be_left_only_if_there_is_another() {
        assert!(has_first_of_several(&set(&[0, 1])));
        assert!(!has_first_of_several(&set(&[0])));
        assert!(!has_first_of_several(&set(&[1, 2])));
    }
}
