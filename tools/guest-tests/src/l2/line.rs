// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The lines that the program in the guest prints on its console, and the commands it reads there.
//!
//! Every line of the program starts with [`PREFIX`]; whatever else is on the console comes from the guest's kernel. After
//! the prefix come a word and `key=value` fields, and a mark at the end: a line that was cut says nothing, wherever that was.

use std::fmt;
use std::str::FromStr;

/// What every line of the program starts with.
pub const PREFIX: &str = "lab: ";

/// What every line of the program ends with. A migration leaves one part of a line at the source and the other at the destination,
/// and a monitor on the same terminal ends the first with a newline of its own: half a number is a number, too.
const END: &str = " ;";

/// How the card interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// By its INTx pin.
    Intx,
    /// By message.
    Msi,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interrupt::Intx => "intx",
            Interrupt::Msi => "msi",
        })
    }
}

impl FromStr for Interrupt {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        match text {
            "intx" => Ok(Interrupt::Intx),
            "msi" => Ok(Interrupt::Msi),
            _ => Err(NotALine),
        }
    }
}

/// What the guest knows about one port since it booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortReport {
    /// Number of the port, counted over all cards.
    pub port: u8,
    /// Records sent.
    pub sent: u32,
    /// Records that came back whole, once and in order.
    pub verified: u32,
    /// Everything that came back otherwise.
    pub faults: u32,
    /// Bytes sent that have not come back.
    pub outstanding: u64,
    /// Receiver overruns, framing, parity and break errors, as the guest's 8250 driver counted them.
    pub uart_errors: u32,
    /// Interrupts of the card (not of the port alone) that the guest's kernel handled.
    pub interrupts: u64,
}

/// What the guest sees of one card at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardReport {
    /// Number of the card, in the order of bus addresses.
    pub card: usize,
    /// PCI vendor and device number.
    pub id: (u16, u16),
    /// Size of the first BAR in bytes.
    pub bar0: u64,
    /// Identification numbers of the PCI capabilities, in the order of the card's list.
    pub capabilities: Vec<u8>,
    /// The type that the guest's driver detects, port by port, e.g. `16550A`.
    pub uarts: Vec<String>,
    /// Bytes that the guest's driver writes at once into a port.
    pub fifo: u32,
}

impl CardReport {
    fn parse(fields: &str) -> Result<Self, NotALine> {
        let text: String = field(fields, "id")?;
        let hex = |text: &str| u16::from_str_radix(text, 16).map_err(|_| NotALine);
        let (vendor, device) = text.split_once(':').ok_or(NotALine)?;
        let capabilities: String = field(fields, "capabilities")?;
        let mut numbers = capabilities.split(',').filter(|word| *word != "none");
        let uarts: String = field(fields, "uarts")?;
        Ok(Self {
            card: field(fields, "number")?,
            id: (hex(vendor)?, hex(device)?),
            bar0: field(fields, "bar0")?,
            capabilities: numbers
                .try_fold(Vec::new(), |mut list, word| {
                    list.push(u8::from_str_radix(word, 16).ok()?);
                    Some(list)
                })
                .ok_or(NotALine)?,
            uarts: uarts.split(',').map(str::to_string).collect(),
            fifo: field(fields, "fifo")?,
        })
    }
}

impl fmt::Display for CardReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self
            .capabilities
            .iter()
            .map(|id| format!("{id:02x}"))
            .collect();
        let capabilities = if numbers.is_empty() {
            "none".into()
        } else {
            numbers.join(",")
        };
        write!(
            f,
            "number={} id={:04x}:{:04x} bar0={} capabilities={capabilities} uarts={} fifo={}",
            self.card,
            self.id.0,
            self.id.1,
            self.bar0,
            self.uarts.join(","),
            self.fifo
        )
    }
}

/// A port that the guest's program does not read from, so that flow control holds its transmitter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldReport {
    /// Number of the port, counted over all cards.
    pub port: u8,
    /// The card's "clear to send" input, read now.
    pub clear_to_send: bool,
    /// Bytes that the driver wrote into the card and did not get back.
    pub in_card: u64,
    /// Bytes that the driver writes at once into the port.
    pub fifo: u32,
}

/// What the guest knows about one disk since it booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// Number of the disk, in the order of its name.
    pub disk: u8,
    /// Steps of its slowest writer, each verified: a run of blocks written and one read, or a file replaced and one read.
    pub steps: u32,
    /// Blocks, or files, that were read for this report and are what was written last.
    pub verified: u32,
    /// Those of them that hold something.
    pub written: u32,
    /// Writers that found something else, or could not go on.
    pub faults: u32,
    /// Interrupts of the disk's queues that the guest's kernel handled.
    pub interrupts: u64,
    /// Its serial number, asked of the disk for this report. There is no space in it.
    pub serial: String,
}

