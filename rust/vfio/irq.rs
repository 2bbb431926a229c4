// SPDX-License-Identifier: GPL-2.0

//! Interrupts: what `VFIO_DEVICE_GET_IRQ_INFO` reports and `VFIO_DEVICE_SET_IRQS` configures.
//!
//! The matrix of actions and data types, with its errnos, is that of vfio-pci: whoever drives a physical device through
//! VFIO finds the same here. There is one exception: an eventfd unmasks INTx only where the instance is told to allow that
//! (`Documentation/intx.rst` says why). INTx is level-triggered and masks itself when it is signalled; unmasking signals it again
//! while the device still asserts it. MSI is a message for each time a vector becomes pending. A vector of MSI-X that becomes pending
//! without an eventfd stays so, in the device, until there is one.
//!
//! C header: `include/uapi/linux/vfio.h`.

use crate::eventfd::EventFd;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// Most MSI vectors that one device can have (the PCI specification's limit for MSI).
pub const MAX_MSI: usize = MAX_VECTORS;

/// Most MSI-X vectors that one device can have here.
pub const MAX_MSIX: usize = MAX_VECTORS;

/// Most vectors of either kind.
const MAX_VECTORS: usize = 32;

/// Number of interrupt indices a PCI device reports (`VFIO_PCI_NUM_IRQS`).
pub(crate) const NUM_INDICES: u32 = vfio_bindings::VFIO_PCI_NUM_IRQS;

/// How often an eventfd may unmask INTx at full speed without any access to a register.
const UNSERVED_MAX: u32 = 100;

/// Bytes of `struct vfio_irq_set` before its data.
const HEADER: usize = core::mem::offset_of!(vfio_bindings::vfio_irq_set, data);

/// The interrupt indices of a PCI device (`VFIO_PCI_*_IRQ_INDEX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Index {
    /// The legacy interrupt.
    Intx,
    /// Message signalled interrupts.
    Msi,
    /// Extended message signalled interrupts.
    Msix,
    /// Error reporting of PCI Express; no device has it.
    Err,
    /// The kernel asks the user to let the device go.
    Req,
}

impl TryFrom<u32> for Index {
    type Error = Error;

    /// `EINVAL` for a number that is no index of a PCI device.
    fn try_from(value: u32) -> Result<Self> {
        Ok(match value {
            vfio_bindings::VFIO_PCI_INTX_IRQ_INDEX => Self::Intx,
            vfio_bindings::VFIO_PCI_MSI_IRQ_INDEX => Self::Msi,
            vfio_bindings::VFIO_PCI_MSIX_IRQ_INDEX => Self::Msix,
            vfio_bindings::VFIO_PCI_ERR_IRQ_INDEX => Self::Err,
            vfio_bindings::VFIO_PCI_REQ_IRQ_INDEX => Self::Req,
            _ => return Err(EINVAL),
        })
    }
}

/// Which interrupts a device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whether it has an INTx pin.
    pub intx: bool,
    /// Number of MSI vectors, 0 to [`MAX_MSI`].
    pub msi: u8,
    /// Number of MSI-X vectors, 0 to [`MAX_MSIX`].
    pub msix: u8,
}

impl Counts {
    /// Number of interrupts under `index`.
    pub(crate) fn of(&self, index: Index) -> u32 {
        match index {
            Index::Intx => u32::from(self.intx),
            Index::Msi => u32::from(self.msi),
            Index::Msix => u32::from(self.msix),
            Index::Err => 0,
            Index::Req => 1,
        }
    }

    /// Flags that `VFIO_DEVICE_GET_IRQ_INFO` reports for `index`.
    pub(crate) fn flags(&self, index: Index) -> u32 {
        let kind = match index {
            Index::Intx => {
                vfio_bindings::VFIO_IRQ_INFO_MASKABLE | vfio_bindings::VFIO_IRQ_INFO_AUTOMASKED
            }
            // More vectors can be enabled at any time.
            Index::Msix if self.msix > 0 => 0,
            _ => vfio_bindings::VFIO_IRQ_INFO_NORESIZE,
        };
        vfio_bindings::VFIO_IRQ_INFO_EVENTFD | kind
    }
}

