// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Names of registers and bits of configuration space.

/// Offset of the vendor ID, 2 bytes.
pub const VENDOR_ID: u8 = 0x00;
/// Offset of the device ID, 2 bytes.
pub const DEVICE_ID: u8 = 0x02;
/// Offset of the command register, 2 bytes.
pub const COMMAND: u8 = 0x04;
/// Offset of the status register, 2 bytes.
pub const STATUS: u8 = 0x06;
/// Offset of the revision, 1 byte.
pub const REVISION: u8 = 0x08;
/// Offset of the class code, 3 bytes.
pub const CLASS: u8 = 0x09;
/// Offset of the first base address register, 4 bytes; five more follow.
pub const BAR_0: u8 = 0x10;
/// Offset of the subsystem's vendor ID, 2 bytes.
pub const SUBSYSTEM_VENDOR_ID: u8 = 0x2c;
/// Offset of the subsystem ID, 2 bytes.
pub const SUBSYSTEM_ID: u8 = 0x2e;
/// Offset of the pointer to the first capability, 1 byte.
pub const CAPABILITIES_POINTER: u8 = 0x34;
/// Offset of the interrupt line register, 1 byte.
pub const INTERRUPT_LINE: u8 = 0x3c;
/// Offset of the interrupt pin register, 1 byte.
pub const INTERRUPT_PIN: u8 = 0x3d;
/// Offset of the first byte behind the header.
pub const HEADER_END: u8 = 0x40;

/// Bits of the command register.
pub mod command {
    /// The function answers accesses to I/O space.
    pub const IO: u16 = 0x0001;
    /// The function answers accesses to memory space.
    pub const MEMORY: u16 = 0x0002;
    /// The function may access memory: DMA and messages.
    pub const MASTER: u16 = 0x0004;
    /// The function may report errors of the address phase.
    pub const SERR: u16 = 0x0100;
    /// The function may not assert its pin.
    pub const INTX_DISABLE: u16 = 0x0400;
}

/// Bits of the status register.
pub mod status {
    /// The function asks for an interrupt by its pin.
    pub const INTERRUPT: u16 = 0x0008;
    /// There is a list of capabilities.
    pub const CAPABILITIES: u16 = 0x0010;
}

/// Bits of a base address register.
pub mod bar {
    /// It decodes I/O space.
    pub const IO: u32 = 0x1;
    /// It and the next one are one register of 64 bits.
    pub const MEMORY_64: u32 = 0x4;
    /// Reading has no side effects.
    pub const PREFETCHABLE: u32 = 0x8;
    /// The bits of a memory BAR that are no address.
    pub const MEMORY_FLAGS: u32 = 0xf;
    /// The bits of an I/O BAR that are no address.
    pub const IO_FLAGS: u32 = 0x3;
}

/// Identifiers of capabilities.
pub mod capability {
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// What the vendor likes.
    pub const VENDOR: u8 = 0x09;
    /// Message signalled interrupts with a table.
    pub const MSIX: u8 = 0x11;
}

/// Bits of MSI's message control word.
pub mod msi {
    /// Messages are sent, and the pin is not used.
    pub const ENABLE: u16 = 0x0001;
    /// Where the logarithm of the number of vectors offered is.
    pub const CAPABLE_SHIFT: u16 = 1;
    /// The logarithm of the number of vectors in use.
    pub const ENABLED: u16 = 0x0070;
    /// Where that is.
    pub const ENABLED_SHIFT: u16 = 4;
    /// Addresses have 64 bits.
    pub const ADDRESS_64: u16 = 0x0080;
    /// Vectors can be masked.
    pub const MASKABLE: u16 = 0x0100;
}

/// Bits of MSI-X's message control word.
pub mod msix {
    /// The number of vectors, less one.
    pub const SIZE: u16 = 0x07ff;
    /// All vectors are masked.
    pub const FUNCTION_MASK: u16 = 0x4000;
    /// Messages are sent, and the pin is not used.
    pub const ENABLE: u16 = 0x8000;
    /// The bit of a vector's control dword that masks it.
    pub const VECTOR_MASK: u32 = 0x1;
}
