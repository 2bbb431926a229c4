// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `vfio-user-device`: see `--help`, and Documentation/vfio-user.rst.

use std::io::Write;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Error, Result};
use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{value_parser, Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueHint};
use migration::model::{ParamDef, Values};
use vfio_user_device::backend::Backend;
use vfio_user_device::blk::VirtioDisk;
use vfio_user_device::host::Host;
use vfio_user_device::instance::{
    words, Kind, Limits, NotOffered, Offer, Wish, MAX_CAPACITY_MIB, MAX_PORTS,
};
use vfio_user_device::kernel::{Kernel, Target};
use vfio_user_device::model::Model;
use vfio_user_device::notice::line;
use vfio_user_device::serial::SerialCard;
use vfio_user_device::server::{serve, Manner, Signals, Source};

mod on_bus;
mod serve;
mod startup;

const AFTER_HELP: &str = "\
Examples:
  vfio-user-device --print-migration-info-json
  vfio-user-device --socket-path /run/card.sock --m-num-ports=2
  vfio-user-device --socket-path /run/disk.sock --migration-model rust-vfio-mdev.example/pci/blk --m-capacity-mib=256
  vfio-user-device --socket-path /run/card.sock --backend vfio:/sys/bus/mdev/devices/UUID
  vfio-user-device --socket-path /run/card.sock --dbus-address unix:path=/run/bus --dbus-vmstate-id card0
  vfio-migrate check UUID ./vfio-user-device
  vfio-migrate command-line UUID ./vfio-user-device
  vfio-user-device serve --control /run/devices.sock

One client at a time; who comes meanwhile is told that the device is busy. It keeps its state when a client
goes. It ends on SIGTERM, or when the only client goes if --fd is a connection. Why a migration was refused
is told on standard error. With --dbus-address it is an object on a bus, too; with --dbus-vmstate-id, QEMUs
that have an object dbus-vmstate there carry its state in their migrations.

Exit status: 0 ended on SIGTERM, SIGINT or with its only client; 1 the device cannot be made.";

/// The command line. Its options for parameters are made from the model's table.
fn command() -> Command {
    let mut command = Command::new("vfio-user-device")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves a PCI serial card, or a virtio disk, to monitors that speak vfio-user")
        .after_help(AFTER_HELP)
        .max_term_width(100)
        .arg(
            Arg::new("socket-path")
                .long("socket-path")
                .value_name("PATH")
                .value_hint(ValueHint::FilePath)
                .value_parser(value_parser!(PathBuf))
                .help("Make a socket there and wait for clients"),
        )
        .arg(
            Arg::new("fd")
                .long("fd")
                .value_name("FDNUM")
                .value_parser(value_parser!(RawFd).range(3..))
                .help("Take this descriptor for the socket: one that listens, or a connection"),
        )
        .arg(
            Arg::new("backend")
                .long("backend")
                .value_name("vfio:PATH")
                .help("Serve this device of the kernel: /sys/bus/mdev/devices/UUID, /dev/vfio/devices/vfioN or /dev/vfio/GROUP"),
        )
        .args(on_bus::arguments())
        .arg(
            Arg::new("print")
                .long("print-migration-info-json")
                .action(ArgAction::SetTrue)
                .help("Print what can be migrated to here, and end"),
        )
        .group(
            ArgGroup::new("what")
                .args(["socket-path", "fd", "print"])
                .required(true),
        )
        .arg(
            Arg::new("migration-model")
                .long("migration-model")
                .value_name("MODEL")
                .help("The device model: the serial card's unless this says otherwise"),
        )
        .arg(
            Arg::new("migration-version")
                .long("migration-version")
                .value_name("VERSION")
                .help("The version of the device model, which parameters change further"),
        )
        .args(limits())
        .arg(client_patience())
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .subcommand(serve::command());
    for Parameter { kind, id, def, .. } in parameters() {
        let value: &'static str = words(def).leak();
        command = command.arg(
            Arg::new(id)
                .long(id)
                .value_name(value)
                .allow_hyphen_values(true)
                .help(def.description)
                .help_heading(match kind {
                    Kind::Serial => "Migration parameters of the serial card",
                    Kind::Disk => "Migration parameters of the virtio disk",
                }),
        );
    }
    command
}

/// The options for how much is offered.
fn limits() -> [Arg; 2] {
    [
        Arg::new("max-ports")
            .long("max-ports")
            .value_name("N")
            .value_parser(PossibleValuesParser::new(MAX_PORTS))
            .default_value("4")
            .help("Offer cards of up to so many ports"),
        Arg::new("max-capacity-mib")
            .long("max-capacity-mib")
            .value_name("N")
            .value_parser(value_parser!(u64).range(1..=u64::from(MAX_CAPACITY_MIB)))
            .default_value("4096")
            .help("Offer disks of up to so many MiB, which are memory of the program"),
    ]
}

fn client_patience() -> Arg {
    Arg::new("client-patience")
        .long("client-patience")
        .value_name("SECONDS")
        .value_parser(value_parser!(u64).range(1..=86_400))
        .default_value("30")
        .help("Drop a client that leaves replies unread for so long")
}

/// What the options say that both forms of the command line have.
fn offer(matches: &ArgMatches) -> Offer {
    let max_ports = matches.get_one::<String>("max-ports");
    let max_ports = max_ports.and_then(|ports| ports.parse().ok());
    let max_capacity_mib = matches.get_one::<u64>("max-capacity-mib").copied();
    Offer::new(&Limits {
        max_ports: max_ports.unwrap_or(Limits::NONE.max_ports),
        max_capacity_mib: max_capacity_mib.unwrap_or(Limits::NONE.max_capacity_mib),
    })
}

