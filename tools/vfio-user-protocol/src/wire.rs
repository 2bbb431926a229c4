// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Numbers in the byte order of the host.

use crate::refusal::Refusal;
use alloc::vec::Vec;

/// Takes numbers from the front of a message's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Refusal::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Refusal> {
        self.take().map(u16::from_ne_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Refusal> {
        self.take().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Refusal> {
        self.take().map(u64::from_ne_bytes)
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        self.take()
    }

    /// What is left.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Appends numbers to a message.
pub(crate) trait Writer {
    fn put16(&mut self, value: u16) -> &mut Self;
    fn put32(&mut self, value: u32) -> &mut Self;
    fn put64(&mut self, value: u64) -> &mut Self;
    fn put(&mut self, bytes: &[u8]) -> &mut Self;
}

impl Writer for Vec<u8> {
    fn put16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn put32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn put64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}

/// A length that a field has room for. What is sent is bounded far below.
pub(crate) fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
