// SPDX-License-Identifier: GPL-2.0

//! The data section of the migration region: pages that a user can map.
//!
//! QEMU copies from the mapping in a thread of its own, so a mapping is never taken away. It shows zeroes outside a session, and
//! in one a copy of the stream. Each user gets pages that no other user had.

use crate::pages::Pages;
use crate::region::{MIGRATION_INDEX, OFFSET_SHIFT};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Where the data section starts in the region, in bytes. The header has the page before it to itself.
pub(crate) const OFFSET: usize = PAGE_SIZE;

/// Length of the data section in bytes, a number of whole pages.
pub(crate) const LEN: usize = 64 * 1024;

/// Where the data section starts in the device's file.
const START: u64 = ((MIGRATION_INDEX as u64) << OFFSET_SHIFT) + OFFSET as u64;

/// The data section of a device's present user. No other user's pages are in it, so it is not kept beyond that.
pub(crate) enum DataSection {
    /// Nobody has the device open.
    Closed,
    /// Nobody has asked for it yet.
    Open,
    /// Its pages, and what reads and writes them until somebody takes it.
    Made(Arc<Pages>, Option<Staging>),
}

impl DataSection {
    /// What reads and writes the section, if it has been made and nobody has taken that yet.
    pub(crate) fn take(&mut self) -> Option<Staging> {
        match self {
            Self::Made(_, staging) => staging.take(),
            Self::Closed | Self::Open => None,
        }
    }

    pub(crate) fn made(staging: Staging) -> Self {
        Self::Made(staging.pages.clone(), Some(staging))
    }
}

/// The data section, to be read and written. User space can do the same through a mapping at any time, which changes what is in
/// it, and nothing else.
///
/// # Invariants
///
/// The pages are [`LEN`] bytes long, and nobody in the kernel but this value accesses what is in them.
pub(crate) struct Staging {
    pages: Arc<Pages>,
    /// Where what was put into the section since it was cleared ends.
    used: usize,
}

impl Staging {
    /// A zeroed section, charged to the caller.
    pub(crate) fn new() -> Result<Self> {
        // INVARIANT: So many pages, which nobody knows yet, and `Pages` lets nobody access them.
        Ok(Self {
            pages: Pages::new(START, LEN)?,
            used: 0,
        })
    }

    /// Copies bytes in. `EINVAL` when they do not fit.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) -> Result {
        // SAFETY: By the type invariant nobody else in the kernel accesses the pages, and that not during `&mut self`.
        unsafe { self.pages.put(offset, bytes)? };
        self.used = self.used.max(offset + bytes.len());
        Ok(())
    }

    /// Copies bytes out. `EINVAL` when there are not so many. What user space writes at the same time comes out in part, which
    /// whoever reads the stream must expect anyway.
    pub(crate) fn get(&self, offset: usize, bytes: &mut [u8]) -> Result {
        // SAFETY: By the type invariant nobody in the kernel writes to the pages during `&self`.
        unsafe { self.pages.get(offset, bytes) }
    }

    /// Forgets everything: what was put in, and all of it once a user could write to it unseen.
    pub(crate) fn clear(&mut self) {
        let used = core::mem::take(&mut self.used);
        let len = match self.pages.were_mapped() {
            true => LEN,
            false => used,
        };
        // SAFETY: By the type invariant nobody else in the kernel accesses the pages, and that not during `&mut self`.
        unsafe { self.pages.zero(len) };
    }
}