/// A line of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The ports are open, and records are on their way.
    Ready {
        /// Number of ports on all cards.
        ports: usize,
        /// Number of cards.
        cards: usize,
        /// How the cards interrupt.
        interrupt: Interrupt,
        /// The type that the guest's driver detected, e.g. `16550A`.
        uart: String,
        /// Number of disks.
        disks: usize,
    },
    /// Records verified so far, port by port.
    Count(Vec<u32>),
    /// Steps done so far, disk by disk.
    Disks(Vec<u32>),
    /// A disk did not hold what it should, or could not be used.
    DiskFault {
        /// Which.
        disk: u8,
        /// What.
        what: String,
    },
    /// Something came back wrong.
    Fault {
        /// On which port.
        port: u8,
        /// What.
        what: String,
    },
    /// The answer to [`Command::Report`], one line a port.
    Report(PortReport),
    /// The answer to [`Command::Report`] and [`Command::Tally`], one line a disk, after the ports.
    DiskReport(DiskReport),
    /// What is on a disk that is put away before the guest reboots, and what was there when it booted.
    Files {
        /// Which disk.
        disk: u8,
        /// Files that are there, all of them whole.
        files: u32,
        /// How often all of them together were written.
        generations: u32,
    },
    /// The answer to [`Command::Rest`], [`Command::Fetch`] and [`Command::Pace`].
    Done(Command),
    /// The answer to [`Command::Verify`], one line a disk.
    Fetched {
        /// Which disk.
        disk: u8,
        /// How many of the blocks that were read are what was written last.
        good: u32,
        /// What is wrong with the first of the others; nothing if there is none.
        bad: String,
    },
    /// The answer to [`Command::Look`], one line a card.
    Card(CardReport),
    /// Which cards the program uses from now on, and how they interrupt: the answer to [`Command::Rebind`],
    /// [`Command::LetGo`] and [`Command::TakeUp`].
    Using {
        /// Number of ports on all cards.
        ports: usize,
        /// Number of cards.
        cards: usize,
        /// How the cards interrupt.
        interrupt: Interrupt,
    },
    /// The answer to [`Command::Hold`], one line a port.
    Held(HeldReport),
    /// The program reboots the guest.
    Rebooting,
    /// The program cannot go on.
    Failed(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.word_and_fields(f)?;
        f.write_str(END)
    }
}

impl Line {
    fn word_and_fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Ready { ports, cards, interrupt, uart, disks } => {
                write!(f, "ready ports={ports} cards={cards} interrupt={interrupt} uart={uart} disks={disks}")
            }
            Line::Count(counts) => {
                f.write_str("count")?;
                counts.iter().try_for_each(|count| write!(f, " {count}"))
            }
            Line::Disks(counts) => {
                f.write_str("disks")?;
                counts.iter().try_for_each(|count| write!(f, " {count}"))
            }
            Line::Fault { port, what } => write!(f, "fault port={port} {what}"),
            Line::DiskFault { disk, what } => write!(f, "disk-fault disk={disk} {what}"),
            Line::Report(report) => write!(
                f,
                "report port={} sent={} verified={} faults={} outstanding={} uart_errors={} interrupts={}",
                report.port,
                report.sent,
                report.verified,
                report.faults,
                report.outstanding,
                report.uart_errors,
                report.interrupts
            ),
            Line::DiskReport(report) => write!(
                f,
                "disk-report disk={} steps={} verified={} written={} faults={} interrupts={} serial={}",
                report.disk,
                report.steps,
                report.verified,
                report.written,
                report.faults,
                report.interrupts,
                report.serial
            ),
            Line::Files { disk, files, generations } => {
                write!(f, "files disk={disk} files={files} generations={generations}")
            }
            Line::Done(command) => write!(f, "done {command}"),
            Line::Fetched { disk, good, bad } => write!(f, "fetched disk={disk} good={good} {bad}"),
            Line::Card(report) => write!(f, "card {report}"),
            Line::Using { ports, cards, interrupt } => {
                write!(f, "using ports={ports} cards={cards} interrupt={interrupt}")
            }
            Line::Held(report) => write!(
                f,
                "held port={} clear_to_send={} in_card={} fifo={}",
                report.port, report.clear_to_send, report.in_card, report.fifo
            ),
            Line::Rebooting => f.write_str("rebooting"),
            Line::Failed(why) => write!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

/// A console line that is not one of [`Line`].
#[derive(Debug, PartialEq, Eq)]
pub struct NotALine;

impl fmt::Display for NotALine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a line of the guest's test program")
    }
}

impl std::error::Error for NotALine {}

/// The value of field `key` among `fields`.
fn field<T: FromStr>(fields: &str, key: &str) -> Result<T, NotALine> {
    let value = fields
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).ok_or(NotALine)
}

