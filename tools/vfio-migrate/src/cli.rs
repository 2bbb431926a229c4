// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use vfio_migrate::state;

/// Examples and exit statuses, for the end of `--help`.
const AFTER_HELP: &str = "\
Examples:
  vfio-migrate types                               what this host offers
  vfio-migrate params UUID --json > source.json    keep a source's parameter list
  vfio-migrate check source.json mdev_serial-any   can that type take it?
  vfio-migrate select source.json hosts/           which of many can, best first
  vfio-migrate prepare source.json UUID            set a destination up for it
  vfio-migrate save UUID state && vfio-migrate inspect state
  vfio-migrate watch UUID                          follow a migration in progress

Exit status:
  0  yes: compatible, prepared, saved, accepted
  1  no: not compatible, refused by the driver, damaged
  2  no answer: wrong usage, unreadable input, no permission, instance in use

An answer stays what it is, whatever becomes of standard output.";

const TYPES_HELP: &str = "\
Examples:
  vfio-migrate types
  vfio-migrate types --json";

const INFO_HELP: &str = "\
Examples:
  vfio-migrate info mdev_serial-any
  vfio-migrate info --json mdev_serial-any > host.json   a copy for check and select";

const PARAMS_HELP: &str = "\
Examples:
  vfio-migrate params UUID
  vfio-migrate params --json UUID > source.json   a source for check, select and prepare";

const CHECK_HELP: &str = "\
A SOURCE is the UUID of an instance, a file with a parameter list (params --json writes one), a
saved state, or - for standard input. A DESTINATION is the UUID of an instance, a file with
migration information (a type's migration_info.json), a type (TYPE or PARENT/TYPE), a device program
(an executable file, which is run with --print-migration-info-json), or - for standard input. What
exists as a file is taken for the file.

Examples:
  vfio-migrate check UUID mdev_serial-any
  vfio-migrate check UUID ./vfio-user-device
  ssh host vfio-migrate info --json mdev_serial-1 | vfio-migrate check source.json -";

const SELECT_HELP: &str = "\
CANDIDATES are files with migration information, directories with such files (*.json), types (TYPE
or PARENT/TYPE), UUIDs of instances, device programs, or - for documents on standard input: one a line (JSON lines),
or documents of several lines, one after the other. A document may have a member \"name\" beside
\"models\". An object with \"self\" and \"compatible\", as in an instance's migration/compatible, is a
candidate for each type that it names.

Best is who needs the fewest parameters set to another value than it has; among those, who offers
the fewest values that are not needed. Exit status 0 if there is at least one, 1 if there is none,
2 if a candidate could not be read: its row says why.

With --cache, a document whose \"generation\" is that of the copy in DIR is not looked at: it need
have no more than \"name\" and \"generation\". Any other one is read and kept, and its row says so.

Examples:
  vfio-migrate select source.json mdev_serial-1 mdev_serial-any
  vfio-migrate select source.json hosts/
  vfio-migrate --json select --best 1 source.json - < candidates.jsonl
  vfio-migrate select --cache /var/cache/vfio-migrate source.json hosts/";

const COMMAND_LINE_HELP: &str = "\
A PROGRAM is an executable file that emulates a device for vfio-user and prints its migration
information with --print-migration-info-json. The arguments are the source's list, and the off value
of each parameter that the list lacks. A socket is for you to add.

Examples:
  vfio-migrate command-line UUID ./vfio-user-device
  vfio-migrate command-line source.json ./vfio-user-device";

const CALLOUT_HELP: &str = "\
The script is tools/integration/mdevctl-callout; mdevctl passes it these options. What is to be
changed comes on standard input. Exit status 0: done; 1 and 2: refused.

Examples:
  vfio-migrate callout -t mdev_serial-any -e get -a attributes -s none -u UUID -p mdev_serial";

const PREPARE_HELP: &str = "\
Writes the off values of the instance's parameters in reverse declaration order, then the source's
list in declaration order. If the driver refuses one, the instance gets back the values it had, and
the message says which one it was and why.

Examples:
  vfio-migrate prepare source.json UUID
  vfio-migrate prepare --dry-run SOURCE-UUID UUID   only print the writes";

const SAVE_HELP: &str = "\
The state of an instance lives while the device is open: one that nobody has open is in power-on
state, and that is what is saved. --exercise puts content into a serial card first. The stream is the
same by either protocol, and from a device program that listens at SOCKET, which keeps its state.

A file is for its owner only, and takes its name when it is complete.

Examples:
  vfio-migrate save --exercise UUID state
  vfio-migrate save --protocol v1 --pre-copy UUID state   as QEMU 5.2 to 7.2
  vfio-migrate save UUID | vfio-migrate inspect
  vfio-migrate save --exercise vfio-user:card.sock state";

