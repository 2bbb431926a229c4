// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Fields that hold the symbols of a queue.

pub(super) use crate::fields::{Reader, Writer};
use crate::serial::fifo::Symbol;

impl Writer<'_> {
    /// `len` bytes: the symbols' bytes, then what the buffer held.
    pub(super) fn bytes(&mut self, symbols: impl Iterator<Item = Symbol>, len: usize) {
        for (to, symbol) in self.take(len).iter_mut().zip(symbols) {
            *to = match symbol {
                Symbol::Byte(byte) => byte,
                Symbol::Break => 0,
            };
        }
    }

    /// `len` bytes: one bit a symbol, set for breaks.
    pub(super) fn breaks(&mut self, symbols: impl Iterator<Item = Symbol>, len: usize) {
        let field = self.take(len);
        for (i, symbol) in symbols.enumerate() {
            if let (Symbol::Break, Some(marks)) = (symbol, field.get_mut(i / 8)) {
                *marks |= 1 << (i % 8);
            }
        }
    }
}
