// SPDX-License-Identifier: GPL-2.0

//! The attribute group `migration/` of every instance.
//!
//! One value a file, readable by all, described in `Documentation/ABI/testing/sysfs-bus-mdev-migration`. The driver core
//! creates the group after the instance was bound to the driver and removes it before it is unbound, so the instance is
//! there whenever a file is read.
//!
//! C headers: `include/linux/device.h`, `include/linux/sysfs.h`.

use crate::device::{Device, Instance};
use crate::mdev::Bound;
use crate::migration::session::Session;
use core::fmt::{self, Write};
use core::marker::PhantomData;
use kernel::bindings;
use kernel::container_of;
use kernel::ffi::{c_char, c_int};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;

/// One file: what it shows, and whether this instance has it.
#[repr(C)]
struct Attribute<T: Device> {
    /// First, so that a pointer to it is one to the whole.
    raw: bindings::device_attribute,
    show: fn(&Instance<T>, &mut PageWriter<'_>) -> fmt::Result,
    visible: fn(&Instance<T>) -> bool,
}

/// The page that a file is shown through. What does not fit is an error.
struct PageWriter<'a> {
    page: &'a mut [u8],
    len: usize,
}

impl Write for PageWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.page
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The groups of a device model `T`, for `struct device_driver::dev_groups`.
pub(crate) struct Groups<T>(PhantomData<T>);

impl<T: Device> Groups<T> {
    const ATTRIBUTES: [Attribute<T>; 5] = [
        Self::file(c"device_model", |_, out| writeln!(out, "{}", T::MODEL)),
        Self::file(c"state", |instance, out| {
            let state = instance.state.lock().migration.current;
            writeln!(out, "{}", state.name())
        }),
        Self::file(c"phase", |instance, out| {
            let phase = match &instance.state.lock().migration.session {
                None => "none",
                Some(Session::Saving(saving)) => saving.phase().name(),
                Some(Session::Resuming(resuming)) => {
                    resuming.phase().map_or("setup", |phase| phase.name())
                }
            };
            writeln!(out, "{phase}")
        }),
        Self::file(c"bytes", |instance, out| {
            let bytes = match &instance.state.lock().migration.session {
                None => 0,
                Some(Session::Saving(saving)) => saving.bytes(),
                Some(Session::Resuming(resuming)) => resuming.bytes(),
            };
            writeln!(out, "{bytes}")
        }),
        Self::file(c"error", |instance, out| {
            match instance.state.lock().reason.as_str() {
                "" => Ok(()),
                reason => writeln!(out, "{reason}"),
            }
        }),
    ];

    const POINTERS: [*const bindings::attribute; 6] = {
        let mut pointers = [core::ptr::null(); 6];
        let mut n = 0;
        while n < Self::ATTRIBUTES.len() {
            pointers[n] = &raw const Self::STATIC_ATTRIBUTES[n].raw.attr;
            n += 1;
        }
        pointers
    };

    const STATIC_ATTRIBUTES: &'static [Attribute<T>; 5] = &Self::ATTRIBUTES;
    const STATIC_POINTERS: &'static [*const bindings::attribute; 6] = &Self::POINTERS;

    const GROUP: bindings::attribute_group = bindings::attribute_group {
        name: c"migration".as_ptr().cast(),
        __bindgen_anon_1: bindings::attribute_group__bindgen_ty_1 {
            is_visible: Some(Self::is_visible),
        },
        __bindgen_anon_2: bindings::attribute_group__bindgen_ty_2 {
            attrs_const: Self::STATIC_POINTERS.as_ptr(),
        },
        ..pin_init::zeroed()
    };
    const STATIC_GROUP: &'static bindings::attribute_group = &Self::GROUP;

    const LIST: [*const bindings::attribute_group; 2] = [Self::STATIC_GROUP, core::ptr::null()];
    const STATIC_LIST: &'static [*const bindings::attribute_group; 2] = &Self::LIST;

    /// The NULL-terminated list of groups.
    pub(crate) const fn as_ptr() -> *const *const bindings::attribute_group {
        Self::STATIC_LIST.as_ptr()
    }

    const fn file(
        name: &'static CStr,
        show: fn(&Instance<T>, &mut PageWriter<'_>) -> fmt::Result,
    ) -> Attribute<T> {
        Attribute {
            raw: bindings::device_attribute {
                attr: bindings::attribute {
                    name: name.as_ptr().cast(),
                    mode: 0o444,
                    ..pin_init::zeroed()
                },
                __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 {
                    show_const: Some(Self::show),
                },
                ..pin_init::zeroed()
            },
            show,
            visible: |_| true,
        }
    }

    /// # Safety
    ///
    /// Called by the driver core on a device that is bound to a driver of this `T`, for one of [`Self::ATTRIBUTES`]; `buf`
    /// is a page.
    unsafe extern "C" fn show(
        dev: *mut bindings::device,
        attribute: *const bindings::device_attribute,
        buf: *mut c_char,
    ) -> isize {
        // SAFETY: By contract, the device is bound.
        let instance = unsafe { Bound::<T>::instance(dev) };
        // SAFETY: By contract, `attribute` is the first field of one of ours.
        let attribute = unsafe { &*attribute.cast::<Attribute<T>>() };
        // SAFETY: sysfs passes a zeroed page that is the caller's alone.
        let page = unsafe { core::slice::from_raw_parts_mut(buf.cast::<u8>(), PAGE_SIZE) };
        let mut out = PageWriter { page, len: 0 };
        match (attribute.show)(instance, &mut out) {
            Ok(()) => out.len as isize,
            Err(fmt::Error) => EFBIG.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Called by the driver core on the kobject of a device that is bound to a driver of this `T`.
    unsafe extern "C" fn is_visible(
        kobj: *mut bindings::kobject,
        _attribute: *mut bindings::attribute,
        index: c_int,
    ) -> bindings::umode_t {
        // SAFETY: By contract, the kobject is a device's.
        let dev = unsafe { container_of!(kobj, bindings::device, kobj) };
        // SAFETY: By contract, the device is bound.
        let instance = unsafe { Bound::<T>::instance(dev) };
        let attribute = usize::try_from(index)
            .ok()
            .and_then(|index| Self::STATIC_ATTRIBUTES.get(index));
        match attribute {
            Some(attribute) if (attribute.visible)(instance) => attribute.raw.attr.mode,
            _ => 0,
        }
    }
}
