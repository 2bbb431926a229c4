// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Opening files to read. Whatever a name turns out to be, nobody waits for it without end: a FIFO that nobody writes to, a
//! terminal, a device.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{fcntl_getfl, fcntl_setfl, open as open_file, Mode, OFlags};

use crate::error::{Error, Result};

/// Opens without waiting for who is at the other end, and looks at what it is.
fn at_once(path: &Path, access: OFlags) -> io::Result<(File, FileType)> {
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(open_file(path, flags, Mode::empty())?);
    let kind = file.metadata()?.file_type();
    Ok((file, kind))
}

fn only_regular((file, kind): (File, FileType)) -> io::Result<File> {
    match kind.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(format!("{}, not a file", noun(kind)))),
    }
}

/// Opens a file that can be nothing else: not a directory, a FIFO or a device.
pub fn regular(path: &Path) -> io::Result<File> {
    at_once(path, OFlags::RDONLY).and_then(only_regular)
}

/// The same for writing over what it holds, as files in sysfs are written.
pub fn regular_to_write(path: &Path) -> io::Result<File> {
    at_once(path, OFlags::WRONLY | OFlags::TRUNC).and_then(only_regular)
}

/// Opens what a person named to be read: a file, the FIFO of a program that has started, or a device that has something to
/// give.
pub fn named(path: &Path) -> Result<Box<dyn Read>> {
    let opened = at_once(path, OFlags::RDONLY).and_then(|(file, kind)| {
        if kind.is_fifo() {
            fifo(file)
        } else if kind.is_char_device() {
            Ok(Box::new(Device(file)) as Box<dyn Read>)
        } else {
            // Reading a directory fails with an error of its own.
            Ok(Box::new(file) as Box<dyn Read>)
        }
    });
    opened.map_err(|error| Error::file(path, &error))
}

/// A FIFO with a writer, which may take its time.
fn fifo(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut first = vec![0; 4096];
    match file.read(&mut first) {
        Ok(0) => {
            return Err(io::Error::other(
                "a FIFO that nobody writes to: start its writer first, or give - and its output as standard input",
            ))
        }
        Ok(len) => first.truncate(len),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => first.clear(),
        Err(error) => return Err(error),
    }
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(Box::new(io::Cursor::new(first).chain(file)))
}

/// A device that is read as long as it gives something at once.
struct Device(File);

impl Read for Device {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::other(
                "a device that has nothing to give: give a file, or - for standard input",
            ),
            _ => error,
        })
    }
}

/// What it is, for messages.
pub fn noun(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "a file"
    }
}

/// Whether there is something of this name, if only a link that leads nowhere. Fails where that cannot be told.
pub fn is_there(path: &Path) -> Result<bool> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(error) => Err(Error::file(path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::TempDir;

    /// A FIFO, and an end of it that is both a reader and a writer.
    fn fifo() -> (TempDir, std::path::PathBuf, File) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let ends = File::options().read(true).write(true).open(&path).unwrap();
        (directory, path, ends)
    }

    #[test]
    fn a_writer_may_come_late_and_go_early() {
        for early in [&b""[..], b"the first part, "] {
            let (_directory, path, mut ends) = fifo();
            ends.write_all(early).unwrap();
            let mut input = named(&path).unwrap();
            ends.write_all(b"the rest").unwrap();
            drop(ends);
            let mut text = Vec::new();
            input.read_to_end(&mut text).unwrap();
            assert_eq!(text, [early, b"the rest"].concat());
        }
    }

    #[test]
    fn without_a_writer_there_is_nothing_to_wait_for() {
        let (_directory, path, ends) = fifo();
        drop(ends);
        let error = named(&path).err().unwrap().to_string();
        assert!(error.contains("a FIFO that nobody writes to"), "{error}");
        let error = regular(&path).err().unwrap().to_string();
        assert_eq!(error, "a FIFO, not a file");
        // Nobody reads it either.
        let error = regular_to_write(&path).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENXIO as i32));
    }
}
