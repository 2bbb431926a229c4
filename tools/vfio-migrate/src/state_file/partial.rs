// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A file that is not complete does not outlive the program, when a signal ends that either.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tempfile::NamedTempFile;

/// The signals that end programs.
const ENDS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The file that is not complete. Who ends the program holds the lock, and so does who makes, names or removes the file.
static FILE: Mutex<Option<PathBuf>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<PathBuf>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for the file that is not complete, of which there is one at a time.
#[must_use]
pub(super) struct Partial(());

impl Partial {
    /// Makes the file. From now on a signal that ends the program removes it first.
    pub(super) fn make(
        make: impl FnOnce() -> io::Result<NamedTempFile>,
    ) -> io::Result<(NamedTempFile, Self)> {
        let mut file = lock();
        let ends = ENDS.into_iter().filter(|&signal| !is_ignored(signal));
        // A file that gets too long is an error of the write, which has its own message.
        let mut signals = Signals::new(ends.chain([SIGXFSZ]))?;
        let watch = move || {
            for signal in signals.forever().filter(|&signal| signal != SIGXFSZ) {
                let file = lock();
                if let Some(path) = &*file {
                    // If it cannot be removed there is nobody to tell any more.
                    let _ = fs::remove_file(path);
                }
                // Does not return: the lock is held to the end.
                let _ = emulate_default_handler(signal);
            }
        };
        thread::Builder::new().name("signals".into()).spawn(watch)?;
        let made = make()?;
        *file = Some(made.path().to_path_buf());
        Ok((made, Self(())))
    }

    /// Gives the file its name.
    pub(super) fn end(self, name: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut file = lock();
        name()?;
        *file = None;
        Ok(())
    }
}

/// Whether who started the program wants it to live on, as nohup does.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| (mask >> (signal - 1)) & 1 == 1)
}
