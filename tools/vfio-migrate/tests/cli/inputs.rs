// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Files that are none, and files that may not be read.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use serde_json::json;

use crate::host::{end, info, list, make_fifo, Host, Ran, FIXED, FLEXIBLE};

impl Host {
    /// Runs the program, which must not wait for anything.
    #[track_caller]
    fn run_at_once(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        end(child.spawn().unwrap())
    }
}

#[test]
fn nobody_waits_for_a_fifo() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    let good = host.file("good.json", info("2"));
    fs::create_dir(host.path("hosts")).unwrap();
    let hosts = host.path("hosts").display().to_string();
    let fifo = host.path("hosts/a.json");
    make_fifo(&fifo);
    let fifo = fifo.display().to_string();
    for arguments in [
        &["select", &source, &fifo][..],
        &["select", &source, &hosts],
        &["select", &source, &good, &hosts],
        &["select", &fifo, &good],
        &["check", &source, &fifo],
        &["check", &fifo, &good],
        &["info", &fifo],
        &["prepare", &fifo, FLEXIBLE],
        &["inspect", &fifo],
    ] {
        let ran = host.run_at_once(arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {ran:?}");
        ran.says(&fifo).says("a FIFO");
    }
}

#[test]
fn a_tree_with_a_fifo_in_it_is_read_at_once() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    let card = host.path("sys/devices/virtual/card/card0");
    let instance = card.join(FLEXIBLE).join("migration");
    for (name, text) in [("state", "RUNNING"), ("phase", "none"), ("bytes", "0")] {
        fs::write(instance.join(name), text).unwrap();
    }
    for file in [
        card.join("mdev_supported_types/card-any/migration_info.json"),
        card.join("mdev_supported_types/card-any/name"),
        instance.join("device_model"),
        instance.join("version"),
        instance.join("ports"),
        instance.join("error"),
        instance.join("state"),
    ] {
        let before = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        make_fifo(&file);
        for arguments in [
            &["types"][..],
            &["info", "card-any"],
            &["params", FLEXIBLE],
            &["check", &source, FLEXIBLE],
            &["prepare", &source, FLEXIBLE],
            &["watch", "--once", FLEXIBLE],
        ] {
            host.run_at_once(arguments);
        }
        fs::remove_file(&file).unwrap();
        fs::write(&file, before).unwrap();
    }
}

#[test]
fn devices_and_sockets_are_read_at_once() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    let _socket = UnixListener::bind(host.path("socket")).unwrap();
    let socket = host.path("socket").display().to_string();
    for (name, words) in [
        ("/dev/null", "cut off or empty"),
        ("/dev/zero", "/dev/zero:1:0: longer than"),
        // The other side of a terminal has nothing to give.
        ("/dev/ptmx", "a device that has nothing to give"),
        (&socket, "ENXIO"),
    ] {
        let ran = host.run_at_once(&["check", &source, name]);
        ran.expect(2).says(name).says(words);
    }
}

#[test]
fn a_fifo_that_somebody_writes_is_read() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    let one = host.file("one.json", info("1"));
    let two = host.file("two.json", info("2"));
    let script = |text: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", text, "bash", env!("CARGO_BIN_EXE_vfio-migrate")]);
        Ran::of(bash.args([&source, &one, &two]).output().unwrap())
    };
    // What bash makes of <(…) is a name for a pipe.
    script(r#""$1" check "$2" <(cat "$4")"#).expect(0);
    script(r#""$1" check <(cat "$2") "$3""#).expect(1);
    script(r#""$1" select "$2" <(cat "$3") <(cat "$4")"#).expect(0);
    script(r#"cat "$4" | "$1" check "$2" /dev/stdin"#).expect(0);
}

/// A run without the privileges of root, which may read everything.
fn run_as_nobody(host: &Host, arguments: &[&str]) -> Ran {
    const NOBODY: u32 = 65534;
    let mut command = host.command(arguments);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ran::of(command.output().unwrap())
}

#[test]
fn a_file_that_may_not_be_read_is_not_called_missing() {
    let host = Host::new();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&host.path(""), 0o755);
    let source = host.file("source.json", list(json!({"ports": 1})));
    fs::create_dir(host.path("closed")).unwrap();
    let hidden = host.file("closed/info.json", info("1"));
    open(&host.path("closed"), 0);
    let card = host.path("sys/devices/virtual/card/card0");
    let expect = |arguments: &[&str], words: &str| {
        let ran = run_as_nobody(&host, arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {ran:?}");
        assert!(!ran.err.contains("driver"), "{arguments:?}: {ran:?}");
        ran.says("Permission denied (EACCES): run this as root")
            .says(words);
    };
    expect(&["check", &source, &hidden], &hidden);
    expect(&["check", &hidden, "card-1"], &hidden);
    expect(&["info", &hidden], &hidden);
    for (closed, arguments) in [
        (host.path("sys/bus/mdev"), &["params", FIXED][..]),
        (host.path("sys/class"), &["types"]),
        (host.path("sys/class"), &["info", "card-1"]),
        (
            card.join("mdev_supported_types/card-1"),
            &["info", "card0/card-1"],
        ),
        (card.join("mdev_supported_types/card-1"), &["types"]),
        (card.join(FIXED), &["params", FIXED]),
        (card.join(FIXED), &["watch", "--once", FIXED]),
        (host.path("sys"), &["types"]),
    ] {
        open(&closed, 0);
        expect(arguments, closed.file_name().unwrap().to_str().unwrap());
        open(&closed, 0o755);
    }
    open(&host.path("closed"), 0o755);
}

#[test]
fn a_tree_that_is_not_there_is_told() {
    for arguments in [
        &["types"][..],
        &["info", "card-1"],
        &["params", FIXED],
        &["watch", "--once", FIXED],
    ] {
        let mut all = vec!["--sysfs", "/nonexistent"];
        all.extend(arguments);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-migrate"));
        let ran = Ran::of(command.args(all).output().unwrap());
        ran.expect(2)
            .says("/nonexistent: No such file or directory (ENOENT)");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_a_file_that_is_missing() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 1})));
    symlink("nowhere", host.path("link")).unwrap();
    let link = host.path("link").display().to_string();
    host.run(&["check", &source, &link])
        .expect(2)
        .says("link: No such file or directory (ENOENT)");
}

#[test]
fn a_type_that_cannot_be_read_does_not_hide_the_others() {
    let host = Host::new();
    let types = host.path("sys/devices/virtual/card/card0/mdev_supported_types");
    fs::write(types.join("card-1/migration_info.json"), "{").unwrap();
    let ran = host.run(&["types"]);
    assert_eq!(ran.status, 2, "{ran:?}");
    let ran = ran
        .says("card0/card-any")
        .says("(unreadable)")
        .says("card-1/migration_info.json:1:1: ");
    assert_eq!(ran.err.lines().count(), 2, "{ran:?}");
    let ran = host.run(&["types", "--json"]);
    assert_eq!(ran.status, 2, "{ran:?}");
    let document = ran.json();
    let types = document["types"].as_array().unwrap();
    assert_eq!(types.len(), 2);
    assert!(
        types[0]["error"]
            .as_str()
            .unwrap()
            .contains("card-1/migration_info.json:1:1: "),
        "{document}"
    );
    assert_eq!(types[1]["error"], json!(null));
}
