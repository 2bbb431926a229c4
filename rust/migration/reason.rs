// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why something was refused, kept where a user can read it.

use core::fmt::{self, Write};

/// Longest reason kept, in bytes; a longer one is cut at a character boundary.
pub const MAX_REASON: usize = 256;

/// A short text: the reason of the last refusal, or empty.
///
/// The first `len` bytes are UTF-8.
#[derive(Clone, Debug)]
pub struct Reason {
    text: [u8; MAX_REASON],
    len: usize,
}

impl Reason {
    /// No reason: nothing was refused.
    pub const fn none() -> Self {
        Self {
            text: [0; MAX_REASON],
            len: 0,
        }
    }

    /// Replaces the text.
    pub fn set(&mut self, reason: fmt::Arguments<'_>) {
        self.clear();
        // Cutting a long text is not an error.
        let _ = self.write_fmt(reason);
    }

    /// Forgets the text.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The text; empty when nothing was refused.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.text.get(..self.len).unwrap_or_default()).unwrap_or("")
    }
}

impl Write for Reason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut take = text.len().min(MAX_REASON - self.len);
        while !text.is_char_boundary(take) {
            take -= 1;
        }
        let room = self.text.get_mut(self.len..self.len + take);
        if let (Some(room), Some(text)) = (room, text.as_bytes().get(..take)) {
            room.copy_from_slice(text);
        }
        self.len += take;
        if take < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
