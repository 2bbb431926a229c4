// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The program with real instances: what it shows, saving and loading.

use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use guest_tests::kernel;
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use serde_json::json;
use vfio_uapi::{Access, State};

use crate::host::{
    any, get, instance, list, name, open, run, set, tool, unchanged, values, Ran, Scratch, MODEL,
};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        types_and_instances_are_listed,
        a_parameter_list_has_what_is_in_effect,
        check_answers_by_exit_status,
        check_tells_whether_an_instance_is_prepared,
        select_puts_the_best_first,
        a_saved_state_can_be_inspected,
        a_saved_state_says_what_its_source_was,
        content_arrives_with_any_number_of_ports,
        a_fixed_type_copies_to_one_that_was_prepared,
        a_state_passes_through_a_pipe,
        load_refuses_with_the_driver_s_reason,
        load_refuses_a_damaged_state,
        copy_leaves_the_source_usable_after_a_refusal,
        save_without_pre_copy_and_with,
        an_unprivileged_user_is_told_what_to_do,
        without_an_iommufd_the_group_is_used,
    );
    for access in Access::ALL {
        suite.test(
            format!("an_instance_in_use_is_one_line_{}", access.name()),
            move || {
                kernel::needs_access(access)?;
                an_instance_in_use_is_one_line(access)
            },
        );
    }
}

fn types_and_instances_are_listed() -> Result<()> {
    let here = instance("mdev_serial-2")?;
    let shown = run(["types"])?
        .expect(0)?
        .says("mdev_serial/mdev_serial-any")?
        .says(MODEL)?;
    ensure!(
        shown
            .out
            .contains(&format!("{}  mdev_serial/mdev_serial-2", here.uuid())),
        "{}",
        shown.out
    );
    let types = run(["types", "--json"])?.expect(0)?.json()?;
    let types = types["types"].as_array().context("types")?;
    let two = types
        .iter()
        .find(|ty| ty["parent"] == "mdev_serial" && ty["type"] == "mdev_serial-2");
    let two = two.context("mdev_serial-2 is not listed")?;
    equal("instances", two["instances"].clone(), json!([name(&here)]))?;
    equal("models", two["models"].clone(), json!([MODEL]))?;
    equal("device_api", two["device_api"].clone(), json!("vfio-pci"))?;
    run(["info", "mdev_serial-2"])?
        .expect(0)?
        .says("num-ports")?
        .says("version v1")?;
    run(["info", &name(&here)])?.expect(0)?.says("fifo-depth")?;
    Ok(())
}

fn a_parameter_list_has_what_is_in_effect() -> Result<()> {
    let here = any()?;
    for (param, value) in [("num-ports", "2"), ("fifo-depth", "64"), ("msi", "off")] {
        set(&here, param, value).context(param)?;
    }
    let list = run(["params", "--json", &name(&here)])?.expect(0)?.json()?;
    let wanted = json!({"model": MODEL, "params": {"num-ports": 2, "fifo-depth": 64, "compact-state": true}});
    equal("the list", list, wanted)?;
    let shown = run(["params", &name(&here)])?
        .expect(0)?
        .says("version custom")?;
    let row = shown
        .out
        .lines()
        .find(|line| line.starts_with("msi"))
        .context("no row for msi")?;
    equal(
        "row of msi",
        row.split_whitespace().take(3).collect::<Vec<_>>(),
        vec!["msi", "off", "no"],
    )
}

fn check_answers_by_exit_status() -> Result<()> {
    let (one, four) = (instance("mdev_serial-1")?, instance("mdev_serial-4")?);
    run(["check", &name(&one), "mdev_serial-1"])?
        .expect(0)?
        .says("compatible")?;
    run(["check", &name(&one), "mdev_serial-any"])?.expect(0)?;
    run(["check", &name(&one), &name(&four)])?
        .expect(1)?
        .says("num-ports: source has 1, this device allows 4")?;
    let verdict = run(["check", "--json", &name(&one), "mdev_serial-4"])?
        .expect(1)?
        .json()?;
    equal("compatible", verdict["compatible"].clone(), json!(false))?;
    equal(
        "reasons",
        verdict["reasons"].clone(),
        json!([{
            "code": "not-allowed",
            "parameter": "num-ports",
            "source": 1,
            "allowed": [4],
            "text": "num-ports: source has 1, this device allows 4",
        }]),
    )?;
    run(["check", &name(&one), "mdev_serial-9"])?
        .expect(2)?
        .says("neither a file nor a type")?;
    run([
        "check",
        "00000000-0000-4000-8000-000000000000",
        "mdev_serial-1",
    ])?
    .expect(2)?
    .says("no such mdev instance")?;
    Ok(())
}