const LOAD_HELP: &str = "\
Verifies that the device accepts the state. What was loaded into an instance is gone when it is closed
at the end; a device program keeps it.

Examples:
  vfio-migrate load UUID state
  vfio-migrate load --protocol v1 UUID state
  vfio-migrate load vfio-user:card.sock state
  vfio-migrate save UUID1 | ssh host vfio-migrate load UUID2";

const COPY_HELP: &str = "\
Examples:
  vfio-migrate copy --exercise UUID1 UUID2
  vfio-migrate copy --from v1 --to v2 UUID1 UUID2   saved by one protocol, loaded by the other
  vfio-migrate copy --exercise UUID vfio-user:card.sock   from the driver into a program";

const INSPECT_HELP: &str = "\
Examples:
  vfio-migrate inspect state
  vfio-migrate save UUID | vfio-migrate inspect";

const WATCH_HELP: &str = "\
Shows protocol state, phase and bytes on one line, and each change as a line of its own if standard
output is no terminal. Ends when the device is gone, when nobody reads on, or on Ctrl-C. The device
of a program is watched beside its client; a vfio-user-device lets four do so.

Examples:
  vfio-migrate watch UUID
  vfio-migrate watch --until-end UUID   end when the next migration does
  vfio-migrate watch vfio-user:card.sock";

const MAN_HELP: &str = "\
Examples:
  vfio-migrate man > vfio-migrate.1
  vfio-migrate man /usr/local/share/man/man1   one file a command";

const COMPLETIONS_HELP: &str = "\
Examples:
  vfio-migrate completions bash > /etc/bash_completion.d/vfio-migrate
  vfio-migrate completions zsh > /usr/local/share/zsh/site-functions/_vfio-migrate
  vfio-migrate completions fish > ~/.config/fish/completions/vfio-migrate.fish";

