// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Figures on their way out, and what there is to say about them.

use std::cell::{Cell, RefCell};
use std::io::Write;

use anyhow::{ensure, Context, Result};
use serde::Serialize;

use crate::measure::{count, count_amortized, count_stretch, count_turns, settle, Figure, Stretch};
use crate::profile::once;

/// A figure, as it is printed: a line of JSON each.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    /// What was done.
    pub operation: &'a str,
    /// By whom: [`crate::FLOOR`], or a driver.
    pub subject: &'a str,
    /// Instructions a call.
    pub instructions: f64,
    /// By how much a second count differed, of the whole.
    pub spread: f64,
    /// For a law: the exponent with which the cost grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponent: Option<f64>,
}

/// How much of the kernel's memory an instance takes, in bytes, as it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Memory<'a> {
    /// In which state.
    pub state: &'a str,
    /// Whose instance.
    pub subject: &'a str,
    /// Objects of the slab allocator, `kmalloc` among them.
    pub slab: f64,
    /// What `vmalloc` maps.
    pub vmalloc: f64,
    /// All pages that are not free any more, those of the two among them.
    pub all: f64,
}

/// How large a module is, as it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Module<'a> {
    /// Its name.
    pub module: &'a str,
    /// Of which driver.
    pub subject: &'a str,
    /// Code and data, as the kernel laid them out.
    pub bytes: u64,
}

/// Prints figures, and knows what was asked for.
pub struct Report {
    only: Vec<String>,
    /// Nothing is counted, but one call of this subject's is made to be looked at.
    profiled: Option<String>,
    met: Cell<bool>,
    /// What two counts did not agree about.
    doubtful: RefCell<Vec<String>>,
}

impl Report {
    /// Of these operations, or of all.
    pub fn new(only: Vec<String>) -> Self {
        Self {
            only,
            profiled: None,
            met: Cell::new(false),
            doubtful: RefCell::default(),
        }
    }

    /// For one call of an operation.
    pub fn of_one(operation: String, subject: String) -> Self {
        Self {
            profiled: Some(subject),
            ..Self::new(vec![operation])
        }
    }

    /// Makes the one call, if that is what was asked for: then nothing is to be counted.
    fn profiles(&self, subject: &str, call: &mut impl FnMut() -> Result<()>) -> Result<bool> {
        match &self.profiled {
            Some(of) if of == subject => {
                self.met.set(true);
                once(call)?;
                Ok(true)
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// Whether an operation was asked for.
    pub fn is_wanted(&self, operation: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == operation)
    }

    /// Prints a figure.
    pub fn print(&self, row: &impl Serialize) -> Result<()> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, row)?;
        writeln!(out)?;
        Ok(out.flush()?)
    }

    /// Counts an operation, if it was asked for.
    pub fn row(
        &self,
        operation: &str,
        subject: &str,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if !self.is_wanted(operation) || self.profiles(subject, &mut call)? {
            return Ok(());
        }
        let figure = count(call).with_context(|| format!("{operation}, {subject}"))?;
        self.figure(operation, subject, &figure)
    }

    /// Counts an operation of which some calls do what others left, if it was asked for.
    pub fn amortized_row(
        &self,
        operation: &str,
        subject: &str,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if !self.is_wanted(operation) || self.profiles(subject, &mut call)? {
            return Ok(());
        }
        let figure = count_amortized(call).with_context(|| format!("{operation}, {subject}"))?;
        self.figure(operation, subject, &figure)
    }

    /// Counts an operation that this process and another one make together, by a clock of what both had and in loops of so many
    /// instructions, if it was asked for.
    pub fn turns_row(
        &self,
        operation: &str,
        subject: &str,
        (clock, worth): (impl Fn() -> Result<f64>, f64),
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if !self.is_wanted(operation) || self.profiles(subject, &mut call)? {
            return Ok(());
        }
        let figure =
            count_turns(clock, worth, call).with_context(|| format!("{operation}, {subject}"))?;
        self.figure(operation, subject, &figure)
    }

    /// Counts a stretch of `units` of what the row is about, if it was asked for.
    pub fn stretch_row(
        &self,
        operation: &str,
        subject: &str,
        units: f64,
        mut stretch: impl Stretch,
    ) -> Result<()> {
        let mut whole = || {
            let mut ready = stretch.before()?;
            stretch.call(&mut ready)?;
            stretch.after(ready)
        };
        if !self.is_wanted(operation) || self.profiles(subject, &mut whole)? {
            return Ok(());
        }
        let figure = count_stretch(&mut stretch);
        let figure = figure.with_context(|| format!("{operation}, {subject}"))?;
        self.figure(operation, subject, &figure.part(units))
    }

    /// Counts an operation that leaves work to others: each is done before the next call, so that all calls meet the same. What the
    /// wait for that costs is counted by itself and taken off.
    pub fn settled_row(
        &self,
        operation: &str,
        subject: &str,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if !self.is_wanted(operation) || self.profiles(subject, &mut call)? {
            return Ok(());
        }
        let both = count(|| {
            call()?;
            settle()
        });
        let both = both.with_context(|| format!("{operation}, {subject}"))?;
        let figure = both.less(&count(settle)?);
        self.figure(operation, subject, &figure)
    }

    fn figure(&self, operation: &str, subject: &str, figure: &Figure) -> Result<()> {
        if let Some(doubt) = figure.doubt() {
            let doubt = format!("{operation}, {subject}: {doubt}");
            self.doubtful.borrow_mut().push(doubt);
        }
        self.print(&Row {
            operation,
            subject,
            instructions: figure.instructions,
            spread: figure.spread,
            exponent: None,
        })
    }

    /// Everything was counted.
    ///
    /// # Errors
    /// If a figure is not to be trusted, or the one call was not made.
    pub fn end(self) -> Result<()> {
        ensure!(
            self.profiled.is_none() || self.met.get(),
            "there is no such operation of that driver: {}",
            self.only.join(" ")
        );
        let doubtful = self.doubtful.into_inner();
        ensure!(doubtful.is_empty(), "{}", doubtful.join("; "));
        Ok(())
    }
}
