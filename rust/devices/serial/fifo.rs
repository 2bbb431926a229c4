// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A bounded queue of characters: the FIFOs of a UART and the queue of a far end.

/// What travels on a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    /// A character.
    Byte(u8),
    /// The line was held in the spacing state for longer than a character.
    Break,
}

impl Symbol {
    /// The same symbol as a receiver or transmitter of fewer data bits has it.
    pub(super) const fn masked(self, mask: u8) -> Symbol {
        match self {
            Symbol::Byte(byte) => Symbol::Byte(byte & mask),
            Symbol::Break => Symbol::Break,
        }
    }
}

/// A queue of at most `N` symbols; `M` is `N / 8`.
///
/// Invariants: `head < N`; `len <= N`; a break's byte is zero.
#[derive(Clone, Debug)]
pub(super) struct Fifo<const N: usize, const M: usize> {
    head: u16,
    len: u16,
    bytes: [u8; N],
    /// Bit `i % 8` of byte `i / 8`: slot `i` holds a break.
    breaks: [u8; M],
}

impl<const N: usize, const M: usize> Fifo<N, M> {
    const SIZES_FIT: () = assert!(N == M * 8 && N.is_power_of_two() && N <= 1 << 15);

    pub(super) const fn new() -> Self {
        let () = Self::SIZES_FIT;
        Fifo {
            head: 0,
            len: 0,
            bytes: [0; N],
            breaks: [0; M],
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len() >= N
    }

    /// The slot of the `i`-th oldest symbol.
    const fn slot(&self, i: usize) -> usize {
        // N is a power of two, so the wrapped sum is as good as the sum.
        (self.head as usize).wrapping_add(i) % N
    }

    fn at(&self, slot: usize) -> Symbol {
        if self.breaks[slot / 8 % M] & (1 << (slot % 8)) != 0 {
            Symbol::Break
        } else {
            Symbol::Byte(self.bytes[slot % N])
        }
    }

    fn set(&mut self, slot: usize, symbol: Symbol) {
        let mark = 1 << (slot % 8);
        match symbol {
            Symbol::Byte(byte) => {
                self.bytes[slot % N] = byte;
                self.breaks[slot / 8 % M] &= !mark;
            }
            Symbol::Break => {
                self.bytes[slot % N] = 0;
                self.breaks[slot / 8 % M] |= mark;
            }
        }
    }

    /// Appends a symbol. `false`: the queue is full and unchanged.
    #[must_use]
    pub(super) fn push(&mut self, symbol: Symbol) -> bool {
        if self.is_full() {
            return false;
        }
        let slot = self.slot(self.len());
        self.set(slot, symbol);
        self.len += 1;
        true
    }

    /// The oldest symbol.
    pub(super) fn front(&self) -> Option<Symbol> {
        (!self.is_empty()).then(|| self.at(self.slot(0)))
    }

    /// Removes the oldest symbol.
    pub(super) fn pop(&mut self) -> Option<Symbol> {
        let symbol = self.front()?;
        self.head = self.slot(1) as u16;
        self.len -= 1;
        Some(symbol)
    }

    /// Turns a break at the front into the zero byte that came with it. `true`: there was one.
    pub(super) fn reveal_break(&mut self) -> bool {
        let is_break = self.front() == Some(Symbol::Break);
        if is_break {
            self.set(self.slot(0), Symbol::Byte(0));
        }
        is_break
    }

    pub(super) fn clear(&mut self) {
        self.head = 0;
        self.len = 0;
    }

    /// Has what another one has, of which nothing is copied that is not in it.
    pub(super) fn copy_from(&mut self, other: &Self) {
        match other.is_empty() {
            true => self.clear(),
            false => self.clone_from(other),
        }
    }

    /// The symbols, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Symbol> + '_ {
        (0..self.len()).map(|i| self.at(self.slot(i)))
    }

    /// Whether a break waits anywhere.
    pub(super) fn has_break(&self) -> bool {
        self.iter().any(|symbol| symbol == Symbol::Break)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    type Small = Fifo<16, 2>;

    #[test]
    fn symbols_come_out_in_the_order_they_went_in() {
        let mut fifo = Small::new();
        assert!(fifo.push(Symbol::Byte(1)));
        assert!(fifo.push(Symbol::Break));
        assert!(fifo.push(Symbol::Byte(0)));
        let seen: Vec<_> = core::iter::from_fn(|| fifo.pop()).collect();
        assert_eq!(seen, [Symbol::Byte(1), Symbol::Break, Symbol::Byte(0)]);
    }

    #[test]
    fn a_full_queue_refuses_and_keeps_what_it_has() {
        let mut fifo = Small::new();
        for byte in 0..16 {
            assert!(fifo.push(Symbol::Byte(byte)));
        }
        assert!(!fifo.push(Symbol::Byte(99)));
        assert_eq!(fifo.len(), 16);
        for byte in 0..16 {
            assert_eq!(fifo.pop(), Some(Symbol::Byte(byte)));
        }
        assert_eq!(fifo.pop(), None);
    }

    #[test]
    fn only_a_break_at_the_front_is_revealed() {
        let mut fifo = Small::new();
        assert!(!fifo.reveal_break());
        assert!(fifo.push(Symbol::Byte(7)));
        assert!(fifo.push(Symbol::Break));
        assert!(!fifo.reveal_break());
        assert!(fifo.has_break());
        fifo.pop();
        assert!(fifo.reveal_break());
        assert!(!fifo.has_break());
        assert_eq!(fifo.pop(), Some(Symbol::Byte(0)));
    }

    fn symbol() -> impl Strategy<Value = Symbol> {
        prop_oneof![
            4 => any::<u8>().prop_map(Symbol::Byte),
            1 => Just(Symbol::Break),
        ]
    }

    proptest! {
        #[test]
        fn the_queue_behaves_as_an_unbounded_one_that_is_never_overfilled(
            steps in prop::collection::vec(prop::option::of(symbol()), 0..200)
        ) {
            let mut fifo = Small::new();
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Some(symbol) => {
                        let room = model.len() < 16;
                        prop_assert_eq!(fifo.push(symbol), room);
                        if room {
                            model.push_back(symbol);
                        }
                    }
                    None => prop_assert_eq!(fifo.pop(), model.pop_front()),
                }
                prop_assert!(fifo.iter().eq(model.iter().copied()));
                prop_assert_eq!(fifo.has_break(), model.contains(&Symbol::Break));
                prop_assert_eq!(fifo.is_full(), model.len() == 16);
            }
        }
    }
}
