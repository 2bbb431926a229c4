// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Failures to order: the n-th of a kind in a system call of this thread (`/proc/thread-self/fail-nth`).

use std::cell::Cell;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{bail, Context};

use crate::kernel;
use crate::vfio::Errno;

/// Where the n-th failure is asked for, and what is left to the next one is told.
const NTH: &str = "/proc/thread-self/fail-nth";

/// Where the kinds of failures are set up.
const DEBUGFS: &str = "/sys/kernel/debug";

/// Addresses of modules (Documentation/arch/x86/x86_64/mm.rst): only what a module has a part in counts and fails, so that this is
/// no test of the kernel.
const MODULES: [u64; 2] = [0xffff_ffff_a000_0000, 0xffff_ffff_ff00_0000];

/// The kernel's symbols, and how those of the VFIO core begin.
const SYMBOLS: &str = "/proc/kallsyms";
const CORE: &str = "vfio_";
/// The end of what runs later, too.
const END: &str = "_etext";

/// Addresses at which there is no code: nothing of such a kind counts or fails.
const NOWHERE: [u64; 2] = [1, 2];

/// So many failures in one call that something must be wrong.
const MOST: u32 = 2000;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An allocation: of a piece of a slab, or of pages.
    Allocation,
    /// A copy from or to user space.
    Copy,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Allocation, Self::Copy];

    /// What a call fails with.
    fn errno(self) -> Errno {
        match self {
            Self::Allocation => Errno::ENOMEM,
            Self::Copy => Errno::EFAULT,
        }
    }

    /// The kernel's capabilities that make it up, and the option that each needs.
    fn capabilities(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Allocation => &[
                ("failslab", "FAILSLAB"),
                ("fail_page_alloc", "FAIL_PAGE_ALLOC"),
            ],
            Self::Copy => &[("fail_usercopy", "FAULT_INJECTION_USERCOPY")],
        }
    }
}

/// Failures of one kind, in this thread.
pub struct Failures {
    kind: Kind,
    /// The first failure of a step.
    first: u32,
    /// A step was done in spite of a failure, so that later ones of it were not tried.
    spared: Cell<bool>,
}

/// Writes a setting of a capability.
fn set(capability: &str, file: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new(DEBUGFS).join(capability).join(file);
    fs::write(&path, value).with_context(|| path.display().to_string())
}

impl Failures {
    /// Sets the kernel up for failures of one kind. The running test is skipped where the kernel knows none.
    pub fn of(kind: Kind) -> anyhow::Result<Self> {
        kernel::needs("FAULT_INJECTION_STACKTRACE_FILTER")?;
        for one in Kind::ALL {
            for (capability, option) in one.capabilities() {
                kernel::needs(option)?;
                let range = if one == kind { MODULES } else { NOWHERE };
                for (file, address) in ["require-start", "require-end"].iter().zip(range) {
                    set(capability, file, &format!("{address:#x}"))?;
                }
                // What fails on purpose is nothing for the kernel's log.
                set(capability, "verbose", "0")?;
            }
        }
        // Those that may wait for memory as well, of any size: a request can fail.
        set("failslab", "ignore-gfp-wait", "N")?;
        set("fail_page_alloc", "ignore-gfp-wait", "N")?;
        set("fail_page_alloc", "min-order", "0")?;
        Ok(Self {
            kind,
            first: 1,
            spared: Cell::new(false),
        })
    }

    /// Does `what` while nothing fails that the VFIO core has a part in, such as the files that it makes for a device: a group that it
    /// can only make in part keeps the device for ever (drivers/vfio/group.c of Linux 7.3).
    pub fn sparing_the_core<T>(
        &self,
        what: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.reject(core()?)?;
        let done = what();
        self.reject([0, 0])?;
        done
    }

    /// Spares what has a part in these addresses.
    fn reject(&self, range: [u64; 2]) -> anyhow::Result<()> {
        for (capability, _) in self.kind.capabilities() {
            for (file, address) in ["reject-start", "reject-end"].iter().zip(range) {
                set(capability, file, &format!("{address:#x}"))?;
            }
        }
        Ok(())
    }

    /// Runs `call` so that the `n`-th of its failures happens. Also whether it came to that.
    pub fn nth<T>(&self, n: u32, call: impl FnOnce() -> T) -> anyhow::Result<(T, bool)> {
        fs::write(NTH, n.to_string()).context(NTH)?;
        let result = call();
        let left = fs::read_to_string(NTH).context(NTH)?;
        fs::write(NTH, "0").context(NTH)?;
        Ok((result, left.trim_end() == "0"))
    }

