// SPDX-License-Identifier: GPL-2.0

//! The device: an instance of what a vendor driver implements, as VFIO sees it.
//!
//! C header: `include/linux/vfio.h`.

pub(crate) mod allocation;
mod ioctl;
pub(crate) mod jobs;
mod opener;
pub(crate) mod ops;

use crate::capacity::{Capacity, Reservation};
use crate::dirty_log::DirtyLog;
use crate::engine::Engine;
use crate::irq::{FollowUp, Irqs, Lines, Request};
use crate::lock_class::{new_mutex, new_poll_condvar, new_spinlock};
use crate::mapped::Memory;
use crate::migration::session::Migration;
use crate::migration::staging::{DataSection, Staging};
use crate::names::INTX_UNMASK_EVENTFD;
use crate::pages::Pages;
use crate::progress::Progress;
use crate::reason::Reason;
use crate::region::{Position, Region};
use crate::table::Type;
use crate::timer::{self, HasTimer, Timer};
use crate::token::Token;
use ::migration::clock::Clock;
use ::migration::info::Family;
use ::migration::model::{InUse, SetClass, Values};
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::poll::PollCondVar;
use kernel::sync::{Arc, Mutex, SpinLock};
use kernel::time::delay::fsleep;
use kernel::time::Delta;

pub use crate::model::{Access, Device, Phase, Remaining, SavedSize};
use opener::Opener;

use crate::eventfd::{WatchSlot, Watcher};

/// How long an eventfd's wish to unmask INTx waits when nobody serves the interrupt.
const UNSERVED_PAUSE: Delta = Delta::from_millis(10);

/// Lets the interrupt code ask the device model.
impl<T: Device> Lines for KBox<T> {
    fn intx(&self) -> bool {
        T::intx(self)
    }

    fn take_msi(&mut self) -> u32 {
        T::take_msi(self)
    }

    fn take_msix(&mut self) -> u64 {
        T::take_msix(self)
    }

    fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        T::set_route(self, vector, leads_somewhere);
    }
}

/// Everything that is decided under the instance's mutex.
pub(crate) struct State<T: Device> {
    /// The device model. Power-on state while the device is not open.
    pub(crate) device: KBox<T>,
    /// The migration parameters.
    pub(crate) values: Values<'static>,
    /// What the instance takes of its parent's capacity; `None` once it was removed.
    reservation: Option<Reservation>,
    pub(crate) irqs: Irqs,
    /// Whether an eventfd may unmask INTx. No migration parameter: how the host takes an interrupt is nothing that a guest or
    /// a state representation can tell.
    pub(crate) intx_unmask_eventfd: bool,
    pub(crate) migration: Migration<T>,
    /// Why the last thing that was refused was refused.
    pub(crate) reason: Reason,
    /// The data section of the migration region, once a user has begun to migrate by it.
    pub(crate) staging: Option<Staging>,
    /// Whether a user has the device open.
    pub(crate) open: bool,
    /// Who opened it.
    opener: Option<Opener>,
    /// The device's clock.
    clock: Clock,
    /// The time last told to the device.
    now_ns: u64,
    /// When the timer expires by the device's clock, if it is running. By the system's it expires earlier, if the device has
    /// been stopped since.
    wake_at_ns: Option<u64>,
    /// What those who poll the files of `migration/` know.
    told: Progress,
    /// The registered device; `None` before.
    pub(crate) vdev: Option<VfioHandle>,
}

/// The VFIO device of an instance, to look at while it is open.
pub(crate) struct VfioHandle(pub(crate) NonNull<vfio_bindings::vfio_device>);

// SAFETY: The pointer is only followed under the instance's mutex while the device is open, from any thread.
unsafe impl Send for VfioHandle {}

impl<T: Device> State<T> {
    /// Tells the device the time, if it is open and running.
    pub(crate) fn tell_time(&mut self) {
        self.tell_time_at(timer::now_ns());
    }

    /// Tells the device the time that it is by this time of the system, if it is open and running.
    pub(crate) fn tell_time_at(&mut self, system_ns: u64) {
        if self.clock.is_running() {
            self.now_ns = self.clock.at(system_ns);
            self.device.set_time(self.now_ns);
        }
    }

