// SPDX-License-Identifier: GPL-2.0

//! Memory in a region of a device, which its user can map.
//!
//! What is mapped is not trapped: the device is not asked. So it can be written at any time, in every state of a migration and
//! while it is saved, by whoever has it mapped; a well-behaved user stops its guest first. All of it is saved after the device has
//! stopped, page by page: each is copied, and framed from the copy, so a stream is well-formed whatever is written meanwhile. It is
//! loaded as a whole, when the rest of the state is, into the pages that may be mapped already.
//!
//! Each user gets pages that no other user had: zeroed, allocated one by one when the device is opened, and charged to him. They last
//! until he has closed the device, which a mapping keeps open, and nobody else refers to them.

use crate::lock_class::new_mutex;
use crate::pages::Pages;
use crate::region::{Region, OFFSET_SHIFT};
use ::migration::session::SavedSize;
use core::fmt::Write;
use kernel::page::{PAGE_SHIFT, PAGE_SIZE};
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};

/// The most of it that a device may have, in bytes: while it is loaded, there is as much of it again.
pub const MOST: usize = 64 << 20;

/// Bytes of a section before the page: which page it is, little-endian.
const NUMBER: usize = 4;

/// Payload of a section.
const SECTION: usize = NUMBER + PAGE_SIZE;

/// Where such memory lies in a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// In which region.
    pub region: Region,
    /// Where it starts there, in bytes: at a page.
    pub offset: u64,
    /// How long it is, in bytes: whole pages.
    pub len: usize,
}

/// Memory in a region of a device, which its user can map. A copy of this value is the same memory.
///
/// There is nothing in it while the device is not open.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

#[pin_data]
struct Shared {
    area: Area,
    /// Held while bytes are copied, and never while something is waited for: `mmap` takes it with the address space locked.
    #[pin]
    inner: Mutex<Inner>,
}

struct Inner {
    /// `None` while the device is not open. Only who holds the mutex accesses what is in them, in the kernel.
    pages: Option<Arc<Pages>>,
    /// The page that is saved next, once it is.
    next: Option<u32>,
}

impl Inner {
    fn pages(&self) -> Result<&Pages> {
        self.pages.as_deref().ok_or(ENODEV)
    }
}

impl Memory {
    /// Memory that is there once the device is open. `EINVAL` for a place that is no whole pages of a base address register's region,
    /// and for more than [`MOST`].
    pub fn new(area: Area) -> Result<Self> {
        let Area {
            region,
            offset,
            len,
        } = area;
        let page = PAGE_SIZE as u64;
        let is_whole = offset % page == 0 && len % PAGE_SIZE == 0 && len > 0 && len <= MOST;
        let is_within = offset.checked_add(len as u64);
        let is_within = is_within.is_some_and(|end| end <= 1 << OFFSET_SHIFT);
        if !matches!(region, Region::Bar(0..=5)) || !is_whole || !is_within {
            return Err(EINVAL);
        }
        let shared = Arc::pin_init(
            pin_init!(Shared {
                area,
                inner <- new_mutex!(Inner { pages: None, next: None }, c"vfio_mapped_memory"),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(shared))
    }

    /// Where it lies.
    pub fn area(&self) -> Area {
        self.0.area
    }

    /// Copies bytes out, from `offset` of this memory on. `EINVAL` when they are not all in it, `ENODEV` while the device is not open.
    /// What the user writes at the same time comes out in part.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result {
        let offset = usize::try_from(offset).map_err(|_| EINVAL)?;
        let inner = self.0.inner.lock();
        // SAFETY: Who accesses the pages in the kernel holds the mutex.
        unsafe { inner.pages()?.get(offset, into) }
    }

    /// Copies bytes in, as [`Memory::read`] copies them out.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result {
        let offset = usize::try_from(offset).map_err(|_| EINVAL)?;
        let inner = self.0.inner.lock();
        // SAFETY: Who accesses the pages in the kernel holds the mutex.
        unsafe { inner.pages()?.put(offset, from) }
    }

    /// Where in this memory a place in the device is, if it is there.
    #[inline]
    pub(crate) fn find(&self, region: Region, offset: u64) -> Option<u64> {
        let area = &self.0.area;
        let at = offset.checked_sub(area.offset)?;
        (region == area.region && at < area.len as u64).then_some(at)
    }

    /// A user opens the device. `ENOMEM`: nothing has changed then.
    pub(crate) fn open(&self) -> Result {
        let Area {
            region,
            offset,
            len,
        } = self.0.area;
        let index = match region {
            Region::Bar(number) => u64::from(number),
            _ => return Err(EINVAL),
        };
        let pages = Pages::new((index << OFFSET_SHIFT) + offset, len)?;
        let old = self.0.inner.lock().pages.replace(pages);
        drop(old);
        Ok(())
    }