/// Numbers with a space between them; there may be none.
fn numbers(fields: &str) -> Result<Vec<u32>, NotALine> {
    let words = fields.split_ascii_whitespace().map(str::parse);
    words.collect::<Result<_, _>>().map_err(|_| NotALine)
}

impl FromStr for Line {
    type Err = NotALine;

    /// Parses a console line; the kernel may have left bytes of its own in front of the prefix.
    fn from_str(text: &str) -> Result<Self, NotALine> {
        let start = text.find(PREFIX).ok_or(NotALine)?;
        let text = text[start + PREFIX.len()..].trim_end();
        let text = text.strip_suffix(END).ok_or(NotALine)?;
        let (word, fields) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "ready" => Ok(Line::Ready {
                ports: field(fields, "ports")?,
                cards: field(fields, "cards")?,
                interrupt: field(fields, "interrupt")?,
                uart: field(fields, "uart")?,
                disks: field(fields, "disks")?,
            }),
            "count" => numbers(fields).map(Line::Count),
            "disks" => numbers(fields).map(Line::Disks),
            "disk-fault" => Ok(Line::DiskFault {
                disk: field(fields, "disk")?,
                what: fields.split_once(' ').ok_or(NotALine)?.1.to_string(),
            }),
            "disk-report" => Ok(Line::DiskReport(DiskReport {
                disk: field(fields, "disk")?,
                steps: field(fields, "steps")?,
                verified: field(fields, "verified")?,
                written: field(fields, "written")?,
                faults: field(fields, "faults")?,
                interrupts: field(fields, "interrupts")?,
                serial: field(fields, "serial")?,
            })),
            "files" => Ok(Line::Files {
                disk: field(fields, "disk")?,
                files: field(fields, "files")?,
                generations: field(fields, "generations")?,
            }),
            "done" => fields.parse().map(Line::Done),
            "fetched" => {
                // What is wrong stands behind the fields, and may be nothing.
                let bad = fields.splitn(3, ' ').nth(2).unwrap_or_default();
                Ok(Line::Fetched {
                    disk: field(fields, "disk")?,
                    good: field(fields, "good")?,
                    bad: bad.to_string(),
                })
            }
            "fault" => {
                let port = field(fields, "port")?;
                Ok(Line::Fault {
                    port,
                    what: fields.split_once(' ').ok_or(NotALine)?.1.to_string(),
                })
            }
            "report" => Ok(Line::Report(PortReport {
                port: field(fields, "port")?,
                sent: field(fields, "sent")?,
                verified: field(fields, "verified")?,
                faults: field(fields, "faults")?,
                outstanding: field(fields, "outstanding")?,
                uart_errors: field(fields, "uart_errors")?,
                interrupts: field(fields, "interrupts")?,
            })),
            "card" => CardReport::parse(fields).map(Line::Card),
            "using" => Ok(Line::Using {
                ports: field(fields, "ports")?,
                cards: field(fields, "cards")?,
                interrupt: field(fields, "interrupt")?,
            }),
            "held" => Ok(Line::Held(HeldReport {
                port: field(fields, "port")?,
                clear_to_send: field(fields, "clear_to_send")?,
                in_card: field(fields, "in_card")?,
                fifo: field(fields, "fifo")?,
            })),
            "rebooting" => Ok(Line::Rebooting),
            "failed" => Ok(Line::Failed(fields.to_string())),
            _ => Err(NotALine),
        }
    }
}

/// What the guest does on request, one command a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Complete the records in progress, wait until everything sent has come back (or nothing comes any more), print one
    /// [`Line::Report`] a port, and go on.
    Report,
    /// As [`Command::Report`], but verify no more of the disks than their writers do all the time.
    Tally,
    /// As [`Command::Report`], but have the driver detect its ports anew and print one [`Line::Card`] a card.
    Look,
    /// As [`Command::Report`] up to the wait; then have the driver let go of every card and take it anew, open the ports again,
    /// print [`Line::Using`], and go on with the next record.
    Rebind,
    /// As [`Command::Report`]; then close the ports of the last card, print [`Line::Using`], and go on with the others.
    LetGo,
    /// Once a card has come and the driver has made its ports, open them, whose records begin at 0, and print [`Line::Using`].
    TakeUp,
    /// As [`Command::Report`] up to the wait, unless this was asked for before; then read no port from now on and send into each
    /// without end, until flow control holds every transmitter; print one [`Line::Held`] a port.
    Hold,
    /// End [`Command::Hold`].
    Read,
    /// Write to no disk and read none until [`Command::Verify`], make room for [`Command::Fetch`], and print [`Line::Done`].
    Rest,
    /// Read blocks of each disk that has no file system, do not look at them, and print [`Line::Done`]. The processor does not
    /// touch what is read.
    Fetch,
    /// Look at the blocks that were read, print [`Line::Fetched`], and use the disks again.
    Verify,
    /// Write each disk that has no file system in order and over and over, at so many KiB a second, and print [`Line::Done`]. It is
    /// verified for reports only.
    Pace(u32),
    /// Reboot at once, with records in flight.
    Reboot,
}

