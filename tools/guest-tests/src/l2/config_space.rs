// SPDX-License-Identifier: GPL-2.0 OR MIT

//! PCI configuration space as a guest reads it from sysfs: the walk of the capability list that lspci makes.
//!
//! Source: PCI Local Bus 3.0, sections 6.1 and 6.7; linux/pci_regs.h for the numbers.

/// Size of configuration space in bytes.
pub const BYTES: usize = 256;

/// Identification number of the capability of message-signalled interrupts.
pub const MSI: u8 = 0x05;

const STATUS: usize = 0x06;
/// In the status register: there is a capability list.
const HAS_CAPABILITIES: u8 = 0x10;
const CAPABILITIES_POINTER: usize = 0x34;
/// Capabilities lie behind the header.
const HEADER_BYTES: usize = 0x40;
/// The lowest two bits of a pointer are reserved.
const POINTER: u8 = !3;

/// Why a capability list cannot be walked to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A pointer leads into the header.
    IntoHeader(u8),
    /// The list comes back to a capability that it has already.
    Endless,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::IntoHeader(pointer) => {
                write!(
                    f,
                    "the capability list leads into the header, to {pointer:#x}"
                )
            }
            Broken::Endless => f.write_str("the capability list has no end"),
        }
    }
}

impl std::error::Error for Broken {}

/// Identification numbers of the capabilities, in the order of the list.
pub fn capabilities(config: &[u8; BYTES]) -> Result<Vec<u8>, Broken> {
    let mut found = Vec::new();
    if config[STATUS] & HAS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut pointer = config[CAPABILITIES_POINTER] & POINTER;
    while pointer != 0 {
        let place = usize::from(pointer);
        if place < HEADER_BYTES {
            return Err(Broken::IntoHeader(pointer));
        }
        // As many as there is room for.
        if found.len() == (BYTES - HEADER_BYTES) / 4 {
            return Err(Broken::Endless);
        }
        // A pointer is a multiple of four below 256: the next byte is there.
        found.push(config[place]);
        pointer = config[place + 1] & POINTER;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Configuration space with these bytes set.
    fn config(bytes: &[(usize, u8)]) -> [u8; BYTES] {
        let mut config = [0; BYTES];
        bytes
            .iter()
            .for_each(|(place, byte)| config[*place] = *byte);
        config
    }

    #[test]
    fn capabilities_come_in_the_order_of_the_list() {
        let two = config(&[(6, 0x18), (0x34, 0x50), (0x50, 5), (0x51, 0x43), (0x40, 9)]);
        assert_eq!(capabilities(&two), Ok(vec![5, 9]));
    }

    #[test]
    fn without_the_status_bit_there_is_no_list() {
        let none = config(&[(6, 0x08), (0x34, 0x40), (0x40, 5)]);
        assert_eq!(capabilities(&none), Ok(vec![]));
    }

    #[test]
    fn a_list_that_cannot_be_walked_is_an_error() {
        let header = config(&[(6, 0x10), (0x34, 0x10)]);
        assert_eq!(capabilities(&header), Err(Broken::IntoHeader(0x10)));
        let endless = config(&[(6, 0x10), (0x34, 0x40), (0x40, 5), (0x41, 0x40)]);
        assert_eq!(capabilities(&endless), Err(Broken::Endless));
    }

    #[test]
    fn the_last_place_is_within_the_space() {
        let last = config(&[(6, 0x10), (0x34, 0xfc), (0xfc, 5)]);
        assert_eq!(capabilities(&last), Ok(vec![5]));
    }
}
