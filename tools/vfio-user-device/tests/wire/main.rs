// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The program and its clients: friendly ones, an independent one, and hostile ones.
//!
//! Hostile clients come in kinds, which the tests have in their names: `k07_…` is what kind 7 does. Kind 32 is a state that no
//! client can bring about, and so a test of `host`. Kind 40 is in `control`.

mod bus;
mod client;
mod coming_and_going;
mod command_line;
mod control;
mod descriptors;
mod device;
mod disk;
mod independent;
mod interrupts;
mod logging;
mod memory;
mod migration;
mod negotiation;
mod observers;
mod program;
mod recorded;
mod regions;
mod registry;
mod several;
mod states;
mod transport;
