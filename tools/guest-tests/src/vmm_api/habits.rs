// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What monitors do with a card that works: interrupts without an eventfd that unmasks them, and logging.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{anyhow, ensure, Context};

use super::client::{Interrupt, Kind, Vmm};
use super::process::{Habit, Monitor, LOGGED};
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::card::card_type;
use crate::v2_api::check::equal;
use crate::v2_api::uart::{
    DATA, FIFO, IER, IER_DATA, IER_EMPTY, IIR, IIR_DATA, IIR_EMPTY, IIR_ID, IIR_NONE, IIR_TIMEOUT,
    LSR, LSR_DATA, MSR, SCR,
};
use crate::vfio::interrupt::INTX;

/// Bytes that each port sends.
const LOAD: usize = 1024;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_vmm_that_unmasks_intx_after_each_access_loses_no_interrupt,
        a_vmm_that_starts_logging_after_another_died_without_stopping_it,
    );
}

/// A guest's accesses to its card, of a monitor that takes each of them for the end of an interrupt.
struct Guest<'a>(&'a Vmm);

impl Guest<'_> {
    fn get(&self, port: u32, register: u64) -> anyhow::Result<u8> {
        let value = self.0.get(port, register)?;
        self.0.device.unmask_irq(INTX).context("unmask")?;
        Ok(value)
    }

    fn set(&self, port: u32, register: u64, value: u8) -> anyhow::Result<()> {
        self.0.set(port, register, value)?;
        self.0.device.unmask_irq(INTX).context("unmask")
    }
}

/// What a port has sent and received.
#[derive(Default)]
struct Traffic {
    sent: usize,
    received: Vec<u8>,
}

/// Byte `index` of those that port `port` sends.
fn byte(port: u32, index: usize) -> u8 {
    (index as u8).wrapping_mul(7).wrapping_add(port as u8)
}

/// The interrupt handler of a driver, for one port: serves what the port identifies until it identifies nothing.
fn serve(guest: &Guest<'_>, port: u32, traffic: &mut Traffic) -> anyhow::Result<()> {
    loop {
        match guest.get(port, IIR)? & IIR_ID {
            IIR_NONE => return Ok(()),
            IIR_DATA | IIR_TIMEOUT => {
                while guest.get(port, LSR)? & LSR_DATA != 0 {
                    traffic.received.push(guest.get(port, DATA)?);
                }
            }
            IIR_EMPTY => {
                for _ in 0..FIFO.min(LOAD - traffic.sent) {
                    guest.set(port, DATA, byte(port, traffic.sent))?;
                    traffic.sent += 1;
                }
                if traffic.sent == LOAD {
                    guest.set(port, IER, IER_DATA)?;
                }
            }
            other => return Err(anyhow!("port {port} identifies {other:#x}")),
        }
    }
}

/// Serves all ports, one interrupt after the other, until they have received all that they sent.
fn serve_all(vmm: &Vmm, interrupt: &Interrupt) -> anyhow::Result<()> {
    let guest = Guest(vmm);
    let mut traffic: Vec<_> = (0..vmm.ports).map(|_| Traffic::default()).collect();
    for port in 0..vmm.ports {
        guest.set(port, IER, IER_DATA | IER_EMPTY)?;
    }
    while traffic.iter().any(|port| port.received.len() < LOAD) {
        interrupt.wait().with_context(|| {
            let state: Vec<_> = traffic
                .iter()
                .map(|port| (port.sent, port.received.len()))
                .collect();
            format!("sent and received by each port: {state:?}")
        })?;
        for (port, traffic) in (0..).zip(&mut traffic) {
            serve(&guest, port, traffic)?;
        }
    }
    for (port, traffic) in (0..).zip(&traffic) {
        let wanted: Vec<_> = (0..LOAD).map(|index| byte(port, index)).collect();
        ensure!(
            traffic.received == wanted,
            "port {port} received other bytes than it sent"
        );
    }
    Ok(())
}

fn a_vmm_that_unmasks_intx_after_each_access_loses_no_interrupt() -> anyhow::Result<()> {
    let vmm = Vmm::new(4)?;
    for port in 0..vmm.ports {
        vmm.set_up(port)?;
    }
    let interrupt = vmm.enable(Kind::Intx)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Another processor of the guest, whose accesses unmask the same interrupt at any moment.
        let other = scope.spawn(|| {
            let guest = Guest(&vmm);
            let mut value = 0u8;
            while !over.load(Ordering::Relaxed) {
                for port in 0..vmm.ports {
                    guest.set(port, SCR, value)?;
                    guest.get(port, MSR)?;
                }
                value = value.wrapping_add(1);
            }
            anyhow::Ok(())
        });
        let served = serve_all(&vmm, &interrupt);
        over.store(true, Ordering::Relaxed);
        let other = other
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the other processor panicked")));
        served.and(other)
    })
}

fn a_vmm_that_starts_logging_after_another_died_without_stopping_it() -> anyhow::Result<()> {
    kernel::needs(kernel::LOGGING)?;
    let instance = card_type(1)?.create()?;
    let first = Monitor::start(&instance, Habit::Logs)?;
    first.kill()?;
    let vmm = Vmm::of(instance, 1)?;
    let page = vmm
        .device
        .start_dma_logging(4096, &[LOGGED])
        .context("START")?;
    let bitmap = vmm
        .device
        .report_dma_logging(LOGGED, page)
        .context("REPORT")?;
    // The card writes no memory.
    equal(
        "pages that were written",
        bitmap.iter().all(|word| *word == 0),
        true,
    )?;
    vmm.device.stop_dma_logging().context("STOP")
}
