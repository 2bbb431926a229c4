// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The examples in the help of every command, run as they stand there by a shell; and what `--json` prints of devices, against
//! the schema that documents it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use serde_json::Value as Json;
use vfio_uapi::mdev::Mdev;

use crate::host::{any, name, run, tool, Ran, Scratch};
use crate::programs::Program;

const SCHEMA: &str = include_str!("../../../Documentation/vfio-migrate.schema.json");

/// The commands that are looked for in the list that help prints, at least.
const KNOWN: [&str; 3] = ["types", "select", "man"];

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        every_example_in_the_help_works,
        what_json_says_of_devices_is_as_the_schema_has_it,
    );
}

/// A place to run examples in: what they name is there.
struct Stage {
    scratch: Scratch,
    /// By the names that the examples have for them.
    instances: Vec<(&'static str, Mdev)>,
    /// Listens at card.sock; absent while it is started anew.
    program: Option<Program>,
}

impl Stage {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut instances = Vec::new();
        // The longest names first: one begins with another.
        for word in ["SOURCE-UUID", "UUID1", "UUID2", "UUID"] {
            instances.push((word, any()?));
        }
        let program = Program::start(&scratch.file("card.sock"), &[])?;
        let stage = Self {
            scratch,
            instances,
            program: Some(program),
        };
        // The other host is this one.
        fs::create_dir(stage.path("bin"))?;
        let ssh = stage
            .scratch
            .with("bin/ssh", "#!/bin/sh\nshift\nexec \"$@\"\n")?;
        fs::set_permissions(ssh, fs::Permissions::from_mode(0o755))?;
        let info = run(["info", "--json", "mdev_serial-any"])?.expect(0)?.out;
        fs::create_dir(stage.path("hosts"))?;
        stage.scratch.with("hosts/one.json", &info)?;
        stage
            .scratch
            .with("candidates.jsonl", info.replace('\n', " "))?;
        let list = run(["params", "--json", &stage.uuid("UUID")?])?.expect(0)?;
        stage.scratch.with("source.json", list.out)?;
        let program = std::env::current_exe()?.with_file_name("vfio-user-device");
        symlink(&program, stage.path("vfio-user-device"))?;
        let state = stage.path("state").display().to_string();
        run(["save", &stage.uuid("UUID")?, &state])?.expect(0)?;
        for directory in [
            "/etc/bash_completion.d",
            "/usr/local/share/zsh/site-functions",
            "/usr/local/share/man/man1",
        ] {
            fs::create_dir_all(directory)?;
        }
        fs::create_dir_all(stage.path(".config/fish/completions"))?;
        Ok(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.file(name)
    }

    fn uuid(&self, word: &str) -> Result<String> {
        let found = self.instances.iter().find(|(known, _)| *known == word);
        Ok(name(&found.context("no such instance")?.1))
    }

