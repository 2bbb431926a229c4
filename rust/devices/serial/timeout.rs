// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Character times: how long a receiver waits before it reports characters that are fewer than the
//! trigger level, and how long a break must last to be one.
//!
//! The time-out comes four character times after the last character came in or was read (PC16550D,
//! "FIFO interrupt mode operation"), a break after one (there, LSR bit 4). Every bit of the frame
//! counts: start, data, parity and all stop bits.

use super::registers::lcr;

/// Nanoseconds in half a bit at divisor 1, times 36.
///
/// The card's clock is 1.8432 MHz (QEMU hw/char/serial-pci.c: a baud base of 115200) and a bit takes
/// 16 clocks times the divisor: half of it takes `8 * divisor / 1843200` seconds, which is
/// `divisor * 156250 / 36` nanoseconds.
const HALF_BIT_TIMES_36: u64 = 156_250;

/// The longest delay there is: 12 bits, divisor 65535. Some 27 seconds.
pub(super) const MAX_DELAY_NS: u64 = delay_ns(u16::MAX, lcr::WORD | lcr::STOP | lcr::PARITY);

/// Length of a character in half bits, for a value of the line control register.
const fn half_bits(line_control: u8) -> u64 {
    let data = 5 + (line_control & lcr::WORD) as u64;
    let parity = (line_control & lcr::PARITY != 0) as u64;
    let stop_halves = match (line_control & lcr::STOP != 0, data) {
        (false, _) => 2,
        (true, 5) => 3,
        (true, _) => 4,
    };
    2 * (1 + data + parity) + stop_halves
}

/// So many character times in nanoseconds.
///
/// The data sheets give no meaning to a divisor of 0. Here it counts as 1: early is better than never.
const fn characters_ns(characters: u64, divisor: u16, line_control: u8) -> u64 {
    let divisor = if divisor == 0 { 1 } else { divisor as u64 };
    characters * half_bits(line_control) * divisor * HALF_BIT_TIMES_36 / 36
}

/// The delay of the character time-out.
pub(super) const fn delay_ns(divisor: u16, line_control: u8) -> u64 {
    characters_ns(4, divisor, line_control)
}

/// The shortest break.
pub(super) const fn break_ns(divisor: u16, line_control: u8) -> u64 {
    characters_ns(1, divisor, line_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four characters of so many bits at so many baud.
    fn four_characters_ns(bits_times_2: u64, baud: u64) -> u64 {
        4 * bits_times_2 * 1_000_000_000 / (2 * baud)
    }

    #[test]
    fn frames_are_counted_to_the_half_bit() {
        // 5N1, 5N1.5, 6N2, 7E1, 8N1, 8N2, 8E2
        let frames = [
            (0x00, 14),
            (0x04, 15),
            (0x05, 18),
            (0x1a, 20),
            (0x03, 20),
            (0x07, 22),
            (0x1f, 24),
        ];
        for (line_control, halves) in frames {
            assert_eq!(half_bits(line_control), halves, "LCR {line_control:#x}");
        }
    }

    #[test]
    fn the_delay_is_four_characters_at_the_programmed_rate() {
        for (divisor, baud) in [(1, 115_200), (12, 9_600), (96, 1_200), (384, 300)] {
            assert_eq!(delay_ns(divisor, 0x03), four_characters_ns(20, baud));
            assert_eq!(delay_ns(divisor, 0x04), four_characters_ns(15, baud));
        }
    }

    #[test]
    fn the_data_sheets_own_example_holds() {
        // "160 ms at 300 baud with a 12 bit character" is the longest from character to interrupt.
        assert_eq!(delay_ns(384, 0x1f), 160_000_000);
    }

    #[test]
    fn the_longest_delay_is_the_longest() {
        for line_control in 0..=u8::MAX {
            for divisor in [0, 1, 12, 0x7fff, 0xffff] {
                assert!(delay_ns(divisor, line_control) <= MAX_DELAY_NS);
                assert!(delay_ns(divisor, line_control) > 0);
            }
        }
        assert_eq!(MAX_DELAY_NS / 1_000_000_000, 27);
    }

    #[test]
    fn a_break_is_at_least_a_character_long() {
        assert_eq!(break_ns(12, 0x03), 10_000_000_000 / 9_600);
    }

    #[test]
    fn a_divisor_of_zero_counts_as_one() {
        assert_eq!(delay_ns(0, 0x03), delay_ns(1, 0x03));
    }
}
