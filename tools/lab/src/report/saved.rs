// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The results of a run in a file, so that a later one, with another kernel, can count them with its own.

use super::Suite;
use anyhow::{bail, Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the file in the directory of results.
pub const FILE: &str = "suites.json";

/// Results to be counted with those of this run: `NAME=FILE`, where the suites are to be called `NAME/…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    name: String,
    file: PathBuf,
}

impl FromStr for Earlier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok(Self {
                name: name.to_owned(),
                file: file.into(),
            }),
            _ => Err(format!("{text} is not of the form NAME=FILE")),
        }
    }
}

impl Earlier {
    /// The directory of that run's results.
    pub fn results(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// Reads the suites, none of which may be missing: a run without results counts nothing and is an error.
    pub fn read(&self) -> Result<Vec<Suite>> {
        let place = self.file.display();
        let text = fs::read(&self.file).with_context(|| {
            format!("cannot read {place}: run the tests of {} first", self.name)
        })?;
        let mut suites: Vec<Suite> = serde_json::from_slice(&text)
            .with_context(|| format!("{place} does not hold results of this program"))?;
        if suites.iter().all(|suite| suite.cases.is_empty()) {
            bail!(
                "{place} holds no result: run the tests of {} again",
                self.name
            );
        }
        for suite in &mut suites {
            suite.name = format!("{}/{}", self.name, suite.name);
        }
        Ok(suites)
    }
}

/// Writes the suites into the directory of results.
pub fn write(results: &Path, suites: &[Suite]) -> Result<()> {
    let path = results.join(FILE);
    let text = serde_json::to_vec_pretty(suites)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::{Case, Outcome};
    use super::*;

    #[test]
    fn what_was_written_is_read_under_the_name_it_is_given() {
        let place = tempfile::tempdir().unwrap();
        let cases = vec![
            Case::new("a", Outcome::Passed),
            Case::new("b", Outcome::Skipped("why".into())),
            Case::new("c", Outcome::Failed("how".into())),
        ];
        let suite = |name: &str| Suite {
            name: name.into(),
            cases: cases.clone(),
        };
        write(place.path(), &[suite("v2-api")]).unwrap();
        let earlier: Earlier = format!("stock={}", place.path().join(FILE).display())
            .parse()
            .unwrap();
        assert_eq!(earlier.read().unwrap(), [suite("stock/v2-api")]);
    }

    #[test]
    fn results_that_are_none_are_an_error() {
        let place = tempfile::tempdir().unwrap();
        let earlier: Earlier = format!("stock={}", place.path().join(FILE).display())
            .parse()
            .unwrap();
        assert!(earlier.read().is_err());
        write(place.path(), &[]).unwrap();
        assert!(earlier.read().is_err());
        fs::write(place.path().join(FILE), "no").unwrap();
        assert!(earlier.read().is_err());
        for text in ["stock", "=file", "stock="] {
            assert!(text.parse::<Earlier>().is_err(), "{text}");
        }
    }
}
