// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A module with faults, made on purpose, one for each value of its parameter: the lab has to notice each (`self-check`).
//!
//! It is built for the debug kernel only, and loaded by nobody else.

use kernel::prelude::*;
use kernel::sync::{new_mutex, new_spinlock, Mutex, SpinLock};
use kernel::time::delay::fsleep;
use kernel::time::Delta;

module! {
    type: Faulty,
    name: "lab_faulty",
    authors: ["The rust-vfio-mdev authors"],
    description: "Faults that a debug kernel has to notice",
    license: "GPL",
    params: {
        fault: u8 {
            default: 0,
            description: "1 locks in two orders, 2 sleeps under a spinlock, 3 loses memory, 4 uses freed memory",
        },
    },
}

/// Bytes of what is lost, and how often: what looks like a pointer to it, in memory that was not cleared yet, hides one piece or two.
const LOST: usize = 1000;
const LOSSES: usize = 32;

struct Faulty;

#[pin_data]
struct Locks {
    #[pin]
    one: Mutex<u32>,
    #[pin]
    other: Mutex<u32>,
    #[pin]
    spinning: SpinLock<u32>,
}

impl Locks {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            one <- new_mutex!(0, "lab_faulty::one"),
            other <- new_mutex!(0, "lab_faulty::other"),
            spinning <- new_spinlock!(0, "lab_faulty::spinning"),
        })
    }

    /// Takes the mutexes in one order and in the other. One thread cannot hang in it, but two could.
    fn invert(&self) {
        let sum = {
            let one = self.one.lock();
            *one + *self.other.lock()
        };
        let other = self.other.lock();
        *self.one.lock() = sum + *other;
    }

    /// Sleeps while it keeps a processor from doing anything else.
    fn sleep(&self) {
        let guard = self.spinning.lock();
        fsleep(Delta::from_millis(1));
        drop(guard);
    }
}

/// Keeps no pointer to memory that it never frees.
fn lose() -> Result {
    for _ in 0..LOSSES {
        core::mem::forget(KBox::new([0x5au8; LOST], GFP_KERNEL)?);
    }
    Ok(())
}

/// Reads memory that it has freed.
fn use_after_free() -> Result<u8> {
    let pointer = KBox::into_raw(KBox::new([0x5au8; 64], GFP_KERNEL)?);
    // SAFETY: The pointer comes from `into_raw`, and this is the first time that it is taken back.
    drop(unsafe { KBox::from_raw(pointer) });
    // SAFETY: None: this is wrong on purpose. The memory was freed in the line before, which KASAN has to report. That checker keeps
    // freed memory from being used again for a while, so that nothing else is read.
    Ok(unsafe { pointer.cast::<u8>().read_volatile() })
}

impl kernel::Module for Faulty {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let locks = KBox::pin_init(Locks::new(), GFP_KERNEL)?;
        match module_parameters::fault.value() {
            1 => locks.invert(),
            2 => locks.sleep(),
            3 => lose()?,
            4 => {
                use_after_free()?;
            }
            _ => return Err(EINVAL),
        }
        Ok(Self)
    }
}
