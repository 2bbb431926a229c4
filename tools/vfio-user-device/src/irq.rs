// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How interrupts are told.
//!
//! The rules are those of a VFIO device in the kernel: INTx is level-triggered and masks itself when it is signalled; unmasking
//! signals it again while the device still asserts it. MSI is a message for each time a vector becomes pending. A vector of MSI-X that
//! becomes pending without an eventfd stays so, in the device, until there is one. An eventfd neither masks nor unmasks INTx.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{fcntl_getfl, fcntl_setfl, readlink, OFlags};
use vfio_user_protocol::refusal::errno::EINVAL;
use vfio_user_protocol::request::{Action, IrqData};
use vfio_user_protocol::SetIrqs;

use crate::device::{Counts, Device};

/// Most MSI vectors that one device can have.
pub const MAX_MSI: u32 = 32;
/// Most MSI-X vectors that one device can have: a bit each.
pub const MAX_MSIX: u32 = 64;
/// Interrupt indices that every PCI device reports.
pub const NUM_INDICES: u32 = 5;

const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;
const REQUEST: u32 = 4;

/// Flags of what is told about an interrupt.
mod flag {
    pub(super) const EVENTFD: u32 = 1;
    pub(super) const MASKABLE: u32 = 2;
    pub(super) const AUTOMASKED: u32 = 4;
    pub(super) const NORESIZE: u32 = 8;
}

/// Number and flags of the interrupts under an index, if there is one. There is none of errors, which only PCI Express has: QEMU
/// takes a refusal for that, and warns of a number of 0.
pub fn info(counts: &Counts, index: u32) -> Option<(u32, u32)> {
    let count = match index {
        INTX => counts.intx.into(),
        MSI => counts.msi.min(MAX_MSI),
        MSIX => counts.msix.min(MAX_MSIX),
        REQUEST => 1,
        _ => return None,
    };
    let kind = match index {
        INTX => flag::MASKABLE | flag::AUTOMASKED,
        // More vectors can be enabled at any time.
        MSIX if count > 0 => 0,
        _ => flag::NORESIZE,
    };
    Some((count, flag::EVENTFD | kind))
}

/// Whether a file is an eventfd. Its file system is not asked.
pub(crate) fn is_eventfd(fd: &OwnedFd) -> bool {
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
    link.is_ok_and(|link| link.as_bytes() == b"anon_inode:[eventfd]")
}

/// An eventfd of the client's.
#[derive(Debug)]
struct EventFd(OwnedFd);

impl EventFd {
    /// Nothing but an eventfd is taken: what is written to it would mean something else to another file.
    fn new(fd: OwnedFd) -> Result<Self, u32> {
        if !is_eventfd(&fd) {
            return Err(EINVAL);
        }
        let flags = fcntl_getfl(&fd).map_err(|_| EINVAL)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(|_| EINVAL)?;
        Ok(Self(fd))
    }

    /// Adds one. A counter that is full tells as much: the client has not looked since.
    ///
    /// The client has the same open file and can make it block again; so it is looked at first.
    fn signal(&self) {
        let mut files = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::OUT)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if poll(&mut files, Some(&now)) == Ok(1) && files[0].revents().contains(PollFlags::OUT) {
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
    }
}

/// How the device's interrupts reach the client.
#[derive(Debug)]
enum Signalling {
    /// Not at all.
    Off,
    /// Through one eventfd; masked after each signal, until unmasked.
    Intx {
        trigger: Option<EventFd>,
        masked: bool,
        /// To be signalled once, whether it is asserted or not.
        once: bool,
    },
    /// Through one eventfd a vector.
    Messages {
        kind: Messages,
        triggers: Vec<Option<EventFd>>,
    },
}

/// The two kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Messages {
    Msi,
    /// The device is told which of its vectors lead somewhere.
    MsiX,
}

/// The numbers of vectors.
const VECTORS: Range<u16> = 0..MAX_MSIX as u16;

