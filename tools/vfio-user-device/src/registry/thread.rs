// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The thread of a device, and what is wanted of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use migration::model::{Type, Values};

use super::budget::Share;
use super::watch::{drain, event_file, signal};
use super::{lock, DeviceInfo, Endpoint, Error, Event, NewDevice, Shared, SourceList};
use crate::blk::VirtioDisk;
use crate::device::Device;
use crate::host::Host;
use crate::instance::Kind;
use crate::kernel::{Kernel, Target};
use crate::model::{Model, Purpose, Refusal, SessionName, View};
use crate::notice::line;
use crate::remote::Remote;
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

/// A device that is to be served.
#[derive(Debug)]
pub(super) enum Plan {
    /// One that is emulated.
    Model(NewDevice),
    /// One of the kernel.
    Kernel(super::DeviceName, Target, Endpoint),
}

impl Plan {
    pub(super) fn name(&self) -> &super::DeviceName {
        match self {
            Self::Model(new) => &new.name,
            Self::Kernel(name, ..) => name,
        }
    }
}

/// Starts a device's thread. The device is among the others when this returns.
pub(super) fn start(shared: &Arc<Shared>, new: Plan) -> Result<Handle, Error> {
    let (shared, name) = (shared.clone(), new.name().clone());
    let (ready, started) = sync_channel(1);
    let builder = Builder::new().name(name.to_string());
    let spawned = builder.spawn(move || run(&shared, new, &ready));
    spawned.map_err(|error| Error::System(format!("{name}: no thread can be started: {error}")))?;
    let gone = |_| Err(Error::Gone(name.to_string()));
    started.recv().unwrap_or_else(gone)
}

/// What a device's thread does.
fn run(shared: &Arc<Shared>, new: Plan, ready: &Answer<Handle>) {
    match new {
        Plan::Model(new) => match Kind::wanted(new.model.as_deref()) {
            Ok(kind) => {
                let ty = shared.settings.offer.ty(kind);
                match kind {
                    Kind::Serial => {
                        run_model(shared, new, (kind, &ty), SerialCard::power_on, ready)
                    }
                    Kind::Disk => run_model(shared, new, (kind, &ty), VirtioDisk::power_on, ready),
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error.into()));
            }
        },
        Plan::Kernel(name, target, endpoint) => {
            let made = Kernel::new(target).map_err(Error::Invalid);
            let prepare = |kernel: &mut Kernel, _: &SourceList| {
                let reason = format!(
                    "the parameters of {0} are set by vfio-migrate prepare SOURCE {0}",
                    kernel.name()
                );
                Err(Error::Invalid(reason))
            };
            run_as(shared, (name, endpoint), made, prepare, ready);
        }
    }
}

fn run_model<'t, D: Device>(
    shared: &Arc<Shared>,
    new: NewDevice,
    (kind, ty): (Kind, &'t Type<'t>),
    power_on: impl Fn(&Values<'t>) -> D,
    ready: &Answer<Handle>,
) {
    let wish = new.wish(ty.model);
    let values = wish.and_then(|wish| Ok(wish.values(ty)?));
    let share = Share::none(&shared.memory);
    let made = values.and_then(|values| {
        share.resize(kind.memory_mib(&values))?;
        Ok(Model::new(power_on(&values), values))
    });
    // It has the share, which goes with the device: before others are told that it has ended.
    let prepare = move |model: &mut Model<'t, D>, source: &SourceList| {
        let values = source.destination(ty)?;
        let (before, after) = (share.mib(), kind.memory_mib(&values));
        // Nobody else gets what a device gives up before it has.
        share.resize(before.max(after))?;
        let replaced = model.replace(values, &power_on);
        share.resize(if replaced.is_ok() { after } else { before })?;
        Ok(replaced)
    };
    run_as(shared, (new.name, new.endpoint), made, prepare, ready);
}

