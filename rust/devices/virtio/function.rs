// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A virtio device as a PCI function.

use core::fmt;

use super::features;
use super::layout;
use super::layout::{
    window, COMMON_BAR, COMMON_OFFSET, DEVICE_OFFSET, ISR_OFFSET, MSIX_BAR, NOTIFY_MULTIPLIER,
    NOTIFY_OFFSET, PENDING_OFFSET,
};
use super::transport::{StateError, Transport, TransportState};
use super::work::{Outcome, Work};
use crate::pci::{
    vectors, Access, BuildError, Builder, ConfigSpace, Gate, Identity, Msix, MsixState,
    MsixStateError, Width, CONFIG_SPACE_BYTES,
};

/// Red Hat's, under which virtio devices are (4.1.2).
const VENDOR: u16 = 0x1af4;
/// The device ID of a modern device is this and its type (4.1.2.1).
const MODERN: u16 = 0x1040;
/// A device without a legacy interface has at least this (4.1.2.1).
const REVISION: u8 = 1;
/// At least 0x40 (4.1.2.1); QEMU's.
const SUBSYSTEM: u16 = 0x1100;

/// The most bytes of configuration that a device type has.
pub(super) const CONFIG_BYTES: usize = 64;

/// What kind of device a function is.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The device type (section 5), such as 2 for a block device.
    pub device_type: u16,
    /// The PCI class code, 24 bits.
    pub class: u32,
    /// The features that it offers beside those of the transport ([`features::TRANSPORT`]).
    pub features: u64,
    /// How many queues it has.
    pub queues: u16,
    /// The most descriptors of a queue.
    pub queue_size: u16,
    /// How many vectors it has; one a queue and one for changes is what Linux likes.
    pub vectors: u16,
    /// The device's own configuration, at most 64 bytes. No guest can write it.
    pub config: &'a [u8],
    /// Who decides whether a message may go.
    pub gate: Gate,
}

/// The registers of a virtio device as a PCI function: accesses in, [`Work`] and interrupts out. `Q` is the most
/// queues that it can have, `V` the most vectors.
///
/// See the [module documentation](super) for how its queues are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function<const Q: usize, const V: usize> {
    space: ConfigSpace,
    msix: Msix<V>,
    transport: Transport<Q>,
    config: [u8; CONFIG_BYTES],
    /// Where the capability lies by which configuration space reaches the BARs.
    window: u8,
}

impl<const Q: usize, const V: usize> Function<Q, V> {
    /// A function after power-on, not [running](Function::set_running).
    pub fn new(spec: &Spec<'_>) -> Result<Self, BuildError> {
        if spec.vectors > layout::MAX_TABLE {
            return Err(BuildError::Vectors(spec.vectors));
        }
        let mut builder = Builder::new(Identity {
            vendor: VENDOR,
            device: MODERN.saturating_add(spec.device_type),
            revision: REVISION,
            class: spec.class,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
        });
        builder.interrupt_pin()?;
        layout::add_bars(&mut builder)?;
        let table = (MSIX_BAR, 0);
        let pending = (MSIX_BAR, PENDING_OFFSET);
        let msix = Msix::add_to(&mut builder, spec.vectors, table, pending, spec.gate)?;
        let window = layout::add_capabilities(&mut builder)?;
        let mut config = [0; CONFIG_BYTES];
        for (to, from) in config.iter_mut().zip(spec.config) {
            *to = *from;
        }
        Ok(Function {
            space: builder.build(),
            msix,
            transport: Transport::new(
                spec.features | features::TRANSPORT,
                spec.queues.min(layout::MAX_QUEUES),
                spec.queue_size,
                spec.vectors,
            ),
            config,
            window,
        })
    }

    /// The number of bytes that a BAR decodes; 0: there is none.
    pub fn bar_bytes(&self, bar: usize) -> u64 {
        self.space.bar(bar).map_or(0, |bar| bar.size())
    }

    /// The configuration space as it is stored.
    pub fn config_space(&self) -> &ConfigSpace {
        &self.space
    }

    /// How many vectors there are.
    pub fn vector_count(&self) -> u16 {
        self.msix.count()
    }