fn check_tells_whether_an_instance_is_prepared() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-2")?, any()?);
    let (from, to) = (name(&source), name(&destination));
    run(["check", &from, &to])?
        .expect(0)?
        .says("prepare")?
        .says("num-ports 1 -> 2")?;
    let verdict = run(["check", "--json", &from, &to])?.expect(0)?.json()?;
    equal(
        "changes",
        verdict["changes"].clone(),
        json!([{"name": "num-ports", "from": 1, "to": 2}]),
    )?;
    run(["prepare", &from, &to])?
        .expect(0)?
        .says("num-ports 1 -> 2")?;
    run(["check", &from, &to])?
        .expect(0)?
        .says("compatible, and prepared")?;
    Ok(())
}

fn select_puts_the_best_first() -> Result<()> {
    let source = instance("mdev_serial-2")?;
    let scratch = Scratch::new()?;
    for ty in ["1", "2", "4", "any"] {
        let other = instance(&format!("mdev_serial-{ty}"))?;
        // As it stands there: parameters come in declaration order.
        let text = other.attribute("mdev_type/migration_info.json")?;
        scratch.with(&format!("{ty}.json"), text)?;
    }
    let directory = scratch.file("").display().to_string();
    let ran = run(["select", "--json", &name(&source), &directory])?.expect(0)?;
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["name"].as_str()?.rsplit('/').next())
        .collect();
    equal(
        "order",
        names,
        vec!["2.json", "any.json", "1.json", "4.json"],
    )?;
    equal(
        "the third",
        lines[2]["reasons"][0]["text"].clone(),
        json!("num-ports: source has 2, this device allows 1"),
    )?;
    let best = run(["select", "--best", "1", &name(&source), &directory])?.expect(0)?;
    equal("lines", best.out.lines().count(), 1)
}

fn a_saved_state_can_be_inspected() -> Result<()> {
    let source = instance("mdev_serial-4")?;
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    run(["save", "--exercise", "--pre-copy", &name(&source), &state])?
        .expect(0)?
        .says("pre-copy")?;
    let shown = run(["inspect", &state])?.expect(0)?;
    let shown = shown
        .says("num-ports=4")?
        .says(MODEL)?
        .says("(port 3")?
        .says("all checksums right")?;
    ensure!(
        shown.out.contains("pre-copy") && shown.out.contains("stop-and-copy"),
        "{}",
        shown.out
    );
    let contents = run(["inspect", "--json", &state])?.expect(0)?.json()?;
    equal("complete", contents["complete"].clone(), json!(true))?;
    let records = contents["records"].as_array().context("records")?;
    let kinds: Vec<_> = records
        .iter()
        .filter_map(|record| record["record"].as_str())
        .collect();
    equal(
        "first records",
        kinds[..3].to_vec(),
        vec!["setup", "setup", "section"],
    )?;
    equal("last record", kinds.last().copied(), Some("end"))?;
    let sum: u64 = records
        .iter()
        .filter_map(|record| record["bytes"].as_u64())
        .sum();
    equal(
        "bytes of all records",
        sum,
        std::fs::metadata(&state)?.len(),
    )
}

fn a_saved_state_says_what_its_source_was() -> Result<()> {
    let source = any()?;
    set(&source, "fifo-depth", "64").context("fifo-depth")?;
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    run(["save", &name(&source), &state])?.expect(0)?;
    let fresh = instance("mdev_serial-1")?;
    run(["check", &state, &name(&fresh)])?
        .expect(0)?
        .says("fifo-depth 16 -> 64")?;
    run(["load", &name(&fresh), &state])?
        .expect(1)?
        .says("fifo-depth: source has 64, this device has 16")?;
    run(["prepare", &state, &name(&fresh)])?.expect(0)?;
    run(["load", &name(&fresh), &state])?
        .expect(0)?
        .says("accepted")?;
    Ok(())
}

