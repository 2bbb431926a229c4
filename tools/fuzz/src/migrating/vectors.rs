// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The eventfds of a client.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::event::{eventfd, EventfdFlags};
use rustix::fs::{fstat, FileType};
use vfio_user_protocol::request::{Action, IrqData};
use vfio_user_protocol::SetIrqs;

/// Which ones the card has, and had.
#[derive(Default)]
pub(super) struct Vectors {
    /// By index and number.
    live: BTreeMap<(u32, u32), OwnedFd>,
    old: Vec<OwnedFd>,
}

/// An eventfd.
pub(super) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
}

/// Whether it was signalled. It is not afterwards.
fn is_signalled(event: &OwnedFd) -> bool {
    rustix::io::read(event, &mut [0; 8]).is_ok()
}

impl Vectors {
    /// These were sent, maybe among others, and refused.
    pub(super) fn were_refused(&mut self, new: Vec<OwnedFd>) {
        let is_file = |file: &OwnedFd| {
            let stat = fstat(file).expect("what it is");
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        };
        self.old.extend(new.into_iter().filter(|new| !is_file(new)));
    }

    /// These were taken.
    pub(super) fn were_set(&mut self, irqs: &SetIrqs<'_>, new: Vec<OwnedFd>) {
        match irqs.data {
            _ if irqs.action != Action::Trigger => {}
            IrqData::EventFd => {
                let mut new = new.into_iter();
                for number in irqs.start..irqs.start + irqs.count {
                    let place = (irqs.index, number);
                    let old = match new.next() {
                        Some(event) => self.live.insert(place, event),
                        None => self.live.remove(&place),
                    };
                    self.retire(old);
                }
            }
            IrqData::None if irqs.count == 0 => {
                let of_index = |place: &(u32, u32)| place.0 == irqs.index;
                let places: Vec<_> = self.live.keys().copied().filter(of_index).collect();
                for place in places {
                    let old = self.live.remove(&place);
                    self.retire(old);
                }
            }
            _ => {}
        }
    }

    /// The client is gone.
    pub(super) fn clear(&mut self) {
        while let Some((_, old)) = self.live.pop_first() {
            self.retire(Some(old));
        }
    }

    /// The card has this one no longer. It may have been signalled just before.
    fn retire(&mut self, old: Option<OwnedFd>) {
        if let Some(old) = old {
            is_signalled(&old);
            self.old.push(old);
        }
    }

    /// How many were signalled: none that the card does not have.
    pub(super) fn signalled(&self) -> usize {
        assert!(
            !self.old.iter().any(is_signalled),
            "an eventfd that was taken back"
        );
        self.live
            .values()
            .filter(|event| is_signalled(event))
            .count()
    }
}