    /// Reads configuration space. An access that no bus makes reads ones; beyond the 256 bytes: zeroes.
    pub fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        for_each_access(offset, data.len(), |part| {
            let value = part
                .access
                .map_or(u32::MAX, |access| self.config_value(access));
            part.fill(data, value);
        });
    }

    fn config_value(&mut self, access: Access) -> u32 {
        if access.touches(self.window_data(), 4) {
            return match self.window_access(access) {
                Some((bar, at)) => self.bar_value(bar, at),
                None => access.width().ones(),
            };
        }
        self.space.read(access, self.interrupting())
    }

    /// Writes configuration space. An access that no bus makes is ignored, and so is what cannot be
    /// written.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        for_each_access(offset, data.len(), |part| {
            let Some(access) = part.access else { return };
            let value = part.value(data);
            if access.touches(self.window_data(), 4) {
                if let Some((bar, at)) = self.window_access(access) {
                    self.set_bar_value(bar, at, value);
                }
                return;
            }
            self.space.write(access, value);
            self.transport.set_master(self.space.bus_master());
            self.msix.update(&self.space);
        });
        self.settle();
    }

    fn window_data(&self) -> u32 {
        u32::from(self.window) + u32::from(window::DATA)
    }

    /// The access to a BAR that one to the window stands for: of the length that the driver has set
    /// there, and made with the same width. `None`: it stands for none (4.1.4.9.1).
    fn window_access(&self, access: Access) -> Option<(usize, Access)> {
        let field = |at| self.window.saturating_add(at);
        let bar = self.space.byte(field(window::BAR));
        let offset = self.space.dword(field(window::OFFSET));
        let len = self.space.dword(field(window::LENGTH));
        if access.offset() != self.window_data() || access.width().bytes() != len {
            return None;
        }
        let at = Access::new(offset.into(), usize::try_from(len).ok()?)?;
        let bar = usize::from(bar);
        (u64::from(offset) < self.bar_bytes(bar)).then_some((bar, at))
    }

    /// Reads a BAR. An access that no bus makes, and what lies beyond the BAR, reads ones; 8 bytes are two
    /// dwords.
    ///
    /// Registers answer whatever the command register and the BARs hold: decoding them is the business
    /// of whoever maps the region.
    pub fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        for_each_access(offset, data.len(), |part| {
            let value = part
                .access
                .map_or(u32::MAX, |access| self.bar_value(bar, access));
            part.fill(data, value);
        });
    }

    /// Writes a BAR. What cannot be written is ignored, and so is an access that no bus makes.
    pub fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        for_each_access(offset, data.len(), |part| {
            if let Some(access) = part.access {
                self.set_bar_value(bar, access, part.value(data));
            }
        });
        self.settle();
    }

    fn bar_value(&mut self, bar: usize, access: Access) -> u32 {
        let (structure, at) = place(access);
        match (bar, structure) {
            (MSIX_BAR, _) if access.offset() < PENDING_OFFSET => self.msix.read_table(access),
            (MSIX_BAR, 0) => match access.relative_to(PENDING_OFFSET) {
                Some(at) => self.msix.read_pending(at),
                None => 0,
            },
            (COMMON_BAR, COMMON_OFFSET) => self.transport.read_common(at),
            // The byte that takes the interrupt back, and nothing behind it.
            (COMMON_BAR, ISR_OFFSET) if at.offset() == 0 => u32::from(self.transport.take_isr()),
            (COMMON_BAR, DEVICE_OFFSET) => at.of_bytes(&self.config),
            (COMMON_BAR, ISR_OFFSET | NOTIFY_OFFSET) => 0,
            _ => access.width().ones(),
        }
    }

    fn set_bar_value(&mut self, bar: usize, access: Access, value: u32) {
        let (structure, at) = place(access);
        match (bar, structure) {
            (MSIX_BAR, _) if access.offset() < PENDING_OFFSET => {
                self.msix.write_table(access, value, &self.space);
            }
            (COMMON_BAR, COMMON_OFFSET) => {
                self.transport.write_common(at, value);
                self.settle();
            }
            (COMMON_BAR, NOTIFY_OFFSET) if at.width() != Width::Byte => {
                self.transport.notify(at.offset() / NOTIFY_MULTIPLIER);
            }
            _ => {}
        }
    }

    /// Passes on what the transport wants to signal.
    fn settle(&mut self) {
        for vector in vectors(self.transport.take_fired()) {
            self.msix.fire(vector, &self.space);
        }
    }

    fn interrupting(&self) -> bool {
        self.transport.isr() != 0 && !self.msix.enabled(&self.space)
    }

    /// The level of INTA#.
    pub fn intx_asserted(&self) -> bool {
        self.interrupting() && self.space.intx_enabled()
    }

    /// The vectors whose messages are to be sent now, a bit each ([`vectors`] takes them apart); each is
    /// told once. To be asked after every access and [`Function::finish`].
    pub fn take_messages(&mut self) -> u64 {
        self.msix.take_due()
    }

    /// Messages of this vector lead somewhere (an eventfd was installed), or no longer. What was kept
    /// for want of it goes now.
    pub fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        self.msix.set_route(vector, leads_somewhere, &self.space);
    }

    /// Whether queues are handed out. When that begins, every enabled queue is looked at, notified or
    /// not, and its vector signalled once: drivers take interrupts without a cause, and not the loss
    /// of one.
    pub fn set_running(&mut self, running: bool) {
        self.transport.set_running(running);
        self.settle();
        self.msix.update(&self.space);
    }

    /// Whether no queue is out: nobody accesses guest memory for this device.
    pub fn is_quiesced(&self) -> bool {
        self.transport.is_quiesced()
    }

    /// Whether it makes sense to wait for who has a queue out, and then to ask for one: there is one to be handed out, or one that is
    /// out may have to be handed out again.
    pub fn has_work(&self) -> bool {
        self.transport.has_work()
    }

    /// Hands out a queue that may have something in it, if there is one.
    pub fn begin(&mut self) -> Option<Work> {
        self.transport.begin()
    }

    /// Takes a queue back.
    pub fn finish(&mut self, work: Work, outcome: &Outcome) {
        self.transport.finish(work, outcome);
        self.settle();
    }

    /// The device's own configuration becomes this, and a driver that is set up is told.
    pub fn set_config(&mut self, config: &[u8]) {
        self.config = [0; CONFIG_BYTES];
        for (to, from) in self.config.iter_mut().zip(config) {
            *to = *from;
        }
        self.transport.config_changed();
        self.settle();
    }

    /// Back to what it was after power-on, in place; whether it runs stays, and so do the routes. If queues
    /// are out, the transport follows when they came back.
    pub fn reset(&mut self) {
        self.space.reset();
        self.msix.reset();
        self.transport.set_master(false);
        self.transport.reset();
    }

    /// What a saved state has of it. `None`: a queue is out.
    pub fn state(&self) -> Option<FunctionState<Q, V>> {
        Some(FunctionState {
            space: *self.space.stored(),
            msix: self.msix.state(),
            transport: self.transport.state()?,
        })
    }

    /// Takes a saved state over, after checking all of it; one that is refused changes nothing. Guest memory
    /// is not looked at: it may come later.
    pub fn restore(&mut self, state: &FunctionState<Q, V>) -> Result<(), RestoreError> {
        if !self.is_quiesced() {
            return Err(RestoreError::Busy);
        }
        // Whatever can be refused is looked at first, and nothing is copied: a kernel's stack is small.
        self.transport
            .check(&state.transport)
            .map_err(RestoreError::Transport)?;
        self.space
            .check(&state.space)
            .map_err(RestoreError::Layout)?;
        self.msix.restore(&state.msix).map_err(RestoreError::Msix)?;
        self.space
            .restore(&state.space)
            .map_err(RestoreError::Layout)?;
        self.transport.restore(&state.transport);
        self.transport.set_master(self.space.bus_master());
        Ok(())
    }
}