/// The interrupt configuration of one client.
#[derive(Debug)]
pub struct Irqs {
    signalling: Signalling,
    request: Option<EventFd>,
}

impl Default for Irqs {
    fn default() -> Self {
        Self {
            signalling: Signalling::Off,
            request: None,
        }
    }
}

/// A request that fits the device's interrupts, with its descriptors looked at.
struct Checked<'a> {
    start: usize,
    count: usize,
    data: Data<'a>,
}

enum Data<'a> {
    None,
    Bool(&'a [u8]),
    EventFds(Vec<Option<EventFd>>),
}

impl Irqs {
    /// Carries a request out. An error leaves everything as it was.
    pub fn apply(
        &mut self,
        request: &SetIrqs<'_>,
        fds: Vec<OwnedFd>,
        device: &mut impl Device,
    ) -> Result<(), u32> {
        let (number, _) = info(&device.irqs(), request.index).ok_or(EINVAL)?;
        if request.start >= number || request.count > number - request.start {
            return Err(EINVAL);
        }
        let (start, count) = (request.start as usize, request.count as usize);
        let data = match request.data {
            IrqData::EventFd if count == 0 => return Err(EINVAL),
            IrqData::EventFd if fds.is_empty() => {
                Data::EventFds((0..count).map(|_| None).collect())
            }
            IrqData::EventFd if fds.len() == count => {
                let eventfds = fds.into_iter().map(|fd| EventFd::new(fd).map(Some));
                Data::EventFds(eventfds.collect::<Result<_, _>>()?)
            }
            IrqData::None if fds.is_empty() => Data::None,
            IrqData::Bool(bytes) if fds.is_empty() => Data::Bool(bytes),
            _ => return Err(EINVAL),
        };
        let checked = Checked { start, count, data };
        match (request.index, request.action) {
            (INTX, Action::Trigger) => self.trigger_intx(checked),
            (INTX, action) => self.mask_intx(&checked, action == Action::Mask),
            (MSI, Action::Trigger) => self.trigger(Messages::Msi, checked, number, device),
            (MSIX, Action::Trigger) => self.trigger(Messages::MsiX, checked, number, device),
            (REQUEST, Action::Trigger) => self.trigger_request(checked),
            _ => Err(EINVAL),
        }
    }

    fn mask_intx(&mut self, request: &Checked<'_>, mask: bool) -> Result<(), u32> {
        let Signalling::Intx { masked, .. } = &mut self.signalling else {
            return Err(EINVAL);
        };
        match &request.data {
            _ if request.count != 1 => return Err(EINVAL),
            Data::None | Data::Bool([1..=u8::MAX]) => *masked = mask,
            Data::Bool(_) => {}
            // There is none to be taken away.
            Data::EventFds(fds) if !mask && fds.iter().all(Option::is_none) => {}
            Data::EventFds(_) => return Err(EINVAL),
        }
        Ok(())
    }

    fn trigger_intx(&mut self, request: Checked<'_>) -> Result<(), u32> {
        match (&mut self.signalling, request.data) {
            (Signalling::Messages { .. }, _) => Err(EINVAL),
            (Signalling::Intx { .. }, Data::None) if request.count == 0 => {
                self.signalling = Signalling::Off;
                Ok(())
            }
            _ if request.count != 1 => Err(EINVAL),
            (Signalling::Intx { trigger, .. }, Data::EventFds(new)) => {
                *trigger = new.into_iter().next().flatten();
                Ok(())
            }
            (Signalling::Off, Data::EventFds(new)) => {
                self.signalling = Signalling::Intx {
                    trigger: new.into_iter().next().flatten(),
                    masked: false,
                    once: false,
                };
                Ok(())
            }
            (Signalling::Off, _) => Err(EINVAL),
            (Signalling::Intx { trigger, .. }, data) => {
                if let (Some(trigger), Data::None | Data::Bool([1..=u8::MAX])) = (trigger, data) {
                    trigger.signal();
                }
                Ok(())
            }
        }
    }