fn content_arrives_with_any_number_of_ports() -> Result<()> {
    for ports in [1, 2, 4] {
        for depth in ["16", "64"] {
            for compact in ["on", "off"] {
                let ty = format!("mdev_serial-{ports}");
                let (source, destination) = (instance(&ty)?, instance(&ty)?);
                for card in [&source, &destination] {
                    set(card, "fifo-depth", depth).context("fifo-depth")?;
                    set(card, "compact-state", compact).context("compact-state")?;
                }
                let ran =
                    run(["copy", "--exercise", &name(&source), &name(&destination)])?.expect(0)?;
                ran.says(&format!("found again: {ports} port"))?;
            }
        }
    }
    Ok(())
}

fn a_fixed_type_copies_to_one_that_was_prepared() -> Result<()> {
    for ports in [1, 2, 4] {
        let (source, destination) = (instance(&format!("mdev_serial-{ports}"))?, any()?);
        set(
            &destination,
            "num-ports",
            if ports == 2 { "4" } else { "2" },
        )
        .context("num-ports")?;
        let (from, to) = (name(&source), name(&destination));
        run(["copy", &from, &to])?
            .expect(1)?
            .says(&format!("num-ports: source has {ports}"))?;
        run(["prepare", &from, &to])?.expect(0)?;
        run(["copy", "--exercise", &from, &to])?
            .expect(0)?
            .says("found again")?;
        // And back: the other way round they are the same.
        run(["copy", "--exercise", &to, &from])?.expect(0)?;
    }
    Ok(())
}

fn a_state_passes_through_a_pipe() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-2")?, instance("mdev_serial-2")?);
    let mut save = tool()?;
    let mut save = save
        .args(["save", "--exercise", &name(&source)])
        .stdout(Stdio::piped())
        .spawn()?;
    let out = save.stdout.take().context("no pipe")?;
    let load = tool()?
        .args(["load", &name(&destination)])
        .stdin(out)
        .output()?;
    equal("status of save", save.wait()?.code(), Some(0))?;
    Ran::from(load).expect(0)?.says("accepted")?;
    Ok(())
}

fn load_refuses_with_the_driver_s_reason() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-2")?, instance("mdev_serial-4")?);
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    run(["save", &name(&source), &state])?.expect(0)?;
    let before = values(&destination)?;
    let ran = run(["load", &name(&destination), &state])?.expect(1)?;
    ran.says("num-ports: source has 2, this device has 4")?;
    unchanged(&destination, &before)
}

fn load_refuses_a_damaged_state() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    run(["save", "--exercise", &name(&card), &state])?.expect(0)?;
    let good = std::fs::read(&state)?;
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut", good[..good.len() - 1].to_vec()),
        (
            "flipped",
            good.iter()
                .enumerate()
                .map(|(i, b)| if i == good.len() - 30 { b ^ 1 } else { *b })
                .collect(),
        ),
        ("longer", [good.as_slice(), &[0]].concat()),
    ] {
        let path = scratch.with(what, bytes)?.display().to_string();
        run(["load", &name(&card), &path])?
            .expect(1)
            .context(what)?;
        run(["inspect", &path])?.expect(1).context(what)?;
    }
    run(["load", &name(&card), &state])?.expect(0)?;
    Ok(())
}

fn copy_leaves_the_source_usable_after_a_refusal() -> Result<()> {
    let (source, wrong, right) = (
        instance("mdev_serial-1")?,
        instance("mdev_serial-2")?,
        instance("mdev_serial-1")?,
    );
    run(["copy", &name(&source), &name(&wrong)])?.expect(1)?;
    equal("state", get(&source, "state")?, "RUNNING".to_string())?;
    run(["copy", "--exercise", &name(&source), &name(&right)])?.expect(0)?;
    run(["copy", &name(&source), &name(&source)])?
        .expect(2)?
        .says("same instance")?;
    Ok(())
}

