// SPDX-License-Identifier: GPL-2.0

//! Directories in a type's directory with a file for each of its parameters.

use ::migration::model::ParamDef;
use core::ffi::c_void;
use kernel::bindings;
use kernel::error::to_result;
use kernel::ffi::c_char;
use kernel::prelude::*;
use kernel::str::CString;

/// Reads a file, as [`bindings::bin_attribute::read`] does.
pub(super) type Read = unsafe extern "C" fn(
    *mut bindings::file,
    *mut bindings::kobject,
    *const bindings::bin_attribute,
    *mut c_char,
    bindings::loff_t,
    usize,
) -> isize;

/// A directory.
///
/// # Invariants
///
/// `group`, `pointers`, `files` and `names` are not changed once they have been made, so the pointers that they hold to each
/// other's allocations are valid for as long as this value. `private` of each file is a parameter of a static table.
pub(super) struct ParamFiles {
    group: KBox<bindings::attribute_group>,
    _pointers: KVec<*const bindings::bin_attribute>,
    _files: KVec<bindings::bin_attribute>,
    _names: KVec<CString>,
}

impl ParamFiles {
    /// A directory of this name with files about these parameters, all of which `read` reads.
    // The attribute has more fields with CONFIG_DEBUG_LOCK_ALLOC.
    #[allow(clippy::needless_update)]
    pub(super) fn new(
        directory: &'static CStr,
        params: impl Iterator<Item = &'static ParamDef<'static>>,
        read: Read,
    ) -> Result<Self> {
        let mut names = KVec::new();
        let mut files = KVec::new();
        for param in params {
            let name = CString::try_from_fmt(fmt!("{}", param.name))?;
            files.push(
                bindings::bin_attribute {
                    attr: bindings::attribute {
                        // The text is in an allocation of its own, which stays where it is.
                        name: name.as_char_ptr(),
                        mode: 0o444,
                        #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
                        key: kernel::static_lock_class!().as_ptr(),
                        ..pin_init::zeroed()
                    },
                    private: core::ptr::from_ref(param).cast_mut().cast::<c_void>(),
                    read: Some(read),
                    ..pin_init::zeroed()
                },
                GFP_KERNEL,
            )?;
            names.push(name, GFP_KERNEL)?;
        }
        let mut pointers = KVec::with_capacity(files.len() + 1, GFP_KERNEL)?;
        for file in &files {
            pointers.push(&raw const *file, GFP_KERNEL)?;
        }
        pointers.push(core::ptr::null(), GFP_KERNEL)?;
        let group = KBox::new(
            bindings::attribute_group {
                name: directory.as_char_ptr(),
                bin_attrs: pointers.as_ptr(),
                ..pin_init::zeroed()
            },
            GFP_KERNEL,
        )?;
        // INVARIANT: All of it was made here, of parameters that are static.
        Ok(Self {
            group,
            _pointers: pointers,
            _files: files,
            _names: names,
        })
    }

    /// Adds the directory to a kobject's.
    ///
    /// # Safety
    ///
    /// The kobject must be in sysfs, and its directory must be removed before this value is dropped.
    pub(super) unsafe fn add_to(&self, kobj: *mut bindings::kobject) -> Result {
        // SAFETY: By contract, the kobject is in sysfs; by the type invariant, the group and all that it points to stay valid
        // until its directory is removed.
        to_result(unsafe { bindings::sysfs_create_group(kobj, &raw const *self.group) })
    }

    /// The parameter that a file is about.
    ///
    /// # Safety
    ///
    /// `file` must be one of a [`ParamFiles`].
    pub(super) unsafe fn param(file: *const bindings::bin_attribute) -> &'static ParamDef<'static> {
        // SAFETY: By contract and the type invariant.
        unsafe { &*(*file).private.cast::<ParamDef<'static>>() }
    }
}
