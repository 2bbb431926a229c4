// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A migration as a reader of README.md does it: with the commands that are written there, QEMU's defaults and the guest's, and
//! nothing of what other scenarios add for their own sake. Documentation/testing.rst lists that.

use std::path::Path;

use anyhow::{ensure, Context, Result};

use super::cards::{Cards, UNMASK_REFUSED};
use super::guest::{Guest, Host};
use super::scene::Scene;
use super::smooth::{pair, SOME};
use super::terminal::Terminal;
use super::version::{Protocol, Version};
use crate::diag;
use crate::ktap::Outcome;

/// The text with the commands.
const README: &str = include_str!("../../../../README.md");
/// What a QEMU of protocol v1 has to be told, as the text says.
const V1_PROPERTY: &str = ",x-enable-migration=on";
/// What starts in the background writes there.
const IN_BACKGROUND: &str = " </dev/null >/tmp/destination.log 2>&1 &";

/// The command in the block of README.md that is marked with `<!-- tested: NAME -->`.
fn command(name: &str) -> Result<String> {
    let mark = format!("<!-- tested: {name} -->\n```\n");
    let (_, rest) = README
        .split_once(&mark)
        .with_context(|| format!("README.md has no block marked as {name}"))?;
    let (block, _) = rest.split_once("\n```").context("a block without end")?;
    Ok(block.to_string())
}

/// The commands of README.md, changed where the text says that they may be: the machine type, and what an older QEMU has to be
/// told. Everything else is as it is written.
struct Commands {
    version: Version,
    machine: &'static str,
}

impl Commands {
    fn adapted(&self, name: &str) -> Result<String> {
        let mut text = command(name)?;
        let machine = " -M q35 ";
        ensure!(text.contains(machine), "{name} names no machine type");
        text = text.replace(machine, &format!(" -M {} ", self.machine));
        if self.version.protocol() == Protocol::V1 {
            ensure!(
                README.contains(V1_PROPERTY),
                "README.md does not say what {} needs",
                self.version
            );
            let variable = format!("/${name}");
            ensure!(text.contains(&variable), "{name} does not name its card");
            text = text.replace(&variable, &format!("{variable}{V1_PROPERTY}"));
        }
        Ok(text)
    }

    /// The command that starts the source.
    fn source(&self) -> Result<String> {
        self.adapted("source")
    }

    /// The command that starts a destination, in the foreground: its terminal is the test's, and not a file. It listens to what
    /// the text says, or elsewhere.
    fn destination(&self, elsewhere: Option<&str>) -> Result<String> {
        let text = self.adapted("destination")?;
        let text = text
            .strip_suffix(IN_BACKGROUND)
            .context("the destination is not started in the background")?;
        let (start, uri) = text
            .split_once(" -incoming ")
            .context("the destination waits for nothing")?;
        Ok(format!("{start} -incoming {}", elsewhere.unwrap_or(uri)))
    }
}

/// Runs a command with the variables that the text sets: the two cards.
fn run(
    scene: &Scene,
    name: &str,
    command: &str,
    version: Version,
    cards: [&Cards; 2],
) -> Result<Terminal> {
    let [source, destination] = cards.map(|cards| cards.instances()[0].uuid().to_string());
    let program = version.program();
    let directory = Path::new(&program).parent().context("QEMU's directory")?;
    let others = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{others}", directory.display());
    let variables = [
        ("source", source.as_str()),
        ("destination", destination.as_str()),
        ("PATH", path.as_str()),
    ];
    Terminal::run(scene.place(), name, command, &variables)
}

/// From a QEMU to another one over a socket, and from there by a file to a third one, which has the first one's card: the
/// guest verifies what comes back on both ports wherever it is.
fn there_and_back(version: Version, machine: &'static str) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, &format!("plain-{machine}"))?;
    let commands = Commands { version, machine };
    let destination = run(
        &scene,
        "destination",
        &commands.destination(None)?,
        version,
        [&here, &there],
    )?;
    let source = run(
        &scene,
        "source",
        &commands.source()?,
        version,
        [&here, &there],
    )?;
    let mut guest = Guest::boot(&source, 0, &here.view())?;
    works(&source, &mut guest)?;

    let began = scene.timeline().position();
    source.monitor(&typed("migrate ")?)?;
    source.migrated(&typed("info ")?)?;
    source.quit(&[UNMASK_REFUSED])?;
    guest.moved(scene.timeline(), "source", began)?;
    works(&destination, &mut guest)?;
    diag!("over a socket: the guest counted to {:?}", guest.counts());

    // The card that was left is free; a QEMU of protocol v1 is older than the address of a file.
    let file = scene.place().sockets.join("guest");
    let (out, back) = match version.protocol() {
        Protocol::V1 => (
            format!("\"exec:cat >{}\"", file.display()),
            format!("'exec:cat {}'", file.display()),
        ),
        Protocol::V2 => {
            let uri = format!("file:{}", file.display());
            (uri.clone(), uri)
        }
    };
    let began = scene.timeline().position();
    destination.monitor(&format!("migrate {out}"))?;
    destination.migrated(&typed("info ")?)?;
    destination.quit(&[UNMASK_REFUSED])?;
    guest.moved(scene.timeline(), "destination", began)?;
    let third = commands.destination(Some(&back))?;
    let third = run(&scene, "third", &third, version, [&there, &here])?;
    works(&third, &mut guest)?;
    diag!("by a file: the guest counted to {:?}", guest.counts());
    third.quit(&[UNMASK_REFUSED])
}

/// The line that README.md says to type into the source's monitor and that starts so.
fn typed(start: &str) -> Result<String> {
    let text = command("monitor")?;
    let line = text.lines().find(|line| line.starts_with(start));
    let line = line.with_context(|| format!("README.md has nothing to type for {start}"))?;
    Ok(line.to_string())
}

/// The guest verifies records on every port, by interrupts.
fn works(host: &impl Host, guest: &mut Guest) -> Result<()> {
    guest.count_on(host, SOME)?;
    guest.settle(host)?;
    guest.count_on(host, SOME)
}

/// On the older machine type.
pub fn pc(version: Version) -> Outcome {
    there_and_back(version, "pc")
}

/// On the newer machine type, which is the one in the text.
pub fn q35(version: Version) -> Outcome {
    there_and_back(version, "q35")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_commands_that_only_differ_in_the_card_and_the_waiting() {
        for version in Version::ALL {
            for machine in ["pc", "q35"] {
                let commands = Commands { version, machine };
                let source = commands.source().unwrap();
                let waits = commands.destination(None).unwrap();
                let (start, uri) = waits.split_once(" -incoming ").unwrap();
                // The line before it is continued.
                let start = start.trim_end().trim_end_matches('\\').trim_end();
                assert_eq!(start.replace("/$destination", "/$source"), source);
                assert_eq!(typed("migrate ").unwrap(), format!("migrate {uri}"));
            }
        }
    }
}