fn save_without_pre_copy_and_with() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let scratch = Scratch::new()?;
    for (flag, setups) in [(None, 1), (Some("--pre-copy"), 2)] {
        let state = scratch
            .file(&format!("state-{setups}"))
            .display()
            .to_string();
        let arguments = ["save"].into_iter().chain(flag);
        let uuid = name(&card);
        run(arguments.chain([uuid.as_str(), state.as_str()]))?.expect(0)?;
        let contents = run(["inspect", "--json", &state])?.expect(0)?.json()?;
        let records = contents["records"].as_array().context("records")?;
        equal(
            "setup records",
            records
                .iter()
                .filter(|record| record["record"] == "setup")
                .count(),
            setups,
        )?;
        run(["load", &uuid, &state])?.expect(0)?;
    }
    Ok(())
}

fn an_instance_in_use_is_one_line(access: Access) -> Result<()> {
    let (card, other) = (instance("mdev_serial-1")?, instance("mdev_serial-1")?);
    let device = access.open(&card)?;
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    for arguments in [
        vec!["save".to_string(), name(&card), state.clone()],
        vec!["load".to_string(), name(&card), "/dev/null".to_string()],
        vec!["copy".to_string(), name(&card), name(&other)],
        vec!["copy".to_string(), name(&other), name(&card)],
    ] {
        let ran = run(&arguments)?.expect(2)?.says("is in use (EBUSY)")?;
        equal("lines", ran.err.lines().count(), 1)?;
    }
    equal("the user's device", device.state(), Ok(State::Running))?;
    drop(device);
    run(["save", &name(&card), &state])?.expect(0)?;
    drop(open(&card)?);
    Ok(())
}

fn an_unprivileged_user_is_told_what_to_do() -> Result<()> {
    const NOBODY: u32 = 65534;
    let (source, card) = (instance("mdev_serial-1")?, any()?);
    let scratch = Scratch::new()?;
    let document = scratch
        .with("list.json", list(json!({"num-ports": 1})))?
        .display()
        .to_string();
    let as_nobody = |arguments: &[&str]| -> Result<Ran> {
        let mut command = tool()?;
        command.args(arguments).uid(NOBODY).gid(NOBODY);
        Ok(command.output()?.into())
    };
    // To look is free.
    as_nobody(&["types"])?.expect(0)?;
    as_nobody(&["params", &name(&card)])?.expect(0)?;
    as_nobody(&["check", &name(&source), &name(&card)])?.expect(0)?;
    as_nobody(&["watch", "--once", &name(&card)])?.expect(0)?;
    let before = values(&card)?;
    as_nobody(&["prepare", &document, &name(&card)])?
        .expect(2)?
        .says("run this as root")?;
    unchanged(&card, &before)?;
    as_nobody(&["save", &name(&card), "-"])?
        .expect(2)?
        .says("run this as root")?;
    Ok(())
}

/// `/dev/iommu` under another name. Back when dropped.
struct Hidden;

const IOMMUFD: &str = "/dev/iommu";
const AWAY: &str = "/dev/iommu.away";

impl Hidden {
    fn new() -> Result<Self> {
        std::fs::rename(IOMMUFD, AWAY).context(IOMMUFD)?;
        Ok(Self)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Err(error) = std::fs::rename(AWAY, IOMMUFD) {
            guest_tests::ktap::diagnostic(format!("{AWAY}: {error}"));
        }
    }
}

fn without_an_iommufd_the_group_is_used() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-2")?, instance("mdev_serial-2")?);
    // A kernel without it needs nothing hidden.
    let _hidden = kernel::has("IOMMUFD").then(Hidden::new).transpose()?;
    let (from, to) = (name(&source), name(&destination));
    run(["copy", "--exercise", &from, &to])?
        .expect(0)?
        .says("found again: 2 ports")?;
    let device = Access::Group.open(&source)?;
    run(["copy", &from, &to])?
        .expect(2)?
        .says("is in use (EBUSY)")?;
    drop(device);
    run(["copy", &from, &to])?.expect(0)?;
    Ok(())
}