/// What a request does with the interrupts it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Mask,
    Unmask,
    Trigger,
}

/// The data of a request, read and resolved before anything changes.
enum Data {
    /// `VFIO_IRQ_SET_DATA_NONE`: all interrupts named.
    None,
    /// `VFIO_IRQ_SET_DATA_BOOL`: those whose bit is set, counted from `start`.
    Bool(u32),
    /// `VFIO_IRQ_SET_DATA_EVENTFD`: file descriptors of the caller; negative ones take an eventfd away.
    EventFd([i32; MAX_VECTORS]),
}

/// One validated `VFIO_DEVICE_SET_IRQS` call.
pub(crate) struct Request {
    index: Index,
    action: Option<Action>,
    start: usize,
    count: usize,
    data: Data,
}

impl Request {
    /// Reads `struct vfio_irq_set` from user space and checks it against the interrupts the device has.
    ///
    /// `EFAULT` when it cannot be read; `EINVAL` for sizes, flags, an index or a range that do not exist.
    pub(crate) fn read(arg: UserPtr, counts: &Counts) -> Result<Self> {
        let mut header = [0u8; HEADER];
        UserSlice::new(arg, HEADER)
            .reader()
            .read_slice(&mut header)?;
        let mut fields = header.chunks_exact(4).map(|bytes| {
            // The chunks are four bytes long.
            u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        });
        let mut field = || fields.next().unwrap_or(0);
        let (argsz, flags, index, start, count) = (field(), field(), field(), field(), field());

        let known = vfio_bindings::VFIO_IRQ_SET_DATA_TYPE_MASK
            | vfio_bindings::VFIO_IRQ_SET_ACTION_TYPE_MASK;
        if (argsz as usize) < HEADER || flags & !known != 0 {
            return Err(EINVAL);
        }
        let index = Index::try_from(index)?;
        let total = counts.of(index);
        let end = start.checked_add(count).ok_or(EINVAL)?;
        if start >= total || end > total {
            return Err(EINVAL);
        }
        // Both fit: `total` is at most MAX_VECTORS.
        let (start, count) = (start as usize, count as usize);

        let data_at = arg.wrapping_byte_add(HEADER);
        let room = argsz as usize - HEADER;
        let data = match flags & vfio_bindings::VFIO_IRQ_SET_DATA_TYPE_MASK {
            vfio_bindings::VFIO_IRQ_SET_DATA_NONE => Data::None,
            vfio_bindings::VFIO_IRQ_SET_DATA_BOOL if room >= count => {
                let mut bools = [0u8; MAX_VECTORS];
                UserSlice::new(data_at, count)
                    .reader()
                    .read_slice(&mut bools[..count])?;
                Data::Bool((0..count).fold(0, |bits, n| bits | (u32::from(bools[n] != 0) << n)))
            }
            vfio_bindings::VFIO_IRQ_SET_DATA_EVENTFD if room >= count * 4 => {
                let mut reader = UserSlice::new(data_at, count * 4).reader();
                let mut fds = [-1; MAX_VECTORS];
                for fd in &mut fds[..count] {
                    *fd = reader.read::<i32>()?;
                }
                Data::EventFd(fds)
            }
            _ => return Err(EINVAL),
        };
        let action = match flags & vfio_bindings::VFIO_IRQ_SET_ACTION_TYPE_MASK {
            vfio_bindings::VFIO_IRQ_SET_ACTION_MASK => Some(Action::Mask),
            vfio_bindings::VFIO_IRQ_SET_ACTION_UNMASK => Some(Action::Unmask),
            vfio_bindings::VFIO_IRQ_SET_ACTION_TRIGGER => Some(Action::Trigger),
            _ => None,
        };
        Ok(Self {
            index,
            action,
            start,
            count,
            data,
        })
    }
}

