// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `man`: manual pages, made of what `--help` says.
//!
//! The text after the options has up to three parts there: what there is to say, then "Examples:", then "Exit status:". In a
//! manual page each has its place.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use roff::{bold, roman, Roff};
use vfio_migrate::error::{Error, Result};

use super::Context;
use crate::cli::Cli;

/// The parts of the text after the options.
#[derive(Default)]
struct Parts {
    prose: Vec<String>,
    examples: Vec<String>,
    exit_status: Vec<String>,
}

impl Parts {
    fn of(command: &Command) -> Self {
        let text = command.get_after_help().map(ToString::to_string);
        let mut parts = Self::default();
        let mut part = &mut parts.prose;
        for line in text.unwrap_or_default().lines() {
            match line {
                "Examples:" => part = &mut parts.examples,
                "Exit status:" => part = &mut parts.exit_status,
                line => part.push(line.to_string()),
            }
        }
        parts
    }
}

/// Paragraphs, which empty lines are between.
fn paragraphs(roff: &mut Roff, lines: &[String]) {
    for paragraph in lines.split(|line| line.is_empty()) {
        if !paragraph.is_empty() {
            roff.control("PP", []);
            roff.text([roman(paragraph.join(" "))]);
        }
    }
}

/// Lines as they are.
fn verbatim(roff: &mut Roff, lines: &[String]) {
    roff.control("nf", []);
    for line in lines.iter().filter(|line| !line.is_empty()) {
        roff.text([roman(line.trim_start())]);
    }
    roff.control("fi", []);
}

/// A list of words and what they mean, which two spaces are between; and paragraphs.
fn list(roff: &mut Roff, lines: &[String]) {
    let (items, rest): (Vec<String>, Vec<String>) = lines
        .iter()
        .cloned()
        .partition(|line| line.starts_with("  "));
    for item in items {
        let (word, meaning) = item.trim_start().split_once("  ").unwrap_or_default();
        roff.control("TP", []);
        roff.text([bold(word)]);
        roff.text([roman(meaning.trim_start())]);
    }
    paragraphs(roff, &rest);
}

/// The page of a command. The exit statuses are those of the whole program.
fn page(command: &Command, exit_status: &[String]) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let parts = Parts::of(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut roff = Roff::new();
    paragraphs(&mut roff, &parts.prose);
    roff.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    list(&mut roff, exit_status);
    roff.control("SH", ["EXAMPLES"]);
    verbatim(&mut roff, &parts.examples);
    roff.to_writer(&mut page)?;
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

/// Writes the pages of a command and of those below it.
fn write_pages(command: &Command, exit_status: &[String], directory: &Path) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        write_pages(below, exit_status, directory)?;
    }
    let file = directory.join(Man::new(command.clone()).get_filename());
    fs::write(file, page(command, exit_status)?)
}

/// Prints the manual page, or writes one for each command.
pub fn man(context: &mut Context<'_>, directory: Option<&Path>) -> Result<bool> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let exit_status = Parts::of(&command).exit_status;
    match directory {
        Some(directory) => write_pages(&command, &exit_status, directory)
            .map_err(|error| Error::file(directory, &error))?,
        None => {
            let page = page(&command, &exit_status)
                .map_err(|error| Error::failed(format!("the manual page: {error}")))?;
            context.out.own(&page);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of each run of the program in an example.
    fn runs(example: &str) -> Vec<Vec<&str>> {
        let command = example.split("   ").next().unwrap_or_default();
        let pieces = command.split(['|', '&', '<', '>']);
        pieces
            .filter_map(|piece| {
                let words: Vec<&str> = piece.split_whitespace().collect();
                let start = words.iter().position(|word| *word == "vfio-migrate")?;
                Some(words[start..].to_vec())
            })
            .collect()
    }

    #[test]
    fn every_command_has_examples_that_it_understands() {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let all: Vec<&Command> = command.get_subcommands().chain([&command]).collect();
        assert!(all.len() > 12, "{}", all.len());
        for command in all {
            let name = command.get_name();
            let examples = Parts::of(command).examples;
            let lines: Vec<&String> = examples.iter().filter(|line| !line.is_empty()).collect();
            assert!(!lines.is_empty(), "{name} has no example");
            for example in lines {
                assert!(example.starts_with("  "), "{example}");
                assert!(example.chars().count() <= 100, "{example}");
                let runs = runs(example.trim_start());
                assert!(!runs.is_empty(), "{example}");
                for words in &runs {
                    let parsed = Cli::command().try_get_matches_from(words);
                    assert!(parsed.is_ok(), "{words:?}: {}", parsed.unwrap_err());
                }
                let of_this_one = |words: &Vec<&str>| words.contains(&name);
                assert!(runs.iter().any(of_this_one), "{example} is none of {name}");
            }
        }
    }

    #[test]
    fn a_page_has_each_part_in_its_section() {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let exit_status = Parts::of(&command).exit_status;
        for status in ["  0  yes", "  1  no", "  2  no answer"] {
            let is_there = exit_status.iter().any(|line| line.starts_with(status));
            assert!(is_there, "{status} is not in {exit_status:?}");
        }
        for command in command.get_subcommands().chain([&command]) {
            let page = String::from_utf8(page(command, &exit_status).unwrap()).unwrap();
            let sections: Vec<&str> = page
                .lines()
                .filter_map(|line| line.strip_prefix(".SH "))
                .collect();
            let place = |name| {
                let mut found = sections.iter().enumerate().filter(|(_, s)| **s == name);
                match (found.next(), found.next()) {
                    (Some((at, _)), None) => at,
                    _ => panic!("{name} is not there once: {sections:?}"),
                }
            };
            assert!(place("SYNOPSIS") < place("DESCRIPTION"));
            assert!(place("DESCRIPTION") < place("OPTIONS"));
            assert!(place("OPTIONS") < place("\"EXIT STATUS\""));
            assert!(place("\"EXIT STATUS\"") < place("EXAMPLES"));
            assert_eq!(page.matches("\n\\fB0\\fR\nyes").count(), 1, "{page}");
            assert!(!sections.contains(&"EXTRA"), "{sections:?}");
        }
    }
}
