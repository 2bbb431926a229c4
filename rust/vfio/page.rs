// SPDX-License-Identifier: GPL-2.0

//! Writing what a file of sysfs shows, which is a page at most.

use core::fmt::{self, Write};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// The page that a file is shown through. What does not fit is an error.
pub(crate) struct PageWriter<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> PageWriter<'a> {
    /// The longest text. The last byte stays free: sysfs takes a text as long as the page for one that was longer, and warns.
    pub(crate) const ROOM: usize = PAGE_SIZE - 1;

    /// Writes to the start of a page.
    pub(crate) fn new(page: &'a mut [u8; PAGE_SIZE]) -> Self {
        let [room @ .., _] = page;
        Self { room, len: 0 }
    }

    /// What a function that shows a file returns: the length, or `EFBIG` for a text that did not fit.
    pub(crate) fn shown(&self, written: fmt::Result) -> isize {
        match written {
            // At most a page.
            Ok(()) => self.len as isize,
            Err(fmt::Error) => EFBIG.to_errno() as isize,
        }
    }
}

impl Write for PageWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.room
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
