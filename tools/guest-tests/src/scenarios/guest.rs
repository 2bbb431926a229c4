// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One guest, on whichever machine it is: what it counted, and that it never counts back.

use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context, Result};

use super::timeline::{Look, Timeline, What};
use crate::l2::line::{CardReport, Command, DiskReport, HeldReport, Interrupt, Line, PortReport};

/// How long a guest may take to boot.
const BOOT: Duration = Duration::from_secs(60);
/// How long a guest may take to count on.
const COUNT: Duration = Duration::from_secs(30);
/// How long a guest may take to report: longer than it waits for bytes that do not come back.
const REPORT: Duration = Duration::from_secs(60);

/// What a guest runs on: one can listen to it and tell it something.
pub trait Host {
    /// Its name on the timeline.
    fn name(&self) -> &str;

    /// What everybody says.
    fn timeline(&self) -> &Timeline;

    /// Waits for something that it says at or after `from`; returns the position after it, and a result. The end of QEMU, and a
    /// guest that cannot go on, end the wait.
    fn wait_for<T>(
        &self,
        from: usize,
        limit: Duration,
        purpose: &str,
        look: impl FnMut(&What) -> Look<T>,
    ) -> Result<(usize, T)>;

    /// Tells the guest's test program to do something.
    fn command(&self, command: Command) -> Result<()>;
}

/// What a guest's card must look like to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Ports on all cards.
    pub ports: usize,
    /// Cards.
    pub cards: usize,
    /// How they interrupt.
    pub interrupt: Interrupt,
    /// Disks.
    pub disks: usize,
}

/// What a port or a disk did up to a report, which a later one is held against.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// Records that were verified, or steps.
    work: u32,
    /// Interrupts of its card, or its own.
    interrupts: u64,
}

impl Done {
    /// Takes in the next report: what was done since the last one was done by interrupts. Who asks again at once may be answered before
    /// anything more was.
    fn go_on(&mut self, work: u32, interrupts: u64) -> Result<()> {
        let last = std::mem::replace(self, Self { work, interrupts });
        ensure!(
            interrupts > last.interrupts || work == last.work && interrupts == last.interrupts,
            "{} were done and {} interrupts came until the last report, and now it is {work} and {interrupts}",
            last.work,
            last.interrupts
        );
        Ok(())
    }
}

/// A guest since its last boot. A copy is its account at one time, to be held against a guest that is taken back to it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// How far the timeline was listened to.
    position: usize,
    /// Records verified on each port.
    counts: Vec<u32>,
    /// What the last report on each port said.
    ports: Vec<Done>,
    /// Cards.
    cards: usize,
    /// Steps done on each disk.
    disks: Vec<u32>,
    /// What the last report on each disk said.
    disk_reports: Vec<Done>,
    /// Serial number of each disk, once there was a report.
    serials: Vec<String>,
}

impl Guest {
    /// Waits for the guest of `machine` to boot, at or after `from`, and checks that it sees the cards as they should be.
    pub fn boot(machine: &impl Host, from: usize, expected: &View) -> Result<Self> {
        let (position, seen) = machine.wait_for(
            from,
            BOOT,
            "the guest's ports to be open",
            |what| match what {
                What::Guest(Line::Ready {
                    ports,
                    cards,
                    interrupt,
                    disks,
                    ..
                }) => Look::Found(View {
                    ports: *ports,
                    cards: *cards,
                    interrupt: *interrupt,
                    disks: *disks,
                }),
                _ => Look::Wait,
            },
        )?;
        ensure!(
            seen == *expected,
            "the guest of {} should see {expected:?} but sees {seen:?}",
            machine.name()
        );
        Ok(Self {
            position,
            counts: vec![0; seen.ports],
            ports: vec![Done::default(); seen.ports],
            cards: seen.cards,
            disks: vec![0; seen.disks],
            disk_reports: vec![Done::default(); seen.disks],
            serials: Vec::new(),
        })
    }

    /// Records verified on each port, as far as the guest was listened to.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Steps done on each disk, as far as the guest was listened to.
    pub fn disks(&self) -> &[u32] {
        &self.disks
    }

    /// What every report since the guest booted said that the disks' serial numbers are; none before the first.
    pub fn serials(&self) -> &[String] {
        &self.serials
    }

    /// Listens from this position of the timeline on.
    pub fn listen_from(&mut self, position: usize) {
        self.position = position;
    }

