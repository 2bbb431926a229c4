// SPDX-License-Identifier: GPL-2.0

//! Which module a driver is, and what its parameters are: the same words for every kernel.
//!
//! Linux 7.3 gives a module's type its `THIS_MODULE`, and a parameter by value. Linux 7.2 has neither: there a module says
//! who it is with [`owner_module!`](crate::owner_module), which does nothing elsewhere.
//!
//! C header: `include/linux/init.h`.

use core::borrow::Borrow;

#[cfg(not(no_this_module))]
pub use kernel::module::{this_module, ModuleMetadata};

#[cfg(no_this_module)]
pub use older::{this_module, ModuleMetadata};

#[cfg(no_this_module)]
mod older {
    use kernel::ThisModule;

    /// What is known of a module by its type. [`owner_module!`](crate::owner_module) implements it.
    pub trait ModuleMetadata {
        /// The module's `THIS_MODULE`.
        const THIS_MODULE: ThisModule;
    }

    /// The `THIS_MODULE` of the module of this type.
    pub const fn this_module<M: ModuleMetadata>() -> &'static ThisModule {
        &M::THIS_MODULE
    }
}

/// Lets the module's type be a device's [`OwnerModule`](crate::device::Device::OwnerModule). It stands beside `module!`.
#[cfg(not(no_this_module))]
#[macro_export]
macro_rules! owner_module {
    ($module:ty) => {};
}

/// Lets the module's type be a device's [`OwnerModule`](crate::device::Device::OwnerModule). It stands beside `module!`.
#[cfg(no_this_module)]
#[macro_export]
macro_rules! owner_module {
    ($module:ty) => {
        impl $crate::module::ModuleMetadata for $module {
            // SAFETY: It is the pointer of the module's own `THIS_MODULE`.
            const THIS_MODULE: ::kernel::ThisModule =
                unsafe { ::kernel::ThisModule::from_ptr(THIS_MODULE.as_ptr()) };
        }
    };
}

/// The value of a module parameter, whether the kernel gives it or a reference to it.
pub fn value<T: Copy>(parameter: impl Borrow<T>) -> T {
    *parameter.borrow()
}
