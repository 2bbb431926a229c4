// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The driver's device behind the socket of a program: what a client finds is what a user of the kernel finds.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use guest_tests::kernel;
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::{equal, same_bytes, Named};
use guest_tests::vfio::interrupt::{INTX, MSI};
use guest_tests::vfio::Event;
use vfio_migrate::exercise;
use vfio_migrate::operand;
use vfio_migrate::state::{self, Card, Protocol};
use vfio_migrate::sysfs::Sysfs;
use vfio_uapi::mdev::Mdev;
use vfio_uapi::{abi, Access, Errno, State};
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::Request;

use crate::host::{any, get, name, open, run, set, Scratch};
use crate::programs::{arguments, refusal, Program};

mod client;
mod memory;

use client::Client;

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        registers_behind_a_socket_are_the_drivers,
        interrupts_of_a_device_behind_a_socket_reach_the_client,
        a_state_is_the_same_bytes_from_the_driver_and_by_programs,
        a_device_behind_a_socket_refuses_in_the_drivers_words,
        states_that_there_are_not_and_data_out_of_turn_are_refused,
        a_client_that_goes_leaves_the_device_as_new,
        a_device_in_use_is_busy_from_either_side,
    );
    memory::add(suite);
}

/// Regions of the registers, and of configuration space.
const BAR0: u32 = abi::VFIO_PCI_BAR0_REGION_INDEX;
const CONFIG: u32 = abi::VFIO_PCI_CONFIG_REGION_INDEX;

/// The kernel's device of an instance, behind a socket there.
fn behind(socket: &Path, instance: &Mdev) -> Result<Program> {
    behind_path(socket, &instance.path())
}

fn behind_path(socket: &Path, path: &Path) -> Result<Program> {
    let backend = format!("vfio:{}", path.display());
    Program::start(socket, &["--backend".to_string(), backend])
}

/// The words by which `vfio-migrate` knows a socket.
fn word(socket: &Path) -> String {
    format!("vfio-user:{}", socket.display())
}

/// Opens what a word names.
fn card(word: &str) -> Result<Box<dyn Card>> {
    let sysfs = Sysfs::default();
    let device = operand::device(&sysfs, word).map_err(told)?;
    state::open(&sysfs, device).map_err(told)
}

fn told(error: vfio_migrate::error::Error) -> anyhow::Error {
    anyhow::Error::msg(error.to_string())
}

/// Uses registers of a card of two ports, and tells all that it says of itself: sizes, configuration space, and each register of
/// a card that was written to.
fn transcript(card: &dyn Card) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for region in [BAR0, CONFIG] {
        let size = card.region_size(region).map_err(told)?;
        all.extend(size.to_le_bytes());
    }
    let read = |region, offset, length: usize| {
        let mut bytes = vec![0xa5; length];
        let read = card.read(region, offset, &mut bytes).map_err(told);
        read.map(|()| bytes)
    };
    let write = |region, offset, bytes: &[u8]| card.write(region, offset, bytes).map_err(told);
    all.extend(read(CONFIG, 0, 256)?);
    // Answer I/O accesses.
    write(CONFIG, 4, &[1, 0])?;
    // FIFOs, eight data bits, and a scratch register for each port; the second one's pins go high.
    for port in [0, 8] {
        for (register, value) in [(2, 1), (3, 3), (7, 0x5a + port as u8)] {
            write(BAR0, port + register, &[value])?;
        }
    }
    write(BAR0, 8 + 4, &[3])?;
    for register in 0..16 {
        all.extend(read(BAR0, register, 1)?);
    }
    all.extend(read(CONFIG, 4, 2)?);
    // All ones to a BAR tells its size.
    write(CONFIG, 0x10, &[0xff; 4])?;
    all.extend(read(CONFIG, 0x10, 4)?);
    Ok(all)
}

