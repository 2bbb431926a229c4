// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Live migration of real guests between real QEMUs, scenario by scenario.
//!
//! [`scene`] holds what every scenario needs, [`machine`] one QEMU, [`version`] which one, [`guest`] the account of one guest,
//! [`timeline`] what all of them said and when, [`state`] which states the cards went through. The scenarios themselves are in
//! [`smooth`] (the migration works), [`broken`] (it must not, and nothing may be lost), [`v1`] (where QEMU 7.2 differs),
//! [`contract`] (cards that differ), [`two_cards`] ([`channels`]: by multifd), [`hotplug`], [`guest_driver`] (what the guest does meanwhile), [`dirty_rate`],
//! [`convergence`] (whether a migration ends), [`kvm_intx`] (an interrupt that QEMU has KVM deliver), [`snapshot`], [`removal`], [`vfio_user`] (the card is a program) and [`disk`] (a
//! disk goes along); [`plain`] types the commands of README.md into a [`terminal`]; [`story`] tells one of them to a person, and [`mod@bench`] compares.

pub mod bench;
pub mod broken;
pub mod cards;
pub mod channels;
pub mod command_line;
pub mod contract;
pub mod convergence;
pub mod dirty_rate;
pub mod disk;
pub mod guest;
pub mod guest_driver;
pub mod hotplug;
pub mod kvm_intx;
pub mod machine;
pub mod plain;
pub mod pump;
pub mod removal;
pub mod scene;
pub mod smooth;
pub mod snapshot;
pub mod state;
pub mod story;
pub mod terminal;
pub mod timeline;
pub mod tool;
pub mod two_cards;
pub mod v1;
pub mod version;
pub mod vfio_user;
