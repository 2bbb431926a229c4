// SPDX-License-Identifier: GPL-2.0

//! A type as the mdev core knows it, and the files that tell what it offers of its model.
//!
//! The files are binary attributes: the mdev core casts text attributes of a type to a structure of its own.

use super::param_files::ParamFiles;
use crate::capacity::Capacity;
use crate::table::Type;
use ::migration::info::{
    AllowedValues, DeviceModels, Family, MigrationInfo, OffValue, ParamNames, Window,
};
use core::fmt;
use core::mem::MaybeUninit;
use kernel::bindings;
use kernel::container_of;
use kernel::error::to_result;
use kernel::ffi::c_char;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::types::Opaque;
use vfio_bindings::mdev_type;

/// A type of a parent.
#[repr(C)]
pub(super) struct TypeNode {
    /// First, so that a pointer to it is one to the whole.
    raw: Opaque<mdev_type>,
    pub(super) info: &'static Type,
    pub(super) families: &'static [Family<'static>],
    pub(super) capacity: Arc<Capacity>,
    /// Differs between any two times that the tables could differ: drawn whenever a parent is registered.
    generation: CString,
    off_values: ParamFiles,
    allowed_values: ParamFiles,
}

impl TypeNode {
    /// A type that is not registered yet.
    pub(super) fn new(
        info: &'static Type,
        families: &'static [Family<'static>],
        capacity: Arc<Capacity>,
    ) -> Result<KBox<Self>> {
        let offer = info.migration;
        let params = offer.model.params.iter();
        let can_be_off = params.clone().filter(|param| offer.off(param).is_some());
        // SAFETY: May be called from any context that sleeps.
        let random = unsafe { bindings::get_random_u64() };
        Ok(KBox::new(
            Self {
                raw: Opaque::new(mdev_type {
                    sysfs_name: info.name.as_char_ptr(),
                    pretty_name: info.pretty_name.as_char_ptr(),
                    ..pin_init::zeroed()
                }),
                info,
                families,
                capacity,
                generation: CString::try_from_fmt(fmt!("{random:016x}"))?,
                off_values: ParamFiles::new(c"migration_off_values", can_be_off, read_off_value)?,
                allowed_values: ParamFiles::new(
                    c"migration_allowed_values",
                    params,
                    read_allowed_values,
                )?,
            },
            GFP_KERNEL,
        )?)
    }

    /// The C type, valid for as long as this value.
    pub(super) fn as_raw(&self) -> *mut mdev_type {
        self.raw.get()
    }

    /// # Safety
    ///
    /// `raw` must be what [`TypeNode::as_raw`] returned, of a value that lives during `'a`.
    pub(super) unsafe fn from_raw<'a>(raw: *mut mdev_type) -> &'a Self {
        const { assert!(core::mem::offset_of!(TypeNode, raw) == 0) };
        // SAFETY: By contract.
        unsafe { &*raw.cast() }
    }

    /// Adds the files to the type's directory.
    ///
    /// # Safety
    ///
    /// The type must be registered, and be unregistered before this value is dropped.
    pub(super) unsafe fn add_files(&self) -> Result {
        // SAFETY: The type is valid.
        let kobj = unsafe { &raw mut (*self.raw.get()).kobj };
        for file in FILES {
            // SAFETY: By contract, the kobject is in sysfs. The attributes are static.
            to_result(unsafe { bindings::sysfs_create_bin_file(kobj, &file.0) })?;
        }
        for directory in [&self.off_values, &self.allowed_values] {
            // SAFETY: By contract, the kobject is in sysfs, and its directory is removed when the type is unregistered.
            unsafe { directory.add_to(kobj)? };
        }
        Ok(())
    }

    fn info(&self) -> MigrationInfo<'_> {
        MigrationInfo {
            generation: self.generation.to_str().ok(),
            types: core::slice::from_ref(self.info.migration),
        }
    }

    fn device_models(&self) -> DeviceModels<'_> {
        DeviceModels {
            types: core::slice::from_ref(self.info.migration),
        }
    }
}

