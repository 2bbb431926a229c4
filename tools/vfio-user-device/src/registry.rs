// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Many devices in one program: added, removed, listed, prepared, saved and loaded while it runs.
//!
//! Nothing here knows how the wishes arrive: bindings to remote calls are made of it. Each device is served by a thread of its own,
//! which alone has it; a [`Registry`] is a handle that sends wishes to those threads and waits for what becomes of them. Threads do
//! not wait for clients, so that is soon.
//!
//! | what | where |
//! |---|---|
//! | what devices are there, and how each is | [`Registry::list`], [`Registry::info`] |
//! | a new one, and the end of one | [`Registry::add`], [`Registry::remove`] |
//! | what can be migrated to here, and the parameters of a destination | [`Registry::information`], [`Registry::prepare`] |
//! | the state, as the stream of protocol v2 | [`Registry::save`], [`Registry::load`] |
//! | what has changed | [`Registry::subscribe`] |
//!
//! Who migrates a device, its client or a remote call, has it until it runs again: see [`crate::model::Owner`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::instance::{Kind, NotOffered, Offer};
use crate::kernel::Target;
use crate::model::{Purpose, View};

mod budget;
mod describe;
mod error;
mod thread;
mod transfer;
mod watch;

pub(crate) use describe::params;
pub use describe::{
    DeviceInfo, DeviceName, Endpoint, NewDevice, ParamInfo, ParamValue, SourceList,
};
pub use error::Error;
pub use transfer::{Loading, Saving, TransferError, MAX_PIECE};
pub use watch::{Event, Subscription};

use budget::Budget;
use thread::{Handle, Plan, Wanted};
use watch::Watchers;

/// Most devices that a program has at a time.
pub const MAX_DEVICES: usize = 1024;

/// How devices are made and served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the program offers.
    pub offer: Offer,
    /// A client that leaves replies unread for so long is dropped.
    pub patience: Duration,
    /// How large its disks may be together, in MiB.
    pub max_mib: u64,
}

/// The devices of a program. Clones are of the same devices.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
}

/// What the threads of devices share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    devices: Mutex<BTreeMap<DeviceName, Handle>>,
    /// Held while a device is made, so that a name or a place for a socket is not given twice.
    adding: Mutex<()>,
    watchers: Watchers,
    /// The memory of disks.
    memory: Arc<Budget>,
}

/// Whoever panicked with a lock held changed nothing halfway: what is locked here is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn insert(&self, handle: Handle) {
        let name = handle.name().clone();
        lock(&self.devices).insert(name.clone(), handle);
        self.watchers.tell(Event::Added(name));
    }

    /// A device has ended: the one with this handle, and no other one of the same name.
    fn take_out(&self, handle: &Handle) {
        let mut devices = lock(&self.devices);
        let name = handle.name();
        if devices.get(name).is_some_and(|found| found.is(handle)) {
            devices.remove(name);
            drop(devices);
            self.watchers.tell(Event::Removed(name.clone()));
        }
    }
}

