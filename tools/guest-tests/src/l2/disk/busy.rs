// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Memory that the guest's processor writes all the time.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes that are written in each round: less than a migration that is to end can send while the guest stands still.
const BYTES: usize = 8 << 20;
/// Bytes in a page.
const PAGE: usize = 4096;
/// Between two rounds, for the rest of the guest.
const PAUSE: Duration = Duration::from_millis(2);

/// A thread that writes memory until this is dropped.
pub struct BusyMemory {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BusyMemory {
    /// Starts to write.
    #[allow(clippy::new_without_default)] // Something begins.
    pub fn new() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        let thread = thread::spawn(move || {
            let mut memory = vec![0u8; BYTES];
            while !seen.load(Ordering::Relaxed) {
                for page in memory.chunks_mut(PAGE) {
                    page[0] = page[0].wrapping_add(1);
                }
                black_box(&memory);
                thread::sleep(PAUSE);
            }
        });
        Self {
            ended,
            thread: Some(thread),
        }
    }
}

impl Drop for BusyMemory {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot fail.
            let _ = thread.join();
        }
    }
}
