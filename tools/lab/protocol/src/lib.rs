// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the lab on the host and the first process of the test machine say to each other.
//!
//! They share one byte pipe, the virtio-serial port named [`PORT_NAME`]. Each [`Frame`] on it is
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of what follows, little endian, at most [`MAX_FRAME`] |
//! | 1 | kind |
//! | … | payload of that kind |
//!
//! [`Command`]s and [`Report`]s travel as JSON; output, kernel log and file contents travel as bytes, each with the number of the
//! run it belongs to, so that two programs' outputs can never be taken for one another's.

use serde::{de::DeserializeOwned, Deserialize, Serialize};

/// Name of the virtio-serial port, as `/sys/class/virtio-ports/*/name` shows it in the machine.
pub const PORT_NAME: &str = "lab.control";

/// File of the machine, relative to its root, with the names of the modules that its first process loads before all else, one a
/// line, each after those it depends on.
pub const BOOT_MODULES: &str = "lib/modules/lab/boot";

/// File of the machine, relative to its root, with its kernel's configuration.
pub const KERNEL_CONFIG: &str = "lib/modules/lab/config";

/// Longest frame after its length field, in bytes. A longer length means that the two ends lost step.
pub const MAX_FRAME: usize = 1 << 20;

/// Longest piece of output or of a file that one frame carries, in bytes.
pub const CHUNK: usize = 64 << 10;

/// Prefix of the lines that the lab writes to the kernel log. Tests may announce lines there as well, see [`EXPECT`].
pub const MARK: &str = "lab: ";

/// A test writes `lab: expect REGEX` to /dev/kmsg to say that a kernel log line matching it will follow and is meant to.
pub const EXPECT: &str = "lab: expect ";

/// Prefix of the lines on a program's standard error that tell which code of a module ran: the module's name follows, and offsets.
pub const COVERAGE: &str = "coverage: ";

/// The line that follows those: without it the program ended before it told.
pub const COVERAGE_END: &str = "coverage ends";

/// Prefix of the argument of a test program that has it run a part of its tests: `K/N` follows, for the K-th of N parts.
pub const PART: &str = "--part=";

/// As [`EXPECT`] for a line that may or may not follow.
pub const ALLOW: &str = "lab: allow ";

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// A program to be run in the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Name under which kernel log lines and log files are filed.
    pub label: String,
    /// Path or name of the program, then its arguments.
    pub argv: Vec<String>,
    /// Environment beside PATH, HOME and LOGDIR.
    pub env: Vec<(String, String)>,
    /// `Some` runs it on a terminal of its own, of that size.
    pub terminal: Option<WindowSize>,
}

/// What to do with a kernel module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleAction {
    /// Load it with these parameters, given as `insmod` takes them.
    Load(String),
    /// Unload it.
    Unload,
}

impl ModuleAction {
    /// The name under which the kernel log lines of doing so to module `name` are filed.
    pub fn label(&self, name: &str) -> String {
        match self {
            ModuleAction::Load(_) => format!("insmod/{name}"),
            ModuleAction::Unload => format!("rmmod/{name}"),
        }
    }
}

/// What the host asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Load or unload a kernel module; answered by [`Report::ModuleDone`].
    Module {
        /// Number that the answer carries.
        run: u32,
        /// Module name; its file is `/lib/modules/lab/<name>.ko`.
        name: String,
        /// What to do with it.
        action: ModuleAction,
    },
    /// Start a program; one at a time. Answered by output frames and one [`Report::Finished`].
    Run {
        /// Number that the program's frames carry.
        run: u32,
        /// What to run.
        program: Program,
    },
    /// The terminal of a running program changed its size.
    Resize {
        /// The program.
        run: u32,
        /// The new size.
        size: WindowSize,
    },
    /// End a program and all it started: SIGTERM, and SIGKILL after `grace_ms` milliseconds.
    Stop {
        /// The program.
        run: u32,
        /// Milliseconds between the two signals.
        grace_ms: u64,
    },
    /// Write `lab: <text>` into the kernel log.
    Mark {
        /// One line.
        text: String,
    },
    /// Send what is left of the kernel log and answer [`Report::Bye`].
    Finish,
    /// Switch the machine off. The host sends it after [`Report::Bye`], when all has arrived.
    PowerOff,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It could not be started, for this reason.
    NotStarted(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Code(code) => write!(f, "exit status {code}"),
            Ending::Signal(signal) => write!(f, "ended by signal {signal}"),
            Ending::NotStarted(reason) => write!(f, "could not be started: {reason}"),
        }
    }
}

