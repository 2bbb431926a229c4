// SPDX-License-Identifier: GPL-2.0

//! Why something was refused, kept where a user can read it.

pub(crate) use ::migration::reason::Reason;
