// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Writes "newc" cpio archives, the form the kernel unpacks as initial root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
//!
//! Entries belong to root and have no time, so that equal content gives equal archives. Every archive ends on a multiple of four
//! bytes, so that archives may simply follow one another.

use std::collections::HashSet;
use std::io::{self, Read, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive being written. Directories above an entry are added by themselves.
pub struct Archive<W: Write> {
    out: W,
    written: u64,
    inode: u32,
    directories: HashSet<String>,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            inode: 0,
            directories: HashSet::new(),
        }
    }

    /// Adds a directory unless it is there already. Paths are relative to the root: no leading slash.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | 0o755, 0, (0, 0), &mut io::empty())
    }

    /// Adds a file of `length` bytes that `content` yields.
    ///
    /// # Errors
    /// `InvalidInput` for a file of 4 GiB or more, `UnexpectedEof` if `content` has fewer bytes.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        length: u64,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let length = u32::try_from(length).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is too large for an archive"),
            )
        })?;
        self.parents(path)?;
        self.entry(path, REGULAR | mode, length, (0, 0), content)
    }

    /// Adds a small file.
    pub fn text(&mut self, path: &str, mode: u32, content: &str) -> io::Result<()> {
        self.file(path, mode, content.len() as u64, &mut content.as_bytes())
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(
            path,
            SYMLINK | 0o777,
            target.len() as u32,
            (0, 0),
            &mut target.as_bytes(),
        )
    }

    /// Adds a character device node.
    pub fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER | mode, 0, (major, minor), &mut io::empty())
    }

    /// Ends the archive and hands the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, 0, (0, 0), &mut io::empty())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        length: u32,
        device: (u32, u32),
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let mut header = String::from("070701");
        // inode, mode, user, group, links, time, length, device (major, minor), node (major, minor), length of name, checksum
        let fields = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            length,
            0,
            0,
            device.0,
            device.1,
            path.len() as u32 + 1,
            0,
        ];
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        let copied = io::copy(&mut content.take(u64::from(length)), &mut self.out)?;
        self.written += copied;
        if copied < u64::from(length) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{path} got shorter while it was read"),
            ));
        }
        self.pad()?;
        self.inode += 1;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let over = (self.written % 4) as usize;
        if over > 0 {
            self.put(&[0; 3][..4 - over])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, node and content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive back by the format's description.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        fn take<'a>(bytes: &mut &'a [u8], at: &mut usize, length: usize) -> &'a [u8] {
            let (head, tail) = bytes.split_at(length);
            *bytes = tail;
            *at += length;
            head
        }
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0, "headers start on a multiple of four");
            assert_eq!(take(&mut bytes, &mut at, 6), b"070701");
            let fields: Vec<u32> = (0..13)
                .map(|_| {
                    let text = take(&mut bytes, &mut at, 8);
                    u32::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
                })
                .collect();
            let name = take(&mut bytes, &mut at, fields[11] as usize);
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name.len() - 1].to_vec()).unwrap();
            let padding = (4 - at % 4) % 4;
            take(&mut bytes, &mut at, padding);
            let content = take(&mut bytes, &mut at, fields[6] as usize).to_vec();
            let padding = (4 - at % 4) % 4;
            take(&mut bytes, &mut at, padding);
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty(), "the archive ends behind its trailer");
                return entries;
            }
            entries.push((name, fields[1], (fields[9], fields[10]), content));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut archive = Archive::new(Vec::new());
        archive.text("a/b/c", 0o755, "hello").unwrap();
        archive.symlink("a/link", "b/c").unwrap();
        archive
            .character_device("dev/console", 0o600, 5, 1)
            .unwrap();
        let entries = read(&archive.finish().unwrap());
        assert_eq!(
            entries,
            [
                ("a".to_owned(), 0o040_755, (0, 0), vec![]),
                ("a/b".to_owned(), 0o040_755, (0, 0), vec![]),
                ("a/b/c".to_owned(), 0o100_755, (0, 0), b"hello".to_vec()),
                ("a/link".to_owned(), 0o120_777, (0, 0), b"b/c".to_vec()),
                ("dev".to_owned(), 0o040_755, (0, 0), vec![]),
                ("dev/console".to_owned(), 0o020_600, (5, 1), vec![]),
            ]
        );
    }

    #[test]
    fn archives_of_any_content_length_end_on_a_multiple_of_four() {
        for length in 0..9 {
            let mut archive = Archive::new(Vec::new());
            archive.text("f", 0o644, &"x".repeat(length)).unwrap();
            let bytes = archive.finish().unwrap();
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(read(&bytes)[0].3.len(), length);
        }
    }

    #[test]
    fn a_file_shorter_than_announced_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        let error = archive.file("f", 0o644, 5, &mut &b"1234"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_of_four_gibibytes_is_refused() {
        let mut archive = Archive::new(Vec::new());
        let error = archive
            .file("f", 0o644, 1 << 32, &mut io::empty())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