    /// Takes in the last that the guest said on machine `from`, which has ended, and listens to its next machine from
    /// position `began` on, when it cannot have said anything there yet.
    pub fn moved(&mut self, timeline: &Timeline, from: &str, began: usize) -> Result<()> {
        self.take_in(timeline, from, timeline.position())?;
        self.position = began;
        Ok(())
    }

    /// Waits until the guest on `machine` has verified `more` records than known now on every port, and done as many more steps on
    /// every disk.
    pub fn count_on(&mut self, machine: &impl Host, more: u32) -> Result<()> {
        let goal = |counts: &[u32]| counts.iter().map(|count| count + more).collect::<Vec<_>>();
        let (ports, disks) = (goal(&self.counts), goal(&self.disks));
        let purpose = format!(
            "the guest to count to {ports:?} and {disks:?} (it was at {:?} and {:?})",
            self.counts, self.disks
        );
        let reached = |counts: &[u32], goal: &[u32]| {
            counts.iter().zip(goal).all(|(count, goal)| count >= goal)
        };
        let (position, ()) = machine.wait_for(self.position, COUNT, &purpose, |what| match self
            .take(what)
        {
            Ok(true) if reached(&self.counts, &ports) && reached(&self.disks, &disks) => {
                Look::Found(())
            }
            Ok(_) => Look::Wait,
            Err(error) => Look::Never(error),
        })?;
        self.position = position;
        Ok(())
    }

    /// Takes in one thing that the guest's machine said; true if it was a count.
    fn take(&mut self, what: &What) -> Result<bool> {
        match what {
            What::Guest(Line::Count(counts)) => forward(&mut self.counts, counts),
            What::Guest(Line::Disks(steps)) => forward(&mut self.disks, steps),
            What::Guest(Line::DiskFault { disk, what }) => {
                bail!("the guest reports a fault on disk {disk}: {what}")
            }
            What::Guest(Line::Fault { port, what }) => {
                bail!("the guest reports a fault on port {port}: {what}")
            }
            What::Guest(Line::Ready { .. }) => bail!("the guest booted again"),
            _ => Ok(false),
        }
    }

    /// Has the guest wait for everything it sent, and checks its account: every record came back whole, once and in order,
    /// none is under way any more, the UARTs lost nothing, and the cards interrupted since the last report. Everything that was ever
    /// written to a disk is there. What is counted on from here comes after the account.
    pub fn settle(&mut self, machine: &impl Host) -> Result<Vec<PortReport>> {
        Ok(self.account(machine)?.0)
    }

    /// As [`Guest::settle`], with the reports on the disks.
    pub fn account(&mut self, machine: &impl Host) -> Result<(Vec<PortReport>, Vec<DiskReport>)> {
        self.told(machine, Command::Report)
    }

    /// As [`Guest::settle`], but of the disks it is verified what their writers happen to read.
    pub fn tally(&mut self, machine: &impl Host) -> Result<()> {
        self.told(machine, Command::Tally).map(drop)
    }

    fn told(
        &mut self,
        machine: &impl Host,
        command: Command,
    ) -> Result<(Vec<PortReport>, Vec<DiskReport>)> {
        let from = machine.timeline().position();
        machine.command(command)?;
        let (ports_told, ports) = self.reports(machine, from)?;
        let (disks_told, disks) = self.disk_reports(machine, from)?;
        self.take_in(
            machine.timeline(),
            machine.name(),
            ports_told.max(disks_told),
        )?;
        self.counts = ports.iter().map(|report| report.verified).collect();
        self.disks = disks.iter().map(|report| report.steps).collect();
        Ok((ports, disks))
    }

    /// Takes in what the guest said on machine `from` up to this position, and listens from there on.
    fn take_in(&mut self, timeline: &Timeline, from: &str, end: usize) -> Result<()> {
        let mut result = Ok(());
        timeline.each(self.position, |position, entry| {
            if result.is_ok() && position < end && entry.who == from {
                result = self.take(&entry.what).map(drop);
            }
        });
        self.position = self.position.max(end);
        result
    }

