// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `completions` and `man`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use vfio_migrate::error::{Error, Result};

use super::Context;
use crate::cli::Cli;

/// Prints completions.
pub fn completions(context: &mut Context<'_>, shell: Shell) -> Result<bool> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vfio-migrate", &mut script);
    context.out.own(&script);
    Ok(true)
}

/// Prints the manual page, or writes one for each command.
pub fn man(context: &mut Context<'_>, directory: Option<&Path>) -> Result<bool> {
    match directory {
        Some(directory) => clap_mangen::generate_to(Cli::command(), directory)
            .map_err(|error| Error::file(directory, &error))?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|error| Error::failed(format!("the manual page: {error}")))?;
            context.out.own(&page);
        }
    }
    Ok(true)
}