impl Command {
    /// All of them that are a word.
    const ALL: [Command; 12] = [
        Command::Report,
        Command::Tally,
        Command::Look,
        Command::Rebind,
        Command::LetGo,
        Command::TakeUp,
        Command::Hold,
        Command::Read,
        Command::Rest,
        Command::Fetch,
        Command::Verify,
        Command::Reboot,
    ];
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Command::Pace(rate) => return write!(f, "pace {rate}"),
            Command::Report => "report",
            Command::Tally => "tally",
            Command::Look => "look",
            Command::Rebind => "rebind",
            Command::LetGo => "let-go",
            Command::TakeUp => "take-up",
            Command::Hold => "hold",
            Command::Read => "read",
            Command::Rest => "rest",
            Command::Fetch => "fetch",
            Command::Verify => "verify",
            Command::Reboot => "reboot",
        })
    }
}

impl FromStr for Command {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let word = text.trim();
        if let Some(rate) = word.strip_prefix("pace ") {
            return rate.parse().map(Command::Pace).map_err(|_| NotALine);
        }
        let named = |command: &Command| command.to_string() == word;
        Command::ALL.into_iter().find(named).ok_or(NotALine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, and some more.
    fn lines() -> Vec<Line> {
        vec![
            Line::Ready {
                ports: 2,
                cards: 1,
                interrupt: Interrupt::Msi,
                uart: "16550A".into(),
                disks: 1,
            },
            Line::Count(vec![0, 17, 4_000_000_000]),
            Line::Disks(vec![]),
            Line::Disks(vec![5, 6]),
            Line::DiskFault {
                disk: 1,
                what: "block 3 is zeroed".into(),
            },
            Line::DiskReport(DiskReport {
                disk: 1,
                steps: 2,
                verified: 3,
                written: 4,
                faults: 5,
                interrupts: 6,
                serial: "disk-7".into(),
            }),
            Line::DiskReport(DiskReport::default()),
            Line::Files {
                disk: 1,
                files: 24,
                generations: 77,
            },
            Line::Done(Command::Fetch),
            Line::Done(Command::Pace(7)),
            Line::Fetched {
                disk: 0,
                good: 12,
                bad: String::new(),
            },
            Line::Fetched {
                disk: 1,
                good: 0,
                bad: "block 3 is zeroed".into(),
            },
            Line::Fault {
                port: 3,
                what: "lost records 4 to 5".into(),
            },
            Line::Report(PortReport {
                port: 1,
                sent: 2,
                verified: 3,
                faults: 4,
                outstanding: 5,
                uart_errors: 6,
                interrupts: 7,
            }),
            Line::Card(CardReport {
                card: 0,
                id: (0x1b36, 0x0003),
                bar0: 16,
                capabilities: vec![0x05, 0x11],
                uarts: vec!["16550A".into(), "TI16750".into()],
                fifo: 64,
            }),
            Line::Card(CardReport {
                card: 1,
                id: (0xffff, 0),
                bar0: 8,
                capabilities: vec![],
                uarts: vec!["16550A".into()],
                fifo: 16,
            }),
            Line::Using {
                ports: 3,
                cards: 2,
                interrupt: Interrupt::Intx,
            },
            Line::Held(HeldReport {
                port: 1,
                clear_to_send: false,
                in_card: 64,
                fifo: 64,
            }),
            Line::Rebooting,
            Line::Failed("no card".into()),
        ]
    }

    #[test]
    fn every_line_reads_back_as_it_was_written() {
        for line in lines() {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn a_line_that_was_cut_anywhere_is_none() {
        for line in lines() {
            let text = line.to_string();
            for cut in 0..text.len() {
                for part in [&text[..cut], &text[cut + 1..]] {
                    assert_eq!(part.parse::<Line>(), Err(NotALine), "{part:?}");
                }
            }
        }
    }

    #[test]
    fn kernel_messages_are_no_lines_but_may_stand_in_front_of_one() {
        assert_eq!(
            "[    1.0] random: crng init done".parse::<Line>(),
            Err(NotALine)
        );
        assert_eq!(
            "\u{1b}[?7llab: count 1 ;\r".parse(),
            Ok(Line::Count(vec![1]))
        );
    }

    #[test]
    fn commands_read_back() {
        for command in Command::ALL.into_iter().chain([Command::Pace(4096)]) {
            assert_eq!(command.to_string().parse(), Ok(command));
        }
        for text in ["", "pace", "pace -1"] {
            assert_eq!(text.parse::<Command>(), Err(NotALine), "{text:?}");
        }
    }
}