    /// An access is about to be made: tells the device the time if that matters, and notes that somebody serves it.
    #[inline(always)]
    fn before_access(&mut self, at: Position, access: Access<'_>) {
        if self.device.needs_time(at.region, at.offset, access) {
            self.tell_time();
        }
        self.irqs.accessed();
    }

    /// Makes an access that a bus makes in one. What can be mapped is not the device's business.
    #[inline(always)]
    fn read(&mut self, at: Position, data: &mut [u8]) {
        let memory = self.device.memory();
        if let Some((memory, offset)) =
            memory.and_then(|m| Some((m, m.find(at.region, at.offset)?)))
        {
            // It is whole pages, so all of the access lies in it, and it is there while the device is open.
            let _ = memory.read(offset, data);
            self.irqs.accessed();
            return;
        }
        self.before_access(at, Access::Read(data.len()));
        self.device.read(at.region, at.offset, data);
    }

    /// As [`State::read`] reads.
    #[inline(always)]
    fn write(&mut self, at: Position, data: &[u8]) {
        let memory = self.device.memory();
        if let Some((memory, offset)) =
            memory.and_then(|m| Some((m, m.find(at.region, at.offset)?)))
        {
            let _ = memory.write(offset, data);
            self.irqs.accessed();
            return;
        }
        self.before_access(at, Access::Write(data));
        self.device.write(at.region, at.offset, data);
    }

    /// Lets the device's clock run from this time of the system on if the device is open and running, and stand still otherwise.
    pub(crate) fn run_clock(&mut self, system_ns: u64) {
        if self.open && self.migration.is_running() {
            self.clock.start(system_ns);
        } else {
            self.clock.stop(system_ns);
        }
    }

    /// Wakes whoever polls the files of `migration/` that tell how a migration goes on, while the device is open: its state, and
    /// with it everything else, has changed.
    pub(crate) fn notify_state(&mut self) {
        let Some(vdev) = self.vdev.as_ref().filter(|_| self.open) else {
            return;
        };
        // SAFETY: An open device is neither released nor unregistered: `close_device` takes the mutex that the caller holds to
        // end that. So its parent, which has the files, is registered.
        unsafe {
            self.told
                .state_changed((*vdev.0.as_ptr()).dev, self.migration.progress())
        };
    }

    /// Whether the user asked for the second form of `VFIO_MIG_GET_PRECOPY_INFO` (`VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`).
    pub(crate) fn precopy_info_v2(&self) -> bool {
        match &self.vdev {
            // SAFETY: An open device is not released: `close_device` takes the mutex that the caller holds to end that. The
            // core may change the byte at the same time, so it is read as one.
            Some(vdev) if self.open => unsafe {
                (&raw const (*vdev.0.as_ptr()).precopy_info_v2).read_volatile() != 0
            },
            _ => false,
        }
    }
}

