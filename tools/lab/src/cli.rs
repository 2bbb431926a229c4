// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The command line.

use crate::bench;
use crate::environment::Environment;
use crate::report::saved::Earlier;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Boots the test machine, runs programs in it and reports.
///
/// Exit status: 0 all is well, 1 a test or the command failed, 2 the lab could not do its work.
#[derive(Parser)]
#[command(name = "lab", version)]
pub struct Cli {
    #[command(flatten)]
    pub env: Environment,
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand)]
pub enum Action {
    /// Prepares what the machine's root file system can share between runs
    Image,
    /// Runs a command, or some of the tests, in the machine
    Run(RunArgs),
    /// Runs all tests and writes results/junit.xml and results/logs
    Test(TestArgs),
    /// Gives a prompt in the machine
    Shell(LoadArgs),
    /// Shows a migration from start to end
    Demo {
        /// Seconds it may take
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// The QEMU that is shown, of those in the machine
        #[arg(long, default_value = "10.0", value_name = "VERSION")]
        qemu: String,
        /// The device that is shown
        #[arg(long, default_value = "serial", value_parser = ["serial", "blk", "vfio-user"])]
        device: String,
    },
    /// Counts what operations cost, in instructions, then measures migrations; writes results/bench.json, bench.svg and bench.txt
    Bench(BenchArgs),
}

#[derive(Args)]
pub struct LoadArgs {
    /// Load this module, and what it depends on, beside those under test; parameters follow a colon
    #[arg(long, value_name = "MODULE[:PARAMETERS]")]
    pub load: Vec<String>,
    /// Load no module but those named with --load
    #[arg(long)]
    pub bare: bool,
}

#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Seconds the command may take, before they are stretched for this machine
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
    /// Run these tests and judge them as `lab test` does: kunit, v2-api, scenarios or the name of one
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with_all = ["command", "load", "bare"])]
    pub tests: Vec<String>,
    /// Tests that the chosen programs leave out
    #[arg(
        long,
        value_name = "PROGRAM/NAME",
        num_args = 1..,
        requires = "tests"
    )]
    pub leave_out: Vec<String>,
    /// Machines to use at a time for --tests
    #[arg(long, env = "LAB_MACHINES", value_name = "N")]
    pub machines: Option<usize>,
    /// Results of an earlier run, the suites.json that it wrote, to be counted with those of --tests under this name
    #[arg(long, value_name = "NAME=FILE", requires = "tests")]
    pub with: Vec<Earlier>,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "tests")]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct TestArgs {
    /// What `cargo test` printed, to be counted with the rest
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub host_tests: Vec<PathBuf>,
    /// Results of an earlier run, the suites.json that it wrote, to be counted with the rest under this name
    #[arg(long, value_name = "NAME=FILE")]
    pub with: Vec<Earlier>,
    /// Machines to use at a time
    #[arg(long, env = "LAB_MACHINES", value_name = "N")]
    pub machines: Option<usize>,
}

#[derive(Args)]
pub struct BenchArgs {
    /// Seconds the migrations may take
    #[arg(long, default_value_t = 1800)]
    pub timeout: u64,
    /// Only count: no migrations
    #[arg(long)]
    pub count_only: bool,
    /// Show where the instructions of one call of this operation go, and measure nothing: read, write, save or the name in the table
    #[arg(long, value_name = "OPERATION", conflicts_with_all = ["count_only", "update_baseline"])]
    pub profile: Option<String>,
    /// Whose operation to profile: mdev_serial or mtty
    #[arg(long, value_name = "DRIVER", default_value = bench::OURS, requires = "profile")]
    pub of: String,
    /// Makes the figures of our driver the baseline of the tests, which is a file of the checkout
    #[arg(long)]
    pub update_baseline: bool,
}
