// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Completions, completed: a shell at a terminal, and its Tab key.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::host::Host;

/// Runs in the shell before anything is typed: the program's completions, and in place of the program one that tells its
/// arguments. The prompt is made of two words, so that it does not look like what was typed.
const SET_UP: &str = r#"PS1='ready''> '
unset HISTFILE
source <("$PROGRAM" completions bash)
vfio-migrate() { printf '<%s>' "$@" 'end'; echo; }
"#;

/// A shell at a terminal. `script` makes the terminal.
struct Shell {
    child: Child,
    keys: Option<ChildStdin>,
    screen: ChildStdout,
    seen: Vec<u8>,
}

impl Shell {
    fn start(host: &Host) -> Self {
        let rc = host.file("rc", SET_UP);
        let mut child = Command::new("script")
            .args([
                "-q",
                "-e",
                "-c",
                &format!("bash --noprofile --rcfile {rc} -i"),
                "/dev/null",
            ])
            .current_dir(host.path(""))
            .env("PROGRAM", env!("CARGO_BIN_EXE_vfio-migrate"))
            .env("TERM", "dumb")
            .env("INPUTRC", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut shell = Self {
            keys: child.stdin.take(),
            screen: child.stdout.take().unwrap(),
            child,
            seen: Vec::new(),
        };
        shell.read_to("ready> ");
        shell
    }

    /// Reads the screen to these words, and returns what was before them.
    fn read_to(&mut self, words: &str) -> String {
        let mut buffer = [0; 1024];
        loop {
            let text = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some((before, after)) = text.split_once(words) {
                let before = before.to_string();
                self.seen = after.as_bytes().to_vec();
                return before;
            }
            let len = self.screen.read(&mut buffer).unwrap();
            assert_ne!(len, 0, "the shell ended: {text:?}");
            self.seen.extend(&buffer[..len]);
        }
    }

    /// The arguments that the program is called with if this is typed.
    fn arguments(&mut self, keys: &str) -> Vec<String> {
        let line = format!("vfio-migrate {keys}\n");
        self.keys
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        let shown = self.read_to("<end>");
        self.read_to("ready> ");
        let (_, arguments) = shown.split_once('<').unwrap_or_default();
        let arguments = arguments.trim_end_matches('>').split("><");
        arguments
            .map(str::to_string)
            .filter(|word| !word.is_empty())
            .collect()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It may have ended already.
        if let Some(mut keys) = self.keys.take() {
            let _ = keys.write_all(b"\nexit\n");
        }
        let _ = self.child.wait();
    }
}

#[test]
fn a_shell_completes_every_command() {
    let host = Host::new();
    host.file("some-state", b"");
    let mut shell = Shell::start(&host);
    let commands = [
        "types",
        "info",
        "params",
        "check",
        "command-line",
        "select",
        "prepare",
        "save",
        "load",
        "copy",
        "inspect",
        "watch",
        "callout",
        "completions",
        "man",
    ];
    for command in commands {
        // Of "com" there are two, told apart by the fourth letter.
        let typed = &command[..command.len().min(4)];
        assert_eq!(shell.arguments(&format!("{typed}\t")), [command]);
        assert_eq!(
            shell.arguments(&format!("{command} --js\t")),
            [command, "--json"]
        );
        assert_eq!(
            shell.arguments(&format!("{command} some-s\t")),
            [command, "some-state"]
        );
    }
    for (keys, words) in [
        ("--sys\t", &["--sysfs"][..]),
        ("prepare --dr\t", &["prepare", "--dry-run"]),
        ("select --be\t", &["select", "--best"]),
        ("watch --un\t", &["watch", "--until-end"]),
        (
            "save --ex\t--pr\te\t",
            &["save", "--exercise", "--pre-copy"],
        ),
        ("save --protocol v1-\t", &["save", "--protocol", "v1-mmap"]),
        (
            "copy --fr\tv2 --t\tv1-\t",
            &["copy", "--from", "v2", "--to", "v1-mmap"],
        ),
        ("completions z\t", &["completions", "zsh"]),
        (
            "completions zsh some-s\t",
            &["completions", "zsh", "some-state"],
        ),
    ] {
        assert_eq!(shell.arguments(keys), words, "{keys:?}");
    }
}