    /// The example with the names of real instances, in a shell.
    fn shell(&self, example: &str) -> Result<Command> {
        let mut script = example.to_string();
        for (word, instance) in &self.instances {
            script = script.replace(word, &name(instance));
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-e", "-c", &script])
            .current_dir(self.path(""))
            .env("HOME", self.path(""))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, example: &str) -> Result<()> {
        let ran: Ran = self.shell(example)?.output()?.into();
        ran.expect(0).map(drop)
    }

    /// An example that watches a device, which a migration begins and ends of, and which then goes.
    fn watch(&mut self, example: &str) -> Result<()> {
        let mut watching = self.shell(example)?.stdout(Stdio::piped()).spawn()?;
        let device = match example.split("vfio-user:").nth(1) {
            Some(socket) => format!("vfio-user:{}", self.path(socket).display()),
            None => self.uuid("UUID")?,
        };
        let watched = self.watched(&mut watching, &device);
        if watched.is_err() {
            let _ = watching.kill();
        }
        let status = watching.wait()?;
        watched?;
        equal("exit status", status.code(), Some(0))
    }

    fn watched(&mut self, watching: &mut Child, device: &str) -> Result<()> {
        let output = watching.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(output).lines();
        let first = lines.next().context("nothing was printed")??;
        ensure!(first.starts_with("state RUNNING"), "{first:?}");
        let state = self.path("watched").display().to_string();
        run(["save", device, &state])?.expect(0)?;
        if device.starts_with("vfio-user:") {
            self.program.take().context("no program")?.terminate()?;
            self.program = Some(Program::start(&self.path("card.sock"), &[])?);
        }
        for (word, instance) in &mut self.instances {
            if *word == "UUID" && name(instance) == device {
                std::mem::replace(instance, any()?).remove()?;
            }
        }
        lines.try_for_each(|line| line.map(drop))?;
        Ok(())
    }
}

/// The names of the commands, as help lists them.
fn commands() -> Result<Vec<String>> {
    let help = run(["--help"])?.expect(0)?.out;
    let list = help.split("Commands:\n").nth(1).context("no commands")?;
    let names: Vec<String> = list
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_string)
        .collect();
    for known in KNOWN {
        ensure!(names.iter().any(|name| name == known), "{known}: {names:?}");
    }
    Ok(names)
}

/// The examples in a help text.
fn examples(help: &str) -> Vec<String> {
    let after = help.split("Examples:\n").nth(1).unwrap_or_default();
    after
        .lines()
        .take_while(|line| line.starts_with("  "))
        // What follows is a remark.
        .filter_map(|line| line.trim_start().split("   ").next())
        .map(str::to_string)
        .collect()
}

fn every_example_in_the_help_works() -> Result<()> {
    let mut stage = Stage::new()?;
    let mut texts = vec![run(["--help"])?.expect(0)?.out];
    for command in commands()? {
        texts.push(run([command.as_str(), "--help"])?.expect(0)?.out);
    }
    for help in &texts {
        let examples = examples(help);
        ensure!(!examples.is_empty(), "no example: {help}");
        for example in examples {
            let works = match example.starts_with("vfio-migrate watch") {
                true => stage.watch(&example),
                false => stage.run(&example),
            };
            works.with_context(|| format!("`{example}`"))?;
        }
    }
    Ok(())
}

/// Whether a flat object is as the schema has the definition: the members, and the types of their values.
fn fits(definition: &str, document: &Json) -> Result<()> {
    let schema: Json = serde_json::from_str(SCHEMA)?;
    let definition = &schema["$defs"][definition];
    let members = document.as_object().context("no object")?;
    for required in definition["required"].as_array().context("required")? {
        let name = required.as_str().unwrap_or_default();
        ensure!(
            members.contains_key(name),
            "{name} is missing in {document}"
        );
    }
    for (name, value) in members {
        let wanted = &definition["properties"][name];
        let is_right = match (wanted.get("const"), wanted["type"].as_str()) {
            (Some(wanted), _) => value == wanted,
            (None, Some("integer")) => value.is_u64(),
            (None, Some("boolean")) => value.is_boolean(),
            (None, Some("string")) => value.is_string(),
            (None, other) => bail!("{name} is documented as {other:?}"),
        };
        ensure!(is_right, "{name} is {value}, documented is {wanted}");
    }
    Ok(())
}

fn what_json_says_of_devices_is_as_the_schema_has_it() -> Result<()> {
    let (one, two) = (any()?, any()?);
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    let (one, two) = (name(&one), name(&two));
    for (command, arguments) in [
        ("save", &["--pre-copy", &one, &state][..]),
        ("load", &[&two, &state]),
        ("copy", &["--exercise", &one, &two]),
    ] {
        let ran = run([&["--json", command], arguments].concat())?.expect(0)?;
        fits(command, &ran.json()?).context(command)?;
    }
    // A saved state on standard output is all that is there.
    let streamed = tool()?
        .args(["--json", "save", "--pre-copy", &one])
        .output()?;
    ensure!(streamed.stdout == fs::read(&state)?, "more than the state");
    Ok(())
}
