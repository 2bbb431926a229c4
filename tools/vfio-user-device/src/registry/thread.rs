// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The thread of a device, and what is wanted of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use migration::model::{Type, Values};

use super::describe::params;
use super::watch::{drain, event_file, signal};
use super::{lock, DeviceInfo, Endpoint, Error, Event, NewDevice, Shared, SourceList};
use crate::device::Device;
use crate::host::Host;
use crate::model::{Model, Purpose, Refusal, SessionName, View};
use crate::notice::line;
use crate::serial::SerialCard;
use crate::server::{serve, Control, Manner, Source, Then};

/// Where what has become of a wish goes.
pub(super) type Answer<T> = SyncSender<Result<T, Error>>;

/// What is wanted of a device.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Its end.
    Remove { force: bool, answer: Answer<()> },
    /// The parameters of a destination.
    Prepare {
        source: SourceList,
        answer: Answer<()>,
    },
    /// A reset.
    Reset(Answer<()>),
    /// A session.
    Begin(Purpose, Answer<SessionName>),
    /// The next bytes of its state.
    Saved(SessionName, usize, Answer<Vec<u8>>),
    /// The next bytes of a state are there.
    Load(SessionName, Vec<u8>, Answer<()>),
    /// What was loaded is to be put into effect, and the device to stay stopped.
    Settle(SessionName, Answer<()>),
    /// What a monitor has a copy of.
    View(Answer<View>),
    /// The end of a session.
    Finish(SessionName, Answer<()>),
    /// The end of a session that came to nothing.
    Abandon(SessionName, Answer<()>),
}

/// What those who are not its thread have of a device.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    queue: Sender<Wanted>,
    outside: Arc<Outside>,
}

#[derive(Debug)]
struct Outside {
    /// Readable while something is wanted.
    wanted: OwnedFd,
    info: Mutex<DeviceInfo>,
    name: super::DeviceName,
}

impl Handle {
    pub(super) fn name(&self) -> &super::DeviceName {
        &self.outside.name
    }

    /// Whether both are of the same device.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.outside, &other.outside)
    }

    /// How the device is.
    pub(super) fn info(&self) -> DeviceInfo {
        lock(&self.outside.info).clone()
    }

    /// Wants something, whatever becomes of it.
    pub(super) fn tell(&self, wanted: Wanted) {
        // A device that has ended wants for nothing.
        if self.queue.send(wanted).is_ok() {
            signal(&self.outside.wanted);
        }
    }

    /// Wants something and waits for what becomes of it.
    pub(super) fn ask<T>(&self, wanted: impl FnOnce(Answer<T>) -> Wanted) -> Result<T, Error> {
        let (answer, answered) = sync_channel(1);
        self.tell(wanted(answer));
        let gone = |_| Err(Error::Gone(self.name().to_string()));
        answered.recv().unwrap_or_else(gone)
    }
}

/// Starts a device's thread. The device is among the others when this returns.
pub(super) fn start(shared: &Arc<Shared>, new: NewDevice) -> Result<Handle, Error> {
    let (shared, name) = (shared.clone(), new.name.clone());
    let (ready, started) = sync_channel(1);
    let builder = Builder::new().name(name.to_string());
    let spawned = builder.spawn(move || run(&shared, new, &ready));
    spawned.map_err(|error| Error::System(format!("{name}: no thread can be started: {error}")))?;
    let gone = |_| Err(Error::Gone(name.to_string()));
    started.recv().unwrap_or_else(gone)
}

/// What a device's thread does.
fn run(shared: &Arc<Shared>, new: NewDevice, ready: &Answer<Handle>) {
    let ty = shared.settings.offer.ty();
    let name = new.name.clone();
    // Declared first, so that the device and its socket are gone before it tells others.
    let mut leave = Leave {
        shared,
        handle: None,
        answer: None,
    };
    let (mut host, source, mut inbox) = match prepare(shared, new, &ty) {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let handle = inbox.handle.clone();
    leave.handle = Some(handle.clone());
    shared.insert(handle.clone());
    let _ = ready.send(Ok(handle));
    let manner = Manner {
        patience: shared.settings.patience,
        label: format!("{name}: "),
    };
    let served = serve(&mut host, source, &mut inbox, manner);
    if let Err(error) = served {
        let text = line(&format!("{name}: the device is removed: {error:#}"));
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    }
    leave.answer = inbox.removal.take();
}

/// A device that can be served, where its clients come from, and what is wanted of it.
type Prepared<'t, D> = (Host<Model<'t, D>>, Source, Inbox<'t, D>);

/// Makes the device and its socket.
fn prepare<'t>(
    shared: &Arc<Shared>,
    new: NewDevice,
    ty: &'t Type<'t>,
) -> Result<Prepared<'t, SerialCard>, Error> {
    let values = new.wish(ty.model)?.values(ty)?;
    let wanted = event_file()?;
    let mut socket = None;
    let source = match new.endpoint {
        Endpoint::Path(path) => {
            let source = Source::at(&path);
            socket = Some(path);
            source
        }
        Endpoint::Fd(fd) => Source::inherited(fd),
    };
    let source = source.map_err(|error| Error::Socket(format!("{error:#}")))?;
    let host = Host::new(Model::new(SerialCard::power_on(&values), values));
    let info = info(&new.name, socket, &host);
    let (queue, queued) = channel();
    let outside = Outside {
        wanted,
        info: Mutex::new(info),
        name: new.name,
    };
    let inbox = Inbox {
        shared: shared.clone(),
        ty,
        make: SerialCard::power_on,
        queued,
        handle: Handle {
            queue,
            outside: Arc::new(outside),
        },
        removal: None,
    };
    Ok((host, source, inbox))
}