/// What is left to do for a request outside the device's mutex.
pub(crate) enum FollowUp {
    /// Nothing.
    Done,
    /// Unmask INTx whenever this descriptor of the caller is signalled.
    WatchUnmask(i32),
    /// Stop watching the unmask eventfd.
    EndUnmask,
}

/// How the device's interrupts reach the user.
// There is one of these a device, and it is not moved: a box for the vectors would only be one more thing to fail.
#[allow(clippy::large_enum_variant)]
enum Signalling {
    /// Not at all.
    Off,
    /// Through the INTx eventfd; `masked` after each signal, until unmasked. `unserved` counts the times that an eventfd
    /// unmasked it while it was asserted, since a register was last accessed. `once`: signal it once more, asserted or not.
    Intx {
        trigger: Option<EventFd>,
        masked: bool,
        unserved: u32,
        once: bool,
    },
    /// Through one eventfd a vector.
    Messages {
        kind: Messages,
        triggers: [Option<EventFd>; MAX_VECTORS],
    },
}

/// The two kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Messages {
    Msi,
    /// The device is told which of its vectors lead somewhere.
    Msix,
}

/// The interrupt configuration of one open device.
pub(crate) struct Irqs {
    signalling: Signalling,
    request: Option<EventFd>,
}

/// What the device model asserts, as [`Irqs::deliver`] needs to know it.
pub(crate) trait Lines {
    /// Whether INTx is asserted.
    fn intx(&self) -> bool;
    /// Vectors that became pending since the last call, a bit each.
    fn take_msi(&mut self) -> u32;
    /// MSI-X vectors whose message is to be sent, a bit each.
    fn take_msix(&mut self) -> u64;
    /// Messages of this MSI-X vector lead somewhere, or do not any longer.
    fn set_route(&mut self, vector: u16, leads_somewhere: bool);
}

impl Irqs {
    /// No interrupt is configured.
    pub(crate) const fn new() -> Self {
        Self {
            signalling: Signalling::Off,
            request: None,
        }
    }

    /// Carries a request out as far as that is possible under the device's mutex.
    ///
    /// `EINVAL` where the interrupt is not enabled, another kind of interrupt is, or start and count do not fit; `ENOTTY`
    /// for an action or data type that this interrupt does not have, which unmasking by eventfd is unless `unmask_eventfd`;
    /// `EBADF`, `EINVAL` for a descriptor that is no eventfd. An error leaves everything as it was.
    pub(crate) fn apply(
        &mut self,
        request: &Request,
        unmask_eventfd: bool,
        lines: &mut impl Lines,
    ) -> Result<FollowUp> {
        let action = request.action.ok_or(ENOTTY)?;
        match (request.index, action) {
            (Index::Intx, Action::Trigger) => self.trigger_intx(request),
            (Index::Intx, _) => self.mask_intx(request, action, unmask_eventfd),
            (Index::Msi, Action::Trigger) => self.trigger_message(Messages::Msi, request, lines),
            (Index::Msix, Action::Trigger) => self.trigger_message(Messages::Msix, request, lines),
            (Index::Req, Action::Trigger) => self.trigger_req(request),
            _ => Err(ENOTTY),
        }
    }

    fn mask_intx(
        &mut self,
        request: &Request,
        action: Action,
        unmask_eventfd: bool,
    ) -> Result<FollowUp> {
        let Signalling::Intx { masked, .. } = &mut self.signalling else {
            return Err(EINVAL);
        };
        if request.start != 0 || request.count != 1 {
            return Err(EINVAL);
        }
        match (&request.data, action) {
            (Data::EventFd(fds), Action::Unmask) if fds[0] < 0 => Ok(FollowUp::EndUnmask),
            (Data::EventFd(fds), Action::Unmask) if unmask_eventfd => {
                Ok(FollowUp::WatchUnmask(fds[0]))
            }
            (Data::EventFd(_), _) => Err(ENOTTY),
            (Data::Bool(0), _) => Ok(FollowUp::Done),
            _ => {
                *masked = action == Action::Mask;
                Ok(FollowUp::Done)
            }
        }
    }

