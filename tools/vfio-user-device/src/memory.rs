// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The guest's memory, by bounded copies.
//!
//! The client gives a descriptor for each range that a device may reach, and may make the file shorter at any time. Touching a mapping
//! of what is gone ends the program. Reading and writing the file takes its lock, which the client can hold for as long as it likes,
//! appends if the client says so of the file that both have open, and is not to be had of huge pages. So parts of the file are mapped,
//! and the kernel copies: a copy is short where the file is, which is an error like any other.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{fcntl_get_seals, fcntl_getfl, fstat, FileType, OFlags};
use vfio_user_protocol::refusal::errno::{EEXIST, EFAULT, EINVAL, EMFILE, ENOENT, ENOSPC};
use vfio_user_protocol::{DmaMap, DmaUnmap};

use files::{File, Files, Identity};
use windows::Windows;

mod files;
mod windows;

#[cfg(test)]
mod tests;

/// Most ranges at a time, which is what the protocol has for a server that does not say.
pub const MAX_MAPS: u32 = 65535;

/// A range.
#[derive(Debug)]
struct Map {
    /// The address of its last byte.
    last: u64,
    readable: bool,
    writable: bool,
    /// The file, and where the range begins in it. Without one, the range cannot be reached.
    file: Option<(Arc<File>, u64)>,
}

/// The ranges that a device may reach, by address. They do not overlap.
#[derive(Debug, Default)]
pub struct Memory {
    maps: BTreeMap<u64, Map>,
    files: Files,
    windows: Windows,
    refusal: Option<&'static str>,
}

impl Memory {
    /// Adds a range.
    ///
    /// `EEXIST` where there is one already, `ENOSPC` if there are too many, `EINVAL` for a descriptor that the range cannot be read
    /// from or written to as it says, `EMFILE` if it is one too many. Why that is, `take_refusal` has then.
    pub fn map(&mut self, map: &DmaMap, fd: Option<OwnedFd>) -> Result<(), u32> {
        let last = map.size.checked_sub(1).ok_or(EINVAL)?;
        let last = map.address.checked_add(last).ok_or(EINVAL)?;
        if map.wants_file && fd.is_none() {
            return Err(EINVAL);
        }
        let identity = match &fd {
            Some(fd) => Some(check(fd, map).ok_or(EINVAL)?),
            None => None,
        };
        let before = self.maps.range(..=last).next_back();
        if before.is_some_and(|(_, before)| before.last >= map.address) {
            return Err(EEXIST);
        }
        if self.maps.len() >= MAX_MAPS as usize {
            return Err(ENOSPC);
        }
        let file = match fd.zip(identity) {
            Some((fd, identity)) => Some(self.files.keep(fd, identity).map_err(|refused| {
                self.refusal = Some(refused.reason());
                EMFILE
            })?),
            None => None,
        };
        let new = Map {
            last,
            readable: map.readable,
            writable: map.writable,
            file: file.map(|file| (file, map.offset)),
        };
        self.maps.insert(map.address, new);
        Ok(())
    }

    /// Takes a range away, or all. `ENOENT` for what is not a whole range.
    pub fn unmap(&mut self, unmap: &DmaUnmap) -> Result<(), u32> {
        self.check_whole(unmap)?;
        self.windows.close();
        match unmap.all {
            true => self.clear(),
            false => drop(self.maps.remove(&unmap.address)),
        }
        Ok(())
    }

    /// Whether a range can be taken away.
    pub fn check_whole(&self, unmap: &DmaUnmap) -> Result<(), u32> {
        if unmap.all {
            return Ok(());
        }
        let map = self.maps.get(&unmap.address).ok_or(ENOENT)?;
        if map.last - unmap.address != unmap.size.wrapping_sub(1) {
            return Err(ENOENT);
        }
        Ok(())
    }

    /// Takes all ranges away.
    pub fn clear(&mut self) {
        self.maps.clear();
        self.windows.close();
    }

    /// Why a range was refused that makes sense, if that was not told yet.
    pub fn take_refusal(&mut self) -> Option<&'static str> {
        self.refusal.take()
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        self.maps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// Reads memory. `EFAULT` for what may not, or cannot, be read; what is in `data` is anything then.
    pub fn read(&mut self, address: u64, data: &mut [u8]) -> Result<(), u32> {
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (map, offset, len) = reach(&self.maps, address, done, rest.len())?;
            let (file, _) = map.file.as_ref().filter(|_| map.readable).ok_or(EFAULT)?;
            let (window, at, room) = self.windows.readable(file, offset)?;
            let part = rest.get_mut(..len.min(room)).ok_or(EFAULT)?;
            done += moved(window.read(at, part))?;
        }
        Ok(())
    }

    /// Writes memory, as far as that may and can be written, and says how many bytes that was.
    pub fn write(&mut self, address: u64, data: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_on(address, done, rest) {
                Ok(more) => done += more,
                Err(_) => break,
            }
        }
        done
    }

    /// Writes what one range has, and one window, of what is `done` bytes behind an address.
    fn write_on(&mut self, address: u64, done: usize, rest: &[u8]) -> Result<usize, u32> {
        let (map, offset, len) = reach(&self.maps, address, done, rest.len())?;
        let (file, _) = map.file.as_ref().filter(|_| map.writable).ok_or(EFAULT)?;
        let (window, at, room) = self.windows.writable(file, offset)?;
        let part = rest.get(..len.min(room)).ok_or(EFAULT)?;
        moved(window.write(at, part))
    }
}

/// The range that has the byte `done` after `address`, where that is in its file, and how much of `len` it has from there.
fn reach(
    maps: &BTreeMap<u64, Map>,
    address: u64,
    done: usize,
    len: usize,
) -> Result<(&Map, u64, usize), u32> {
    let at = address.checked_add(done as u64).ok_or(EFAULT)?;
    let (start, map) = maps.range(..=at).next_back().ok_or(EFAULT)?;
    let left = map.last.checked_sub(at).ok_or(EFAULT)?;
    let base = map.file.as_ref().map_or(0, |(_, offset)| *offset);
    let offset = base.checked_add(at - start).ok_or(EFAULT)?;
    let len = usize::try_from(left.saturating_add(1)).map_or(len, |left| left.min(len));
    Ok((map, offset, len))
}

/// A copy that moves nothing has come to the end of the file.
fn moved(copied: vfio_uapi::Result<usize>) -> Result<usize, u32> {
    copied.ok().filter(|moved| *moved > 0).ok_or(EFAULT)
}

/// Whether a file is memory: it can have seals, which those of tmpfs and hugetlbfs can. No file system is asked for that, as the client
/// may serve that itself and not answer.
pub(crate) fn is_memory(fd: &OwnedFd) -> bool {
    fcntl_get_seals(fd).is_ok()
}

/// Which file it is, if that is memory that can be read and written as the range says.
fn check(fd: &OwnedFd, map: &DmaMap) -> Option<Identity> {
    if !is_memory(fd) {
        return None;
    }
    let stat = fstat(fd).ok()?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let has_all = u64::try_from(stat.st_size).ok()? >= map.offset.checked_add(map.size)?;
    let mode = fcntl_getfl(fd).ok()?;
    let access = mode & (OFlags::WRONLY | OFlags::RDWR);
    // O_PATH opens nothing.
    let opened = !mode.contains(OFlags::PATH);
    // What is written is mapped, and what is mapped can be read.
    let reads = access != OFlags::WRONLY;
    let writes = !map.writable || access != OFlags::RDONLY;
    (is_file && has_all && opened && reads && writes).then(|| Identity::new(&stat, mode))
}
