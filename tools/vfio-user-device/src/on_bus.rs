// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The one device of a command line, on a bus.

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{anyhow, Context, Result};
use clap::{Arg, ArgMatches};
use migration::model::Values;
use migration::value::Param;
use rustix::event::{poll, PollFd, PollFlags};
use vfio_user_device::bus::{Bus, Place, NAME};
use vfio_user_device::instance::{Limits, Offer, MAX_CAPACITY_MIB};
use vfio_user_device::kernel::Target;
use vfio_user_device::registry::{
    DeviceInfo, DeviceName, Endpoint, Error, NewDevice, Registry, Settings, Subscription,
};

use crate::startup;

/// What a device is called that QEMU does not carry.
const UNCARRIED: &str = "device";

/// The options for a device.
pub fn arguments() -> impl Iterator<Item = Arg> {
    let id = Arg::new("dbus-vmstate-id")
        .long("dbus-vmstate-id")
        .value_name("ID")
        .requires("dbus-address")
        .help("Have QEMU's dbus-vmstate carry the device's state under this name");
    place_arguments().into_iter().chain([id])
}

/// The options for a program.
pub fn place_arguments() -> [Arg; 2] {
    [
        Arg::new("dbus-address")
            .long("dbus-address")
            .visible_alias("dbus")
            .value_name("ADDRESS")
            .help("Be on the bus of this address, as in unix:path=/run/bus"),
        Arg::new("dbus-name")
            .long("dbus-name")
            .value_name("NAME")
            .requires("dbus-address")
            .default_value(NAME)
            .help("The name that the program has there"),
    ]
}

/// Where a command line wants the program to be, if it does.
fn place(matches: &ArgMatches) -> Option<Place> {
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    Some(Place {
        address: text("dbus-address")?,
        name: text("dbus-name").unwrap_or_else(|| NAME.to_string()),
        manages: false,
        carries: false,
    })
}

/// Takes the devices of a program to a bus, if its command line wants that: those that there are, and those that come.
pub fn of_many(matches: &ArgMatches, registry: &Registry) -> Result<Option<Bus>> {
    let place = place(matches).map(|place| Place {
        manages: true,
        carries: true,
        ..place
    });
    let bus = place.map(|place| Bus::connect(registry, place)).transpose();
    bus.context("--dbus-address")
}

/// What is wanted of a bus.
pub struct Wanted {
    place: Place,
    device: DeviceName,
}

impl Wanted {
    /// What a command line wants, if it does.
    pub fn of(matches: &ArgMatches) -> Result<Option<Self>> {
        let Some(place) = place(matches) else {
            return Ok(None);
        };
        let id = matches.get_one::<String>("dbus-vmstate-id").cloned();
        let carries = id.is_some();
        let device = DeviceName::try_from(id.unwrap_or_else(|| UNCARRIED.to_string()));
        let device = device.map_err(|error| anyhow!("--dbus-vmstate-id: {error}"))?;
        let place = Place { carries, ..place };
        Ok(Some(Self { place, device }))
    }
}

/// Serves a device of these values until a signal comes, or its only client is gone.
pub fn serve_model(
    matches: &ArgMatches,
    offer: &Offer,
    values: &Values<'_>,
    wanted: Wanted,
) -> Result<()> {
    serve(matches, offer, wanted, |registry, name, endpoint| {
        let param = |param: Param<'_>| (param.name.to_string(), param.value.into());
        registry.add(NewDevice {
            name,
            model: Some(values.model().name.to_string()),
            version: None,
            params: values.all().map(param).collect(),
            endpoint,
        })
    })
}

/// Serves a device of the kernel until a signal comes, or its only client is gone.
pub fn serve_kernel(matches: &ArgMatches, target: Target, wanted: Wanted) -> Result<()> {
    let offer = Offer::new(&Limits::NONE);
    serve(matches, &offer, wanted, |registry, name, endpoint| {
        registry.add_kernel(name, target, endpoint)
    })
}

fn serve(
    matches: &ArgMatches,
    offer: &Offer,
    wanted: Wanted,
    add: impl FnOnce(&Registry, DeviceName, Endpoint) -> Result<DeviceInfo, Error>,
) -> Result<()> {
    // Before there is a socket: whoever sees it may send a signal.
    let (signals, _) = startup::signals()?;
    startup::raise_descriptor_limit();
    let endpoint = match (
        matches.get_one::<PathBuf>("socket-path"),
        matches.get_one::<RawFd>("fd"),
    ) {
        (Some(path), _) => Endpoint::Path(path.clone()),
        (None, Some(number)) => {
            let fd = startup::inherited(*number).with_context(|| format!("--fd {number}"))?;
            Endpoint::Fd(fd)
        }
        // One of them is required.
        (None, None) => return Ok(()),
    };
    let registry = Registry::new(Settings {
        offer: offer.clone(),
        patience: super::patience(matches),
        // There is one.
        max_mib: MAX_CAPACITY_MIB.into(),
    });
    let subscription = registry.subscribe()?;
    add(&registry, wanted.device, endpoint)?;
    let served = Bus::connect(&registry, wanted.place).context("--dbus-address");
    let served = served.and_then(|bus| {
        startup::tell_ready();
        wait(&registry, &subscription, &signals)?;
        drop(bus);
        Ok(())
    });
    registry.clear();
    served
}

/// Waits until a signal comes, or the device is gone.
fn wait(registry: &Registry, subscription: &Subscription, signals: &UnixStream) -> Result<()> {
    while !registry.list().is_empty() {
        let mut files = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(subscription, PollFlags::IN),
        ];
        // Nothing that interrupts it is an event.
        let _ = poll(&mut files, None);
        if !files[0].revents().is_empty() {
            break;
        }
        while subscription.take().is_some() {}
    }
    Ok(())
}
