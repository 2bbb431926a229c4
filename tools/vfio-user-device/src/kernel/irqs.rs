// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A client's wish for interrupts as the kernel takes it: the eventfds are the client's, and the kernel signals them itself.

use std::os::fd::{AsRawFd, OwnedFd};

use vfio_uapi::{abi, IrqSet};
use vfio_user_protocol::refusal::errno::EINVAL;
use vfio_user_protocol::request::{Action, IrqData};
use vfio_user_protocol::SetIrqs;

/// Most descriptors in one call, whose argument has no more than a page.
const MAX_FDS: u32 = 512;

/// What is to be called, one after the other. `number` is how many there are under the index.
///
/// More than one call is made only to take descriptors away, of more interrupts than one call has room for.
pub(super) fn arguments(
    irqs: &SetIrqs<'_>,
    fds: &[OwnedFd],
    number: u32,
) -> Result<Vec<IrqSet>, u32> {
    if irqs.start >= number || irqs.count > number - irqs.start {
        return Err(EINVAL);
    }
    let action = match irqs.action {
        Action::Mask => abi::VFIO_IRQ_SET_ACTION_MASK,
        Action::Unmask => abi::VFIO_IRQ_SET_ACTION_UNMASK,
        Action::Trigger => abi::VFIO_IRQ_SET_ACTION_TRIGGER,
    };
    let set = |start, count, kind, data: Vec<u8>| IrqSet {
        argsz: (abi::IRQ_SET_HEADER + data.len()) as u32,
        flags: action | kind,
        index: irqs.index,
        start,
        count,
        data,
    };
    let (start, count) = (irqs.start, irqs.count);
    let kind = abi::VFIO_IRQ_SET_DATA_EVENTFD;
    match irqs.data {
        IrqData::None if fds.is_empty() => Ok(vec![set(
            start,
            count,
            abi::VFIO_IRQ_SET_DATA_NONE,
            Vec::new(),
        )]),
        IrqData::Bool(bytes) if fds.is_empty() => Ok(vec![set(
            start,
            count,
            abi::VFIO_IRQ_SET_DATA_BOOL,
            bytes.to_vec(),
        )]),
        IrqData::EventFd if count == 0 => Err(EINVAL),
        IrqData::EventFd if fds.is_empty() => {
            let pieces = (start..start + count).step_by(MAX_FDS as usize);
            let piece = |first: u32| {
                let count = (start + count - first).min(MAX_FDS);
                let none = (-1i32).to_ne_bytes().repeat(count as usize);
                set(first, count, kind, none)
            };
            Ok(pieces.map(piece).collect())
        }
        IrqData::EventFd if fds.len() == count as usize && count <= MAX_FDS => {
            let numbers = fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
            Ok(vec![set(start, count, kind, numbers.collect())])
        }
        _ => Err(EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{eventfd, EventfdFlags};

    fn wish(start: u32, count: u32, data: IrqData<'_>) -> SetIrqs<'_> {
        SetIrqs {
            index: 2,
            start,
            count,
            action: Action::Trigger,
            data,
        }
    }

    fn fds(count: usize) -> Vec<OwnedFd> {
        let fd = |_| eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        (0..count).map(fd).collect()
    }

    #[test]
    fn descriptors_are_passed_on_by_number_and_taken_away_in_calls_that_fit() {
        let two = fds(2);
        let sets = arguments(&wish(3, 2, IrqData::EventFd), &two, 8).unwrap();
        let numbers = [&two[0], &two[1]].map(|fd| fd.as_raw_fd().to_ne_bytes());
        assert_eq!(sets.len(), 1);
        let set = &sets[0];
        assert_eq!((set.argsz, set.index, set.start, set.count), (28, 2, 3, 2));
        // VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
        assert_eq!((set.flags, &set.data), (0x24, &numbers.concat()));

        let sets = arguments(&wish(1, 2047, IrqData::EventFd), &[], 2048).unwrap();
        let mut next = 1;
        for set in &sets {
            assert_eq!((set.start, set.data.len()), (next, 4 * set.count as usize));
            assert!(set.argsz <= 4096 && set.data.iter().all(|byte| *byte == 0xff));
            next += set.count;
        }
        assert_eq!((sets.len(), next), (4, 2048));
    }

    #[test]
    fn what_does_not_fit_the_device_or_its_own_data_does_not_come_to_the_kernel() {
        for (start, count, number) in [
            (0, 1, 0),
            (1, 1, 1),
            (1, 0, 1),
            (0, 2, 1),
            (1, u32::MAX - 1, 4),
            (u32::MAX, 0, 4),
        ] {
            for data in [IrqData::None, IrqData::EventFd] {
                let refused = arguments(&wish(start, count, data), &[], number);
                assert_eq!(refused.err(), Some(EINVAL), "{start} {count} of {number}");
            }
        }
        for (count, data, given) in [
            (0, IrqData::EventFd, 0),
            (1, IrqData::EventFd, 2),
            (2, IrqData::EventFd, 1),
            (1, IrqData::None, 1),
            (1, IrqData::Bool(&[1]), 1),
        ] {
            let refused = arguments(&wish(0, count, data), &fds(given), 4);
            assert_eq!(refused.err(), Some(EINVAL));
        }
        assert!(arguments(&wish(0, 0, IrqData::None), &[], 1).is_ok());
    }
}