/// What the machine tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The machine is up and waits for commands.
    Ready {
        /// `uname -r` of its kernel.
        kernel: String,
    },
    /// A module was loaded or unloaded, or not.
    ModuleDone {
        /// Number of the request.
        run: u32,
        /// `None` for success, else the error in words.
        error: Option<String>,
    },
    /// A program ended, and all its output and log files have been sent.
    Finished {
        /// The program.
        run: u32,
        /// How it ended.
        ending: Ending,
        /// Command lines of the processes that it left behind. They have been killed.
        leftovers: Vec<String>,
        /// Command lines of processes that survived SIGKILL.
        unkillable: Vec<String>,
    },
    /// Something went wrong in the machine that is not the tests' doing.
    Trouble {
        /// One line.
        text: String,
    },
    /// All has been sent.
    Bye,
}

/// One message between host and machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Host to machine.
    Command(Command),
    /// Machine to host.
    Report(Report),
    /// Standard output of a program, or what it wrote to its terminal.
    Stdout {
        /// The program.
        run: u32,
        /// What it wrote.
        bytes: Vec<u8>,
    },
    /// Standard error of a program.
    Stderr {
        /// The program.
        run: u32,
        /// What it wrote.
        bytes: Vec<u8>,
    },
    /// Host to machine: input for a program; no bytes mean end of file.
    Stdin {
        /// The program.
        run: u32,
        /// What was typed.
        bytes: Vec<u8>,
    },
    /// A piece of a file below a program's LOGDIR.
    File {
        /// The program.
        run: u32,
        /// Where the piece belongs, in bytes from the start. 0 means that the file is new or was cut.
        offset: u64,
        /// Path relative to LOGDIR.
        path: String,
        /// The piece.
        bytes: Vec<u8>,
    },
    /// One record of /dev/kmsg as the kernel hands it out: prefix, text and dictionary lines.
    Kmsg(Vec<u8>),
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The length field is out of bounds.
    #[error("a frame of {0} bytes, more than the {MAX_FRAME} that are allowed")]
    TooLong(usize),
    /// The frame ends inside its header, or has no kind.
    #[error("a frame of kind {0} that is too short")]
    TooShort(u8),
    /// No such kind.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The text of a command, report or path is not valid.
    #[error("a frame whose text is not valid: {0}")]
    BadText(String),
}

const COMMAND: u8 = 1;
const REPORT: u8 = 2;
const STDOUT: u8 = 3;
const STDERR: u8 = 4;
const STDIN: u8 = 5;
const FILE: u8 = 6;
const KMSG: u8 = 7;

impl Frame {
    /// The frame as bytes for the pipe. Data longer than [`CHUNK`] must have been split before.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        match self {
            Frame::Command(command) => encode_json(&mut out, COMMAND, command),
            Frame::Report(report) => encode_json(&mut out, REPORT, report),
            Frame::Stdout { run, bytes } => encode_data(&mut out, STDOUT, *run, bytes),
            Frame::Stderr { run, bytes } => encode_data(&mut out, STDERR, *run, bytes),
            Frame::Stdin { run, bytes } => encode_data(&mut out, STDIN, *run, bytes),
            Frame::File {
                run,
                offset,
                path,
                bytes,
            } => {
                out.push(FILE);
                out.extend(run.to_le_bytes());
                out.extend(offset.to_le_bytes());
                out.extend((path.len() as u32).to_le_bytes());
                out.extend(path.as_bytes());
                out.extend(bytes);
            }
            Frame::Kmsg(bytes) => {
                out.push(KMSG);
                out.extend(bytes);
            }
        }
        let length = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&length.to_le_bytes());
        out
    }

    fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let (&kind, mut rest) = body.split_first().ok_or(ProtocolError::TooShort(0))?;
        let short = || ProtocolError::TooShort(kind);
        Ok(match kind {
            COMMAND => Frame::Command(decode_json(rest)?),
            REPORT => Frame::Report(decode_json(rest)?),
            STDOUT => Frame::Stdout {
                run: take_u32(&mut rest).ok_or_else(short)?,
                bytes: rest.to_vec(),
            },
            STDERR => Frame::Stderr {
                run: take_u32(&mut rest).ok_or_else(short)?,
                bytes: rest.to_vec(),
            },
            STDIN => Frame::Stdin {
                run: take_u32(&mut rest).ok_or_else(short)?,
                bytes: rest.to_vec(),
            },
            FILE => {
                let run = take_u32(&mut rest).ok_or_else(short)?;
                let low = take_u32(&mut rest).ok_or_else(short)?;
                let high = take_u32(&mut rest).ok_or_else(short)?;
                let length = take_u32(&mut rest).ok_or_else(short)? as usize;
                let (path, bytes) = rest.split_at_checked(length).ok_or_else(short)?;
                let path = std::str::from_utf8(path)
                    .map_err(|e| ProtocolError::BadText(e.to_string()))?
                    .to_owned();
                Frame::File {
                    run,
                    offset: (u64::from(high) << 32) | u64::from(low),
                    path,
                    bytes: bytes.to_vec(),
                }
            }
            KMSG => Frame::Kmsg(rest.to_vec()),
            other => return Err(ProtocolError::UnknownKind(other)),
        })
    }
}

