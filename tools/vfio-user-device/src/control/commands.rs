// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The commands that there are, in whichever envelope they come.
//!
//! Their arguments and results are those of Documentation/vfio-user-control.schema.json.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{json, Value};

use super::envelope::{version, Call, Fault, Form};
use super::files::{self, Reader, Writer};
use super::Settings;
use crate::registry::{Endpoint, NewDevice, Registry, Subscription};

mod arguments;

pub(super) use arguments::happened;
use arguments::{describe, Params, Source};

/// Most descriptors that a client has here, with a name and without one.
pub const MAX_FDS: usize = 16;

/// A command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    run: fn(&mut Session, Option<&RawValue>) -> Result<Value, Fault>,
}

macro_rules! commands {
    ($($name:literal => $run:path,)*) => {
        &[$(Command {
            name: $name,
            run: |session, arguments| $run(session, parse(arguments)?),
        }),*]
    };
}

/// All of them.
pub const COMMANDS: &[Command] = commands! {
    "qmp_capabilities" => agree,
    "query-version" => query_version,
    "query-commands" => query_commands,
    "query-schema" => query_schema,
    "query-migration-info" => query_migration_info,
    "query-devices" => query_devices,
    "device-add" => device_add,
    "device-del" => device_del,
    "device-reset" => device_reset,
    "device-save" => device_save,
    "device-load" => device_load,
    "migration-check" => migration_check,
    "migration-prepare" => migration_prepare,
    "getfd" => getfd,
    "closefd" => closefd,
    "watch-events" => watch_events,
    "quit" => quit,
};

/// The schema of what is said here.
pub const SCHEMA: &str = include_str!("../../../../Documentation/vfio-user-control.schema.json");

/// What a client has set up.
pub struct Session {
    registry: Registry,
    settings: Settings,
    /// Whether QMP was agreed on.
    agreed: bool,
    /// In which form the command came that is carried out.
    form: Form,
    /// Descriptors that have come and have no name yet.
    come: VecDeque<OwnedFd>,
    /// Some have come for which there was no room.
    lost: bool,
    fds: BTreeMap<String, OwnedFd>,
    /// What it is told of, and in which form.
    pub(super) watch: Option<(Form, Subscription)>,
    /// Whether it has asked for the program's end.
    pub(super) quits: bool,
}

impl Session {
    /// Nothing was set up.
    pub fn new(registry: Registry, settings: Settings) -> Self {
        Self {
            registry,
            settings,
            agreed: false,
            form: Form::Qmp,
            come: VecDeque::new(),
            lost: false,
            fds: BTreeMap::new(),
            watch: None,
            quits: false,
        }
    }

    /// The devices.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Descriptors have come; or some that are closed already, as there is room for so many only.
    pub fn take_fds(&mut self, fds: impl Iterator<Item = OwnedFd>, lost: bool) {
        self.lost |= lost;
        for fd in fds {
            match self.come.len() + self.fds.len() < MAX_FDS {
                true => self.come.push_back(fd),
                false => self.lost = true,
            }
        }
    }

    /// Carries out a wish.
    pub fn carry_out(&mut self, call: &Call) -> Result<Value, Fault> {
        let found = COMMANDS.iter().find(|command| command.name == call.command);
        let command = found.ok_or_else(|| Fault::NoCommand(call.command.clone()))?;
        let begins = command.name == "qmp_capabilities";
        if call.form == Form::Qmp && !self.agreed && !begins {
            return Err(Fault::NotAgreed);
        }
        self.form = call.form;
        (command.run)(self, call.arguments.as_deref())
    }

    /// The descriptor of this name, which has it no longer.
    fn fd(&mut self, name: &str) -> Result<OwnedFd, Fault> {
        let found = self.fds.remove(name);
        found
            .ok_or_else(|| Fault::Arguments(format!("{name}: there is no descriptor of this name")))
    }
}

/// What is said about a command.
fn parse<A: DeserializeOwned>(arguments: Option<&RawValue>) -> Result<A, Fault> {
    let text = arguments.map_or("{}", RawValue::get);
    serde_json::from_str(text).map_err(|error| Fault::Arguments(error.to_string()))
}

fn done() -> Value {
    json!({})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Agree {
    #[serde(default)]
    enable: Vec<String>,
}

fn agree(session: &mut Session, arguments: Agree) -> Result<Value, Fault> {
    if let Some(capability) = arguments.enable.first() {
        let what = format!("{capability}: there is no such capability");
        return Err(Fault::Arguments(what));
    }
    session.agreed = true;
    Ok(done())
}

fn query_version(_: &mut Session, _: Nothing) -> Result<Value, Fault> {
    Ok(version())
}

fn query_commands(_: &mut Session, _: Nothing) -> Result<Value, Fault> {
    let name = |command: &Command| json!({"name": command.name});
    Ok(COMMANDS.iter().map(name).collect())
}

/// A text that this program has made is JSON.
fn document(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Parse(error.to_string()))
}