fn registers_behind_a_socket_are_the_drivers() -> Result<()> {
    let instance = any()?;
    set(&instance, "num-ports", "2").named("num-ports")?;
    let wanted = transcript(&*card(&name(&instance))?)?;
    ensure!(
        wanted.len() > 256 && wanted.contains(&0x5a) && wanted.contains(&0x62),
        "the driver's registers are {wanted:02x?}"
    );
    let scratch = Scratch::new()?;
    let mut paths = vec![instance.path(), instance.group_path()?];
    if kernel::usual_access() == Access::Cdev {
        paths.push(instance.cdev_path()?);
    }
    for (at, path) in paths.iter().enumerate() {
        let socket = scratch.file(&format!("{at}.sock"));
        let _program = behind_path(&socket, path)?;
        let found = transcript(&*card(&word(&socket))?)?;
        same_bytes(path.display(), &found, &wanted)?;
        // Registers that there are not, as the kernel has it.
        let mut client = Client::connect(&socket)?;
        for (region, offset, count) in [(BAR0, 16, 1), (BAR0, 15, 2), (CONFIG, 256, 1), (1, 0, 1)] {
            let refused = client.read(region, offset, count)?;
            equal("a read of nothing", refused, Err(Errno::EINVAL))?;
        }
        equal(
            "a read",
            client.read(CONFIG, 0, 4)?.map(|id| id.len()),
            Ok(4),
        )?;
    }
    Ok(())
}

fn interrupts_of_a_device_behind_a_socket_reach_the_client() -> Result<()> {
    let instance = any()?;
    let scratch = Scratch::new()?;
    let socket = scratch.file("card.sock");
    let _program = behind(&socket, &instance)?;
    let mut client = vfio_user::Client::new(&socket).context("the other project's client")?;
    let described = |client: &mut vfio_user::Client, index| -> Result<(u32, u32)> {
        let info = client.get_irq_info(index).context("GET_IRQ_INFO")?;
        Ok((info.count, info.flags))
    };
    // EVENTFD, MASKABLE and AUTOMASKED.
    equal("INTx", described(&mut client, INTX)?, (1, 7))?;
    for index in [INTX, MSI] {
        let event = Event::new().named("eventfd")?;
        // DATA_EVENTFD and ACTION_TRIGGER.
        client
            .set_irqs(index, 0x24, 0, 1, &[event.number()])
            .context("SET_IRQS")?;
        client
            .region_write(CONFIG, 4, &[5, 0])
            .context("command register")?;
        if index == MSI {
            enable_msi(&mut client)?;
        }
        equal("interrupts before", event.count()?, 0)?;
        // OUT2 and DTR, and an interrupt for the empty transmitter, which it is.
        for (register, value) in [(4, 9), (1, 2)] {
            client
                .region_write(BAR0, register, &[value])
                .context("a register")?;
        }
        let count = event.wait().with_context(|| format!("index {index}"))?;
        ensure!(count > 0, "no interrupt");
        client.reset().context("a reset")?;
        // DATA_NONE and ACTION_TRIGGER, of none: no more of this kind.
        client
            .set_irqs(index, 0x21, 0, 0, &[])
            .context("SET_IRQS")?;
        client.region_write(BAR0, 1, &[0]).context("a register")?;
        equal("interrupts after", event.count()?, 0)?;
    }
    Ok(())
}

/// Finds the card's MSI capability and switches messages on.
fn enable_msi(client: &mut vfio_user::Client) -> Result<()> {
    let mut config = [0; 256];
    client
        .region_read(CONFIG, 0, &mut config)
        .context("a read")?;
    let mut at = usize::from(config[0x34]);
    while at != 0 && config[at] != 5 {
        at = usize::from(config[at + 1]);
    }
    ensure!(at != 0, "the card has no MSI capability");
    let control = [config[at + 2] | 1, config[at + 3]];
    client
        .region_write(CONFIG, at as u64 + 2, &control)
        .context("MSI control")
}

/// Loads a state and saves it again, without anybody else being the user in between.
fn through(card: &dyn Card, state: &[u8]) -> Result<Vec<u8>> {
    let mut loading = card.load(Protocol::V2).map_err(told)?;
    loading.push(state).map_err(told)?;
    loading.finish().map_err(told)?;
    saved(card)
}

fn saved(card: &dyn Card) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    card.save(Protocol::V2, true, &mut sink, &mut |_, _| {})
        .map_err(told)?;
    Ok(bytes)
}