    fn trigger_intx(&mut self, request: &Request) -> Result<FollowUp> {
        if matches!(self.signalling, Signalling::Intx { .. })
            && request.count == 0
            && matches!(request.data, Data::None)
        {
            self.signalling = Signalling::Off;
            return Ok(FollowUp::EndUnmask);
        }
        if matches!(self.signalling, Signalling::Messages { .. })
            || request.start != 0
            || request.count != 1
        {
            return Err(EINVAL);
        }
        match &request.data {
            Data::EventFd(fds) => {
                let new = eventfd_or_none(fds[0])?;
                match &mut self.signalling {
                    Signalling::Intx { trigger, .. } => *trigger = new,
                    _ => {
                        self.signalling = Signalling::Intx {
                            trigger: new,
                            masked: false,
                            unserved: 0,
                            once: false,
                        }
                    }
                }
            }
            Data::None | Data::Bool(_) => {
                let Signalling::Intx { trigger, .. } = &self.signalling else {
                    return Err(EINVAL);
                };
                if let (Some(trigger), Data::None | Data::Bool(1..)) = (trigger, &request.data) {
                    trigger.signal();
                }
            }
        }
        Ok(FollowUp::Done)
    }

    fn trigger_message(
        &mut self,
        kind: Messages,
        request: &Request,
        lines: &mut impl Lines,
    ) -> Result<FollowUp> {
        let enabled = match &self.signalling {
            Signalling::Off => false,
            Signalling::Messages { kind: enabled, .. } if *enabled == kind => true,
            _ => return Err(EINVAL),
        };
        match &request.data {
            Data::None if enabled && request.count == 0 => self.end_messages(lines),
            Data::EventFd(_) if !enabled && request.count == 0 => return Err(EINVAL),
            Data::EventFd(fds) => {
                let mut new: [Option<EventFd>; MAX_VECTORS] = [const { None }; MAX_VECTORS];
                for n in 0..request.count {
                    new[n] = eventfd_or_none(fds[n])?;
                }
                if !enabled {
                    self.signalling = Signalling::Messages {
                        kind,
                        triggers: [const { None }; MAX_VECTORS],
                    };
                }
                if let Signalling::Messages { triggers, .. } = &mut self.signalling {
                    for ((vector, slot), new) in (0u16..)
                        .zip(triggers.iter_mut())
                        .skip(request.start)
                        .zip(new)
                        .take(request.count)
                    {
                        if kind == Messages::Msix && slot.is_some() != new.is_some() {
                            lines.set_route(vector, new.is_some());
                        }
                        *slot = new;
                    }
                }
            }
            data => {
                let Signalling::Messages { triggers, .. } = &self.signalling else {
                    return Err(EINVAL);
                };
                let chosen = match data {
                    Data::Bool(bits) => *bits,
                    _ => u32::MAX,
                };
                for n in (0..request.count).filter(|n| chosen & (1 << n) != 0) {
                    if let Some(trigger) = &triggers[request.start + n] {
                        trigger.signal();
                    }
                }
            }
        }
        Ok(FollowUp::Done)
    }

    /// No message leads anywhere any longer.
    fn end_messages(&mut self, lines: &mut impl Lines) {
        if let Signalling::Messages {
            kind: Messages::Msix,
            triggers,
        } = &self.signalling
        {
            for (vector, _) in (0u16..)
                .zip(triggers)
                .filter(|(_, trigger)| trigger.is_some())
            {
                lines.set_route(vector, false);
            }
        }
        self.signalling = Signalling::Off;
    }

    /// The last user is gone: no interrupt is configured.
    pub(crate) fn clear(&mut self, lines: &mut impl Lines) {
        self.end_messages(lines);
        self.request = None;
    }