/// A change of parameters that user space asks for, as text.
pub(crate) enum Change<'a> {
    /// To the default version of this device model.
    Model(&'a [u8]),
    /// To this version.
    Version(&'a [u8]),
    /// Of the parameter at this position in the declaration order, to this value.
    Parameter(usize, &'a [u8]),
}

/// One instance: the device model, and what VFIO, sysfs and data files do with it.
///
/// It outlives the VFIO device while a migration data file is open.
#[pin_data]
pub(crate) struct Instance<T: Device> {
    /// The type that it is an instance of.
    pub(crate) info: &'static Type,
    /// The types of its parent, for those who look for a destination.
    pub(crate) families: &'static [Family<'static>],
    /// Serialises what must not be done under `state`: watching the unmask eventfd and ending that.
    #[pin]
    control: Mutex<()>,
    #[pin]
    pub(crate) state: Mutex<State<T>>,
    /// The pages of `state.staging`, for who maps them: with the address space locked, which whoever holds `state` may come to
    /// wait for. Nothing is done under this lock but to take a reference.
    #[pin]
    section: SpinLock<DataSection>,
    /// The device's memory that can be mapped, for the same.
    memory: Option<Memory>,
    /// What serves the device's jobs, for who serves one or has to be sure that nobody does.
    #[pin]
    engine: Token<T::Engine>,
    /// What the device wrote, while a user wants to know. Held for looking at it only: reporting it writes to the user.
    #[pin]
    pub(crate) log: Mutex<Option<DirtyLog>>,
    #[pin]
    wake: Timer<Self, WAKE>,
    #[pin]
    bytes: Timer<Self, BYTES>,
    /// Wakes who polls a data file, whenever the session may have more to say.
    #[pin]
    pub(crate) progress: PollCondVar,
    /// The eventfd that unmasks INTx. Set and cleared under `control`.
    #[pin]
    unmask: WatchSlot,
}

impl<T: Device> Instance<T> {
    /// An instance of a type, in power-on state. `ENOSPC` when the parent's capacity does not allow another one.
    pub(crate) fn new(
        info: &'static Type,
        families: &'static [Family<'static>],
        capacity: &Arc<Capacity>,
    ) -> Result<Arc<Self>> {
        let values = Values::new(info.migration);
        let reservation = Some(capacity.reserve(T::units(&values))?);
        let device = T::power_on(&values)?;
        let engine = T::Engine::new()?;
        let memory = device.memory().cloned();
        Arc::pin_init(
            pin_init!(Self {
                info,
                families,
                control <- new_mutex!((), c"vfio_instance_control"),
                state <- new_mutex!(State {
                    device,
                    values,
                    reservation,
                    irqs: Irqs::new(),
                    intx_unmask_eventfd: T::intx_unmask_eventfd(),
                    migration: Migration::new(),
                    reason: Reason::none(),
                    staging: None,
                    open: false,
                    clock: Clock::new(),
                    opener: None,
                    now_ns: 0,
                    wake_at_ns: None,
                    told: Progress::new(),
                    vdev: None,
                }, c"vfio_instance_state"),
                section <- new_spinlock!(DataSection::Closed, c"vfio_instance_section"),
                memory,
                engine <- Token::new(engine),
                log <- new_mutex!(None, c"vfio_instance_log"),
                wake <- Timer::new(),
                bytes <- Timer::new(),
                progress <- new_poll_condvar!(c"vfio_instance_progress"),
                unmask <- WatchSlot::new(),
            }),
            GFP_KERNEL,
        )
    }

    fn pinned(&self) -> Pin<&Self> {
        // SAFETY: Instances exist only in the `Arc` that `new` pins.
        unsafe { Pin::new_unchecked(self) }
    }

    fn unmask_slot(&self) -> Pin<&WatchSlot> {
        // SAFETY: The instance is pinned, and the field structurally.
        unsafe { self.pinned().map_unchecked(|instance| &instance.unmask) }
    }

    /// Brings what the device asserts to the user, and starts the timer where it wants to be woken.
    ///
    /// Called after everything that may have changed that. A device that is not running has no effects.
    pub(crate) fn settle(&self, state: &mut State<T>) {
        if !state.open || !state.migration.is_running() {
            return;
        }
        state.irqs.deliver(&mut state.device);
        if let Some(failure) = state.device.failure() {
            self.fail(state, failure);
            return;
        }
        if state.migration.take_news(&mut state.device) {
            self.progress.notify_all();
        }
        if let Some(delay_ns) = state.device.wake_after_ns() {
            let due = state.now_ns.saturating_add(delay_ns);
            // A timer that expires too early finds nothing to do and comes back here.
            if state.wake_at_ns.is_none_or(|armed| due < armed) {
                state.wake_at_ns = Some(due);
                Timer::<Self, WAKE>::start(self.pinned(), delay_ns);
            }
        }
    }

    /// The device cannot go on: it is in the error state, without a session.
    #[cold]
    fn fail(&self, state: &mut State<T>, failure: &str) {
        state
            .reason
            .set(format_args!("the device has failed: {failure}"));
        state.give_up();
        state.notify_state();
        self.progress.notify_all();
    }

    /// Bytes of the session's stream were read or written, or taken back: who polls `migration/` is told.
    pub(crate) fn stream_moved(&self, state: &mut State<T>) {
        let progress = state.migration.progress();
        let later = state.told.stream_moved(progress);
        self.tell_bytes_in(later);
    }

    fn tell_bytes_in(&self, delay_ns: Option<u64>) {
        if let Some(delay_ns) = delay_ns {
            Timer::<Self, BYTES>::start(self.pinned(), delay_ns);
        }
    }

    /// The first user opens the device: power-on state. `ENOMEM`: it is not open then.
    pub(crate) fn open(&self) -> Result {
        if let Some(memory) = &self.memory {
            memory.open()?;
        }
        *self.section.lock() = DataSection::Open;
        let mut state = self.state.lock();
        state.device.reset();
        state.reason.clear();
        state.open = true;
        state.tell_active(false);
        state.run_clock(timer::now_ns());
        state.opener = Opener::current();
        Ok(())
    }

    /// The last user is gone: nothing of the device's state is left.
    pub(crate) fn close(&self) {
        let _control = self.control.lock();
        self.unmask_slot().clear();
        // Nobody serves a job who is not in a call of the user's.
        let quiet = self.quiesce_for_good();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let could = state.may_access_memory();
            state.irqs.clear(&mut state.device);
            state.migration.reset(&mut state.device);
            state.device.clear();
            state.notify_state();
            state.told = Progress::new();
            state.staging = None;
            state.open = false;
            state.tell_active(could);
            state.run_clock(timer::now_ns());
            state.opener = None;
            self.progress.notify_all();
        }
        drop(quiet);
        let log = self.log.lock().take();
        drop(log);
        let section = core::mem::replace(&mut *self.section.lock(), DataSection::Closed);
        drop(section);
        if let Some(memory) = &self.memory {
            memory.close();
        }
        Timer::<Self, WAKE>::cancel(self.pinned());
        Timer::<Self, BYTES>::cancel(self.pinned());
        self.state.lock().wake_at_ns = None;
    }

    /// The pages that the user may map in a region. `EINVAL` where there are none, `ENODEV` while the device is not open, `ENOMEM`.
    pub(crate) fn mappable(&self, region: Region) -> Result<Arc<Pages>> {
        match (region, &self.memory) {
            (Region::Migration, _) => self.with_section(|pages, _| pages.clone()),
            (region, Some(memory)) if memory.area().region == region => memory.pages(),
            _ => Err(EINVAL),
        }
    }

    /// The data section, to be read and written: once for each user, `None` afterwards. `ENODEV` while the device is not open,
    /// `ENOMEM`.
    pub(crate) fn take_staging(&self) -> Result<Option<Staging>> {
        self.with_section(|_, staging| staging.take())
    }

    /// Looks at the data section, which is made now if nobody has asked for it yet: most users never do.
    fn with_section<R>(
        &self,
        look: impl FnOnce(&Arc<Pages>, &mut Option<Staging>) -> R,
    ) -> Result<R> {
        // Given back without the lock, if somebody else was faster.
        let mut new = None;
        loop {
            {
                let mut section = self.section.lock();
                if let (DataSection::Open, Some(_)) = (&*section, &new) {
                    *section = new.take().map_or(DataSection::Open, DataSection::made);
                }
                match &mut *section {
                    DataSection::Closed => return Err(ENODEV),
                    DataSection::Open => {}
                    DataSection::Made(pages, staging) => return Ok(look(pages, staging)),
                }
            }
            new = Some(Staging::new()?);
        }
    }

    /// Reset by the user: power-on state, running, no migration session. Interrupts stay configured, DMA logging stays on. `EINTR`
    /// when the user is killed while a job goes on: nothing has changed then.
    fn reset(&self) -> Result {
        let _quiet = self.quiesce()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let could = state.may_access_memory();
        state.migration.reset(&mut state.device);
        state.device.reset();
        if let Some(memory) = &self.memory {
            memory.clear();
        }
        state.tell_active(could);
        state.run_clock(timer::now_ns());
        // It may have been mapped without having been used by the protocol.
        if state.staging.is_none() {
            state.staging = self.section.lock().take();
        }
        if let Some(staging) = &mut state.staging {
            staging.clear();
        }
        state.notify_state();
        self.progress.notify_all();
        self.settle(state);
        Ok(())
    }

    /// Changes parameters, as text asks for.
    ///
    /// `EINVAL` for a value that is not allowed or not together with the others, `EBUSY` for one that cannot change now,
    /// `ENOSPC` when the parent has not the capacity. A refusal leaves everything as it was, and its reason.
    pub(crate) fn change(&self, change: Change<'_>) -> Result {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let in_use = match (state.open, state.migration.session()) {
            (false, _) => InUse::Closed,
            (true, None) => InUse::Open,
            (true, Some(_)) => InUse::Migrating,
        };
        let values = match change {
            Change::Model(text) => state.values.with_model(text, in_use),
            Change::Version(text) => state.values.with_version(text, in_use),
            Change::Parameter(position, text) => state.values.with_text(position, text, in_use),
        };
        let values = values.map_err(|error| {
            state.reason.set(format_args!("{error}"));
            match error.class() {
                SetClass::Invalid => EINVAL,
                SetClass::Busy => EBUSY,
            }
        })?;
        // An instance whose parameters can be written is not removed.
        let reservation = state.reservation.as_mut().ok_or(ENODEV)?;
        reservation.resize(T::units(&values)).map_err(|short| {
            state.reason.set(format_args!("{short}"));
            ENOSPC
        })?;
        state.values = values;
        state.device.configure(&state.values);
        state.reason.clear();
        Ok(())
    }

    /// Lets the user unmask INTx by an eventfd, or not. `EBUSY` while the device is open: a user asks once, when it sets its
    /// interrupts up.
    pub(crate) fn allow_intx_unmask_eventfd(&self, allowed: bool) -> Result {
        let mut state = self.state.lock();
        if state.open {
            state.reason.set(format_args!(
                "{}: cannot change while the device is open",
                INTX_UNMASK_EVENTFD
            ));
            return Err(EBUSY);
        }
        state.intx_unmask_eventfd = allowed;
        state.reason.clear();
        Ok(())
    }

    /// The instance was removed: what it took of its parent's capacity is free again.
    pub(crate) fn removed(&self) {
        let reservation = self.state.lock().reservation.take();
        drop(reservation);
    }

    /// Carries out one `VFIO_DEVICE_SET_IRQS`.
    fn set_irqs(&self, request: &Request) -> Result {
        let _control = self.control.lock();
        let follow_up = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let allowed = state.intx_unmask_eventfd;
            let follow_up = state.irqs.apply(request, allowed, &mut state.device)?;
            self.settle(state);
            follow_up
        };
        match follow_up {
            FollowUp::Done => Ok(()),
            // SAFETY: The slot is a field of the instance, and ends its watch when it is dropped with it.
            FollowUp::WatchUnmask(fd) => unsafe { self.unmask_slot().watch(fd, self) },
            FollowUp::EndUnmask => {
                self.unmask_slot().clear();
                Ok(())
            }
        }
    }
}

/// The timer that wakes the device model.
const WAKE: u64 = 0;
/// The timer that tells pollers of bytes.
const BYTES: u64 = 1;

// SAFETY: The field is structurally pinned and made with the instance.
unsafe impl<T: Device> HasTimer<WAKE> for Instance<T> {
    const OFFSET: usize = core::mem::offset_of!(Self, wake);

    fn expired(&self) {
        let mut state = self.state.lock();
        state.wake_at_ns = None;
        state.tell_time();
        self.settle(&mut state);
    }
}

// SAFETY: The field is structurally pinned and made with the instance.
unsafe impl<T: Device> HasTimer<BYTES> for Instance<T> {
    const OFFSET: usize = core::mem::offset_of!(Self, bytes);

    fn expired(&self) {
        let mut state = self.state.lock();
        let again = state.told.due();
        self.tell_bytes_in(again);
    }
}

impl<T: Device> Watcher for Instance<T> {
    fn signalled(&self) {
        if self.state.lock().irqs.is_unserved() {
            fsleep(UNSERVED_PAUSE);
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.irqs.unmask(&state.device);
        self.settle(state);
    }
}
