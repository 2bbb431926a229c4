// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The program and its clients: friendly ones, an independent one, and hostile ones.
//!
//! Hostile clients come in kinds, which the tests have in their names: `k07_…` is what kind 7 does. Kinds that are missing need
//! what the program does not have yet: a device that can be migrated (26, 32, 35, 36), several devices in one program (39) and
//! a control socket (40). Of 31, 33, 34, 37 and 38 there is what a device without migration answers.

mod client;
mod coming_and_going;
mod command_line;
mod device;
mod independent;
mod interrupts;
mod memory;
mod migration;
mod negotiation;
mod program;
mod regions;
mod transport;
