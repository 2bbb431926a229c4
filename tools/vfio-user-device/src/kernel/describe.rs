// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the kernel says of a device, checked once and kept: accesses are within it, whatever a client asks for.

use vfio_uapi::device;
use vfio_uapi::interrupt::Irq;
use vfio_uapi::{abi, Device, Errno};
use vfio_user_protocol::refusal::errno::EINVAL;
use vfio_user_protocol::Access;

use crate::backend::{Info, IrqInfo};
use crate::device::NUM_REGIONS;

/// Most interrupts that there can be under one index: as many vectors as MSI-X has.
pub(super) const MAX_IRQS: u32 = 2048;
/// Most interrupt indices that are asked for. PCI devices have five.
const MAX_INDICES: u32 = 16;

/// Whom it is asked.
pub(super) trait Describe {
    fn info(&self) -> vfio_uapi::Result<device::Info>;
    fn region(&self, index: u32) -> vfio_uapi::Result<device::Region>;
    fn irq(&self, index: u32) -> vfio_uapi::Result<Irq>;
}

impl Describe for Device {
    fn info(&self) -> vfio_uapi::Result<device::Info> {
        Device::info(self)
    }

    fn region(&self, index: u32) -> vfio_uapi::Result<device::Region> {
        Device::region(self, index)
    }

    fn irq(&self, index: u32) -> vfio_uapi::Result<Irq> {
        Device::irq(self, index)
    }
}

/// A region that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where it starts in the device's file. Its end is such a place, too.
    start: u64,
    /// Bytes; not 0.
    pub(super) size: u64,
    pub(super) read_only: bool,
}

/// What a device is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) info: Info,
    regions: Vec<Option<Place>>,
    irqs: Vec<Option<IrqInfo>>,
}