fn a_state_is_the_same_bytes_from_the_driver_and_by_programs() -> Result<()> {
    for params in [
        &[][..],
        &[("num-ports", "4"), ("fifo-depth", "64")],
        &[("num-ports", "2"), ("msi", "off"), ("compact-state", "off")],
    ] {
        let (from, to) = (any()?, any()?);
        for instance in [&from, &to] {
            for (param, value) in params {
                set(instance, param, value).context(*param)?;
            }
        }
        let scratch = Scratch::new()?;
        let (kernel, model) = (scratch.file("kernel.sock"), scratch.file("model.sock"));
        let from = name(&from);
        let _model = Program::start(&model, &arguments(&from)?)?;
        let _kernel = behind(&kernel, &to)?;
        let (kernel, model) = (word(&kernel), word(&model));

        let (state, contents) = {
            let card = card(&from)?;
            let contents = exercise::fill(&*card).map_err(told)?;
            (saved(&*card)?, contents)
        };
        for place in [&kernel, &model, &kernel, &from] {
            let card = card(place)?;
            let again = through(&*card, &state)?;
            same_bytes(format!("saved by {place}"), &again, &state)?;
        }
        // The driver's own words are in effect at each place.
        for place in [&model, &kernel] {
            let card = card(place)?;
            let mut loading = card.load(Protocol::V2).map_err(told)?;
            loading.push(&state).map_err(told)?;
            loading.finish().map_err(told)?;
            exercise::verify(&*card, &contents).map_err(told)?;
        }
        // By the tool, from one to the other: what travels is as above, whatever the card is like.
        if !params.is_empty() {
            continue;
        }
        for (from, to) in [
            (&from, &kernel),
            (&kernel, &model),
            (&model, &kernel),
            (&kernel, &from),
        ] {
            let copied = run(["copy", "--exercise", from, to])?.expect(0)?;
            copied.says("found again")?;
        }
    }
    Ok(())
}

fn a_device_behind_a_socket_refuses_in_the_drivers_words() -> Result<()> {
    let (source, destination) = (any()?, any()?);
    for (param, value) in [("num-ports", "2"), ("fifo-depth", "64"), ("msi", "off")] {
        set(&source, param, value).context(param)?;
    }
    let scratch = Scratch::new()?;
    let (socket, state) = (scratch.file("card.sock"), scratch.file("state"));
    let _program = behind(&socket, &destination)?;
    let state = state.display().to_string();
    run(["save", &name(&source), &state])?.expect(0)?;
    let words = refusal(&name(&destination), &state)?;
    ensure!(words.contains("num-ports: source has 2"), "{words}");
    equal(
        "what a client is told",
        refusal(&word(&socket), &state)?,
        words,
    )
}

/// A feature is read or written.
fn feature(operation: Operation, number: u16, data: &[u8]) -> Request<'_> {
    Request::Feature(Feature {
        argsz: 4096,
        number,
        operation,
        data,
    })
}

/// The data of a wish for a state.
fn wish(state: u32) -> Vec<u8> {
    [state, 0].map(u32::to_ne_bytes).concat()
}

