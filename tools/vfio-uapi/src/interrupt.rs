// SPDX-License-Identifier: GPL-2.0 OR MIT

//! VFIO_DEVICE_GET_IRQ_INFO and VFIO_DEVICE_SET_IRQS.

use crate::abi::{self, Bytes};
use crate::{Device, Result};

/// Legacy interrupt, level triggered.
pub const INTX: u32 = abi::VFIO_PCI_INTX_IRQ_INDEX;
/// Message signalled interrupt.
pub const MSI: u32 = abi::VFIO_PCI_MSI_IRQ_INDEX;
/// Message signalled interrupt, extended.
pub const MSIX: u32 = abi::VFIO_PCI_MSIX_IRQ_INDEX;
/// Bus error.
pub const ERR: u32 = abi::VFIO_PCI_ERR_IRQ_INDEX;
/// The kernel asks the user to give the device back.
pub const REQ: u32 = abi::VFIO_PCI_REQ_IRQ_INDEX;

/// Action: mask.
pub const MASK: u32 = abi::VFIO_IRQ_SET_ACTION_MASK;
/// Action: unmask.
pub const UNMASK: u32 = abi::VFIO_IRQ_SET_ACTION_UNMASK;
/// Action: signal to the user.
pub const TRIGGER: u32 = abi::VFIO_IRQ_SET_ACTION_TRIGGER;

/// The answer to VFIO_DEVICE_GET_IRQ_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Irq {
    /// VFIO_IRQ_INFO_*
    pub flags: u32,
    /// Interrupts of this index.
    pub count: u32,
}

/// An argument of VFIO_DEVICE_SET_IRQS.
#[derive(Debug, Clone)]
pub struct IrqSet {
    /// Stated size of the argument in bytes.
    pub argsz: u32,
    /// VFIO_IRQ_SET_*
    pub flags: u32,
    /// Kind of interrupt.
    pub index: u32,
    /// First interrupt of the kind.
    pub start: u32,
    /// Number of interrupts.
    pub count: u32,
    /// What follows the header.
    pub data: Vec<u8>,
}

impl IrqSet {
    /// An argument with the `argsz` that fits.
    fn new(index: u32, flags: u32, count: u32, data: Vec<u8>) -> Self {
        let argsz = (abi::IRQ_SET_HEADER + data.len()) as u32;
        Self {
            argsz,
            flags,
            index,
            start: 0,
            count,
            data,
        }
    }

    /// `action` on interrupt 0 of `index`, without data.
    pub fn none(index: u32, action: u32) -> Self {
        Self::new(index, action | abi::VFIO_IRQ_SET_DATA_NONE, 1, Vec::new())
    }

    /// Disables all of `index`.
    pub fn disable(index: u32) -> Self {
        Self::new(index, TRIGGER | abi::VFIO_IRQ_SET_DATA_NONE, 0, Vec::new())
    }

    /// `action` on interrupt 0 of `index`, if `value` is not 0.
    pub fn boolean(index: u32, action: u32, value: u8) -> Self {
        Self::new(index, action | abi::VFIO_IRQ_SET_DATA_BOOL, 1, vec![value])
    }

    /// Ties `action` on interrupt 0 of `index` to file descriptor `number`.
    pub fn eventfd(index: u32, action: u32, number: i32) -> Self {
        Self::new(
            index,
            action | abi::VFIO_IRQ_SET_DATA_EVENTFD,
            1,
            number.to_ne_bytes().to_vec(),
        )
    }
}

impl Device {
    /// VFIO_DEVICE_GET_IRQ_INFO of `index`.
    pub fn irq(&self, index: u32) -> Result<Irq> {
        let mut info = Bytes::new().word(16).word(0).word(index).word(0);
        self.ioctl(abi::VFIO_DEVICE_GET_IRQ_INFO, info.bytes_mut())?;
        Ok(Irq {
            flags: info.word_at(4),
            count: info.word_at(12),
        })
    }

    /// VFIO_DEVICE_SET_IRQS.
    pub fn set_irqs(&self, set: &IrqSet) -> Result<()> {
        let argument = Bytes::new()
            .word(set.argsz)
            .word(set.flags)
            .word(set.index)
            .word(set.start)
            .word(set.count);
        self.ioctl(
            abi::VFIO_DEVICE_SET_IRQS,
            argument.bytes(&set.data).bytes_mut(),
        )
    }
}
