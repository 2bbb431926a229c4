// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `vfio-user-device serve`: many devices, which come and go by remote calls.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::{value_parser, Arg, ArgGroup, ArgMatches, Command, ValueHint};
use rustix::fs::Mode;
use vfio_user_device::control::{self, Place};
use vfio_user_device::registry::{Registry, Settings};
use vfio_user_device::server::Listener;

use crate::{on_bus, startup};

const AFTER_HELP: &str = "\
Example:
  vfio-user-device serve --control /run/devices.sock
  vfio-user-device serve --dbus-address unix:path=/run/devices.bus

Nobody but whoever has started it can connect to these sockets. They take QMP and JSON-RPC 2.0: see
Documentation/vfio-user-control.rst.

Exit status: 0 ended on SIGTERM, SIGINT or by the command quit; 1 it cannot be started.";

/// The options.
pub fn command() -> Command {
    let socket = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("PATH")
            .value_hint(ValueHint::FilePath)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    Command::new("serve")
        .about("Serves many devices, which come and go by remote calls")
        .after_help(AFTER_HELP)
        .max_term_width(100)
        .arg(socket(
            "control",
            "Make a socket there for those who control it",
        ))
        .arg(socket(
            "json-rpc",
            "Make one where nobody is greeted, which clients of JSON-RPC do not expect",
        ))
        .args(on_bus::place_arguments())
        .group(
            ArgGroup::new("controls")
                .args(["control", "json-rpc", "dbus-address"])
                .required(true)
                .multiple(true),
        )
        .args(crate::limits())
        .arg(
            Arg::new("max-mib")
                .long("max-mib")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..=1_048_576))
                .default_value("4096")
                .help("Have disks of up to so many MiB together"),
        )
        .arg(crate::client_patience())
}

/// Serves devices until a signal comes, or the command for that.
pub fn run(matches: &ArgMatches) -> Result<()> {
    // Before there is a socket: whoever sees it may send a signal.
    let (signals, end) = startup::signals()?;
    startup::raise_descriptor_limit();
    let mut places = Vec::new();
    for (option, greets) in [("control", true), ("json-rpc", false)] {
        if let Some(path) = matches.get_one::<PathBuf>(option) {
            let listener = Listener::at(path, Some(Mode::RUSR | Mode::WUSR))?;
            places.push(Place { listener, greets });
        }
    }
    let patience = crate::patience(matches);
    let registry = Registry::new(Settings {
        offer: crate::offer(matches),
        patience,
        max_mib: matches.get_one("max-mib").copied().unwrap_or_default(),
    });
    let settings = control::Settings {
        patience,
        end: Arc::new(end),
    };
    let bus = on_bus::of_many(matches, &registry)?;
    startup::tell_ready();
    let served = control::serve(&registry, &places, &settings, &signals);
    registry.clear();
    drop(bus);
    served
}