fn states_that_there_are_not_and_data_out_of_turn_are_refused() -> Result<()> {
    let instance = any()?;
    let scratch = Scratch::new()?;
    let socket = scratch.file("card.sock");
    let _program = behind(&socket, &instance)?;
    let mut client = Client::connect(&socket)?;
    let ask = |client: &mut Client, request: Request<'_>| client.ask(&request, &[]);
    let set = Operation::Set;
    let state = |client: &mut Client| -> Result<u32> {
        let get = feature(Operation::Get, number::MIG_DEVICE_STATE, &[]);
        let body = ask(client, get)?.named("the state")?;
        // The length and the flags are before it, no descriptor behind.
        equal("a descriptor", &body[12..], &[0xff; 4][..])?;
        Ok(u32::from_ne_bytes(body[8..12].try_into()?))
    };
    for wanted in [0, 8, u32::MAX] {
        let refused = ask(
            &mut client,
            feature(set, number::MIG_DEVICE_STATE, &wish(wanted)),
        )?;
        equal(format!("state {wanted}"), refused, Err(Errno::EINVAL))?;
        equal("state", state(&mut client)?, State::Running as u32)?;
    }
    for request in [
        Request::MigDataRead { size: 4096 },
        Request::MigDataWrite(b"data"),
        Request::PrecopyInfo,
    ] {
        equal("no session", ask(&mut client, request)?, Err(Errno::EINVAL))?;
    }
    // While it is being loaded, nothing can be read, and the other way round.
    for (wanted, request) in [
        (State::Resuming, Request::MigDataRead { size: 4096 }),
        (State::StopCopy, Request::MigDataWrite(b"data")),
    ] {
        let go = wish(wanted as u32);
        ask(&mut client, feature(set, number::MIG_DEVICE_STATE, &go))?.named("a state")?;
        equal("state", state(&mut client)?, wanted as u32)?;
        equal(
            "the other way",
            ask(&mut client, request)?,
            Err(Errno::EINVAL),
        )?;
        ask(&mut client, Request::Reset)?.named("a reset")?;
        equal("state", state(&mut client)?, State::Running as u32)?;
    }
    // In pre-copy there is something to read, then nothing, which is no error.
    let go = wish(State::PreCopy as u32);
    ask(&mut client, feature(set, number::MIG_DEVICE_STATE, &go))?.named("pre-copy")?;
    let left = ask(&mut client, Request::PrecopyInfo)?.named("PRECOPY_INFO")?;
    let initial = u64::from_ne_bytes(left[8..16].try_into()?);
    ensure!(initial > 0, "no initial data");
    let mut total = 0;
    loop {
        // Three bytes, so that every piece is cut.
        let body = ask(&mut client, Request::MigDataRead { size: 3 })?.named("a piece")?;
        match body.len() - 8 {
            0 => break,
            length => total += length as u64,
        }
    }
    ensure!(total >= initial, "{total} bytes of {initial}");
    Ok(())
}

fn a_client_that_goes_leaves_the_device_as_new() -> Result<()> {
    let instance = any()?;
    let scratch = Scratch::new()?;
    let socket = scratch.file("card.sock");
    let program = behind(&socket, &instance)?;
    for target in [
        State::Running,
        State::PreCopy,
        State::StopCopy,
        State::Resuming,
    ] {
        let mut client = Client::connect(&socket)?;
        let event = Event::new().named("eventfd")?;
        client.intx(&event)?.named("SET_IRQS")?;
        client.write(CONFIG, 4, &[1, 0])?.named("a write")?;
        client.write(BAR0, 7, &[0x77])?.named("a write")?;
        equal("scratch", client.read(BAR0, 7, 1)?, Ok(vec![0x77]))?;
        let go = wish(target as u32);
        let asked = feature(Operation::Set, number::MIG_DEVICE_STATE, &go);
        client.ask(&asked, &[])?.named(format!("{target:?}"))?;
        // In the middle of a message.
        client.leave(b"half")?;
    }
    // Whoever is answered is the only one.
    let mut client = Client::connect(&socket)?;
    client.write(CONFIG, 4, &[1, 0])?.named("a write")?;
    equal("scratch", client.read(BAR0, 7, 1)?, Ok(vec![0]))?;
    equal("state", get(&instance, "state")?, "RUNNING".to_string())?;
    equal("phase", get(&instance, "phase")?, "none".to_string())?;
    drop(client);
    // The device is closed when the program has ended, and nobody else's.
    program.terminate()?;
    ensure!(!socket.exists(), "the program left its socket");
    drop(open(&instance)?);
    Ok(())
}

fn a_device_in_use_is_busy_from_either_side() -> Result<()> {
    let instance = any()?;
    let scratch = Scratch::new()?;
    let (socket, state) = (scratch.file("card.sock"), scratch.file("state"));
    let _program = behind(&socket, &instance)?;
    let state = state.display().to_string();
    let busy = |device: &str| -> Result<()> {
        let refused = run(["save", device, &state])?.expect(2)?;
        refused.says("in use (EBUSY)").map(drop)
    };
    // Somebody has it open, and a client comes.
    let device = open(&instance)?;
    busy(&word(&socket))?;
    drop(device);
    // A client is there, and another one, and somebody who wants to open it.
    let client = Client::connect(&socket)?;
    busy(&word(&socket))?;
    busy(&name(&instance))?;
    let refused = fs::write(instance.path().join("migration/num-ports"), "2");
    equal(
        "a parameter of a device in use",
        refused.err().and_then(|error| error.raw_os_error()),
        Some(Errno::EBUSY as i32),
    )?;
    drop(client);
    // It is free again: whoever is answered next is the client.
    drop(Client::connect(&socket)?);
    Ok(())
}
