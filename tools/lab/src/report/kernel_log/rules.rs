// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which lines of the kernel's log are trouble whatever their level, and which are none though their level says so.

/// Sentences of the kernel's own checkers.
pub const ALARMS: [&str; 26] = [
    r"^WARNING: ",
    r"^BUG: ",
    r"kernel BUG at",
    r"\bOops\b",
    r"general protection fault",
    r"double fault",
    r"Kernel panic",
    r"KASAN: ",
    r"KCSAN: ",
    r"KFENCE: ",
    r"UBSAN: ",
    r"possible circular locking dependency",
    r"possible recursive locking",
    r"inconsistent lock state|bad unlock balance|held lock freed|invalid wait context|DEBUG_LOCKS_WARN_ON|turning off the locking",
    r"suspicious RCU usage",
    r"sleeping function called from invalid context",
    r"scheduling while atomic",
    r"blocked for more than \d+ seconds",
    r"detected stalls|self-detected stall|soft lockup|hard LOCKUP",
    r"new suspected memory leaks|^unreferenced object|memory leak detector disabled",
    r"list_(add|del) corruption|refcount_t: ",
    r"^ODEBUG: ",
    r"^kobject.*(tried to init an initialized object|is not initialized, yet|does not have a release)",
    r"stack-protector: |corrupted stack end",
    r"^Call Trace:",
    r"Attempted to kill init",
];

/// Those of [`ALARMS`] after which the kernel cannot be relied on, so that waiting for the running test makes little sense.
pub const FATAL: &str = r"^BUG: |kernel BUG at|\bOops\b|general protection fault|double fault|Kernel panic|soft lockup|hard LOCKUP";

/// Lines at level warning that mean nothing here, and why.
pub const HARMLESS: [(&str, &str); 7] = [
    (
        r"loading out-of-tree module taints kernel",
        "the modules under test are built outside the kernel's tree",
    ),
    (
        r"^(kvm(_amd|_intel)?: )?kvm \[\d+\]: vcpu\d+, guest rIP: 0x[0-9a-f]+ Unhandled (RD|WR)MSR",
        "a guest's kernel probes registers that KVM does not have, and a monitor restores them",
    ),
    (
        r"^kvm_pr_unimpl_(rd|wr)msr: \d+ callbacks suppressed",
        "more of the above than the kernel says at once",
    ),
    (
        r"^ +# \w+: Test should be marked slow",
        "a kernel that checks every step takes longer for a test of its own",
    ),
    (
        r"^hrtimer: interrupt took \d+ ns",
        "the emulated processor is descheduled by the host",
    ),
    (
        r"^clocksource: ",
        "the emulated clocks drift while the host is busy",
    ),
    (
        r"^kvm: SMP vm created on host with unstable TSC",
        "follows from the line about clocks",
    ),
];
