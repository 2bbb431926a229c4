// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The messages of the vfio-user protocol: bytes in, requests out, replies out.
//!
//! vfio-user is VFIO over a socket: a monitor (the client) uses a device that another program (the server) emulates. This crate
//! is the language, and nothing else: it does no I/O and knows no device. The server's half of it is whole; of the client's there
//! is what it takes to migrate a device.
//!
//! ```
//! use vfio_user_protocol::{Framer, Header, Limits, Reply, Request};
//!
//! let mut framer = Framer::new(Limits::DEFAULT.message_len());
//! let mut asked = Vec::new();
//! Request::Info { argsz: 16 }.encode(7, false, &mut asked);
//! // Bytes come in any pieces.
//! for piece in asked.chunks(3) {
//!     assert_eq!(framer.push(piece).expect("a sound header"), piece.len());
//! }
//! let (header, body) = framer.message().expect("a whole message");
//! let request = Request::decode(&header, body, &Limits::DEFAULT).expect("a sound request");
//! assert_eq!(request, Request::Info { argsz: 16 });
//! let mut answer = Vec::new();
//! Reply::Info { flags: 3, regions: 9, irqs: 5 }.encode(&header, &mut answer);
//! assert_eq!(answer.len(), Header::LEN + 16);
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`header`] | what every message begins with: identifier, command, length, flags |
//! | [`frame`] | where messages begin and end in a stream of bytes |
//! | [`version`] | the first message, in which both sides say what they can |
//! | [`request`] | what a client asks for, with every field that it has |
//! | [`feature`] | the data of `DEVICE_FEATURE`: migration states, DMA logging |
//! | [`progress`] | how a migration goes on, as observers are told: an extension of this project |
//! | [`reply`] | what a server answers |
//! | [`answer`] | what a client finds in it |
//! | [`refusal`] | why it does not |
//!
//! What comes from a client is untrusted. Nothing here panics on it, no length that it names is allocated before as many bytes
//! have come, and a request that is decoded is sound as far as it can be without knowing the device: its sums do not overflow,
//! its counts are those of its data, and it has no flag that nobody knows.
//!
//! Numbers are in the byte order of the host, as the protocol has it. The text of the protocol is `docs/interop/vfio-user.rst` of
//! QEMU; where it is silent, or clients do something else, the item says so.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod answer;
pub mod feature;
pub mod frame;
pub mod header;
pub mod progress;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod version;
mod wire;

pub use frame::{FrameError, Framer};
pub use header::{Command, Header};
pub use progress::Progress;
pub use refusal::Refusal;
pub use reply::{Area, RegionInfo, Reply};
pub use request::{Access, DmaMap, DmaUnmap, Request, SetIrqs, WriteMulti};
pub use version::{Capabilities, Proposal};

/// Size of the pages that DMA maps are made of.
pub const PAGE: u64 = 4096;

/// What both sides agreed on, as far as it decides which requests are sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of data that one message may carry.
    pub max_data_xfer_size: u32,
    /// Whether several writes may come in one message.
    pub write_multiple: bool,
}

impl Limits {
    /// What holds until both sides said something else.
    pub const DEFAULT: Self = Self {
        max_data_xfer_size: 1 << 20,
        write_multiple: false,
    };

    /// Longest message with so much data: there is room for what is before the data, and for structures that a client makes
    /// longer than they need be.
    pub const fn message_len(&self) -> usize {
        self.max_data_xfer_size as usize + (64 << 10)
    }
}
