// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What can be chosen about a card. Everything here shapes the hardware interface or the saved state.

use super::registers::{fcr, ier, mcr};
use core::fmt;

/// How many ports a card has. QEMU's family has no card of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortCount {
    /// `pci-serial`, 1b36:0002.
    One,
    /// `pci-serial-2x`, 1b36:0003.
    Two,
    /// `pci-serial-4x`, 1b36:0004.
    Four,
}

/// The most ports a card can have.
pub const MAX_PORTS: usize = 4;

impl PortCount {
    /// Every value, smallest first.
    pub const ALL: [PortCount; 3] = [PortCount::One, PortCount::Two, PortCount::Four];

    /// The number of ports.
    pub const fn get(self) -> u8 {
        match self {
            PortCount::One => 1,
            PortCount::Two => 2,
            PortCount::Four => 4,
        }
    }

    /// The PCI device ID (vendor 1b36). Source: QEMU docs/specs/pci-serial.rst.
    pub const fn device_id(self) -> u16 {
        match self {
            PortCount::One => 0x0002,
            PortCount::Two => 0x0003,
            PortCount::Four => 0x0004,
        }
    }

    /// The size of BAR 0 in bytes: eight registers a port.
    pub const fn bar_size(self) -> u16 {
        self.get() as u16 * 8
    }
}

impl TryFrom<u64> for PortCount {
    type Error = ConfigError;

    fn try_from(ports: u64) -> Result<Self, ConfigError> {
        match ports {
            1 => Ok(PortCount::One),
            2 => Ok(PortCount::Two),
            4 => Ok(PortCount::Four),
            _ => Err(ConfigError::Ports(ports)),
        }
    }
}

/// How many bytes each of a port's two FIFOs can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FifoDepth {
    /// A 16550A.
    Sixteen,
    /// A 16750: comes up with 16 bytes and can be switched to 64.
    SixtyFour,
}

impl FifoDepth {
    /// Every value, smallest first.
    pub const ALL: [FifoDepth; 2] = [FifoDepth::Sixteen, FifoDepth::SixtyFour];

    /// The number of bytes.
    pub const fn get(self) -> u8 {
        match self {
            FifoDepth::Sixteen => 16,
            FifoDepth::SixtyFour => 64,
        }
    }
}

impl TryFrom<u64> for FifoDepth {
    type Error = ConfigError;

    fn try_from(bytes: u64) -> Result<Self, ConfigError> {
        match bytes {
            16 => Ok(FifoDepth::Sixteen),
            64 => Ok(FifoDepth::SixtyFour),
            _ => Err(ConfigError::FifoDepth(bytes)),
        }
    }
}

/// What kind of card it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many ports it has; decides device ID and BAR size.
    pub ports: PortCount,
    /// 16550A or 16750.
    pub fifo_depth: FifoDepth,
    /// Whether a 16750 has automatic flow control. A 16550A has none either way.
    pub auto_flow: bool,
    /// Whether it has an MSI capability beside INTx.
    pub msi: bool,
    /// How its ports are saved: without the zeroes at the end. The guest does not see it.
    pub compact_state: bool,
}

impl Config {
    /// The card that QEMU emulates: 16550A, INTx only.
    pub const fn new(ports: PortCount) -> Config {
        Config {
            ports,
            fifo_depth: FifoDepth::Sixteen,
            auto_flow: true,
            msi: false,
            compact_state: false,
        }
    }

    /// The UART of its ports.
    pub(super) const fn chip(&self) -> Chip {
        Chip {
            depth: self.fifo_depth,
            auto_flow: self.auto_flow,
        }
    }
}

/// What kind of UART a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chip {
    pub(super) depth: FifoDepth,
    /// Automatic flow control, if it is a 16750.
    pub(super) auto_flow: bool,
}

impl Chip {
    /// The bits that its interrupt enable register stores.
    pub(super) const fn ier_mask(self) -> u8 {
        match self.depth {
            FifoDepth::Sixteen => ier::MASK_16550A,
            FifoDepth::SixtyFour => ier::MASK_16750,
        }
    }

    /// The bits that its modem control register stores.
    pub(super) const fn mcr_mask(self) -> u8 {
        match (self.depth, self.auto_flow) {
            (FifoDepth::SixtyFour, true) => mcr::MASK_16550A | mcr::AFE,
            _ => mcr::MASK_16550A,
        }
    }

    /// The bit of its FIFO control register that switches to 64 bytes, if it has it.
    pub(super) const fn fifo64_mask(self) -> u8 {
        match self.depth {
            FifoDepth::Sixteen => 0,
            FifoDepth::SixtyFour => fcr::FIFO64,
        }
    }
}

/// A number that names no card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Not a number of ports.
    Ports(u64),
    /// Not a FIFO depth.
    FifoDepth(u64),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Ports(n) => write!(f, "a card has 1, 2 or 4 ports, not {n}"),
            ConfigError::FifoDepth(n) => write!(f, "a FIFO holds 16 or 64 bytes, not {n}"),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn device_id_and_bar_size_follow_the_number_of_ports() {
        let seen: std::vec::Vec<_> = PortCount::ALL
            .iter()
            .map(|p| (p.get(), p.device_id(), p.bar_size()))
            .collect();
        assert_eq!(seen, [(1, 2, 8), (2, 3, 16), (4, 4, 32)]);
    }

    #[test]
    fn only_one_two_and_four_are_port_counts() {
        for n in 0..=300 {
            match PortCount::try_from(n) {
                Ok(ports) => assert_eq!(u64::from(ports.get()), n),
                Err(e) => {
                    assert!(![1, 2, 4].contains(&n));
                    assert_eq!(e, ConfigError::Ports(n));
                }
            }
        }
        assert!(PortCount::try_from(0x1_0000_0001).is_err());
        assert_eq!(
            ConfigError::Ports(3).to_string(),
            "a card has 1, 2 or 4 ports, not 3"
        );
    }

    #[test]
    fn only_sixteen_and_sixty_four_are_fifo_depths() {
        for n in 0..=300 {
            match FifoDepth::try_from(n) {
                Ok(depth) => assert_eq!(u64::from(depth.get()), n),
                Err(e) => {
                    assert!(![16, 64].contains(&n));
                    assert_eq!(e, ConfigError::FifoDepth(n));
                }
            }
        }
    }
}
