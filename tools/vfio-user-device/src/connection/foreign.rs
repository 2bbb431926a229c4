// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Descriptors that are neither memory nor an eventfd, which nobody has a use for.
//!
//! What is done with a file may ask its file system, and a client may serve one itself (FUSE) and not answer: reading, looking at
//! attributes, and even closing. So nothing is done with such a file but that it is closed, by a thread that nobody waits for. There
//! are few of those for a device; while they are all at work, no descriptors are taken of its clients.

use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::Builder;

use crate::irq::is_eventfd;
use crate::memory::is_memory;

/// Most threads that close something, for a device.
const MAX_CLOSING: usize = 4;

/// Whether nothing that is done with the file waits for somebody.
pub(super) fn is_known(fd: &OwnedFd) -> bool {
    is_memory(fd) || is_eventfd(fd)
}

/// What is being closed of a device's clients. Clones are of the same device.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// How many threads there are.
    closing: Arc<AtomicUsize>,
}

impl Foreign {
    /// Whether descriptors can be taken: those that nobody has a use for can be closed.
    pub(super) fn has_room(&self) -> bool {
        self.closing.load(Ordering::Relaxed) < MAX_CLOSING
    }

    /// Closes descriptors.
    pub(super) fn close(&self, fds: Vec<OwnedFd>) {
        // Where there is no thread to be had, they stay open: better that than to wait.
        let (closing, fds) = (self.closing.clone(), ManuallyDrop::new(fds));
        let closes = move || {
            drop(ManuallyDrop::into_inner(fds));
            closing.fetch_sub(1, Ordering::Relaxed);
        };
        self.closing.fetch_add(1, Ordering::Relaxed);
        if Builder::new()
            .name("close".to_string())
            .spawn(closes)
            .is_err()
        {
            self.closing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