fn info<D: Device>(
    name: &super::DeviceName,
    socket: Option<PathBuf>,
    host: &Host<Model<'_, D>>,
) -> DeviceInfo {
    let host = host.backend();
    let values = host.values();
    DeviceInfo {
        name: name.clone(),
        model: values.model().name.to_string(),
        version: values.version().map(str::to_string),
        params: params(values),
        socket,
        has_client: host.has_client(),
        state: host.state(),
        owner: host.owner(),
        refusal: host.last_refusal().to_string(),
    }
}

/// What becomes known when a device's thread ends, however it does.
struct Leave<'s> {
    shared: &'s Arc<Shared>,
    handle: Option<Handle>,
    answer: Option<Answer<()>>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            self.shared.take_out(handle);
        }
        if let Some(answer) = &self.answer {
            let _ = answer.send(Ok(()));
        }
    }
}

/// What is wanted of a device, at its own end.
struct Inbox<'t, D: Device> {
    shared: Arc<Shared>,
    ty: &'t Type<'t>,
    make: fn(&Values<'_>) -> D,
    queued: Receiver<Wanted>,
    handle: Handle,
    /// Who is to be told that the device has ended.
    removal: Option<Answer<()>>,
}

impl<'t, D: Device> Inbox<'t, D> {
    fn refused(&self, refusal: Refusal) -> Error {
        Error::Refused {
            device: self.handle.name().to_string(),
            refusal,
        }
    }

    /// Tells whoever asked what has become of it. How the device is now is known before.
    fn answer<T>(
        &mut self,
        host: &Host<Model<'t, D>>,
        answer: &Answer<T>,
        result: Result<T, Refusal>,
    ) {
        self.observe(host);
        // Whoever asked may be gone.
        let _ = answer.send(result.map_err(|refusal| self.refused(refusal)));
    }

    /// Lets others know how the device is.
    fn publish(&self, host: &Host<Model<'t, D>>) {
        let mut known = lock(&self.handle.outside.info);
        *known = info(self.handle.name(), known.socket.take(), host);
        drop(known);
        let name = self.handle.name().clone();
        self.shared.watchers.tell(Event::Changed(name));
    }

    fn prepare(&self, host: &mut Host<Model<'t, D>>, source: &SourceList) -> Result<(), Error> {
        let values = source.values(self.ty)?;
        let replaced = host.backend_mut().replace(values, self.make);
        replaced.map_err(|refusal| self.refused(refusal))
    }

    fn carry_out(&mut self, host: &mut Host<Model<'t, D>>, wanted: Wanted, now_ns: u64) -> Then {
        match wanted {
            Wanted::Remove { force, answer } => match host.backend_mut().is_unused() {
                Err(refusal) if !force => self.answer(host, &answer, Err(refusal)),
                _ => {
                    self.removal = Some(answer);
                    return Then::End;
                }
            },
            Wanted::Prepare { source, answer } => {
                let prepared = self.prepare(host, &source);
                // What is asked for next is how the device is now.
                self.publish(host);
                let _ = answer.send(prepared);
            }
            Wanted::Reset(answer) => {
                let reset = host.backend_mut().remote_reset(now_ns);
                self.answer(host, &answer, reset);
            }
            Wanted::Begin(purpose, answer) => {
                let begun = host.backend_mut().begin(purpose, now_ns);
                let name = begun.as_ref().ok().copied();
                self.observe(host);
                let told = answer.send(begun.map_err(|refusal| self.refused(refusal)));
                if let (Some(name), Err(_)) = (name, told) {
                    host.backend_mut().abandon(name, now_ns);
                }
            }
            Wanted::Saved(session, most, answer) => {
                let saved = host.backend_mut().next_saved(session, most);
                self.answer(host, &answer, saved);
            }
            Wanted::Load(session, bytes, answer) => {
                let loaded = host.backend_mut().next_loaded(session, &bytes);
                self.answer(host, &answer, loaded);
            }
            Wanted::Settle(session, answer) => {
                let put = host.backend_mut().put_into_effect(session, now_ns);
                self.answer(host, &answer, put);
            }
            Wanted::View(answer) => {
                let view = host.backend_mut().view();
                self.answer(host, &answer, Ok(view));
            }
            Wanted::Finish(session, answer) => {
                let finished = host.backend_mut().finish(session, now_ns);
                self.answer(host, &answer, finished);
            }
            Wanted::Abandon(session, answer) => {
                host.backend_mut().abandon(session, now_ns);
                self.answer(host, &answer, Ok(()));
            }
        }
        Then::GoOn
    }
}

impl<'t, D: Device> Control<Model<'t, D>> for Inbox<'t, D> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.handle.outside.wanted.as_fd()
    }

    fn attend(&mut self, host: &mut Host<Model<'t, D>>, now_ns: u64) -> Then {
        drain(&self.handle.outside.wanted);
        while let Ok(wanted) = self.queued.try_recv() {
            if self.carry_out(host, wanted, now_ns) == Then::End {
                return Then::End;
            }
        }
        Then::GoOn
    }

    fn observe(&mut self, host: &Host<Model<'t, D>>) {
        let now = host.backend();
        let known = lock(&self.handle.outside.info);
        let same = (known.has_client, known.state, known.owner)
            == (now.has_client(), now.state(), now.owner())
            && known.refusal == now.last_refusal();
        drop(known);
        if !same {
            self.publish(host);
        }
    }
}