impl Description {
    /// Asks for all of it. An error says what makes no sense.
    pub(super) fn of(device: &impl Describe) -> Result<Self, String> {
        let failed = |what: &str, error: Errno| format!("{what}: {}", error.desc());
        let info = device.info().map_err(|error| failed("the device", error))?;
        if info.flags & abi::VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err("the device is no PCI device".to_string());
        }
        // Those behind are of the kernel's interface only, like the one of migration protocol v1.
        let regions = info.regions.min(NUM_REGIONS);
        let indices = info.interrupts.min(MAX_INDICES);
        let places = (0..regions).map(|index| match device.region(index) {
            Ok(region) => place(&region).map_err(|what| format!("region {index}: {what}")),
            Err(Errno::EINVAL) => Ok(None),
            Err(error) => Err(failed(&format!("region {index}"), error)),
        });
        let irqs = (0..indices).map(|index| match device.irq(index) {
            Ok(irq) if irq.count > MAX_IRQS => {
                Err(format!("interrupt {index}: {} of them", irq.count))
            }
            Ok(irq) => Ok(Some(IrqInfo {
                flags: irq.flags,
                count: irq.count,
            })),
            Err(Errno::EINVAL) => Ok(None),
            Err(error) => Err(failed(&format!("interrupt {index}"), error)),
        });
        Ok(Self {
            info: Info {
                flags: info.flags & (Info::RESET | Info::PCI),
                regions,
                irqs: indices,
            },
            regions: places.collect::<Result<_, _>>()?,
            irqs: irqs.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn region(&self, index: u32) -> Option<Place> {
        *self.regions.get(index as usize)?
    }

    pub(super) fn irq(&self, index: u32) -> Option<IrqInfo> {
        *self.irqs.get(index as usize)?
    }

    /// Where registers are in the device's file.
    pub(super) fn place(&self, access: &Access) -> Result<u64, u32> {
        let place = self.region(access.region).ok_or(EINVAL)?;
        let end = access.offset.checked_add(access.count.into());
        match end.is_some_and(|end| end <= place.size) {
            // Its end has a place.
            true => Ok(place.start + access.offset),
            false => Err(EINVAL),
        }
    }
}

/// A region, if it is one that can be read.
fn place(region: &device::Region) -> Result<Option<Place>, String> {
    if region.size == 0 || region.flags & abi::VFIO_REGION_INFO_FLAG_READ == 0 {
        return Ok(None);
    }
    let end = region.offset.checked_add(region.size);
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        let device::Region { offset, size, .. } = region;
        return Err(format!("{size} bytes at {offset} of the device's file"));
    }
    Ok(Some(Place {
        start: region.offset,
        size: region.size,
        read_only: region.flags & abi::VFIO_REGION_INFO_FLAG_WRITE == 0,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that says what it is told to.
    struct Says {
        info: device::Info,
        regions: Vec<vfio_uapi::Result<device::Region>>,
        irqs: Vec<vfio_uapi::Result<Irq>>,
    }

    impl Describe for Says {
        fn info(&self) -> vfio_uapi::Result<device::Info> {
            Ok(self.info)
        }

        fn region(&self, index: u32) -> vfio_uapi::Result<device::Region> {
            let found = self.regions.get(index as usize);
            found.copied().unwrap_or(Err(Errno::EINVAL))
        }

        fn irq(&self, index: u32) -> vfio_uapi::Result<Irq> {
            let found = self.irqs.get(index as usize);
            found.copied().unwrap_or(Err(Errno::EINVAL))
        }
    }

    fn region(flags: u32, offset: u64, size: u64) -> vfio_uapi::Result<device::Region> {
        Ok(device::Region {
            argsz: 32,
            flags,
            capabilities: 0,
            size,
            offset,
        })
    }

    fn card() -> Says {
        Says {
            info: device::Info {
                flags: 0xff,
                regions: 10,
                interrupts: 5,
            },
            regions: vec![region(3, 0, 8), region(1, 1 << 40, 64), region(0, 0, 64)],
            irqs: vec![Ok(Irq { flags: 7, count: 1 })],
        }
    }

    fn access(region: u32, offset: u64, count: u32) -> Access {
        Access {
            offset,
            region,
            count,
        }
    }

    #[test]
    fn what_the_kernel_says_is_kept_as_far_as_the_protocol_has_it() {
        let found = Description::of(&card()).unwrap();
        let Info {
            flags,
            regions,
            irqs,
        } = found.info;
        assert_eq!((flags, regions, irqs), (3, 9, 5));
        let sizes = |index| {
            found
                .region(index)
                .map(|place| (place.size, place.read_only))
        };
        assert_eq!(
            [0, 1, 2, 3, 9].map(sizes),
            [Some((8, false)), Some((64, true)), None, None, None]
        );
        assert_eq!(found.irq(0), Some(IrqInfo { flags: 7, count: 1 }));
        assert_eq!([1, 4, 5, u32::MAX].map(|index| found.irq(index)), [None; 4]);
    }

    #[test]
    fn nothing_outside_of_a_region_has_a_place() {
        let found = Description::of(&card()).unwrap();
        assert_eq!(found.place(&access(0, 4, 4)), Ok(4));
        assert_eq!(found.place(&access(1, 60, 4)), Ok((1 << 40) + 60));
        for (region, offset, count) in [
            (0, 5, 4),
            (0, 8, 1),
            (0, u64::MAX, 1),
            (1, 61, 4),
            (1, 1 << 40, 4),
            (2, 0, 1),
            (9, 0, 1),
            (u32::MAX, 0, 1),
        ] {
            assert_eq!(found.place(&access(region, offset, count)), Err(EINVAL));
        }
    }

    #[test]
    fn a_description_that_makes_no_sense_is_not_taken() {
        let refused = |change: fn(&mut Says), why: &str| {
            let mut says = card();
            change(&mut says);
            let said = Description::of(&says).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        refused(|says| says.info.flags = 1, "no PCI device");
        refused(
            |says| says.regions[1] = region(3, u64::MAX, 2),
            "region 1: 2 bytes at 18446744073709551615",
        );
        refused(
            |says| says.regions[0] = region(3, i64::MAX as u64, 1),
            "region 0",
        );
        refused(|says| says.regions[2] = Err(Errno::ENODEV), "region 2: ");
        refused(|says| says.irqs[0] = Err(Errno::EIO), "interrupt 0: ");
        refused(
            |says| {
                says.irqs[0] = Ok(Irq {
                    flags: 1,
                    count: MAX_IRQS + 1,
                });
            },
            "interrupt 0: 2049 of them",
        );
    }
}
