// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;

const STATE: &[u8] = b"what the device holds";

/// Saves, as the program does.
fn save(path: &Path) -> std::result::Result<(), String> {
    let mut target = Target::open(path).map_err(|error| error.to_string())?;
    target.write(STATE).map_err(|error| error.to_string())?;
    target.finish().map_err(|error| error.to_string())
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_file_is_its_owner_s_and_whole() {
    let directory = TempDir::new().unwrap();
    let (new, old) = (directory.path().join("new"), directory.path().join("old"));
    fs::write(&old, "an earlier state").unwrap();
    fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
    for path in [&new, &old] {
        save(path).unwrap();
        assert_eq!(fs::read(path).unwrap(), STATE);
        assert_eq!(mode(path), 0o600, "{path:?}");
    }
    // What fails in the middle leaves what was.
    let mut target = Target::open(&old).unwrap();
    target.write(b"half of").unwrap();
    assert_eq!(names(&directory).len(), 3);
    drop(target);
    assert_eq!(fs::read(&old).unwrap(), STATE);
    assert_eq!(names(&directory), ["new", "old"]);
}

#[test]
fn a_link_stays_a_link() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("states")).unwrap();
    let (link, end) = (
        directory.path().join("latest"),
        directory.path().join("states/3"),
    );
    symlink("states/3", &link).unwrap();
    let error = save(&link).unwrap_err();
    assert!(error.contains("leads nowhere"), "{error}");
    fs::write(&end, "").unwrap();
    save(&link).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("states/3"));
    assert_eq!(fs::read(&end).unwrap(), STATE);
    assert_eq!(mode(&end), 0o600);
}

#[test]
fn what_is_no_file_stays_what_it_is() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    for path in [&fifo, &directory.path().join("link-to-fifo")] {
        if path != &fifo {
            symlink("fifo", path).unwrap();
        }
        let reader = {
            let fifo = fifo.clone();
            std::thread::spawn(move || fs::read(fifo).unwrap())
        };
        save(path).unwrap();
        assert_eq!(reader.join().unwrap(), STATE);
        assert!(fs::metadata(path).unwrap().file_type().is_fifo());
    }
    let null = directory.path().join("null");
    symlink("/dev/null", &null).unwrap();
    for path in [Path::new("/dev/null"), &null] {
        save(path).unwrap();
        assert!(fs::metadata(path).unwrap().file_type().is_char_device());
    }
    assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
    assert!(save(Path::new("/dev/full"))
        .unwrap_err()
        .contains("No space left"));
    let error = save(directory.path()).unwrap_err();
    assert!(error.contains("a directory: give a file"), "{error}");
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = save(&socket).unwrap_err();
    assert!(error.contains("a socket: give a file"), "{error}");
    assert_eq!(
        names(&directory),
        ["fifo", "link-to-fifo", "null", "socket"]
    );
}

#[test]
fn what_takes_the_name_meanwhile_is_not_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state");
    let target = Target::open(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    let error = target.finish().unwrap_err().to_string();
    assert_eq!(error, "a symbolic link has got this name meanwhile");
    assert_eq!(names(&directory), ["state"]);
}

/// Tells the other process, which runs a test of this program, to save to this file and to stop half way.
const CHILD: &str = "VFIO_MIGRATE_TEST_TARGET";

#[test]
fn half_of_a_state() {
    let directory = TempDir::new().unwrap();
    let child = std::env::var_os(CHILD);
    let own = directory.path().join("state");
    let mut target = Target::open(child.as_ref().map_or(own.as_path(), Path::new)).unwrap();
    target.write(STATE).unwrap();
    if child.is_some() {
        println!("\nready");
        // Whoever started this process ends it, or goes away.
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
    drop(target);
    assert!(names(&directory).is_empty());
}

/// Starts to save in another process, which is made to `ignore` a signal, and sends it `signals`. Returns what ended it.
fn interrupted(path: &Path, ignore: &str, signals: &[Signal]) -> Option<i32> {
    // What this process itself ignores, as those in the background do, is not to count.
    let script = "ulimit -c 0; exec env --default-signal --ignore-signal=$1 $0 --exact state_file::tests::half_of_a_state --nocapture";
    let mut child = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(ignore)
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert!(out.by_ref().lines().any(|line| line.unwrap() == "ready"));
    for signal in signals {
        kill_process(Pid::from_child(&child), *signal).unwrap();
    }
    // Waiting closes it otherwise, and the end of its input may come to the child before the signal does.
    let input = child.stdin.take();
    let ended_by = child.wait().unwrap().signal();
    drop(input);
    ended_by
}

#[test]
fn nothing_is_left_by_a_signal() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state");
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        // The shell sees what ended it.
        let ended_by = interrupted(&path, "USR1", &[signal]);
        assert_eq!(ended_by, Some(signal.as_raw()));
        assert!(
            names(&directory).is_empty(),
            "{signal:?}: {:?}",
            names(&directory)
        );
    }
    // As after nohup: the first is not heard.
    let ended_by = interrupted(&path, "HUP", &[Signal::HUP, Signal::TERM]);
    assert_eq!(ended_by, Some(Signal::TERM.as_raw()));
    assert!(names(&directory).is_empty());
}
