// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Virtio devices as a driver sees them: everything here goes through the registers and guest memory, and the driver's
//! side of them is written a second time, from the specification.

mod bindings;
mod driver;
mod hostile;
mod machine;
mod memory;
mod migration;
mod model;
mod parameters;
mod registers;
mod requests;
mod rings;
mod torn;
mod turns;