/// `migration_info.json`, `migration_device_models` and `migration_params`.
// `as_char_ptr()` is not const. Structures that are whole here have more fields with CONFIG_DEBUG_LOCK_ALLOC.
#[allow(clippy::disallowed_methods, clippy::needless_update)]
static FILES: &[&FileAttribute] = &[
    &FileAttribute(bindings::bin_attribute {
        attr: bindings::attribute {
            name: c"migration_info.json".as_ptr().cast(),
            mode: 0o444,
            ..pin_init::zeroed()
        },
        read: Some(read_info),
        ..pin_init::zeroed()
    }),
    &FileAttribute(bindings::bin_attribute {
        attr: bindings::attribute {
            name: c"migration_device_models".as_ptr().cast(),
            mode: 0o444,
            ..pin_init::zeroed()
        },
        read: Some(read_device_models),
        ..pin_init::zeroed()
    }),
    &FileAttribute(bindings::bin_attribute {
        attr: bindings::attribute {
            name: c"migration_params".as_ptr().cast(),
            mode: 0o444,
            ..pin_init::zeroed()
        },
        read: Some(read_params),
        ..pin_init::zeroed()
    }),
];

/// A static attribute.
struct FileAttribute(bindings::bin_attribute);

// SAFETY: It is never written to; sysfs reads it from any thread.
unsafe impl Sync for FileAttribute {}

/// # Safety
///
/// Called by sysfs on the kobject of one of our types; `buf` has room for `count` bytes, which need not be initialised.
unsafe extern "C" fn read_info(
    _file: *mut bindings::file,
    kobj: *mut bindings::kobject,
    _attribute: *const bindings::bin_attribute,
    buf: *mut c_char,
    offset: bindings::loff_t,
    count: usize,
) -> isize {
    // SAFETY: By contract.
    unsafe { read(kobj, buf, offset, count, TypeNode::info) }
}

/// # Safety
///
/// As for [`read_info`].
unsafe extern "C" fn read_device_models(
    _file: *mut bindings::file,
    kobj: *mut bindings::kobject,
    _attribute: *const bindings::bin_attribute,
    buf: *mut c_char,
    offset: bindings::loff_t,
    count: usize,
) -> isize {
    // SAFETY: By contract.
    unsafe { read(kobj, buf, offset, count, TypeNode::device_models) }
}

/// # Safety
///
/// As for [`read_info`].
unsafe extern "C" fn read_params(
    _file: *mut bindings::file,
    kobj: *mut bindings::kobject,
    _attribute: *const bindings::bin_attribute,
    buf: *mut c_char,
    offset: bindings::loff_t,
    count: usize,
) -> isize {
    // SAFETY: By contract.
    unsafe {
        read(kobj, buf, offset, count, |node| {
            ParamNames(node.info.migration)
        })
    }
}

/// # Safety
///
/// As for [`read_info`]; the attribute is one of a [`ParamFiles`].
unsafe extern "C" fn read_off_value(
    _file: *mut bindings::file,
    kobj: *mut bindings::kobject,
    attribute: *const bindings::bin_attribute,
    buf: *mut c_char,
    offset: bindings::loff_t,
    count: usize,
) -> isize {
    // SAFETY: By contract.
    let param = unsafe { ParamFiles::param(attribute) };
    // SAFETY: By contract.
    unsafe {
        read(kobj, buf, offset, count, |node| {
            OffValue(node.info.migration, param)
        })
    }
}

/// # Safety
///
/// As for [`read_off_value`].
unsafe extern "C" fn read_allowed_values(
    _file: *mut bindings::file,
    kobj: *mut bindings::kobject,
    attribute: *const bindings::bin_attribute,
    buf: *mut c_char,
    offset: bindings::loff_t,
    count: usize,
) -> isize {
    // SAFETY: By contract.
    let param = unsafe { ParamFiles::param(attribute) };
    // SAFETY: By contract.
    unsafe {
        read(kobj, buf, offset, count, |node| {
            AllowedValues(node.info.migration, param)
        })
    }
}

/// # Safety
///
/// As for [`read_info`].
unsafe fn read<'a, C: fmt::Display + 'a>(
    kobj: *mut bindings::kobject,
    buf: *mut c_char,
    offset: bindings::loff_t,
    count: usize,
    content: impl Fn(&'a TypeNode) -> C,
) -> isize {
    // SAFETY: By contract, the kobject is that of a type of ours, which is removed from sysfs before it goes away.
    let node = unsafe { TypeNode::from_raw(container_of!(kobj, mdev_type, kobj)) };
    // SAFETY: By contract. kernfs has only allocated the memory.
    let out = unsafe { core::slice::from_raw_parts_mut(buf.cast::<MaybeUninit<u8>>(), count) };
    match u64::try_from(offset) {
        Ok(offset) => Window::fill(out, offset, &content(node)) as isize,
        Err(_) => EINVAL.to_errno() as isize,
    }
}
