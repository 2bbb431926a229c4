// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A virtio block device whose medium is part of its state.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, section 5.2; linux/virtio_blk.h for the names. The PCI
//! function is that of [`virtio`](crate::virtio): 1af4:1042, modern transport, packed rings.
//!
//! # Requests
//!
//! Read, write, flush, get ID, and with [`Config::write_zeroes`] discard and write zeroes. Sectors are 512 bytes.
//! A request moves, discards or zeroes at most [`MAX_REQUEST_BYTES`]. What a driver asks that cannot be done is answered by a status; a
//! chain that has no room for one, or no header, is no request, and the device needs a reset.
//!
//! # The medium
//!
//! It is behind two traits. [`Backend`] is what a request needs: bytes at an offset. [`Medium`] is memory in
//! blocks of [`BLOCK_BYTES`], which exist once they were written. [`Disk`] makes the one of the other, and
//! knows, while it is being sent, which blocks have to be sent (again). [`Blocks`] is such memory, wherever it comes from: that
//! is what an [`Allocator`] says.
//!
//! # How to embed a device
//!
//! ```
//! use devices::blk::{serve, words_for, Blocks, Config, Device, Disk, Heap, Scratch};
//! # use devices::virtio::{Barrier, Fault, GuestMemory};
//! # struct NoMemory;
//! # impl GuestMemory for NoMemory {
//! #     fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Fault> { Err(Fault) }
//! #     fn write(&mut self, _: u64, _: &[u8]) -> Result<(), Fault> { Err(Fault) }
//! #     fn barrier(&mut self, _: Barrier) {}
//! # }
//! # let mut guest_memory = NoMemory;
//! let config = Config::new(1);
//! let mut device = Device::new(&config)?;
//! // The heap of a program; another place has an `Allocator` of its own.
//! let blocks = Blocks::<Heap>::of(&config);
//! let bits = vec![0; words_for(config.capacity.blocks())];
//! let mut disk = Disk::new(blocks, bits.clone(), bits).expect("a bit a block");
//! device.function_mut().set_running(true);
//!
//! // A guest's access, with the registers locked.
//! device.function_mut().write_bar(4, 0x3000, &[0, 0]);
//! // Whatever it started: without.
//! let mut scratch = Box::new(Scratch::new());
//! while let Some(mut work) = device.function_mut().begin() {
//!     let outcome = serve(&mut work, device.geometry(), &mut guest_memory, &mut disk, &mut scratch);
//!     device.function_mut().finish(work, &outcome);
//! }
//! for vector in devices::pci::vectors(device.function_mut().take_messages()) {
//!     // Signal the eventfd of the vector.
//! }
//! # Ok::<(), devices::pci::BuildError>(())
//! ```
//!
//! # A migration
//!
//! In pre-copy the source sends the medium: [`Disk::start_sending`], then [`Disk::next_section`] as often as there is room
//! for a section, until it is `None`; the guest goes on writing, which makes blocks to be sent again. When the device has
//! stopped and is [quiet](crate::virtio::Function::is_quiesced), the rest of the blocks follows, and [`Device::save`]. Each section is
//! at most [`MAX_SECTION_BYTES`], and that is all the memory that either side needs for it.
//!
//! Requests are never part of a state. One that was taken from a ring is completed before the device is quiet, which takes at most as
//! long as it takes to move [`MAX_REQUEST_BYTES`]: so no layout has to describe half a request, and no
//! destination has to believe one. Those that were not taken are in the ring, in guest memory.
//!
//! # Parameters
//!
//! | parameter | values | what it is |
//! |---|---|---|
//! | `capacity-mib` | 1 to 4096 | size of the medium in MiB |
//! | `num-queues` | 1 to 16 | queues, and vectors less one |
//! | `queue-size` | 16, 32, 64, 128, 256 | descriptors of a queue |
//! | `read-only` | off (absent), on | no request changes the medium |
//! | `write-zeroes` | off (absent), on; on requires `read-only` off | discard and write zeroes |
//! | `serial` | up to 20 characters of ASCII, "" (absent) | what get ID answers |
//!
//! All of them shape the hardware interface. [`Config`] is what they are once they are checked.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `config` | kinds of device, and their configuration structure |
//! | `request` | what a chain asks, and doing it |
//! | `serve` | serving a queue |
//! | `disk` | the medium in blocks, and which of them are to be sent |
//! | `blocks` | a medium in memory |
//! | `bitmap` | a bit a block |
//! | `device` | the function and its kind |
//! | `state` | saved devices: layout, saving, loading |

mod bitmap;
mod blocks;
mod config;
mod device;
mod disk;
mod request;
mod serve;
mod state;

#[cfg(any(test, feature = "alloc"))]
pub use blocks::Heap;
pub use blocks::{Allocator, Blocks};
pub use config::{
    Capacity, Config, ConfigError, QueueCount, QueueSize, Serial, MAX_BLOCKS, MAX_CAPACITY_MIB,
    MAX_QUEUES, MAX_VECTORS, SECTOR_BYTES,
};
pub use device::{Device, Function};
pub use disk::{words_for, Disk, Medium, NoSpace, BLOCK_BYTES};
pub use request::{
    feature, Backend, Geometry, IoError, MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS,
    MAX_REQUEST_BYTES, MAX_SEGMENTS, MAX_SEGMENT_BYTES,
};
pub use serve::{serve, serve_while, Scratch, SCRATCH_BYTES};
pub use state::{
    Emit, Incoming, LoadError, SaveError, SectionId, BLOCK_SECTION_BYTES, MAX_SECTION_BYTES,
    ZERO_SECTION_BYTES,
};
