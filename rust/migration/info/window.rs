// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Printing a part of something, for files that are read by offset.

use core::fmt::{self, Write};
use core::mem::MaybeUninit;

/// Room for one byte. It need not hold one yet.
pub trait Place {
    /// Puts the byte there.
    fn put(&mut self, byte: u8);
}

impl Place for u8 {
    fn put(&mut self, byte: u8) {
        *self = byte;
    }
}

/// A buffer that was only allocated.
impl Place for MaybeUninit<u8> {
    fn put(&mut self, byte: u8) {
        self.write(byte);
    }
}

/// Keeps the part of what is written to it that starts at an offset and fits a buffer.
///
/// A file that is read in pieces prints its whole content into a window for every piece. Once the
/// window is full, writing fails: there is nothing more to learn.
#[derive(Debug)]
pub struct Window<'a, P> {
    skip: u64,
    out: &'a mut [P],
    len: usize,
}

impl<'a, P: Place> Window<'a, P> {
    /// Prints `content` and returns how many of its bytes, starting at `offset`, are now at the
    /// start of `out`: fewer than fit only at its end. The rest of `out` is not touched.
    pub fn fill(out: &'a mut [P], offset: u64, content: &impl fmt::Display) -> usize {
        let mut window = Self {
            skip: offset,
            out,
            len: 0,
        };
        // An error is how a full window ends the printing. Printing itself does not fail.
        let _ = write!(window, "{content}");
        window.len
    }
}

impl<P: Place> Write for Window<'_, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut bytes = text.as_bytes();
        if self.skip > 0 {
            let skipped = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            // Widening: usize has at most 64 bits on every target.
            self.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
        }
        let room = self.out.get_mut(self.len..).unwrap_or_default();
        let taken = room.len().min(bytes.len());
        for (place, byte) in room.iter_mut().zip(bytes) {
            place.put(*byte);
        }
        self.len += taken;
        if taken < bytes.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

/// How many bytes something prints.
pub fn printed_len(content: &impl fmt::Display) -> usize {
    struct Count(usize);

    impl Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.saturating_add(text.len());
            Ok(())
        }
    }

    let mut count = Count(0);
    // Counting does not fail.
    let _ = write!(count, "{content}");
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows whether something was put there.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Slot(Option<u8>);

    impl Place for Slot {
        fn put(&mut self, byte: u8) {
            assert_eq!(self.0.replace(byte), None, "written twice");
        }
    }

    #[test]
    fn every_window_shows_its_part() {
        let content = "first-2-größe";
        let bytes = content.as_bytes();
        for offset in 0..=bytes.len() + 2 {
            for size in 0..=bytes.len() + 2 {
                let mut out = std::vec![Slot(None); size];
                let len = Window::fill(&mut out, offset as u64, &Pieces);
                let from = offset.min(bytes.len());
                let to = (from + size).min(bytes.len());
                let part: std::vec::Vec<_> =
                    bytes[from..to].iter().map(|&b| Slot(Some(b))).collect();
                assert_eq!(out[..len], part);
                assert!(out[len..].iter().all(|slot| *slot == Slot(None)));
            }
        }
        assert_eq!(Window::fill(&mut [0u8; 8], u64::MAX, &Pieces), 0);
        assert_eq!(printed_len(&Pieces), bytes.len());
    }

    struct Pieces;

    impl fmt::Display for Pieces {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            for piece in ["first", "", "-2-", "größe"] {
                f.write_str(piece)?;
            }
            Ok(())
        }
    }
}
