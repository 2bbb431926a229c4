// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What models, types and instances look like to user space: JSON and text.
//!
//! Each form is a structure that prints itself, in declaration order, into any
//! [`core::fmt::Write`]. Nothing is collected first, so the size of the result is bounded by
//! nothing but the reader's patience; [`Window`] serves files that are read by offset.
//!
//! | structure | form |
//! |---|---|
//! | [`MigrationInfo`] | migration information JSON of a type or program |
//! | [`DeviceModels`] | the models and versions of a type as plain lines |
//! | [`ParamNames`], [`OffValue`], [`AllowedValues`] | the parameters of a type as plain lines |
//! | [`ParameterList`] | the parameters in effect, as a JSON file to keep |
//! | [`Compatible`] | an instance and the types that can take its state, as JSON |

mod compatible;
mod json;
mod longest;
mod migration_info;
mod plain;
mod window;

#[cfg(test)]
mod tests;

pub use compatible::{Compatible, Family};
pub use longest::longest_compatible;
pub use migration_info::{MigrationInfo, ParameterList};
pub use plain::{AllowedValues, DeviceModels, OffValue, ParamNames};
pub use window::{printed_len, Place, Window};
