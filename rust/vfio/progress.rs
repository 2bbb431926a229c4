// SPDX-License-Identifier: GPL-2.0

//! Waking those who poll the files of `migration/` that tell how a migration goes on.
//!
//! The files are looked up once while the device is open, because a notification by name walks directories. A change of state or
//! phase is told at once. The bytes of a stream change with every read and write of it: they are told at most ten times a second,
//! the last change too.
//!
//! C header: `include/linux/kernfs.h`.

use crate::migration::session::NO_PHASE;
use crate::names::DIRECTORY;
use crate::timer::now_ns;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::prelude::*;

/// A file of sysfs.
///
/// # Invariants
///
/// The pointer is a valid `struct kernfs_node`, of which this value owns a reference.
struct Node(NonNull<bindings::kernfs_node>);

// SAFETY: References are counted and nodes notified from any thread.
unsafe impl Send for Node {}

impl Node {
    /// The entry of this name in a directory. `None` where there is none.
    ///
    /// # Safety
    ///
    /// `directory` must be a directory's node that is valid during the call.
    unsafe fn find(directory: *mut bindings::kernfs_node, name: &CStr) -> Option<Self> {
        // SAFETY: By contract. The function looks at no more of a node that has been removed than that it is.
        let node = unsafe {
            bindings::kernfs_find_and_get_ns(directory, name.as_char_ptr(), core::ptr::null())
        };
        // INVARIANT: The reference is the caller's.
        NonNull::new(node).map(Self)
    }

    /// Whether anybody has the file open. Who opens it after this has looked reads what is there then, under the same mutex that the
    /// caller holds.
    fn is_open(&self) -> bool {
        // SAFETY: By the type invariant; the node is a file's, so this is the part of the union that is in use. The pointer is
        // changed by others at any time, and is not followed here.
        let open =
            unsafe { (&raw const (*self.0.as_ptr()).__bindgen_anon_1.attr.open).read_volatile() };
        !open.is_null()
    }

    /// Wakes who polls the file, if anybody has it open: queueing the work that wakes nobody costs as much as a system call.
    fn notify(&self) {
        if self.is_open() {
            // SAFETY: By the type invariant; a file that was removed has nobody to be woken.
            unsafe { bindings::kernfs_notify(self.0.as_ptr()) };
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the reference is ours.
        unsafe { bindings::kernfs_put(self.0.as_ptr()) };
    }
}

/// How long pollers are left alone after they were told of bytes, in nanoseconds.
const QUIET_NS: u64 = 100_000_000;

/// When to tell of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace {
    /// Until when pollers are left alone; `None` if they have not been told lately.
    quiet_until_ns: Option<u64>,
    /// Bytes have changed that nobody was told of.
    owed: bool,
}

/// What is to be done about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Tell it.
    Now,
    /// See to it that [`Pace::due`] is asked after so many nanoseconds.
    In(u64),
    /// Nothing: that is seen to already, or there is nothing to tell.
    Nothing,
}

impl Pace {
    /// Bytes have changed.
    fn changed(&mut self, now_ns: u64) -> Tell {
        match self.quiet_until_ns {
            Some(until_ns) if now_ns < until_ns => match core::mem::replace(&mut self.owed, true) {
                true => Tell::Nothing,
                false => Tell::In(until_ns - now_ns),
            },
            _ => {
                self.told(now_ns);
                Tell::Now
            }
        }
    }

    /// Pollers have been told of everything.
    fn told(&mut self, now_ns: u64) {
        self.quiet_until_ns = Some(now_ns.saturating_add(QUIET_NS));
        self.owed = false;
    }

    /// The time is over that [`Tell::In`] named.
    fn due(&mut self, now_ns: u64) -> Tell {
        match (self.owed, self.quiet_until_ns) {
            (false, _) => Tell::Nothing,
            // Something else was told in the meantime, and then more has changed.
            (true, Some(until_ns)) if now_ns < until_ns => Tell::In(until_ns - now_ns),
            (true, _) => {
                self.told(now_ns);
                Tell::Now
            }
        }
    }
}

/// The files.
struct Files {
    state: Node,
    phase: Node,
    bytes: Node,
}

impl Files {
    /// Looks them up. `None` when they are not there: not yet, while the device is being bound, or not any more.
    ///
    /// # Safety
    ///
    /// `device` must be a device that is registered and stays so during the call.
    unsafe fn find(device: *mut bindings::device) -> Option<Self> {
        // SAFETY: By contract, the device has its directory.
        let group = unsafe { Node::find((*device).kobj.sd, DIRECTORY)? };
        // SAFETY: `group` is held.
        let file = |name| unsafe { Node::find(group.0.as_ptr(), name) };
        Some(Self {
            state: file(c"state")?,
            phase: file(c"phase")?,
            bytes: file(c"bytes")?,
        })
    }

    /// Whether anybody has one of them open.
    fn are_open(&self) -> bool {
        self.state.is_open() || self.phase.is_open() || self.bytes.is_open()
    }
}

/// What pollers of an open device have been told.
pub(crate) struct Progress {
    files: Option<Files>,
    phase: &'static str,
    bytes: u64,
    pace: Pace,
}

impl Progress {
    /// Nobody has been told anything.
    pub(crate) const fn new() -> Self {
        Self {
            files: None,
            phase: NO_PHASE,
            bytes: 0,
            pace: Pace {
                quiet_until_ns: None,
                owed: false,
            },
        }
    }

    /// The state, and with it everything else, has changed.
    ///
    /// # Safety
    ///
    /// `device` must be a device that is registered and stays so during the call.
    pub(crate) unsafe fn state_changed(
        &mut self,
        device: *mut bindings::device,
        (phase, bytes): (&'static str, u64),
    ) {
        if self.files.is_none() {
            // SAFETY: By contract.
            self.files = unsafe { Files::find(device) };
        }
        if let Some(files) = &self.files {
            files.state.notify();
            if phase != self.phase {
                files.phase.notify();
            }
            if bytes != self.bytes || self.pace.owed {
                files.bytes.notify();
            }
        }
        (self.phase, self.bytes) = (phase, bytes);
        self.pace.told(now_ns());
    }

    /// Bytes were read or written. Nanoseconds after which [`Progress::due`] is to be called, if it is.
    pub(crate) fn stream_moved(&mut self, (phase, bytes): (&'static str, u64)) -> Option<u64> {
        let files = self.files.as_ref()?;
        let (old_phase, old_bytes) = (self.phase, self.bytes);
        (self.phase, self.bytes) = (phase, bytes);
        // Mostly nobody has, and what time it is need not be asked.
        if !files.are_open() {
            return None;
        }
        if phase != old_phase {
            files.phase.notify();
            files.bytes.notify();
            self.pace.told(now_ns());
            return None;
        }
        if bytes == old_bytes {
            return None;
        }
        let tell = self.pace.changed(now_ns());
        self.tell(tell)
    }

    /// The time is over that [`Progress::stream_moved`] or this function returned.
    pub(crate) fn due(&mut self) -> Option<u64> {
        let tell = self.pace.due(now_ns());
        self.tell(tell)
    }

    fn tell(&self, tell: Tell) -> Option<u64> {
        match tell {
            Tell::Now => {
                if let Some(files) = &self.files {
                    files.bytes.notify();
                }
                None
            }
            Tell::In(delay_ns) => Some(delay_ns),
            Tell::Nothing => None,
        }
    }
}