    fn trigger(
        &mut self,
        wanted: Messages,
        request: Checked<'_>,
        vectors: u32,
        device: &mut impl Device,
    ) -> Result<(), u32> {
        let Checked { start, count, data } = request;
        let is_on = match &self.signalling {
            Signalling::Off => false,
            Signalling::Messages { kind, .. } if *kind == wanted => true,
            _ => return Err(EINVAL),
        };
        match data {
            Data::None if is_on && count == 0 => self.end_messages(device),
            Data::EventFds(new) => {
                if !is_on {
                    self.signalling = Signalling::Messages {
                        kind: wanted,
                        triggers: (0..vectors).map(|_| None).collect(),
                    };
                }
                if let Signalling::Messages { triggers, .. } = &mut self.signalling {
                    let slots = VECTORS.zip(triggers).skip(start);
                    for ((vector, slot), new) in slots.zip(new) {
                        if wanted == Messages::MsiX && slot.is_some() != new.is_some() {
                            device.set_route(vector, new.is_some());
                        }
                        *slot = new;
                    }
                }
            }
            data => {
                let Signalling::Messages { triggers, .. } = &self.signalling else {
                    return Err(EINVAL);
                };
                for (n, trigger) in triggers.iter().skip(start).take(count).enumerate() {
                    let chosen = match &data {
                        Data::Bool(bytes) => bytes.get(n).is_some_and(|byte| *byte != 0),
                        _ => true,
                    };
                    if let (Some(trigger), true) = (trigger, chosen) {
                        trigger.signal();
                    }
                }
            }
        }
        Ok(())
    }

    /// No message leads anywhere any longer.
    fn end_messages(&mut self, device: &mut impl Device) {
        if let Signalling::Messages {
            kind: Messages::MsiX,
            triggers,
        } = &self.signalling
        {
            let led = VECTORS.zip(triggers).filter(|(_, it)| it.is_some());
            led.for_each(|(vector, _)| device.set_route(vector, false));
        }
        self.signalling = Signalling::Off;
    }

    /// The client is gone: no interrupt is configured.
    pub fn clear(&mut self, device: &mut impl Device) {
        self.end_messages(device);
        self.request = None;
    }

    fn trigger_request(&mut self, request: Checked<'_>) -> Result<(), u32> {
        match request.data {
            Data::None if request.count == 0 => {
                self.request.take().ok_or(EINVAL)?;
            }
            Data::None => self.request.as_ref().ok_or(EINVAL)?.signal(),
            Data::Bool([1..=u8::MAX]) => {
                if let Some(request) = &self.request {
                    request.signal();
                }
            }
            Data::Bool(_) => {}
            Data::EventFds(new) => self.request = new.into_iter().next().flatten(),
        }
        Ok(())
    }

    /// The device has the state of another one now. The client may have taken over that INTx is asserted, which the other device's
    /// client was told of and nobody is going to take back: signalled once, it looks, and finds out. The driver does so, too.
    pub fn device_was_loaded(&mut self) {
        if let Signalling::Intx { once, .. } = &mut self.signalling {
            *once = true;
        }
    }

    /// Signals what the device asserts and the client has not been told yet.
    pub fn deliver(&mut self, device: &mut impl Device) {
        match &mut self.signalling {
            Signalling::Off => {}
            Signalling::Intx {
                trigger,
                masked,
                once,
            } => {
                let is_due = device.intx() || *once;
                if let (Some(trigger), false, true) = (trigger, *masked, is_due) {
                    *once = false;
                    *masked = true;
                    trigger.signal();
                }
            }
            Signalling::Messages { kind, triggers } => {
                let pending = match kind {
                    Messages::Msi => device.take_msi().into(),
                    Messages::MsiX => device.take_messages(),
                };
                for (n, trigger) in (0..u64::BITS).zip(triggers) {
                    if let (Some(trigger), true) = (trigger, pending & (1 << n) != 0) {
                        trigger.signal();
                    }
                }
            }
        }
    }
}