fn encode_json(out: &mut Vec<u8>, kind: u8, value: &impl Serialize) {
    out.push(kind);
    // Writing to a Vec cannot fail, and the messages have no map with keys that are not strings.
    serde_json::to_writer(out, value).expect("messages are plain data");
}

fn decode_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(text).map_err(|e| ProtocolError::BadText(e.to_string()))
}

fn encode_data(out: &mut Vec<u8>, kind: u8, run: u32, bytes: &[u8]) {
    out.push(kind);
    out.extend(run.to_le_bytes());
    out.extend(bytes);
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*head))
}

/// Puts frames together again from pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes the next piece that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// [`ProtocolError`] if what arrived is no frame. Nothing after it can be read.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some((length, rest)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(ProtocolError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::decode(body)?;
        self.buffer.drain(..4 + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Frame> {
        vec![
            Frame::Command(Command::Run {
                run: 7,
                program: Program {
                    label: "scenarios/a".into(),
                    argv: vec!["/tests/scenarios".into(), "a".into()],
                    env: vec![("K".into(), "V".into())],
                    terminal: Some(WindowSize {
                        rows: 24,
                        columns: 80,
                    }),
                },
            }),
            Frame::Report(Report::Finished {
                run: 7,
                ending: Ending::Signal(9),
                leftovers: vec!["qemu".into()],
                unkillable: vec![],
            }),
            Frame::Stdout {
                run: 1,
                bytes: vec![0, 255, b'\n'],
            },
            Frame::Stderr {
                run: 2,
                bytes: vec![],
            },
            Frame::Stdin {
                run: 3,
                bytes: vec![4],
            },
            Frame::File {
                run: 4,
                offset: 0x1_0000_0002,
                path: "a/b.log".into(),
                bytes: vec![9; CHUNK],
            },
            Frame::Kmsg(b"6,1,2,-;text".to_vec()),
        ]
    }

    #[test]
    fn frames_survive_a_pipe_that_hands_out_single_bytes() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for byte in samples().iter().flat_map(Frame::encode) {
            decoder.feed(&[byte]);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, samples());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_buffered_for_it() {
        let mut decoder = Decoder::default();
        decoder.feed(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decoder.next_frame(),
            Err(ProtocolError::TooLong(_))
        ));
    }

    #[test]
    fn frames_that_end_inside_their_header_are_refused() {
        for body in [
            &[][..],
            &[STDOUT, 1, 0, 0],
            &[FILE, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, b'x'],
        ] {
            let mut decoder = Decoder::default();
            decoder.feed(&(body.len() as u32).to_le_bytes());
            decoder.feed(body);
            assert!(
                matches!(decoder.next_frame(), Err(ProtocolError::TooShort(_))),
                "{body:?}"
            );
        }
    }

    #[test]
    fn unknown_kinds_and_garbled_text_are_refused() {
        for body in [&[99u8, 1, 2][..], &[COMMAND, b'{'], &[REPORT, 0xff]] {
            let mut decoder = Decoder::default();
            decoder.feed(&(body.len() as u32).to_le_bytes());
            decoder.feed(body);
            assert!(decoder.next_frame().is_err(), "{body:?}");
        }
    }
}
