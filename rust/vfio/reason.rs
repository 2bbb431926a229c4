// SPDX-License-Identifier: GPL-2.0

//! Why something was refused, kept where a user can read it.

use core::fmt::{self, Write};

/// Longest reason kept, in bytes; a longer one is cut at a character boundary.
pub(crate) const MAX_REASON: usize = 256;

/// A short text: the reason of the last refusal, or empty.
///
/// # Invariants
///
/// The first `len` bytes are UTF-8.
pub(crate) struct Reason {
    text: [u8; MAX_REASON],
    len: usize,
}

impl Reason {
    /// No reason: nothing was refused.
    pub(crate) const fn none() -> Self {
        Self {
            text: [0; MAX_REASON],
            len: 0,
        }
    }

    /// Replaces the text.
    pub(crate) fn set(&mut self, reason: fmt::Arguments<'_>) {
        self.clear();
        // Cutting a long text is not an error.
        let _ = self.write_fmt(reason);
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// The text; empty when nothing was refused.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.text[..self.len]).unwrap_or("")
    }
}

impl Write for Reason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut take = text.len().min(MAX_REASON - self.len);
        while !text.is_char_boundary(take) {
            take -= 1;
        }
        self.text[self.len..self.len + take].copy_from_slice(&text.as_bytes()[..take]);
        // INVARIANT: Cut at a character boundary.
        self.len += take;
        if take < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
