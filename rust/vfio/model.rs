// SPDX-License-Identifier: GPL-2.0

//! What a vendor driver implements: the device model, which knows nothing of who uses it.

use crate::engine::Engine;
use crate::irq::Counts;
use crate::mapped::Memory;
use crate::module::ModuleMetadata;
use crate::region::Region;
use ::migration::model::Values;
pub use ::migration::session::{Phase, Remaining, SavedSize};
use core::fmt;
use kernel::prelude::*;

/// A device that a vendor driver emulates: registers in, effects out, state saved and loaded.
///
/// Every method is called under the instance's mutex and must not sleep for long, call back, or fail where its signature
/// does not say so. What has a body here need not be implemented: a device without parameters, interrupts or a sense of time, whose
/// state always has the same size, leaves it all out. Effects (interrupts, a wish to be woken) are asked for after each access and only while the device
/// runs; between `STOP` and `RUNNING` of a migration the state must not change by itself.
pub trait Device: Sized + Send + 'static {
    /// The driver module, which stays loaded while the device is in use.
    type OwnerModule: ModuleMetadata;
    /// State that is being loaded; the live device does not change until all of it has been accepted.
    type Incoming: Send;

    /// What accesses guest memory for it: [`NoEngine`](crate::engine::NoEngine) for a device that does not.
    type Engine: Engine<Self>;

    /// The driver's name, in the name of its VFIO device and of its mdev type directories.
    const NAME: &'static CStr;

    /// A device with these parameters, in power-on state.
    fn power_on(values: &Values<'_>) -> Result<KBox<Self>>;
    /// The parameters have changed. While nobody has the device open, any of them, and the device is in power-on state
    /// afterwards; while it is open, only those that shape the state representation, and nothing else changes. A device with
    /// parameters implements it.
    fn configure(&mut self, values: &Values<'_>) {
        let _ = values;
    }
    /// How many units of the parent's capacity an instance with these parameters takes. Not zero.
    fn units(values: &Values<'_>) -> u32 {
        let _ = values;
        1
    }
    /// A reset, as a function-level reset of a device does it: by its user, and before a user gets it. Registers and what is going on are
    /// as after power-on.
    fn reset(&mut self);
    /// The last user has closed the device, and nothing of his may be left to the next. What a reset leaves, unless implemented: a device
    /// with a medium, which keeps it over a reset, loses it here.
    fn clear(&mut self) {
        self.reset();
    }

    /// Size of a region in bytes; 0 where the device has none. Changes only with the parameters.
    fn region_size(&self, region: Region) -> u64;
    /// Reads from a region. `offset + data.len()` is within it, and the access is one that a bus makes: of 1, 2, 4 or, outside
    /// of configuration space, 8 bytes, at a multiple of its size. A user's access that is not is taken apart.
    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]);
    /// Writes to a region, as [`Device::read`] reads from it.
    fn write(&mut self, region: Region, offset: u64, data: &[u8]);

    /// Memory in one of its regions that its user can map, always the same one. It is not accessed by [`Device::read`] and
    /// [`Device::write`] and not part of the sections that the device saves: the library keeps it, zeroes it when the device is
    /// reset, saves and loads it. Section 0xfdff is its.
    fn memory(&self) -> Option<&Memory> {
        None
    }

    /// Whether new instances let their user unmask INTx by an eventfd, for those that have `intx_unmask_eventfd` in sysfs
    /// not written. A driver gives its administrator the choice by a module parameter; see `Documentation/intx.rst`.
    fn intx_unmask_eventfd() -> bool {
        false
    }
    /// The interrupts that the device has. Changes only with the parameters.
    fn irqs(&self) -> Counts {
        Counts::default()
    }
    /// Whether the INTx pin is asserted.
    fn intx(&self) -> bool {
        false
    }
    /// MSI vectors that became pending since the last call, a bit each.
    fn take_msi(&mut self) -> u32 {
        0
    }
    /// MSI-X vectors whose message is to be sent now, a bit each: those that became pending, as far as there is somewhere to send them
    /// ([`Device::set_route`]). The others stay pending in the device, and are part of its state.
    fn take_msix(&mut self) -> u64 {
        0
    }
    /// From now on messages of this MSI-X vector lead somewhere, or do not any longer. Nothing is said of those that never did. What the
    /// guest wrote to the MSI-X table is of no importance: a user such as QEMU keeps that to itself. A reset changes no route.
    fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        let _ = (vector, leads_somewhere);
    }
    /// From now on the device may access guest memory, or may not until it is told otherwise: while it is not open, is in a
    /// peer-to-peer state or stopped, it may not, which is how it starts. Jobs are begun accordingly in any case. A reset does not change it.
    fn set_active(&mut self, active: bool) {
        let _ = active;
    }
    /// Tells the time, in nanoseconds for which this device has run: its clock stands still while it is closed, stopped or being
    /// loaded, and does not run backwards. Told before every access that [`Device::needs_time`], when the time that
    /// [`Device::wake_after_ns`] asked for is over, and when the device is about to stop, so that what is saved is of that moment.
    fn set_time(&mut self, now_ns: u64) {
        let _ = now_ns;
    }
    /// Whether it makes a difference to an access, which [`Device::read`] or [`Device::write`] is called for next, what time it is.
    /// Reading a clock costs as much as many an access; who says no is not told the time before this one.
    fn needs_time(&self, region: Region, offset: u64, access: Access<'_>) -> bool {
        let _ = (region, offset, access);
        true
    }
    /// Nanoseconds from the time last told until the device wants to be told again, if it does.
    fn wake_after_ns(&self) -> Option<u64> {
        None
    }

    /// Why the device cannot go on, if so: asked after each access and each job while it runs. It is in the error state then, which it leaves
    /// by a reset only.
    fn failure(&self) -> Option<&'static str> {
        None
    }

    /// The most that [`Device::save`] emits, at any time with these parameters. Must not be empty. What it emits now, unless
    /// implemented: that will do where the size is always the same.
    fn saved_size(&self) -> SavedSize {
        let mut size = SavedSize {
            bytes: 0,
            sections: 0,
        };
        // Nothing is done with the state, so a failure is of no interest here.
        let _ = self.save(&mut |_, payload| {
            size.bytes += payload.len();
            size.sections += 1;
            Ok(())
        });
        size
    }
    /// Saves the state as sections of (id, payload).
    fn save(&self, emit: &mut dyn FnMut(u16, &[u8]) -> Result) -> Result;

    /// The longest payload of a section of bulk state; 0 for a device without. A device that has more state than fits into memory
    /// twice, a disk for example, does not save it in [`Device::save`] but gives it out section by section, while it runs
    /// and after it has stopped, each section again that has changed since. Does not change.
    fn max_sent_section(&self) -> usize {
        0
    }
    /// Bulk state is sent from now on, from the start: what there is, and what changes until [`Device::stop_sending`].
    fn start_sending(&mut self) {}
    /// Nothing is sent any longer. Called when a session ends, also by a reset or because nobody has the device open any more.
    fn stop_sending(&mut self) {}
    /// How much bulk state is still to be sent, at most; how much would be if sending began now, while nothing is sent. The
    /// first part never grows, the second one is nothing when sending begins.
    fn remaining(&self) -> Remaining {
        Remaining::default()
    }
    /// The next section of bulk state, into `payload` of [`Device::max_sent_section`] bytes: its number and its length. It counts
    /// as sent: what changes afterwards is sent again. `None` if nothing is left.
    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        let _ = payload;
        None
    }

    /// Starts loading. A user makes the kernel keep this, so it is to be allocated with `GFP_KERNEL_ACCOUNT`.
    fn incoming(&self) -> Result<KBox<Self::Incoming>>;
    /// The longest payload that the section may have; `None` for a section that this device does not know. Those that
    /// [`Device::save`] emits now, and as long as there, unless implemented.
    fn section_len(&self, id: u16) -> Option<usize> {
        let mut len = None;
        let _ = self.save(&mut |emitted, payload| {
            if emitted == id {
                len = Some(payload.len());
            }
            Ok(())
        });
        len
    }
    /// Takes one section, which was saved in this phase. A value that cannot be is refused, with the reason written to
    /// `reason`; `ENOMEM` is told as such. The source hears of it at once, in pre-copy while its device still runs.
    fn load(
        incoming: &mut Self::Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn fmt::Write,
    ) -> Result;
    /// Whether every section that the state needs has been taken.
    fn is_complete(incoming: &Self::Incoming) -> bool;
    /// Replaces the state by what was loaded, which is complete, and may be taken out. Changes nothing if what was loaded does not
    /// fit together, with the reason written to `reason`.
    fn commit(&mut self, incoming: &mut Self::Incoming, reason: &mut dyn fmt::Write) -> Result;
    /// The device runs again after a stop. Work that the guest was told of but did not acknowledge may be told again.
    fn resume(&mut self) {}
}

/// An access that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// So many bytes are read.
    Read(usize),
    /// This is written.
    Write(&'a [u8]),
}