impl Registry {
    /// No device yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                memory: Budget::new(settings.max_mib),
                settings,
                devices: Mutex::default(),
                adding: Mutex::default(),
                watchers: Watchers::default(),
            }),
        }
    }

    /// What can be migrated to here, as JSON.
    pub fn information(&self) -> String {
        self.shared.settings.offer.information(&Kind::ALL)
    }

    /// What the program offers.
    pub fn offer(&self) -> &Offer {
        &self.shared.settings.offer
    }

    /// Makes a device. Clients may come when this returns.
    pub fn add(&self, device: NewDevice) -> Result<DeviceInfo, Error> {
        self.start(Plan::Model(device))
    }

    /// Serves a device of the kernel. Clients may come when this returns.
    pub fn add_kernel(
        &self,
        name: DeviceName,
        target: Target,
        endpoint: Endpoint,
    ) -> Result<DeviceInfo, Error> {
        self.start(Plan::Kernel(name, target, endpoint))
    }

    fn start(&self, device: Plan) -> Result<DeviceInfo, Error> {
        let _adding = lock(&self.shared.adding);
        let devices = lock(&self.shared.devices);
        if devices.contains_key(device.name()) {
            return Err(Error::Exists(device.name().to_string()));
        }
        if devices.len() >= MAX_DEVICES {
            return Err(Error::Full);
        }
        drop(devices);
        let handle = thread::start(&self.shared, device)?;
        Ok(handle.info())
    }

    /// Ends a device. One that somebody uses is ended by `force` only. Its socket is gone when this returns.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), Error> {
        self.handle(name)?
            .ask(|answer| Wanted::Remove { force, answer })
    }

    /// Ends all devices, whoever uses them.
    pub fn clear(&self) {
        let _adding = lock(&self.shared.adding);
        for handle in self.handles() {
            // One that ended by itself meanwhile is gone, too.
            let _ = handle.ask(|answer| Wanted::Remove {
                force: true,
                answer,
            });
        }
    }

    fn handles(&self) -> Vec<Handle> {
        lock(&self.shared.devices).values().cloned().collect()
    }

    fn handle(&self, name: &str) -> Result<Handle, Error> {
        let devices = lock(&self.shared.devices);
        let found = devices.get(name).cloned();
        found.ok_or_else(|| Error::NoDevice(name.to_string()))
    }

    /// All devices, by name.
    pub fn list(&self) -> Vec<DeviceInfo> {
        self.handles().iter().map(Handle::info).collect()
    }

    /// How one device is.
    pub fn info(&self, name: &str) -> Result<DeviceInfo, Error> {
        Ok(self.handle(name)?.info())
    }

    /// Prepares a device as the destination of a source with these parameters in effect: it gets those, and its other ones are
    /// switched off. A device whose parameters change is a new one, in power-on state, on the same socket. Nobody may use it.
    pub fn prepare(&self, name: &str, source: SourceList) -> Result<DeviceInfo, Error> {
        let handle = self.handle(name)?;
        handle.ask(|answer| Wanted::Prepare { source, answer })?;
        Ok(handle.info())
    }

    /// Why no device here can be the destination of such a source; nothing if one can.
    pub fn reasons(&self, source: &SourceList) -> Vec<String> {
        match self.check_any(source) {
            Ok(()) => Vec::new(),
            Err(NotOffered::Source(reasons)) => reasons,
            Err(error) => vec![error.to_string()],
        }
    }

    /// Why no device here can be the destination of such a source, in an error; nothing is changed.
    pub fn check(&self, source: &SourceList) -> Result<(), Error> {
        self.check_any(source).map_err(Error::from)
    }

    /// Looks for a destination among the devices of the source's model.
    fn check_any(&self, source: &SourceList) -> Result<(), NotOffered> {
        let kind = Kind::wanted(Some(&source.model))?;
        let ty = self.shared.settings.offer.ty(kind);
        source.destination(&ty).map(drop)
    }

    /// Registers as after power-on, as by a client's reset; a disk keeps its contents. Not while somebody migrates the device.
    pub fn reset(&self, name: &str) -> Result<(), Error> {
        self.handle(name)?.ask(Wanted::Reset)
    }

    /// Begins to save a device, which is stopped until that ends. It runs again afterwards.
    pub fn save(&self, name: &str) -> Result<Saving, Error> {
        let handle = self.handle(name)?;
        let session = handle.ask(|answer| Wanted::Begin(Purpose::Save, answer))?;
        Ok(Saving::new(handle, session))
    }

    /// Begins to load a device, which is stopped until that ends.
    pub fn load(&self, name: &str) -> Result<Loading, Error> {
        let handle = self.handle(name)?;
        let session = handle.ask(|answer| Wanted::Begin(Purpose::Load, answer))?;
        Ok(Loading::new(handle, session))
    }

    /// What a device's monitor has a copy of.
    pub fn view(&self, name: &str) -> Result<View, Error> {
        self.handle(name)?.ask(Wanted::View)
    }

    /// Learns of what changes from now on.
    pub fn subscribe(&self) -> Result<Subscription, Error> {
        self.shared.watchers.subscribe()
    }
}
