// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What any virtio device on a PCI bus has: the modern transport, feature negotiation, packed rings.
//!
//! Source: Virtual I/O Device (VIRTIO) Version 1.2, sections 2.1 (status), 2.2 (features), 2.8 (packed
//! virtqueues), 3.1 (initialisation), 4.1 (virtio over PCI), 6 (reserved features);
//! linux/virtio_pci.h and linux/virtio_ring.h for the names.
//!
//! # Why packed rings only
//!
//! In a split ring the driver and the device tell each other a 16-bit index. Where guest memory can
//! only be copied, such as by the kernel's `vfio_dma_rw`, two bytes are two copies: a processor of the
//! guest that looks in between sees an index that never was, and takes up to 65 535 requests for done.
//! In a packed ring single bits change hands, and each lies in a single byte: AVAIL in the low byte of
//! a descriptor's flags, USED in the high one. So a device here needs `VIRTIO_F_RING_PACKED`
//! and refuses `FEATURES_OK` without it (2.2.2, 3.1.1). For the same reason `VIRTIO_RING_F_EVENT_IDX`, whose
//! offsets are 16 bits, is not offered. Firmware that knows only split rings cannot boot from such a device.
//!
//! # Registers here, memory there
//!
//! Guest memory is far: reading it can fault, take as long as somebody likes, and need locks that an
//! access to a register is made under. So the two never meet. The registers ([`Function`]) never access memory;
//! they hand out [`Work`], a ring to be served, which is carried elsewhere, served there through
//! [`GuestMemory`], and given back:
//!
//! ```text
//! with the registers locked     Function::begin   -> Work
//! without                       Work::ring        pop, … , push
//! with the registers locked     Function::finish  <- Work, interrupts
//! ```
//!
//! A queue is handed out once at a time, and different queues can be out at once. While one is out, a
//! reset that the guest asks for waits: the status register reads 0 when it is complete (4.1.4.3.1).
//! [`Function::set_running`] keeps queues in; once [`Function::is_quiesced`], nobody accesses guest memory.
//! What was not taken from a ring stays in it: guest memory carries it to the other end of a migration. What
//! was taken is completed first, so that a saved state never has a request in it.
//!
//! # When a queue has been served
//!
//! While a queue is being served, its driver is asked not to notify; a driver on another processor can keep adding requests as fast as they
//! are served. So that serving ends, and no request is forgotten, a notification is worth two turns ([`Turn`]). The first one serves
//! as many requests as the ring has places, or until it is empty; then it asks for notifications again. If the ring is not empty, the last turn
//! serves once more as many requests as the ring has places, without asking for silence. When it began there were no more than those
//! that nothing told of; all others have a notification of their own. Whoever is notified serves what [`Function::begin`] hands
//! out until that is nothing, or has served two turns of each queue: what is left then was notified by somebody else, who
//! does the same.
//!
//! # What is believed
//!
//! Nothing in a ring is. Every byte is read once, into a buffer of the device, and judged there; lengths and
//! addresses are checked before they are used; a chain is bounded by [`MAX_DESCRIPTORS`]. A ring that makes no sense
//! ([`RingError`]), or cannot be reached, sets `DEVICE_NEEDS_RESET` (2.1.2) and the device stops serving. A
//! reset always recovers.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `memory` | guest memory, as the embedder provides it |
//! | `features` | feature bits |
//! | `chain` | the buffers of a request |
//! | `ring` | packed rings |
//! | `queue` | the registers of a queue |
//! | `work` | a queue that was handed out |
//! | `transport` | common configuration, status machine, interrupt status |
//! | `layout` | where all of that lies in BARs and capabilities |
//! | `function` | the PCI function |

mod chain;
pub mod features;
mod function;
mod layout;
mod memory;
mod queue;
mod ring;
mod transport;
mod work;

pub use chain::{Chain, ChainReader, ChainWriter, Segment, MAX_DESCRIPTORS};
pub use function::{Function, FunctionState, RestoreError, Spec};
pub use layout::{
    COMMON_BAR, COMMON_OFFSET, DEVICE_OFFSET, ISR_OFFSET, MAX_QUEUES, MSIX_BAR, NOTIFY_MULTIPLIER,
    NOTIFY_OFFSET,
};
pub use memory::{Barrier, Fault, GuestMemory};
pub use queue::{QueueState, NO_VECTOR};
pub use ring::{Cursor, Ring, RingError, RingPlace, MAX_QUEUE_SIZE};
pub use transport::{status, StateError, TransportState};
pub use work::{Outcome, Turn, Work};