fn query_schema(_: &mut Session, _: Nothing) -> Result<Value, Fault> {
    document(SCHEMA)
}

fn query_migration_info(session: &mut Session, _: Nothing) -> Result<Value, Fault> {
    document(&session.registry.information())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    id: Option<String>,
}

fn query_devices(session: &mut Session, which: Which) -> Result<Value, Fault> {
    let devices = match which.id {
        Some(id) => vec![session.registry.info(&id)?],
        None => session.registry.list(),
    };
    Ok(devices.iter().map(describe).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    id: String,
    model: Option<String>,
    version: Option<String>,
    #[serde(default)]
    params: Params,
    socket: Option<PathBuf>,
    fd: Option<String>,
}

fn device_add(session: &mut Session, add: Add) -> Result<Value, Fault> {
    let name = add.id.try_into()?;
    let endpoint = match (add.socket, add.fd) {
        (Some(path), None) => Endpoint::Path(path),
        (None, Some(fd)) => Endpoint::Fd(session.fd(&fd)?),
        _ => return Err(one_of("socket", "fd")),
    };
    let info = session.registry.add(NewDevice {
        name,
        model: add.model,
        version: add.version,
        params: add.params.0,
        endpoint,
    })?;
    Ok(describe(&info))
}

fn one_of(one: &str, other: &str) -> Fault {
    Fault::Arguments(format!("one of '{one}' and '{other}' is to be given"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Del {
    id: String,
    #[serde(default)]
    force: bool,
}

fn device_del(session: &mut Session, del: Del) -> Result<Value, Fault> {
    session.registry.remove(&del.id, del.force)?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    id: String,
}

fn device_reset(session: &mut Session, one: One) -> Result<Value, Fault> {
    session.registry.reset(&one.id)?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    id: String,
    file: Option<PathBuf>,
    fd: Option<String>,
}

fn device_save(session: &mut Session, transfer: Transfer) -> Result<Value, Fault> {
    let patience = session.settings.patience;
    let bytes = match (transfer.file, transfer.fd) {
        (Some(path), None) => {
            let saving = session.registry.save(&transfer.id)?;
            files::save(saving, &path)?
        }
        (None, Some(fd)) => {
            let fd = session.fd(&fd)?;
            let saving = session.registry.save(&transfer.id)?;
            let written = saving.write_to(&mut Writer::new(fd, patience));
            written.map_err(|error| files::fault("the descriptor", error))?
        }
        _ => return Err(one_of("file", "fd")),
    };
    Ok(json!({"bytes": bytes}))
}

fn device_load(session: &mut Session, transfer: Transfer) -> Result<Value, Fault> {
    let (name, fd) = match (transfer.file, transfer.fd) {
        (Some(path), None) => (path.display().to_string(), files::open(&path)?),
        (None, Some(fd)) => ("the descriptor".to_string(), session.fd(&fd)?),
        _ => return Err(one_of("file", "fd")),
    };
    let loading = session.registry.load(&transfer.id)?;
    let read = loading.read_from(&mut Reader::new(fd, session.settings.patience));
    let bytes = read.map_err(|error| files::fault(&name, error))?;
    Ok(json!({"bytes": bytes}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    source: Source,
}

fn migration_check(session: &mut Session, check: Check) -> Result<Value, Fault> {
    let reasons = session.registry.reasons(&check.source.into());
    Ok(json!({"compatible": reasons.is_empty(), "reasons": reasons}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prepare {
    id: String,
    source: Source,
}

fn migration_prepare(session: &mut Session, prepare: Prepare) -> Result<Value, Fault> {
    let source = prepare.source.into();
    let info = session.registry.prepare(&prepare.id, source)?;
    Ok(describe(&info))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    fdname: String,
}

fn getfd(session: &mut Session, named: Named) -> Result<Value, Fault> {
    if std::mem::take(&mut session.lost) {
        session.come.clear();
        let what = format!("there is room for {MAX_FDS} descriptors; 'closefd' makes some");
        return Err(Fault::Arguments(what));
    }
    let Some(fd) = session.come.pop_front() else {
        let what = "no descriptor has come with the message";
        return Err(Fault::Arguments(what.to_string()));
    };
    // One that had the name is closed, as QEMU has it.
    session.fds.insert(named.fdname, fd);
    Ok(done())
}

fn closefd(session: &mut Session, named: Named) -> Result<Value, Fault> {
    session.fd(&named.fdname)?;
    Ok(done())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    enable: bool,
}

fn watch_events(session: &mut Session, watch: Watch) -> Result<Value, Fault> {
    session.watch = match watch.enable {
        true => Some((session.form, session.registry.subscribe()?)),
        false => None,
    };
    Ok(done())
}

fn quit(session: &mut Session, _: Nothing) -> Result<Value, Fault> {
    session.quits = true;
    Ok(done())
}
