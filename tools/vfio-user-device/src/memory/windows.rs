// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The parts of the files that are mapped: those that were used last.
//!
//! A ring, the headers of requests and their data are in few places. A device has few windows at a time, as a process may have so many
//! mappings in all.

use std::os::fd::AsFd;
use std::sync::Arc;

use vfio_uapi::Window;
use vfio_user_protocol::refusal::errno::EFAULT;

use super::files::File;

/// Most windows of a device.
const MAX_WINDOWS: usize = 4;
/// Bytes of a window, unless the file's pages are larger.
const WINDOW_BYTES: u64 = 2 << 20;

/// One of them.
#[derive(Debug)]
struct Open {
    file: Arc<File>,
    /// Where it is in the file.
    first: u64,
    bytes: u64,
    writable: bool,
    window: Window,
}

/// Those that are there, the one that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Windows(Vec<Open>);

impl Windows {
    /// The window to read this byte of a file through, where in it that is, and how many bytes it has from there on.
    pub(super) fn readable(&mut self, file: &Arc<File>, offset: u64) -> Result<View<'_>, u32> {
        self.on(file, offset, false)
    }

    /// The one to write it through.
    pub(super) fn writable(&mut self, file: &Arc<File>, offset: u64) -> Result<View<'_>, u32> {
        self.on(file, offset, true)
    }

    /// Closes all.
    pub(super) fn close(&mut self) {
        self.0.clear();
    }

    fn on(&mut self, file: &Arc<File>, offset: u64, writes: bool) -> Result<View<'_>, u32> {
        let does = |open: &Open| {
            Arc::ptr_eq(&open.file, file)
                && offset
                    .checked_sub(open.first)
                    .is_some_and(|at| at < open.bytes)
                && (open.writable || !writes)
        };
        let open = match self.0.iter().position(does) {
            Some(position) => self.0.remove(position),
            None => open(file, offset, writes)?,
        };
        if self.0.len() >= MAX_WINDOWS {
            self.0.remove(0);
        }
        let at = offset - open.first;
        let room = open.bytes - at;
        self.0.push(open);
        let window = self.0.last().map(|open| &open.window).ok_or(EFAULT)?;
        let number = |bytes: u64| usize::try_from(bytes).map_err(|_| EFAULT);
        Ok((window, number(at)?, number(room)?))
    }
}

/// A window, a place in it, and the bytes from there on.
pub(super) type View<'w> = (&'w Window, usize, usize);

fn open(file: &Arc<File>, offset: u64, writable: bool) -> Result<Open, u32> {
    // Pages are powers of two.
    let bytes = WINDOW_BYTES.max(file.page);
    let first = offset - offset % bytes;
    let place = i64::try_from(first).map_err(|_| EFAULT)?;
    let length = usize::try_from(bytes).map_err(|_| EFAULT)?;
    let window = Window::new(file.fd.as_fd(), place, length, writable).map_err(|_| EFAULT)?;
    Ok(Open {
        file: file.clone(),
        first,
        bytes,
        writable,
        window,
    })
}
