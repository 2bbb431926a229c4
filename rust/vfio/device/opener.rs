// SPDX-License-Identifier: GPL-2.0

//! The process that opened a device, for whoever has to wait until it is closed.
//!
//! C header: `include/linux/pid.h`.

use core::fmt;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::current;
use kernel::sync::rcu;
use kernel::task::Pid;

/// Bytes of a process's name, with the NUL that ends it.
const NAME_LEN: usize = bindings::TASK_COMM_LEN as usize;

/// A process, remembered beyond its end.
///
/// # Invariants
///
/// `identity` is valid and one reference to it belongs to this value.
pub(crate) struct Opener {
    name: [u8; NAME_LEN],
    /// Its number in the initial name space, which is that of the kernel log.
    number: Pid,
    identity: NonNull<bindings::pid>,
}

// SAFETY: References to a `struct pid` may be given back from any thread.
unsafe impl Send for Opener {}

impl Opener {
    /// The process that makes the running system call.
    pub(super) fn current() -> Option<Self> {
        let task = current!();
        let leader = task.group_leader();
        let mut name = [0; NAME_LEN];
        for (index, byte) in name[..NAME_LEN - 1].iter_mut().enumerate() {
            // SAFETY: The task is valid, and the index is one of its name. The process may be changing the name, so each byte
            // is read by itself; the last one is NUL at any time.
            *byte = unsafe {
                (&raw const (*leader.as_ptr()).comm[index])
                    .cast::<u8>()
                    .read_volatile()
            };
        }
        // SAFETY: The task is valid. The reference that the function returns is the caller's.
        let identity =
            unsafe { bindings::get_task_pid(leader.as_ptr(), bindings::pid_type_PIDTYPE_TGID) };
        // INVARIANT: As just said.
        Some(Self {
            name,
            number: leader.pid(),
            identity: NonNull::new(identity)?,
        })
    }

    /// Whether the process has ended, and its parent knows.
    pub(super) fn is_gone(&self) -> bool {
        let _guard = rcu::read_lock();
        // SAFETY: By the type invariant, `identity` is valid. The task is not looked at.
        unsafe { bindings::pid_task(self.identity.as_ptr(), bindings::pid_type_PIDTYPE_TGID) }
            .is_null()
    }
}

/// Its name and number.
impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.name.iter().position(|&byte| byte == 0);
        let name = self.name.get(..len.unwrap_or(NAME_LEN)).unwrap_or_default();
        // What is not printable is escaped.
        write!(f, "{} (process {})", name.escape_ascii(), self.number)
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the reference is this value's.
        unsafe { bindings::put_pid(self.identity.as_ptr()) };
    }
}
