// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Migration information kept from run to run, one file a candidate. A copy is as good as the original while the generation is
//! the same.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::input::regular;
use crate::json::{read_candidate, Bump};
use crate::sysfs::read_bounded;

/// What became of a candidate's copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Copy {
    /// There is no cache, or the candidate is not one that is kept.
    #[default]
    None,
    /// The copy has the candidate's generation, and was used.
    Used,
    /// The candidate was read, and its copy written anew.
    Refreshed(Why),
    /// The candidate was read. It has no generation, so that nobody could tell how long a copy is good.
    NotKept,
    /// The candidate was read. Its copy should have been written anew, which failed.
    NotWritten(String),
}

/// Why a copy was written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There was none.
    New,
    /// It was of this other generation.
    Generation(String),
    /// It could not be read, or was none.
    Damaged,
}

/// A copy as it was found.
pub(super) enum Found {
    /// One of this generation.
    Good(Vec<u8>),
    /// None that is of use.
    Stale(Why),
}

/// A directory of copies.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// The directory, which is made if it is not there.
    pub fn at(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|error| Error::file(directory, &error))?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The copy of the candidate of this name.
    pub(super) fn find(&self, name: &str, generation: &str) -> Found {
        let text = match regular(&self.path(name)).and_then(read_bounded) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Stale(Why::New),
            Err(_) => return Found::Stale(Why::Damaged),
        };
        let arena = Bump::new();
        let was = match read_candidate(&arena, &text) {
            Ok(copy) => copy.generation.map(str::to_string),
            Err(_) => None,
        };
        match was {
            Some(was) if was == generation => Found::Good(text),
            Some(was) => Found::Stale(Why::Generation(was)),
            None => Found::Stale(Why::Damaged),
        }
    }

    /// Writes the copy of the candidate of this name: who reads it meanwhile finds the old one or the new one, whole.
    pub(super) fn keep(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.path(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .permissions(fs::Permissions::from_mode(0o644))
                .tempfile_in(&self.directory)?;
            file.write_all(text)?;
            // No wait for the disk: a copy that a power failure damaged is written anew.
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|error| Error::file(&path, &error))
    }

    /// The file of a candidate, whose name may be anything: what people recognise of it, and a digest that makes it unique.
    fn path(&self, name: &str) -> PathBuf {
        let digest = format!("{:x}", Sha256::digest(name.as_bytes()));
        let known: String = name
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(48)
            .collect();
        self.directory.join(format!("{known}-{digest:.32}.json"))
    }
}
