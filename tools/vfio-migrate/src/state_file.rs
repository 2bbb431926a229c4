// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where a saved state goes: into a file that is there as a whole or not at all, or into what takes bytes as they come.
//!
//! A state holds what a guest's device holds, so files of it are for their owner only.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tempfile::{Builder, NamedTempFile};
use vfio_migrate::error::{Error, Result};
use vfio_migrate::input::noun;

use self::partial::Partial;

mod partial;

/// An open target.
pub enum Target {
    /// A file that takes its name when it is complete.
    File(NewFile),
    /// A FIFO or a character device: whoever is behind it gets the bytes as they come.
    Stream(BufWriter<File>),
}

impl Target {
    /// Opens the target of this name. What a file of that name holds stays until [`Target::finish`].
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| Error::file(path, &error);
        let refused = |why: &str| Error::failed(format!("{}: {why}", path.display()));
        let linked = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return NewFile::at(path),
            Err(error) => return Err(failed(error)),
            Ok(is) if is.is_file() => return NewFile::at(path),
            Ok(is) => is.is_symlink(),
        };
        let is = match path.metadata() {
            Ok(is) => is,
            Err(error) if linked && error.kind() == io::ErrorKind::NotFound => {
                return Err(refused(
                    "a symbolic link that leads nowhere: make the file it points to, or give another name",
                ))
            }
            Err(error) => return Err(failed(error)),
        };
        let kind = is.file_type();
        if kind.is_file() {
            return NewFile::at(&end_of_link(path)?);
        }
        if !kind.is_fifo() && !kind.is_char_device() {
            return Err(refused(&format!(
                "{}: give a file, or - and redirect standard output",
                noun(kind)
            )));
        }
        // A FIFO is opened when its reader has come.
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let file = File::from(file.map_err(|errno| failed(errno.into()))?);
        let opened = file.metadata().map_err(failed)?;
        if opened.file_type() != kind {
            return Err(refused("it has just become another kind of file"));
        }
        if file.is_terminal() {
            return Err(refused("the state is not for terminals: give a file"));
        }
        Ok(Self::Stream(BufWriter::new(file)))
    }

    /// The next bytes of the state.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(new) => new.file.write_all(bytes),
            Self::Stream(stream) => stream.write_all(bytes),
        }
    }

    /// The state is complete.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::File(new) => new.finish(),
            Self::Stream(mut stream) => stream.flush(),
        }
    }
}

/// The file that a symbolic link leads to, where the kernel lets us follow the link.
fn end_of_link(link: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| Error::file(link, &error);
    let through = OpenOptions::new().write(true).open(link);
    let through = through.and_then(|file| file.metadata()).map_err(failed)?;
    let end = link.canonicalize().map_err(failed)?;
    let is = end.symlink_metadata().map_err(failed)?;
    match (is.dev(), is.ino()) == (through.dev(), through.ino()) {
        true => Ok(end),
        false => Err(Error::failed(format!(
            "{}: a symbolic link to a file that has no name: give another name",
            link.display()
        ))),
    }
}

/// A file that is there as a whole or not at all.
pub struct NewFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    partial: Partial,
}

impl NewFile {
    fn at(path: &Path) -> Result<Target> {
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let (file, partial) = Partial::make(|| {
            let mut names = Builder::new();
            let names = names.prefix(".vfio-migrate-").suffix(".partial");
            let owner_only = names.permissions(Permissions::from_mode(0o600));
            owner_only.tempfile_in(directory)
        })
        .map_err(|error| Error::file(directory, &error))?;
        Ok(Target::File(Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            partial,
        }))
    }

    fn finish(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        file.as_file().sync_all()?;
        self.partial.end(|| {
            let persisted = match fs::symlink_metadata(&self.path) {
                Ok(is) if is.is_file() => file.persist(&self.path),
                Ok(is) => {
                    let what = format!("{} has got this name meanwhile", noun(is.file_type()));
                    return Err(io::Error::other(what));
                }
                Err(_) => file.persist_noclobber(&self.path),
            };
            persisted.map(drop).map_err(|failed| failed.error)
        })
    }
}

#[cfg(test)]
mod tests;