    /// The last user is gone.
    pub(crate) fn close(&self) {
        let old = {
            let mut inner = self.0.inner.lock();
            inner.next = None;
            inner.pages.take()
        };
        // A page lasts as long as somebody refers to it.
        drop(old);
    }

    /// The pages, to be mapped. `ENODEV` while the device is not open.
    pub(crate) fn pages(&self) -> Result<Arc<Pages>> {
        self.0.inner.lock().pages.clone().ok_or(ENODEV)
    }

    /// The device is reset: there are zeroes everywhere.
    pub(crate) fn clear(&self) {
        let inner = self.0.inner.lock();
        if let Some(pages) = &inner.pages {
            // SAFETY: Who accesses the pages in the kernel holds the mutex.
            unsafe { pages.zero(pages.len()) };
        }
    }

    /// The device has stopped: all of it is saved from now on.
    pub(crate) fn start_sending(&self) {
        self.0.inner.lock().next = Some(0);
    }

    /// Nothing is saved any longer.
    pub(crate) fn stop_sending(&self) {
        self.0.inner.lock().next = None;
    }

    /// The payload of its sections, in bytes.
    pub(crate) const fn section_len() -> usize {
        SECTION
    }

    fn count(&self) -> usize {
        self.0.area.len >> PAGE_SHIFT
    }

    /// What is still to be sent; nothing before that has begun.
    pub(crate) fn remaining(&self) -> SavedSize {
        let next = self.0.inner.lock().next;
        let left = next.map_or(0, |next| self.count().saturating_sub(next as usize));
        SavedSize::of(left, SECTION)
    }

    /// What will be sent when the device has stopped, as long as that has not begun.
    pub(crate) fn to_come(&self) -> SavedSize {
        let begun = self.0.inner.lock().next.is_some();
        SavedSize::of(if begun { 0 } else { self.count() }, SECTION)
    }

    /// The next section, as [`Device::next_section`](crate::device::Device::next_section) gives it: its length.
    pub(crate) fn next_section(&self, payload: &mut [u8]) -> Option<usize> {
        let mut inner = self.0.inner.lock();
        let number = inner.next?;
        let (head, page) = payload.get_mut(..SECTION)?.split_at_mut(NUMBER);
        let offset = (number as usize).checked_mul(PAGE_SIZE)?;
        // SAFETY: Who accesses the pages in the kernel holds the mutex.
        unsafe { inner.pages().ok()?.get(offset, page) }.ok()?;
        head.copy_from_slice(&number.to_le_bytes());
        inner.next = Some(number + 1);
        Some(SECTION)
    }

    /// Starts loading: room for all of it, charged to the caller.
    pub(crate) fn incoming(&self) -> Result<Incoming> {
        let len = self.0.area.len;
        Ok(Incoming {
            bytes: KVVec::with_capacity(len, GFP_KERNEL_ACCOUNT)?,
            len,
        })
    }

    /// Takes what was loaded, which is complete. `EINVAL` if it is not, `ENODEV` while the device is not open.
    pub(crate) fn load(&self, incoming: &Incoming) -> Result {
        if !incoming.is_complete() || incoming.len != self.0.area.len {
            return Err(EINVAL);
        }
        self.write(0, &incoming.bytes)
    }
}

/// Memory that is being loaded. Its pages come in their order, each once.
pub(crate) struct Incoming {
    bytes: KVVec<u8>,
    len: usize,
}

impl Incoming {
    /// Takes a section. `EINVAL` for another one than comes next, with the reason.
    pub(crate) fn section(&mut self, payload: &[u8], reason: &mut dyn Write) -> Result {
        let next = self.bytes.len() >> PAGE_SHIFT;
        let parts = payload.split_first_chunk::<NUMBER>();
        let parts = parts.filter(|(_, page)| page.len() == PAGE_SIZE && !self.is_complete());
        let Some((number, page)) = parts else {
            // A reason that does not fit is cut.
            let _ = match self.is_complete() {
                true => write!(reason, "more mapped memory came than this device has"),
                false => write!(
                    reason,
                    "a section of mapped memory has {} bytes instead of {SECTION}",
                    payload.len()
                ),
            };
            return Err(EINVAL);
        };
        let number = u32::from_le_bytes(*number);
        if number as usize != next {
            let _ = write!(
                reason,
                "page {number} of the mapped memory came where page {next} comes next"
            );
            return Err(EINVAL);
        }
        Ok(self.bytes.extend_from_slice(page, GFP_KERNEL_ACCOUNT)?)
    }

    /// Whether all of it has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.bytes.len() == self.len
    }
}