    fn trigger_req(&mut self, request: &Request) -> Result<FollowUp> {
        match &request.data {
            Data::None if request.count == 0 => {
                self.request.take().ok_or(EINVAL)?;
            }
            Data::None => self.request.as_ref().ok_or(EINVAL)?.signal(),
            _ if request.count == 0 => return Err(EINVAL),
            Data::Bool(bits) => {
                if let (Some(eventfd), true) = (&self.request, *bits != 0) {
                    eventfd.signal();
                }
            }
            Data::EventFd(fds) if fds[0] >= -1 => self.request = eventfd_or_none(fds[0])?,
            Data::EventFd(_) => return Err(EINVAL),
        }
        Ok(FollowUp::Done)
    }

    /// Unmasks INTx, as the unmask eventfd asks for. Without INTx enabled, nothing.
    pub(crate) fn unmask(&mut self, lines: &impl Lines) {
        if let Signalling::Intx {
            masked, unserved, ..
        } = &mut self.signalling
        {
            *masked = false;
            *unserved = if lines.intx() {
                unserved.saturating_add(1)
            } else {
                0
            };
        }
    }

    /// A register was accessed: somebody serves the interrupt.
    pub(crate) fn accessed(&mut self) {
        if let Signalling::Intx { unserved, .. } = &mut self.signalling {
            *unserved = 0;
        }
    }

    /// Whether INTx was unmasked by the eventfd again and again with nobody serving it. The next time can wait a little then.
    /// Eventfds can be connected in a circle (one as trigger and to unmask; two devices that unmask each other), and an
    /// interrupt in it would keep the kernel busy for as long as it is asserted.
    pub(crate) fn is_unserved(&self) -> bool {
        matches!(self.signalling, Signalling::Intx { unserved, .. } if unserved >= UNSERVED_MAX)
    }

    /// The device has the state of another one now. Its user may have taken over that INTx is asserted, which the other device's
    /// user was told of and nobody is going to take back: signalled once, it looks, and finds out.
    ///
    /// QEMU does so. The level of the pin is part of its own state, and it takes back only what it was told of since it started
    /// (QEMU 10.0: `vfio_intx_eoi` does nothing unless `intx.pending`). If the device at the source took its interrupt back when
    /// QEMU had asserted the pin already and the guest was stopped before it looked, the guest at the destination would be
    /// interrupted without end.
    pub(crate) fn device_was_loaded(&mut self) {
        if let Signalling::Intx { once, .. } = &mut self.signalling {
            *once = true;
        }
    }

    /// Signals what the device asserts and the user has not been told yet.
    pub(crate) fn deliver(&mut self, lines: &mut impl Lines) {
        match &mut self.signalling {
            Signalling::Off => {}
            Signalling::Intx {
                trigger,
                masked,
                once,
                ..
            } => {
                if let (Some(trigger), false) = (trigger, *masked) {
                    if lines.intx() || *once {
                        *once = false;
                        *masked = true;
                        trigger.signal();
                    }
                }
            }
            Signalling::Messages { kind, triggers } => {
                let mut pending = match kind {
                    Messages::Msi => lines.take_msi().into(),
                    Messages::Msix => lines.take_msix(),
                };
                while pending != 0 {
                    // The number of a bit, so at most 63.
                    let n = pending.trailing_zeros() as usize;
                    pending &= pending - 1;
                    if let Some(Some(trigger)) = triggers.get(n) {
                        trigger.signal();
                    }
                }
            }
        }
    }

    /// Asks the user to let the device go. Returns whether there is an eventfd to ask with.
    pub(crate) fn ask_for_release(&self) -> bool {
        self.request.as_ref().inspect(|e| e.signal()).is_some()
    }
}

/// The eventfd of a non-negative descriptor; none for a negative one.
fn eventfd_or_none(fd: i32) -> Result<Option<EventFd>> {
    (fd >= 0).then(|| EventFd::from_fd(fd)).transpose()
}