/// What a device's thread does with one that was made.
fn run_as<B, P>(
    shared: &Arc<Shared>,
    (name, endpoint): (super::DeviceName, Endpoint),
    made: Result<B, Error>,
    prepare: P,
    ready: &Answer<Handle>,
) where
    B: Remote,
    P: Fn(&mut B, &SourceList) -> Result<Result<(), Refusal>, Error>,
{
    // Declared first, so that the device and its socket are gone before it tells others.
    let mut leave = Leave {
        shared,
        handle: None,
        answer: None,
    };
    let prepared = made.and_then(|made| open(shared, &name, endpoint, made, prepare));
    let (mut host, source, mut inbox) = match prepared {
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
type Opened<B, P> = (Host<B>, Source, Inbox<P>);

/// Makes a device's socket.
fn open<B: Remote, P>(
    shared: &Arc<Shared>,
    name: &super::DeviceName,
    endpoint: Endpoint,
    made: B,
    prepare: P,
) -> Result<Opened<B, P>, Error> {
    let wanted = event_file()?;
    let mut socket = None;
    let source = match endpoint {
        Endpoint::Path(path) => {
            let source = Source::at(&path);
            socket = Some(path);
            source
        }
        Endpoint::Fd(fd) => Source::inherited(fd),
    };
    let source = source.map_err(|error| Error::Socket(format!("{error:#}")))?;
    let host = Host::new(made);
    let info = info(name, socket, &host);
    let (queue, queued) = channel();
    let outside = Outside {
        wanted,
        info: Mutex::new(info),
        name: name.clone(),
    };
    let inbox = Inbox {
        shared: shared.clone(),
        prepare,
        queued,
        handle: Handle {
            queue,
            outside: Arc::new(outside),
        },
        removal: None,
    };
    Ok((host, source, inbox))
}

fn info<B: Remote>(
    name: &super::DeviceName,
    socket: Option<PathBuf>,
    host: &Host<B>,
) -> DeviceInfo {
    let host = host.backend();
    let facts = host.facts();
    DeviceInfo {
        name: name.clone(),
        model: facts.model,
        version: facts.version,
        params: facts.params,
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
        if let Some(handle) = self.handle.take() {
            self.shared.take_out(&handle);
        }
        if let Some(answer) = &self.answer {
            let _ = answer.send(Ok(()));
        }
    }
}

/// What is wanted of a device, at its own end.
struct Inbox<P> {
    shared: Arc<Shared>,
    /// Gives the device the parameters of a destination.
    prepare: P,
    queued: Receiver<Wanted>,
    handle: Handle,
    /// Who is to be told that the device has ended.
    removal: Option<Answer<()>>,
}

impl<P> Inbox<P> {
    fn refused(&self, refusal: Refusal) -> Error {
        Error::Refused {
            device: self.handle.name().to_string(),
            refusal,
        }
    }

    /// Tells whoever asked what has become of it. How the device is now is known before.
    fn answer<B: Remote, T>(
        &mut self,
        host: &Host<B>,
        answer: &Answer<T>,
        result: Result<T, Refusal>,
    ) {
        self.note(host);
        // Whoever asked may be gone.
        let _ = answer.send(result.map_err(|refusal| self.refused(refusal)));
    }

    /// Lets others know how the device is.
    fn publish<B: Remote>(&self, host: &Host<B>) {
        let mut known = lock(&self.handle.outside.info);
        *known = info(self.handle.name(), known.socket.take(), host);
        drop(known);
        let name = self.handle.name().clone();
        self.shared.watchers.tell(Event::Changed(name));
    }

    fn note<B: Remote>(&mut self, host: &Host<B>) {
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

    fn carry_out<B: Remote>(&mut self, host: &mut Host<B>, wanted: Wanted, now_ns: u64) -> Then
    where
        P: Fn(&mut B, &SourceList) -> Result<Result<(), Refusal>, Error>,
    {
        match wanted {
            Wanted::Remove { force, answer } => match host.backend_mut().is_unused() {
                Err(refusal) if !force => self.answer(host, &answer, Err(refusal)),
                _ => {
                    self.removal = Some(answer);
                    return Then::End;
                }
            },
            Wanted::Prepare { source, answer } => {
                let prepared = (self.prepare)(host.backend_mut(), &source);
                let prepared =
                    prepared.and_then(|set| set.map_err(|refusal| self.refused(refusal)));
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
                self.note(host);
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
                self.answer(host, &answer, view);
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

impl<B, P> Control<B> for Inbox<P>
where
    B: Remote,
    P: Fn(&mut B, &SourceList) -> Result<Result<(), Refusal>, Error>,
{
    fn fd(&self) -> BorrowedFd<'_> {
        self.handle.outside.wanted.as_fd()
    }

    fn attend(&mut self, host: &mut Host<B>, now_ns: u64) -> Then {
        drain(&self.handle.outside.wanted);
        while let Ok(wanted) = self.queued.try_recv() {
            if self.carry_out(host, wanted, now_ns) == Then::End {
                return Then::End;
            }
        }
        Then::GoOn
    }

    fn observe(&mut self, host: &Host<B>) {
        self.note(host);
    }
}