    /// Waits for reports on the disks that were asked for at `from`, and checks them; also the position after them.
    fn disk_reports(
        &mut self,
        machine: &impl Host,
        from: usize,
    ) -> Result<(usize, Vec<DiskReport>)> {
        if self.disks.is_empty() {
            return Ok((from, Vec::new()));
        }
        let mut reports: Vec<DiskReport> = Vec::new();
        let disks = self.disks.len();
        let (end, ()) =
            machine.wait_for(from, REPORT, "the guest's report on every disk", |what| {
                if let What::Guest(Line::DiskReport(report)) = what {
                    reports.push(report.clone());
                }
                match reports.len() == disks {
                    true => Look::Found(()),
                    false => Look::Wait,
                }
            })?;
        for (report, (steps, last)) in reports
            .iter()
            .zip(self.disks.iter().zip(&mut self.disk_reports))
        {
            ensure!(
                report.faults == 0,
                "a disk does not hold what was written: {report:?}"
            );
            ensure!(report.written > 0, "nothing was written: {report:?}");
            ensure!(
                report.steps >= *steps,
                "counted {steps} steps, reported less: {report:?}"
            );
            last.go_on(report.steps, report.interrupts)
                .with_context(|| format!("disk {}", report.disk))?;
        }
        let serials: Vec<String> = reports.iter().map(|disk| disk.serial.clone()).collect();
        ensure!(
            self.serials.is_empty() || self.serials == serials,
            "the serial numbers were {:?} and are {serials:?}",
            self.serials
        );
        self.serials = serials;
        Ok((end, reports))
    }

    /// Has the guest use no disk until [`Guest::look_at_fetched`].
    pub fn rest(&self, machine: &impl Host) -> Result<()> {
        self.done(machine, Command::Rest)
    }

    /// Has the guest read blocks, and not look at them.
    pub fn fetch(&self, machine: &impl Host) -> Result<()> {
        self.done(machine, Command::Fetch)
    }

    /// Has the guest write its disks at so many KiB a second from now on.
    pub fn pace(&self, machine: &impl Host, rate: u32) -> Result<()> {
        self.done(machine, Command::Pace(rate))
    }

    fn done(&self, machine: &impl Host, command: Command) -> Result<()> {
        let from = machine.timeline().position();
        machine.command(command)?;
        machine.wait_for(
            from,
            REPORT,
            &format!("the guest to {command}"),
            |what| match what {
                What::Guest(Line::Done(done)) if *done == command => Look::Found(()),
                What::Guest(Line::DiskFault { disk, what }) => {
                    Look::Never(anyhow!("a fault on disk {disk}: {what}"))
                }
                _ => Look::Wait,
            },
        )?;
        Ok(())
    }

    /// Has the guest look at what it read, and use its disks again; the first block of each disk that is not what it should be,
    /// if there is one.
    pub fn look_at_fetched(&self, machine: &impl Host) -> Result<Vec<Option<String>>> {
        let from = machine.timeline().position();
        machine.command(Command::Verify)?;
        let mut seen = Vec::new();
        let disks = self.disks.len();
        machine.wait_for(from, REPORT, "the guest's look at what it read", |what| {
            if let What::Guest(Line::Fetched { good, bad, .. }) = what {
                seen.push((*good, (!bad.is_empty()).then(|| bad.clone())));
            }
            match seen.len() == disks {
                true => Look::Found(()),
                false => Look::Wait,
            }
        })?;
        ensure!(
            seen.iter().all(|(good, bad)| *good > 0 || bad.is_some()),
            "the guest read nothing"
        );
        Ok(seen.into_iter().map(|(_, bad)| bad).collect())
    }

    /// Waits for reports that were asked for at `from`, and checks them; also the position after them.
    fn reports(&mut self, machine: &impl Host, from: usize) -> Result<(usize, Vec<PortReport>)> {
        let mut reports: Vec<PortReport> = Vec::new();
        let ports = self.counts.len();
        let (end, ()) = machine.wait_for(
            from,
            REPORT,
            "the guest's report on every port",
            |what| match what {
                What::Guest(Line::Report(report)) if usize::from(report.port) == reports.len() => {
                    reports.push(report.clone());
                    if reports.len() == ports {
                        Look::Found(())
                    } else {
                        Look::Wait
                    }
                }
                What::Guest(Line::Report(report)) => Look::Never(anyhow!("unexpected {report:?}")),
                _ => Look::Wait,
            },
        )?;
        for (report, (counted, last)) in reports.iter().zip(self.counts.iter().zip(&mut self.ports))
        {
            let whole =
                report.faults == 0 && report.outstanding == 0 && report.sent == report.verified;
            ensure!(whole, "not everything came back as it was sent: {report:?}");
            ensure!(
                report.uart_errors == 0,
                "the guest's driver counted receive errors: {report:?}"
            );
            ensure!(
                report.verified >= *counted,
                "counted {counted} records, reported less: {report:?}"
            );
            last.go_on(report.verified, report.interrupts)
                .with_context(|| format!("port {}", report.port))?;
        }
        Ok((end, reports))
    }

