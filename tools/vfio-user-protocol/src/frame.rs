// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where messages begin and end in a stream of bytes.

use crate::header::Header;
use alloc::vec::Vec;
use core::fmt;

/// A length that no message can have. The stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The header that says so: the sender can be told.
    pub header: Header,
    /// The longest message that is taken.
    pub limit: usize,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, limit) = (self.header.size, self.limit);
        let least = Header::LEN;
        write!(
            f,
            "a message of {size} bytes is not one of {least} to {limit}"
        )
    }
}

impl core::error::Error for FrameError {}

/// Collects one message at a time. It keeps no more than has come, and never more than one message.
#[derive(Debug)]
pub struct Framer {
    limit: usize,
    bytes: Vec<u8>,
    header: Option<Header>,
}

impl Framer {
    /// Most bytes that are asked for at a time.
    const STEP: usize = 64 << 10;

    /// Takes messages of up to `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: Vec::new(),
            header: None,
        }
    }

    /// Bytes that are missing to the end of what is being collected: the header, then the message. 0 if a message is whole.
    fn missing(&self) -> usize {
        let end = self.header.map_or(Header::LEN, |header| {
            usize::try_from(header.size).unwrap_or(usize::MAX)
        });
        end.saturating_sub(self.bytes.len())
    }

    /// How many bytes to read next, so that none of the message after this one is among them. 0 if a message is whole.
    pub fn wanted(&self) -> usize {
        self.missing().min(Self::STEP)
    }

    /// Whether the header is still to come, or the rest of it.
    pub fn is_before_body(&self) -> bool {
        self.header.is_none()
    }

    /// Takes bytes up to the end of the message, and says how many. After an error there is nothing more to be had.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<usize, FrameError> {
        let mut taken = 0;
        loop {
            let (now, rest) = bytes.split_at(self.missing().min(bytes.len()));
            if now.is_empty() {
                return Ok(taken);
            }
            self.bytes.extend_from_slice(now);
            taken += now.len();
            bytes = rest;
            if let (None, Some(first)) = (self.header, self.bytes.first_chunk()) {
                let header = Header::parse(first);
                let limit = self.limit;
                let size = usize::try_from(header.size).unwrap_or(usize::MAX);
                if !(Header::LEN..=limit).contains(&size) {
                    return Err(FrameError { header, limit });
                }
                self.header = Some(header);
            }
        }
    }

    /// The message, if it is whole: header and body.
    pub fn message(&self) -> Option<(Header, &[u8])> {
        let header = self.header.filter(|_| self.missing() == 0)?;
        Some((header, self.bytes.get(Header::LEN..)?))
    }

    /// Begins the next message.
    pub fn next(&mut self) {
        self.header = None;
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn message(id: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Header::put_request(&mut out, id, Command::Reset, false, body.len());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn any_split_gives_the_same_messages() {
        let stream = [message(1, b""), message(2, b"abc"), message(3, &[7; 500])].concat();
        for step in [1, 2, 15, 16, 17, 100, stream.len()] {
            let mut framer = Framer::new(1024);
            let mut seen = Vec::new();
            for mut piece in stream.chunks(step) {
                while !piece.is_empty() {
                    let taken = framer.push(piece).expect("sound headers");
                    piece = &piece[taken..];
                    if let Some((header, body)) = framer.message() {
                        seen.push((header.id, body.to_vec()));
                        framer.next();
                    }
                }
            }
            let wanted = [
                (1, b"".to_vec()),
                (2, b"abc".to_vec()),
                (3, [7; 500].to_vec()),
            ];
            assert_eq!(seen, wanted, "in steps of {step}");
        }
    }

    #[test]
    fn lengths_that_no_message_has_end_it_before_anything_is_kept() {
        for size in [0u32, 15, 1025, u32::MAX] {
            let mut bytes = message(9, b"");
            bytes[4..8].copy_from_slice(&size.to_ne_bytes());
            let mut framer = Framer::new(1024);
            let error = framer.push(&bytes).expect_err("no message has this length");
            assert_eq!((error.header.id, error.header.size), (9, size));
            assert!(framer.message().is_none());
            assert!(framer.bytes.capacity() <= 64, "{size}");
        }
    }

    #[test]
    fn no_more_is_asked_for_than_the_message_has() {
        let mut framer = Framer::new(1 << 20);
        assert_eq!(framer.wanted(), Header::LEN);
        let bytes = message(1, &[0; 100_000]);
        framer.push(&bytes[..10]).expect("half a header");
        assert_eq!(framer.wanted(), 6);
        framer.push(&bytes[10..16]).expect("a header");
        assert_eq!(framer.wanted(), Framer::STEP);
        framer.push(&bytes[16..]).expect("a body");
        assert_eq!(framer.wanted(), 0);
    }
}