/// A function's registers as plain data, not believed before [`Function::restore`] has checked them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionState<const Q: usize, const V: usize> {
    /// Configuration space.
    pub space: [u8; CONFIG_SPACE_BYTES as usize],
    /// The table, and what is pending.
    pub msix: MsixState<V>,
    /// Common configuration and queues.
    pub transport: TransportState<Q>,
}

/// Why saved registers are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// A queue of the function that should take them over is out.
    Busy,
    /// Configuration space differs at this offset in what no guest can write: it is another device.
    Layout(u8),
    /// Their MSI-X table is wrong.
    Msix(MsixStateError),
    /// Their common configuration is wrong.
    Transport(StateError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("a queue of the device is being served"),
            Self::Layout(at) => write!(f, "configuration space differs at {at:#04x}"),
            Self::Msix(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RestoreError {}

/// The structure that an access to the common BAR is in, and the access in it.
fn place(access: Access) -> (u32, Access) {
    let structure = access.offset() / layout::STRUCTURE_BYTES * layout::STRUCTURE_BYTES;
    (structure, access.relative_to(structure).unwrap_or(access))
}

/// A part of an access that a bus makes at once.
struct Part {
    /// `None`: no bus makes it.
    access: Option<Access>,
    start: usize,
    len: usize,
}

impl Part {
    fn value(&self, data: &[u8]) -> u32 {
        let mut value = [0; 4];
        let bytes = data.iter().skip(self.start).take(self.len);
        for (to, from) in value.iter_mut().zip(bytes) {
            *to = *from;
        }
        u32::from_le_bytes(value)
    }

    fn fill(&self, data: &mut [u8], value: u32) {
        let mut bytes = value.to_le_bytes().into_iter().cycle();
        for to in data.iter_mut().skip(self.start).take(self.len) {
            *to = bytes.next().unwrap_or(0xff);
        }
    }
}

/// An access of 8 bytes is made of two dwords, the lower first; any other is itself.
fn for_each_access(offset: u64, len: usize, mut f: impl FnMut(Part)) {
    let mut part = |start: usize, len: usize| {
        let at = offset.checked_add(start as u64);
        f(Part {
            access: at.and_then(|at| Access::new(at, len)),
            start,
            len,
        });
    };
    if len == 8 && offset % 8 == 0 {
        part(0, 4);
        part(4, 4);
    } else {
        part(0, len);
    }
}