/// Checks, chooses, prepares and tries out destinations for the migration of VFIO devices
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,

    /// Take a copy of another host's sysfs in place of /sys
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "/sys")]
    pub sysfs: PathBuf,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the types that can be migrated, and their instances
    #[command(after_help = TYPES_HELP)]
    Types,
    /// Show what a type, an instance or a file offers: models, parameters, versions
    #[command(after_help = INFO_HELP)]
    Info {
        /// Type, PARENT/TYPE, UUID of an instance, file with migration information, program, or -
        #[arg(value_hint = ValueHint::AnyPath)]
        what: String,
    },
    /// Show the parameters of an instance; with --json, those in effect as a list that can be kept
    #[command(after_help = PARAMS_HELP)]
    Params {
        /// The instance
        uuid: String,
    },
    /// Say whether a destination can take a source, and every reason why not
    #[command(after_help = CHECK_HELP)]
    Check {
        /// UUID of an instance, parameter list, saved state, or -
        #[arg(value_hint = ValueHint::AnyPath)]
        source: String,
        /// UUID of an instance, file with migration information, type, program, or -
        #[arg(value_hint = ValueHint::AnyPath)]
        destination: String,
    },
    /// Print the command line that starts a device program as the destination of a source
    #[command(name = "command-line", after_help = COMMAND_LINE_HELP)]
    HowToStart {
        /// UUID of an instance, parameter list, saved state, or -
        #[arg(value_hint = ValueHint::AnyPath)]
        source: String,
        /// The program
        #[arg(value_hint = ValueHint::AnyPath)]
        program: String,
    },
    /// Find out which of many destinations can take a source, best first
    #[command(after_help = SELECT_HELP)]
    Select(Select),
    /// Set an instance up for a source
    #[command(after_help = PREPARE_HELP)]
    Prepare {
        /// UUID of an instance, parameter list, saved state, or -
        #[arg(value_hint = ValueHint::AnyPath)]
        source: String,
        /// The instance to set up
        instance: String,
        /// Print the writes and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Save the state of a device that nobody uses
    #[command(after_help = SAVE_HELP)]
    Save {
        /// UUID of an instance, or vfio-user:SOCKET
        uuid: String,
        /// Where to: a file, or - for standard output
        #[arg(default_value = "-", value_hint = ValueHint::AnyPath)]
        file: String,
        /// Put content into the card first
        #[arg(long)]
        exercise: bool,
        /// Save while the device runs, then the rest
        #[arg(long)]
        pre_copy: bool,
        /// The migration protocol
        #[arg(long, value_enum, default_value_t)]
        protocol: Protocol,
    },
    /// Load a state into a device that nobody uses, to see whether it is accepted
    #[command(after_help = LOAD_HELP)]
    Load {
        /// UUID of an instance, or vfio-user:SOCKET
        uuid: String,
        /// The saved state, or - for standard input
        #[arg(default_value = "-", value_hint = ValueHint::AnyPath)]
        file: String,
        /// The migration protocol
        #[arg(long, value_enum, default_value_t)]
        protocol: Protocol,
    },
    /// Save one device and load it into another, both open
    #[command(after_help = COPY_HELP)]
    Copy {
        /// The device to save: UUID of an instance, or vfio-user:SOCKET
        source: String,
        /// The device to load it into
        destination: String,
        /// Put content into the source first, and look for it in the destination
        #[arg(long)]
        exercise: bool,
        /// The migration protocol that saves
        #[arg(long, value_enum, value_name = "PROTOCOL", default_value_t)]
        from: Protocol,
        /// The migration protocol that loads
        #[arg(long, value_enum, value_name = "PROTOCOL", default_value_t)]
        to: Protocol,
    },
    /// Take a saved state apart: model, parameters, sections, sizes, checksums
    #[command(after_help = INSPECT_HELP)]
    Inspect {
        /// The saved state, or - for standard input
        #[arg(default_value = "-", value_hint = ValueHint::AnyPath)]
        file: String,
    },
    /// Follow a migration in progress
    #[command(after_help = WATCH_HELP)]
    Watch {
        /// UUID of an instance, or vfio-user:SOCKET
        uuid: String,
        /// Show what is now, and end
        #[arg(long, conflicts_with = "until_end")]
        once: bool,
        /// End when a migration has ended
        #[arg(long)]
        until_end: bool,
    },
    /// Answer mdevctl, for its callout script
    #[command(after_help = CALLOUT_HELP)]
    Callout(Callout),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        #[arg(value_parser = shells(), value_name = "bash|zsh|fish")]
        shell: Shell,
    },
    /// Print the manual page, or write one for every command into a directory
    #[command(after_help = MAN_HELP)]
    Man {
        /// Where to write them
        #[arg(value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

impl Command {
    /// Whether the exit status is an answer, which holds whatever becomes of the output. Of the other commands the output is
    /// all there is.
    pub fn answers(&self) -> bool {
        match self {
            Self::Check { .. }
            | Self::Select(_)
            | Self::Prepare { .. }
            | Self::Save { .. }
            | Self::Load { .. }
            | Self::Copy { .. }
            | Self::Inspect { .. } => true,
            // mdevctl reads what it asks for.
            Self::Callout(asked) => asked.event != "get",
            Self::Types
            | Self::Info { .. }
            | Self::Params { .. }
            | Self::HowToStart { .. }
            | Self::Watch { .. }
            | Self::Completions { .. }
            | Self::Man { .. } => false,
        }
    }
}

/// Arguments of `select`.
#[derive(Debug, Args)]
pub struct Select {
    /// UUID of an instance, parameter list, or saved state
    #[arg(value_hint = ValueHint::AnyPath)]
    pub source: String,
    /// Files, directories, types, UUIDs of instances, programs, or - for documents on standard input
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    pub candidates: Vec<String>,
    /// Keep copies of migration information there, and read anew what has another generation
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: Option<PathBuf>,
    /// Print no more than the N best, and nobody else
    #[arg(long, value_name = "N")]
    pub best: Option<usize>,
}

/// What mdevctl passes to a callout script.
#[derive(Debug, Args)]
pub struct Callout {
    /// What happens: pre, post, get, live
    #[arg(short)]
    pub event: String,
    /// What is being done: start, modify, attributes ...
    #[arg(short)]
    pub action: String,
    /// How it went
    #[arg(short, default_value = "none")]
    pub state: String,
    /// The instance
    #[arg(short)]
    pub uuid: String,
    /// Its parent
    #[arg(short)]
    pub parent: String,
    /// Its type
    #[arg(short = 't')]
    pub mdev_type: String,
}

/// A migration protocol, as a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Migration region of Linux 5.8 to 5.17: QEMU 5.2 to 7.2
    V1,
    /// The same, with its data section mapped
    V1Mmap,
    /// State requests and a data file of Linux 5.18 on: QEMU 8.0 and later
    #[default]
    V2,
}

impl From<Protocol> for state::Protocol {
    fn from(word: Protocol) -> Self {
        match word {
            Protocol::V1 => Self::V1,
            Protocol::V1Mmap => Self::V1Mmap,
            Protocol::V2 => Self::V2,
        }
    }
}

/// The shells whose completions are known to work.
fn shells() -> impl TypedValueParser<Value = Shell> {
    PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|word| word.parse::<Shell>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_defined() {
        Cli::command().debug_assert();
    }
}
