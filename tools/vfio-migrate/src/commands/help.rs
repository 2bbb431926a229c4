// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `completions`.

use clap::CommandFactory;
use clap_complete::Shell;
use vfio_migrate::error::Result;

use super::Context;
use crate::cli::Cli;

/// The name of the program.
const NAME: &str = "vfio-migrate";

/// The completions for a shell.
fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    match shell {
        // The generator's script for bash finds no subcommand of a program with a hyphen in its name: it spells that in two
        // ways. So it is told a name without one, which stands for the program where its completions are registered only.
        Shell::Bash => {
            let other = NAME.replace('-', "_");
            clap_complete::generate(shell, &mut Cli::command(), &other, &mut script);
            let text = String::from_utf8_lossy(&script);
            let registered = format!(" -o default {other}\n");
            text.replace(&registered, &format!(" -o default {NAME}\n"))
                .into_bytes()
        }
        _ => {
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            script
        }
    }
}

/// Prints completions.
pub fn completions(context: &mut Context<'_>, shell: Shell) -> Result<bool> {
    context.out.own(&script(shell));
    Ok(true)
}
