// SPDX-License-Identifier: GPL-2.0 OR MIT

//! CRC-32 as Ethernet and zlib have it: polynomial 0x04c11db7, reflected, initial value and final
//! complement all ones. The check value of `123456789` is 0xcbf43926.

/// The reflected polynomial.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// What eight shifts do to each possible low byte.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
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
        table[byte] = crc;
        byte += 1;
    }
    table
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
        let mut crc = self.0;
        for &byte in bytes {
            let [low, ..] = crc.to_le_bytes();
            crc = (crc >> 8) ^ TABLE[usize::from(low ^ byte)];
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
