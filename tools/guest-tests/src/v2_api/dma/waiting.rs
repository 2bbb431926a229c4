// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device that waits for a page of its user's: who else waits then, and who does not.

use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

use super::super::check::{equal, Named};
use super::super::copier::{Copier, Status, LENGTH, MEMORY, PAGE};
use crate::kernel;
use crate::ktap::{scaled, Suite};
use crate::vfio::abi::{self, ioctl, Argument, Bytes};
use crate::vfio::event_fd::{readable, DEADLINE};
use crate::vfio::{Dma, Mapping, State, UserFault};

pub(super) fn add(suite: &mut Suite) {
    tests_with!(
        suite,
        "USERFAULTFD",
        while_a_page_is_awaited_everything_else_is_answered,
        while_a_page_is_awaited_a_state_change_waits_and_can_be_killed,
        while_a_page_is_awaited_a_reset_waits_and_can_be_killed,
        while_a_page_is_awaited_many_can_wait_and_be_killed,
    );
}

/// Where memory is whose pages this process serves.
const SLOW: u64 = MEMORY + 4 * LENGTH;

/// A page of a device's memory that is there when this process says so.
struct Slow {
    memory: Arc<Mapping>,
    faults: UserFault,
}

impl Slow {
    fn of(copier: &Copier) -> anyhow::Result<Self> {
        let memory = Arc::new(Mapping::of_memory(PAGE as usize).named("memory")?);
        let faults = UserFault::of(&memory).named("userfaultfd")?;
        copier
            .map_dma(SLOW, &memory, Dma::ReadWrite)
            .named("slow memory")?;
        Ok(Self { memory, faults })
    }

    /// Waits until the device does.
    fn awaited(&self) -> anyhow::Result<u64> {
        ensure!(
            readable(self.faults.as_fd(), DEADLINE)?,
            "the device does not ask for the page"
        );
        Ok(self.faults.next()?)
    }
}

/// Lets the device wait for a page, does something, and serves the page.
fn meanwhile(copier: &Copier, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let slow = Slow::of(copier)?;
    copier.fill(MEMORY, &[0x99; 16]);
    copier.aim(MEMORY, SLOW, 16)?;
    thread::scope(|scope| {
        let copy = scope.spawn(|| copier.ask());
        let result = slow.awaited().and_then(|fault| {
            let result = act();
            slow.faults.serve(fault).named("the page")?;
            result
        });
        if result.is_err() {
            // Nobody waits any longer.
            drop(slow.faults);
        }
        copy.join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        result?;
        equal("the copy", copier.status()?, Status::Done)?;
        equal("the page", slow.memory.get(0, 16), vec![0x99; 16])
    })
}

fn while_a_page_is_awaited_everything_else_is_answered() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    meanwhile(&copier, || {
        equal("the copy", copier.status()?, Status::Due)?;
        equal("the state", copier.state(), Ok(State::Running))?;
        copier.data_size().named("the size of the state")?;
        let event = copier.message()?;
        equal("messages", event.count()?, 0)?;
        for name in ["state", "error", "bytes", "phase"] {
            let text = copier.instance.attribute(&format!("migration/{name}"))?;
            ensure!(name != "state" || text == "RUNNING", "{name} is {text:?}");
        }
        // For the next copy.
        copier.aim(MEMORY, MEMORY + PAGE, 16)
    })
}

/// What this program does in another process: names it in the environment, and the device is standard input.
const CHILD: &str = "V2_API_CHILD";

/// Does what a test asked this process to do, if it was started by one.
pub fn in_another_process() -> Option<ExitCode> {
    let what = env::var(CHILD).ok()?;
    let device = std::io::stdin();
    let result = match &*what {
        "reset" => ioctl(device.as_fd(), abi::VFIO_DEVICE_RESET, Argument::Value(0)),
        state => {
            let header = abi::FEATURE_HEADER as u32 + 8;
            let set = abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
            let mut argument = Bytes::new()
                .word(header)
                .word(set)
                .word(state.parse().ok()?)
                .word(0);
            ioctl(
                device.as_fd(),
                abi::VFIO_DEVICE_FEATURE,
                Argument::Bytes(argument.bytes_mut()),
            )
        }
    };
    Some(ExitCode::from(u8::from(result.is_err())))
}

/// Another process that is asked to do something with the device, and has not done it yet.
fn child(copier: &Copier, what: &str) -> anyhow::Result<Child> {
    let device = copier.duplicate().context("the device's file")?;
    let child = Command::new(env::current_exe().context("this program")?)
        .env(CHILD, what)
        .stdin(Stdio::from(device))
        .spawn()
        .context("another process")?;
    // Nothing tells when it sleeps in the call.
    let path = format!("/proc/{}/syscall", child.id());
    let end = Instant::now() + scaled(DEADLINE);
    let call = format!("{} ", libc::SYS_ioctl);
    while !fs::read_to_string(&path)
        .with_context(|| path.clone())?
        .starts_with(&call)
    {
        ensure!(Instant::now() < end, "it does not wait in {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

/// Fails unless the process, which waits, ends when it is killed.
fn killed(mut child: Child) -> anyhow::Result<()> {
    let ended = child.try_wait().context("the other process")?;
    ensure!(ended.is_none(), "it did not wait: {ended:?}");
    let pid = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("pidfd_open")?;
    child.kill().context("kill")?;
    ensure!(readable(pid.as_fd(), DEADLINE)?, "it cannot be killed");
    child.wait().context("the other process")?;
    Ok(())
}

fn while_a_page_is_awaited_a_state_change_waits_and_can_be_killed() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    meanwhile(&copier, || {
        killed(child(&copier, &(State::Stop as u32).to_string())?)?;
        equal("the state", copier.state(), Ok(State::Running))
    })?;
    copier.switch(State::Stop).named("to STOP")?;
    equal("the state", copier.state(), Ok(State::Stop))
}

fn while_a_page_is_awaited_a_reset_waits_and_can_be_killed() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    meanwhile(&copier, || {
        killed(child(&copier, "reset")?)?;
        equal("the copy", copier.status()?, Status::Due)
    })?;
    copier.reset().named("reset")?;
    equal("the copy", copier.status()?, Status::None)
}

fn while_a_page_is_awaited_many_can_wait_and_be_killed() -> anyhow::Result<()> {
    kernel::needs_access(kernel::usual_access())?;
    let copier = Copier::new()?;
    meanwhile(&copier, || {
        let state = (State::RunningP2p as u32).to_string();
        let many: Vec<Child> = (0..4)
            .map(|_| child(&copier, &state))
            .collect::<anyhow::Result<_>>()?;
        many.into_iter().try_for_each(killed)?;
        equal("the state", copier.state(), Ok(State::Running))
    })?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)
}
