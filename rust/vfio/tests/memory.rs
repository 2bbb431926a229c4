// SPDX-License-Identifier: GPL-2.0

//! KUnit: a migration on a host whose memory is in pieces.

use super::*;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::page::PAGE_SIZE;

/// Pages that are as long together as the longest section, as a power of two.
const ORDER: u32 = (::migration::stream::MAX_SECTION_LEN / PAGE_SIZE).ilog2();

/// Blocks of which every second page is free: 256 MiB in all. That is far more than the kernel keeps for emergencies, and more
/// than what lies on the processors' own lists of free pages, which does not count when memory gets short.
const BLOCKS: usize = 8192;

/// Most blocks that a machine of this test can have: 8 GiB.
const MOST: usize = 1 << 17;

/// How often memory is taken that others have given back before the test gives up.
const ROUNDS: usize = 16;

/// The machine's memory, taken but for single pages none of which lies beside another.
///
/// # Invariants
///
/// `whole` are allocations of 2^[`ORDER`] pages, `single` are allocations of one page, and nobody else has them.
struct InPieces {
    whole: VVec<NonNull<bindings::page>>,
    single: VVec<NonNull<bindings::page>>,
}

impl InPieces {
    fn new() -> Result<Self> {
        let mut this = Self {
            whole: VVec::with_capacity(MOST, GFP_KERNEL)?,
            single: VVec::with_capacity(BLOCKS << ORDER, GFP_KERNEL)?,
        };
        this.take_whole(BLOCKS)?;
        for _ in 0..BLOCKS {
            let block = this.whole.pop().ok_or(ENOMEM)?;
            // SAFETY: By the type invariant, this is a block of so many pages and ours.
            unsafe { bindings::split_page(block.as_ptr(), ORDER) };
            for n in 0..1 << ORDER {
                // SAFETY: The block has been split into so many allocations of one page.
                let page = unsafe { block.add(n) };
                match n % 2 {
                    // SAFETY: The page is ours and not given to anybody.
                    0 => unsafe { bindings::__free_pages(page.as_ptr(), 0) },
                    // INVARIANT: One page of its own.
                    _ => this.single.push(page, GFP_KERNEL)?,
                }
            }
        }
        // There is enough left for everybody who needs a page, and nothing for who needs more.
        this.take_whole(MOST)?;
        Ok(this)
    }

    /// Takes so many blocks, or as many as there are.
    fn take_whole(&mut self, most: usize) -> Result {
        let flags = bindings::GFP_KERNEL | bindings::__GFP_NOWARN;
        for _ in 0..most {
            // SAFETY: May be called from any context that sleeps.
            let block = unsafe { bindings::alloc_pages(flags, ORDER) };
            let Some(block) = NonNull::new(block) else {
                break;
            };
            // INVARIANT: Just allocated.
            self.whole.push(block, GFP_KERNEL)?;
        }
        Ok(())
    }
}

impl Drop for InPieces {
    fn drop(&mut self) {
        for (list, order) in [(&self.whole, ORDER), (&self.single, 0)] {
            for page in list {
                // SAFETY: By the type invariant.
                unsafe { bindings::__free_pages(page.as_ptr(), order) };
            }
        }
    }
}

#[kunit_tests(rust_vfio_memory)]
mod pieces {
    use super::*;
    use kernel::alloc::flags::__GFP_NOWARN;

    #[test]
    fn no_migration_needs_contiguous_memory() -> Result {
        let stream = saved(42)?;
        let mut in_pieces = InPieces::new()?;
        let ask = || {
            KVec::<u8>::with_capacity(
                ::migration::stream::MAX_SECTION_LEN,
                GFP_KERNEL | __GFP_NOWARN,
            )
        };
        let mut contiguous = ask();
        for _ in 0..ROUNDS {
            if contiguous.is_err() {
                break;
            }
            // Somebody else has given memory back meanwhile: it is taken, too.
            drop(contiguous);
            in_pieces.take_whole(MOST)?;
            contiguous = ask();
        }
        let again = saved(42);
        let outcome = loaded(4, &stream);
        drop(in_pieces);
        // Otherwise the rest proves nothing.
        assert!(contiguous.is_err());
        assert!(again? == stream);
        let (result, device, _) = outcome?;
        assert_eq!(result, Ok(()));
        assert_eq!(device.0, 42);
        Ok(())
    }
}