fn patience(matches: &ArgMatches) -> Duration {
    let patience = matches.get_one::<u64>("client-patience").copied();
    Duration::from_secs(patience.unwrap_or(30))
}

/// An option for a parameter.
struct Parameter {
    kind: Kind,
    /// Where it is in the model's table.
    position: usize,
    id: &'static str,
    def: &'static ParamDef<'static>,
}

/// The options for parameters, model by model in declaration order. The program has one command line, so what is leaked is bounded.
fn parameters() -> impl Iterator<Item = Parameter> {
    Kind::ALL.into_iter().flat_map(|kind| {
        let defs = kind.model().params.iter().enumerate();
        defs.map(move |(position, def)| Parameter {
            kind,
            position,
            id: format!("m-{}", def.name).leak(),
            def,
        })
    })
}

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            return match error.print().and_then(|()| std::io::stdout().flush()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("standard output: {error}")),
            }
        }
        Err(error) => return fail(&one_line(&error)),
    };
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(what: &str) -> ExitCode {
    let _ = std::io::stderr().write_all(line(what).as_bytes());
    ExitCode::FAILURE
}

/// The first paragraph of the parser's message, on one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
    let words: Vec<&str> = paragraph.map(str::trim).collect();
    let line = words.join(" ");
    let what = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{what}; see --help")
}

fn run(matches: &ArgMatches) -> Result<()> {
    if let Some((_, matches)) = matches.subcommand() {
        return serve::run(matches);
    }
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let model = text("migration-model");
    let given: Vec<(Parameter, String)> = parameters()
        .filter_map(|param| text(param.id).map(|value| (param, value)))
        .collect();
    let version = text("migration-version");
    if let Some(backend) = text("backend") {
        let target = Target::parse(&backend).context("--backend")?;
        let is_set_up = version.is_some() || !given.is_empty();
        return start_kernel(matches, model.as_deref(), is_set_up, target);
    }
    let kind = Kind::wanted(model.as_deref()).context("--migration-model")?;
    if let Some((param, _)) = given.iter().find(|(param, _)| param.kind != kind) {
        bail!(
            "--{}: {} has no such parameter; it is one of {2}, which --migration-model={2} makes",
            param.id,
            kind.model().name,
            param.kind.model().name,
        );
    }
    let offer = offer(matches);
    let ty = offer.ty(kind);
    // They are all of this model.
    let params = given.into_iter();
    let wish = Wish {
        version,
        params: params
            .map(|(param, value)| (param.position, value))
            .collect(),
    };
    let values = wish.values(&ty).map_err(|error| match error {
        NotOffered::Version(_) => anyhow!("--migration-version: {error}"),
        error => anyhow!("--m-{error}"),
    })?;
    if matches.get_flag("print") {
        return print(&match model {
            Some(_) => offer.information(&[kind]),
            None => offer.information(&Kind::ALL),
        });
    }
    start(matches, &offer, kind, values)
}

/// Serves a device of these values.
fn start(matches: &ArgMatches, offer: &Offer, kind: Kind, values: Values<'_>) -> Result<()> {
    if let Some(place) = on_bus::Wanted::of(matches)? {
        return on_bus::serve_model(matches, offer, &values, place);
    }
    match kind {
        Kind::Serial => {
            let card = SerialCard::power_on(&values);
            serve_clients(matches, || Ok(Model::new(card, values)))
        }
        Kind::Disk => {
            let disk = VirtioDisk::power_on(&values);
            serve_clients(matches, || Ok(Model::new(disk, values)))
        }
    }
}

/// Does what is to be done with a device of the kernel, of which a model may be expected. One of the program's own `is_set_up` by
/// parameters and versions.
fn start_kernel(
    matches: &ArgMatches,
    model: Option<&str>,
    is_set_up: bool,
    target: Target,
) -> Result<()> {
    if let Some(model) = model {
        let found = target.model().context("--migration-model")?;
        ensure!(
            model == found,
            "--migration-model: {} is {found}, and not {model}",
            target.name()
        );
    }
    let is_default = ["max-ports", "max-capacity-mib"]
        .into_iter()
        .all(|option| matches.value_source(option) == Some(ValueSource::DefaultValue));
    ensure!(
        !is_set_up && is_default,
        "--backend: the parameters of {} are those that it has: set them before, with vfio-migrate prepare SOURCE {0}",
        target.name()
    );
    if matches.get_flag("print") {
        return print(&target.information()?);
    }
    if let Some(place) = on_bus::Wanted::of(matches)? {
        return on_bus::serve_kernel(matches, target, place);
    }
    serve_clients(matches, || Kernel::new(target).map_err(Error::msg))
}

fn print(information: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(information.as_bytes());
    printed
        .and_then(|()| out.flush())
        .context("standard output")
}

/// Serves what is made to those who come by the socket.
fn serve_clients<B: Backend>(matches: &ArgMatches, make: impl FnOnce() -> Result<B>) -> Result<()> {
    // Before there is a socket: whoever sees it may send a signal.
    let (signals, _) = startup::signals()?;
    startup::raise_descriptor_limit();
    let backend = make()?;
    let source = match (
        matches.get_one::<PathBuf>("socket-path"),
        matches.get_one::<RawFd>("fd"),
    ) {
        (Some(path), _) => Source::at(path)?,
        (None, Some(number)) => {
            let fd = startup::inherited(*number).with_context(|| format!("--fd {number}"))?;
            Source::inherited(fd).with_context(|| format!("--fd {number}"))?
        }
        // One of them is required.
        (None, None) => return Ok(()),
    };
    startup::tell_ready();
    let manner = Manner {
        patience: patience(matches),
        label: String::new(),
    };
    let mut host = Host::new(backend);
    serve(&mut host, source, &mut Signals(&signals), manner)
}
