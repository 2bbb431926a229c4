// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Bytes that come, as texts of one JSON value each: objects and arrays, with nothing but white space between them.
//!
//! Clients of QMP end a message with a newline, those of JSON-RPC often with nothing. So a text ends where its outermost bracket
//! closes. What lies between brackets is looked at by whoever parses it; here it is only kept short, and not too deep.

#[cfg(test)]
mod tests;

/// Longest text, in bytes.
pub const MAX_TEXT: usize = 64 << 10;

/// Deepest nesting.
pub const MAX_DEPTH: usize = 32;

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something that no text begins with, or a bracket that closes another one. All up to the end of the line was skipped.
    #[error("a message is a JSON object, or an array of them")]
    Garbage,
    /// A string goes over the end of a line. The line was skipped.
    #[error("a string does not end on its line")]
    OpenString,
    /// A text is too long. Nothing more can be followed.
    #[error("a message has no more than {MAX_TEXT} bytes")]
    TooLong,
    /// A text nests too deep. Nothing more can be followed.
    #[error("a message nests no deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

impl FrameError {
    /// Whether nothing more can be followed.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::TooLong | Self::TooDeep)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// Between two texts.
    Nothing,
    /// A line that is skipped.
    Garbage,
    /// A text.
    Text,
    /// A string of it.
    String,
    /// Behind a backslash there.
    Escape,
    /// What cannot be followed.
    Ruins,
}

/// Collects texts.
#[derive(Debug)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Where the text begins that is being collected.
    start: usize,
    /// Up to where it was looked at.
    at: usize,
    within: Within,
    depth: usize,
    /// Which brackets are open: a bit each, set for square ones, the innermost lowest.
    open: u32,
}

/// A bit for each level.
const _: () = assert!(MAX_DEPTH <= u32::BITS as usize);

impl Default for Framer {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            at: 0,
            within: Within::Nothing,
            depth: 0,
            open: 0,
        }
    }
}

impl Framer {
    /// Takes bytes that have come. What was there before should have been taken first: there is no other bound to it.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start.min(self.bytes.len()));
        self.at -= self.start;
        self.start = 0;
        if self.within != Within::Ruins {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The next text that is whole.
    pub fn next_text(&mut self) -> Option<Result<&[u8], FrameError>> {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            if self.at - self.start > MAX_TEXT {
                return Some(Err(self.give_up(FrameError::TooLong)));
            }
            if let Some(found) = self.step(byte) {
                let from = std::mem::replace(&mut self.start, self.at);
                let text = self.bytes.get(from..self.at).unwrap_or_default();
                return Some(found.map(|()| text));
            }
            if matches!(self.within, Within::Nothing | Within::Garbage) {
                self.start = self.at;
            }
        }
        None
    }

    /// Looks at a byte: whether a text ends with it, or an error has come to light.
    fn step(&mut self, byte: u8) -> Option<Result<(), FrameError>> {
        match (self.within, byte) {
            (Within::Nothing, b'{' | b'[') => {
                self.within = Within::Text;
                self.depth = 1;
                self.open = u32::from(byte == b'[');
            }
            (Within::Nothing, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Within::Nothing, _) => self.within = Within::Garbage,
            (Within::Garbage, b'\n') => {
                self.within = Within::Nothing;
                return Some(Err(FrameError::Garbage));
            }
            (Within::Text, b'"') => self.within = Within::String,
            (Within::Text, b'{' | b'[') => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Some(Err(self.give_up(FrameError::TooDeep)));
                }
                self.open = (self.open << 1) | u32::from(byte == b'[');
            }
            (Within::Text, b'}' | b']') => {
                if self.open & 1 != u32::from(byte == b']') {
                    self.within = Within::Garbage;
                    return None;
                }
                self.open >>= 1;
                self.depth -= 1;
                if self.depth == 0 {
                    self.within = Within::Nothing;
                    return Some(Ok(()));
                }
            }
            (Within::String, b'"') => self.within = Within::Text,
            (Within::String, b'\\') => self.within = Within::Escape,
            (Within::String | Within::Escape, b'\n') => {
                self.within = Within::Nothing;
                return Some(Err(FrameError::OpenString));
            }
            (Within::Escape, _) => self.within = Within::String,
            (Within::Garbage | Within::Text | Within::String | Within::Ruins, _) => {}
        }
        None
    }

    fn give_up(&mut self, error: FrameError) -> FrameError {
        *self = Self {
            within: Within::Ruins,
            ..Self::default()
        };
        error
    }
}