    /// Runs `life` with failures of one kind, again and again, until each failure of each step in it was tried: a step that was done in
    /// spite of a failure cannot be done again in the same life.
    pub fn lives(
        kind: Kind,
        mut life: impl FnMut(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut failures = Self::of(kind)?;
        for first in 1..MOST {
            failures.first = first;
            failures.spared.set(false);
            life(&failures).with_context(|| format!("life {first}"))?;
            if !failures.spared.get() {
                crate::diag!("{first} lives with failures of {kind:?}");
                return Ok(());
            }
        }
        bail!("there is no end to the lives")
    }

    /// Calls with the first failure, with the second, and so on, until there are no more; returns what the undisturbed call did. Each
    /// disturbed one has to fail as it should, and `unchanged` then looks whether everything is as before; or it does without what
    /// failed, and makes no difference to the next.
    pub fn each<T: Debug>(
        &self,
        what: &str,
        mut call: impl FnMut() -> Result<T, Errno>,
        mut unchanged: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<T> {
        // In the first life all of them were tried.
        let mut n = if self.first > 1 { MOST } else { 1 };
        loop {
            match self.one(n, what, &mut call, &mut unchanged)? {
                (Some(value), false) => return Ok(value),
                // Without the bytes that it was to copy it cannot be done.
                (Some(_), true) if self.kind == Kind::Copy => {
                    bail!("{what}: done, though copy {n} failed")
                }
                (value, true) => drop(value),
                (None, false) => bail!("{what}: it neither failed nor did anything"),
            }
            n += 1;
        }
    }

    /// As [`Failures::each`], for a call that makes a difference to the next, or copies nothing, which fails in vain.
    pub fn step<T: Debug>(
        &self,
        what: &str,
        mut call: impl FnMut() -> Result<T, Errno>,
        mut unchanged: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<T> {
        let mut n = self.first;
        loop {
            let (value, failed) = self.one(n, what, &mut call, &mut unchanged)?;
            if let Some(value) = value {
                self.spared.set(self.spared.get() | failed);
                return Ok(value);
            }
            n += 1;
        }
    }

    /// A call with the `n`-th failure: what it did, unless it failed as it should; and whether it came to the failure.
    fn one<T: Debug>(
        &self,
        n: u32,
        what: &str,
        call: &mut dyn FnMut() -> Result<T, Errno>,
        unchanged: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<(Option<T>, bool)> {
        let errno = self.kind.errno();
        match self.nth(n, call)? {
            (Ok(value), failed) => Ok((Some(value), failed)),
            (Err(got), true) if got == errno => {
                unchanged().with_context(|| format!("{what}, after failure {n}"))?;
                Ok((None, true))
            }
            (Err(got), true) => bail!(
                "{what} with failure {n} of {:?}: {got:?}, expected {errno:?}",
                self.kind
            ),
            (Err(got), false) => bail!("{what}, failure {n}: {got:?}, though nothing failed"),
        }
    }

    /// As [`Failures::each`], for a call that cannot fail, on something that `make` makes anew for it.
    pub fn each_of_infallible<S, T>(
        &self,
        what: &str,
        mut make: impl FnMut() -> anyhow::Result<S>,
        mut call: impl FnMut(S) -> T,
        mut after: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for n in 1..MOST {
            let subject = make().with_context(|| format!("before {what}, failure {n}"))?;
            let (result, failed) = self.nth(n, || call(subject))?;
            after(result).with_context(|| format!("after {what}, failure {n}"))?;
            if !failed {
                crate::diag!("{what}: {} failures of {:?}", n - 1, self.kind);
                return Ok(());
            }
        }
        bail!("{what}: there is no end to the failures")
    }
}

/// The addresses of the VFIO core, looked up once.
fn core() -> anyhow::Result<[u64; 2]> {
    static CORE_RANGE: OnceLock<[u64; 2]> = OnceLock::new();
    if let Some(range) = CORE_RANGE.get() {
        return Ok(*range);
    }
    let range = look_up_core()?;
    Ok(*CORE_RANGE.get_or_init(|| range))
}

/// The addresses of the VFIO core, whose functions are next to one another, but for those that run when the kernel starts.
fn look_up_core() -> anyhow::Result<[u64; 2]> {
    let text = fs::read_to_string(SYMBOLS).context(SYMBOLS)?;
    let symbols: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            let is_function = fields.next()?.eq_ignore_ascii_case("t");
            let name = fields.next()?;
            (is_function && fields.next().is_none()).then_some((address, name))
        })
        .collect();
    let end = symbols.iter().find(|(_, name)| *name == END);
    let end = end.map(|(address, _)| *address);
    let end = end.with_context(|| format!("{SYMBOLS} has no {END}"))?;
    let of_core = symbols
        .iter()
        .filter(|(address, name)| name.starts_with(CORE) && *address < end);
    let addresses: Vec<u64> = of_core.map(|(address, _)| *address).collect();
    match (addresses.iter().min(), addresses.iter().max()) {
        (Some(first), Some(last)) if first < last => Ok([*first, *last]),
        _ => bail!("{SYMBOLS} does not tell where the VFIO core is"),
    }
}

/// The errno of an error of the standard library.
pub fn errno(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// The errno in a chain of errors.
pub fn errno_in(error: &anyhow::Error) -> Errno {
    let mut errnos = error.chain().filter_map(|cause| {
        let ours = cause.downcast_ref::<Errno>().copied();
        ours.or_else(|| cause.downcast_ref::<io::Error>().map(errno))
    });
    errnos.next().unwrap_or(Errno::UnknownErrno)
}