    /// Has the guest's driver let go of the cards and take them anew, once everything it sent has come back.
    pub fn rebind(&mut self, machine: &impl Host, expected: &View) -> Result<()> {
        self.change(machine, Command::Rebind, expected)?;
        // The kernel may count the interrupts of a driver that came anew from 0.
        self.ports.iter_mut().for_each(|port| port.interrupts = 0);
        Ok(())
    }

    /// Has the guest take up cards that were plugged in: `expected` is what it uses then. They come behind those it has.
    pub fn take_up(&mut self, machine: &impl Host, expected: &View) -> Result<()> {
        self.change(machine, Command::TakeUp, expected)?;
        self.counts.resize(expected.ports, 0);
        self.ports.resize(expected.ports, Done::default());
        self.cards = expected.cards;
        Ok(())
    }

    /// Has the guest close the ports of its last card, after an account of all: `expected` is what it uses then.
    pub fn let_go(&mut self, machine: &impl Host, expected: &View) -> Result<()> {
        self.settle(machine)?;
        self.change(machine, Command::LetGo, expected)?;
        self.counts.truncate(expected.ports);
        self.ports.truncate(expected.ports);
        self.cards = expected.cards;
        Ok(())
    }

    /// Gives a command that changes which cards are used, or how, and checks what the guest uses then. What it counted before
    /// is not listened to.
    fn change(&mut self, machine: &impl Host, command: Command, expected: &View) -> Result<()> {
        let from = machine.timeline().position();
        machine.command(command)?;
        let purpose = format!("the guest to use {expected:?}");
        // They stay as they are.
        let disks = self.disks.len();
        let (position, seen) = machine.wait_for(from, REPORT, &purpose, |what| match what {
            What::Guest(Line::Using {
                ports,
                cards,
                interrupt,
            }) => Look::Found(View {
                ports: *ports,
                cards: *cards,
                interrupt: *interrupt,
                disks,
            }),
            _ => Look::Wait,
        })?;
        ensure!(
            seen == *expected,
            "after {command} the guest should use {expected:?} but uses {seen:?}"
        );
        self.position = position;
        Ok(())
    }

    /// Has the guest read nothing and send until nothing more can be sent, until [`Guest::read`]; says what is where then.
    pub fn hold(&self, machine: &impl Host) -> Result<Vec<HeldReport>> {
        let from = machine.timeline().position();
        machine.command(Command::Hold)?;
        let mut reports: Vec<HeldReport> = Vec::new();
        let ports = self.counts.len();
        machine.wait_for(
            from,
            REPORT,
            "flow control to hold every transmitter",
            |what| {
                if let What::Guest(Line::Held(report)) = what {
                    reports.push(report.clone());
                }
                if reports.len() == ports {
                    Look::Found(())
                } else {
                    Look::Wait
                }
            },
        )?;
        Ok(reports)
    }

    /// Has the guest read again.
    pub fn read(&self, machine: &impl Host) -> Result<()> {
        machine.command(Command::Read)
    }

    /// Has the guest look at its cards as they are now: it reads their configuration space, and its driver detects the ports
    /// anew, once everything it sent has come back.
    pub fn look(&self, machine: &impl Host) -> Result<Vec<CardReport>> {
        let from = machine.timeline().position();
        machine.command(Command::Look)?;
        let (mut seen, mut cards) = (Vec::new(), self.cards);
        machine.wait_for(from, REPORT, "the guest's look at its cards", |what| {
            if let What::Guest(Line::Card(report)) = what {
                seen.push(report.clone());
                cards -= 1;
            }
            if cards == 0 {
                Look::Found(())
            } else {
                Look::Wait
            }
        })?;
        Ok(seen)
    }
}

/// Takes in new counts, each of which is as before or more; true.
fn forward(known: &mut Vec<u32>, counts: &[u32]) -> Result<bool> {
    let back =
        counts.len() != known.len() || counts.iter().zip(&*known).any(|(new, old)| new < old);
    ensure!(
        !back,
        "the guest counted back, from {known:?} to {counts:?}"
    );
    counts.clone_into(known);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_interrupts_and_none_takes_none() {
        let mut done = Done::default();
        done.go_on(5, 3).unwrap();
        // Asked again before anything was done.
        done.go_on(5, 3).unwrap();
        done.go_on(6, 4).unwrap();
        // The interrupt of something that is under way.
        done.go_on(6, 5).unwrap();
        let error = done.go_on(7, 5).unwrap_err().to_string();
        assert!(error.contains("6 were done and 5 interrupts"), "{error}");
        assert!(done.go_on(8, 4).is_err());
    }
}
