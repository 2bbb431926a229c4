// SPDX-License-Identifier: GPL-2.0 OR MIT

//! CRC-32 as Ethernet and zlib have it: polynomial 0x04c11db7, reflected, initial value and final
//! complement all ones. The check value of `123456789` is 0xcbf43926.
//!
//! It is made of eight bytes at a time, by tables. Of longer pieces the kernel module has the kernel make it, where that knows
//! instructions of the processor for it.

/// The reflected polynomial.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// How many bytes are taken at a time.
const SLICES: usize = 8;

/// How many bytes it takes for the kernel's function to be done sooner: before and after it uses the processor's registers for
/// vectors, it saves and restores what they hold.
#[cfg(kernel_crc32)]
const WORTH_ASKING: usize = 512;

/// What eight shifts do to each possible low byte, and what that becomes when so many more bytes follow: table `n` is for a byte
/// that is `n` bytes before the end of what is taken at a time.
static TABLES: [[u32; 256]; SLICES] = tables();

const fn tables() -> [[u32; 256]; SLICES] {
    let mut tables = [[0; 256]; SLICES];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < SLICES {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[slice - 1][byte];
            tables[slice][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
}

/// A checksum in the making: bytes may be added in any number of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32(u32);

impl Crc32 {
    /// The checksum of nothing yet.
    pub const fn new() -> Self {
        Self(!0)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        #[cfg(kernel_crc32)]
        if bytes.len() >= WORTH_ASKING {
            if let Some(crc) = crc32::update(self.0, bytes) {
                self.0 = crc;
                return;
            }
        }
        self.update_by_tables(bytes);
    }

    fn update_by_tables(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let mut chunks = bytes.chunks_exact(SLICES);
        for chunk in &mut chunks {
            // The chunks are eight bytes long, and the sum so far is due to bytes before the first four.
            let &[a, b, c, d, e, f, g, h] = chunk else {
                continue;
            };
            let [i, j, k, l] = (u32::from_le_bytes([a, b, c, d]) ^ crc).to_le_bytes();
            let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
            let at = |table: &[u32; 256], byte: u8| table[usize::from(byte)];
            crc = at(t7, i) ^ at(t6, j) ^ at(t5, k) ^ at(t4, l);
            crc ^= at(t3, e) ^ at(t2, f) ^ at(t1, g) ^ at(t0, h);
        }
        for &byte in chunks.remainder() {
            let [low, ..] = crc.to_le_bytes();
            crc = (crc >> 8) ^ TABLES[0][usize::from(low ^ byte)];
        }
        self.0 = crc;
    }

    /// The checksum of all bytes added so far.
    pub const fn value(self) -> u32 {
        !self.0
    }

    /// The checksum of one slice.
    pub fn of(bytes: &[u8]) -> u32 {
        let mut crc = Self::new();
        crc.update(bytes);
        crc.value()
    }
}

impl Default for Crc32 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_is_met() {
        assert_eq!(Crc32::of(b"123456789"), 0xcbf4_3926);
        assert_eq!(Crc32::of(b""), 0);
    }

    #[test]
    fn it_is_the_remainder_of_the_division() {
        // Bit by bit, as the definition has it.
        let divided = |bytes: &[u8]| {
            let mut crc = u32::MAX;
            for &byte in bytes {
                crc ^= u32::from(byte);
                for _ in 0..8 {
                    let carry = crc & 1;
                    crc = (crc >> 1) ^ (0u32.wrapping_sub(carry) & POLYNOMIAL);
                }
            }
            !crc
        };
        let mut bytes = [0; 67];
        let mut noise = 0x2545_f491u32;
        for byte in &mut bytes {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            *byte = noise as u8;
        }
        for start in 0..9 {
            for end in start..=bytes.len() {
                let piece = &bytes[start..end];
                assert_eq!(Crc32::of(piece), divided(piece), "{start}..{end}");
            }
        }
    }

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        let data = b"The quick brown fox jumps over the lazy dog";
        for cut in 0..=data.len() {
            let mut crc = Crc32::new();
            crc.update(&data[..cut]);
            crc.update(&data[cut..]);
            assert_eq!(crc.value(), 0x414f_a339);
        }
    }
}
