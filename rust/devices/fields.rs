// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Little-endian fields, one after the other, in a buffer of known size.
//!
//! A field beyond the end is not written, and reads as zero: the callers' layouts are as long as their
//! buffers, and the tests say so.

/// Writes fields.
pub(crate) struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(payload: &'a mut [u8]) -> Self {
        Writer { rest: payload }
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &mut [u8] {
        let rest = core::mem::take(&mut self.rest);
        let (field, rest) = rest.split_at_mut(len.min(rest.len()));
        self.rest = rest;
        field
    }

    pub(crate) fn put(&mut self, value: &[u8]) {
        for (to, from) in self.take(value.len()).iter_mut().zip(value) {
            *to = *from;
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
}

/// Reads fields.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Reader { rest: payload }
    }

    /// The next `len` bytes, or what is left.
    pub(crate) fn slice(&mut self, len: usize) -> &'a [u8] {
        let (field, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        field
    }

    pub(crate) fn get<const N: usize>(&mut self) -> [u8; N] {
        let mut value = [0; N];
        for (to, from) in value.iter_mut().zip(self.slice(N)) {
            *to = *from;
        }
        value
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.get())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.get())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.get())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.get())
    }
}
