// SPDX-License-Identifier: GPL-2.0

//! The attributes of every instance: the group `migration/`, and beside it what is no concern of a migration.
//!
//! One value a file, readable by all, described in `Documentation/ABI/testing/sysfs-bus-mdev-*`. In `migration/` there is a file
//! for every parameter that a type of the driver has; an instance shows those of its own type's model. The driver core creates
//! the groups after the instance was bound to the driver and removes them before it is unbound, so the instance is there
//! whenever a file is used.
//!
//! C headers: `include/linux/device.h`, `include/linux/sysfs.h`.

use crate::bound::Bound;
use crate::device::{Change, Instance};
use crate::model::Device;
use crate::names::{DEVICE_API, DIRECTORY, INTX_UNMASK_EVENTFD};
use crate::page::PageWriter;
use crate::table::Type;
use ::migration::info::Compatible;
use ::migration::model::{parse_value, CUSTOM_VERSION};
use ::migration::value::{Kind, Value};
use core::fmt::{self, Write};
use kernel::bindings;
use kernel::container_of;
use kernel::ffi::{c_char, c_int};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::str::CString;

/// What a file is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// The device model. Writing it chooses its default version.
    DeviceModel,
    /// The version that the parameters equal. Writing it sets them.
    Version,
    /// The parameter of this name.
    Parameter(&'static str),
    /// The state of protocol v2.
    State,
    /// The phase of the session.
    Phase,
    /// Bytes of the session's stream so far.
    Bytes,
    /// Sessions that have begun.
    Sessions,
    /// Why the last thing that was refused was refused.
    Error,
    /// Whether an eventfd may unmask INTx.
    IntxUnmaskEventfd,
    /// The instance and the types that can take its state.
    Compatible,
}

impl Subject {
    /// All of `migration/` but the parameters, with the names of their files.
    const FIXED: [(&'static CStr, Subject); 8] = [
        (c"device_model", Subject::DeviceModel),
        (c"version", Subject::Version),
        (c"state", Subject::State),
        (c"phase", Subject::Phase),
        (c"bytes", Subject::Bytes),
        (c"sessions", Subject::Sessions),
        (c"error", Subject::Error),
        (c"compatible", Subject::Compatible),
    ];

    const fn mode(self) -> bindings::umode_t {
        match self {
            Self::DeviceModel | Self::Version | Self::Parameter(_) | Self::IntxUnmaskEventfd => {
                0o644
            }
            Self::State
            | Self::Phase
            | Self::Bytes
            | Self::Sessions
            | Self::Error
            | Self::Compatible => 0o444,
        }
    }

    fn is_visible<T: Device>(self, instance: &Instance<T>) -> bool {
        let model = instance.info.migration.model;
        match self {
            Self::Version => !model.versions.is_empty(),
            Self::Parameter(name) => model.position(name).is_some(),
            Self::IntxUnmaskEventfd => instance.state.lock().device.irqs().intx,
            _ => true,
        }
    }

    fn show<T: Device>(self, instance: &Instance<T>, out: &mut PageWriter<'_>) -> fmt::Result {
        let state = instance.state.lock();
        match self {
            Self::DeviceModel => writeln!(out, "{}", state.values.model().name),
            Self::Version => writeln!(out, "{}", state.values.version().unwrap_or(CUSTOM_VERSION)),
            Self::Parameter(name) => match state.values.named(name) {
                Some(value) => writeln!(out, "{value}"),
                None => Err(fmt::Error),
            },
            Self::State => writeln!(out, "{}", state.migration.state().name()),
            Self::Phase => writeln!(out, "{}", state.migration.progress().0),
            Self::Bytes => writeln!(out, "{}", state.migration.progress().1),
            Self::Sessions => writeln!(out, "{}", state.migration.sessions()),
            Self::Error => match state.reason.as_str() {
                "" => Ok(()),
                reason => writeln!(out, "{reason}"),
            },
            Self::IntxUnmaskEventfd => writeln!(out, "{}", Value::Bool(state.intx_unmask_eventfd)),
            // Made as a whole, and sysfs keeps it for whoever reads on: no change comes between two pieces of it.
            Self::Compatible => {
                let mdev_type = instance.info.full_name::<T>().map_err(|_| fmt::Error)?;
                let compatible = Compatible {
                    mdev_type: mdev_type.to_str().map_err(|_| fmt::Error)?,
                    device_api: DEVICE_API,
                    values: &state.values,
                    families: instance.families,
                };
                write!(out, "{compatible}")
            }
        }
    }

    fn store<T: Device>(self, instance: &Instance<T>, text: &[u8]) -> Result {
        match self {
            Self::DeviceModel => instance.change(Change::Model(text)),
            Self::Version => instance.change(Change::Version(text)),
            Self::Parameter(name) => {
                let position = instance.info.migration.model.position(name).ok_or(EINVAL)?;
                instance.change(Change::Parameter(position, text))
            }
            Self::IntxUnmaskEventfd => match parse_value(Kind::Bool, text) {
                Ok(Value::Bool(allowed)) => instance.allow_intx_unmask_eventfd(allowed),
                Ok(_) => Err(EINVAL),
                Err(error) => {
                    let mut state = instance.state.lock();
                    state
                        .reason
                        .set(format_args!("{INTX_UNMASK_EVENTFD}: {error}"));
                    Err(EINVAL)
                }
            },
            Self::State
            | Self::Phase
            | Self::Bytes
            | Self::Sessions
            | Self::Error
            | Self::Compatible => Err(EPERM),
        }
    }
}

/// One file.
#[repr(C)]
struct Attribute {
    /// First, so that a pointer to it is one to the whole.
    raw: bindings::device_attribute,
    subject: Subject,
}

impl Attribute {
    // The structure has more fields with CONFIG_DEBUG_LOCK_ALLOC.
    #[allow(clippy::needless_update)]
    fn new<T: Device>(name: &CStr, subject: Subject) -> Self {
        let writable = subject.mode() & 0o200 != 0;
        Self {
            raw: bindings::device_attribute {
                attr: bindings::attribute {
                    name: name.as_char_ptr(),
                    mode: subject.mode(),
                    // Attributes that are not static variables need a lock class of their own.
                    #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
                    key: kernel::static_lock_class!().as_ptr(),
                    ..pin_init::zeroed()
                },
                // With CONFIG_CFI the alternatives are structures: a function may be called only as what it is.
                __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 {
                    #[cfg(CONFIG_CFI)]
                    show: None,
                    show_const: Some(show::<T>),
                },
                __bindgen_anon_2: bindings::device_attribute__bindgen_ty_2 {
                    #[cfg(CONFIG_CFI)]
                    store: None,
                    store_const: if writable { Some(store::<T>) } else { None },
                },
            },
            subject,
        }
    }
}

/// The groups of a driver, for `struct device_driver::dev_groups`.
///
/// # Invariants
///
/// `attributes`, `names`, the groups and the arrays of pointers are not changed once they have been made, so the pointers that
/// they hold to each other's allocations are valid for as long as this value.
pub(crate) struct Groups {
    list: KVec<*const bindings::attribute_group>,
    _migration: KBox<bindings::attribute_group>,
    _own: KBox<bindings::attribute_group>,
    _pointers: [KVec<*const bindings::attribute>; 2],
    _attributes: KVec<Attribute>,
    _names: KVec<CString>,
}

// SAFETY: Nothing changes after construction; the pointers are followed by the driver core, from any thread.
unsafe impl Send for Groups {}
// SAFETY: As above.
unsafe impl Sync for Groups {}

impl Groups {
    /// The files for instances of these types.
    pub(crate) fn new<T: Device>(types: &[&'static [Type]]) -> Result<Self> {
        let mut names = KVec::new();
        let mut attributes = KVec::new();
        for (name, subject) in Subject::FIXED {
            attributes.push(Attribute::new::<T>(name, subject), GFP_KERNEL)?;
        }
        let mut add = |name: &str, subject| -> Result {
            if attributes
                .iter()
                .any(|other: &Attribute| other.subject == subject)
            {
                return Ok(());
            }
            let name = CString::try_from_fmt(fmt!("{name}"))?;
            // The text is in an allocation of its own, which stays where it is.
            attributes.push(Attribute::new::<T>(&name, subject), GFP_KERNEL)?;
            names.push(name, GFP_KERNEL)?;
            Ok(())
        };
        let models = types.iter().copied().flatten().map(|ty| ty.migration.model);
        for param in models.flat_map(|model| model.params) {
            add(param.name, Subject::Parameter(param.name))?;
        }
        // Last, and not in the directory of the others.
        add(INTX_UNMASK_EVENTFD, Subject::IntxUnmaskEventfd)?;
        let (own, in_migration) = attributes.split_last().ok_or(EINVAL)?;
        let pointers = terminated(in_migration.iter().map(|one| &raw const one.raw.attr))?;
        let own_pointers = terminated([&raw const own.raw.attr])?;

        let migration = KBox::new(
            bindings::attribute_group {
                name: DIRECTORY.as_char_ptr(),
                ..group::<T>(&pointers)
            },
            GFP_KERNEL,
        )?;
        let own = KBox::new(group::<T>(&own_pointers), GFP_KERNEL)?;
        let list = terminated([&raw const *migration, &raw const *own])?;
        // INVARIANT: All of it was made here.
        Ok(Self {
            list,
            _migration: migration,
            _own: own,
            _pointers: [pointers, own_pointers],
            _attributes: attributes,
            _names: names,
        })
    }

    /// The NULL-terminated list of groups.
    pub(crate) fn as_ptr(&self) -> *const *const bindings::attribute_group {
        self.list.as_ptr()
    }
}

/// Pointers and a null pointer at their end, as the kernel takes lists.
fn terminated<P>(
    pointers: impl IntoIterator<Item = *const P, IntoIter: ExactSizeIterator>,
) -> Result<KVec<*const P>> {
    let pointers = pointers.into_iter();
    let mut list = KVec::with_capacity(pointers.len() + 1, GFP_KERNEL)?;
    for pointer in pointers {
        list.push(pointer, GFP_KERNEL)?;
    }
    list.push(core::ptr::null(), GFP_KERNEL)?;
    Ok(list)
}

/// A group of the attributes in a list, which ends with a null pointer and stays where it is as long as the group is used.
fn group<T: Device>(attributes: &[*const bindings::attribute]) -> bindings::attribute_group {
    bindings::attribute_group {
        __bindgen_anon_1: bindings::attribute_group__bindgen_ty_1 {
            #[cfg(CONFIG_CFI)]
            is_visible_const: None,
            is_visible: Some(is_visible::<T>),
        },
        __bindgen_anon_2: bindings::attribute_group__bindgen_ty_2 {
            attrs_const: attributes.as_ptr(),
        },
        ..pin_init::zeroed()
    }
}

/// # Safety
///
/// Called by the driver core on a device that is bound to a driver of this `T`, for one of its attributes; `buf` is a page.
unsafe extern "C" fn show<T: Device>(
    dev: *mut bindings::device,
    attribute: *const bindings::device_attribute,
    buf: *mut c_char,
) -> isize {
    // SAFETY: By contract, the device is bound.
    let instance = unsafe { Bound::<T>::instance(dev) };
    // SAFETY: By contract, `attribute` is the first field of one of ours.
    let subject = unsafe { (*attribute.cast::<Attribute>()).subject };
    // SAFETY: sysfs passes a zeroed page that is the caller's alone.
    let mut out = PageWriter::new(unsafe { &mut *buf.cast::<[u8; PAGE_SIZE]>() });
    let written = subject.show(instance, &mut out);
    out.shown(written)
}

/// # Safety
///
/// Called by the driver core on a device that is bound to a driver of this `T`, for one of its attributes; `buf` has `count`
/// bytes.
unsafe extern "C" fn store<T: Device>(
    dev: *mut bindings::device,
    attribute: *const bindings::device_attribute,
    buf: *const c_char,
    count: usize,
) -> isize {
    // SAFETY: By contract, the device is bound.
    let instance = unsafe { Bound::<T>::instance(dev) };
    // SAFETY: By contract, `attribute` is the first field of one of ours.
    let subject = unsafe { (*attribute.cast::<Attribute>()).subject };
    // SAFETY: By contract.
    let text = unsafe { core::slice::from_raw_parts(buf.cast::<u8>(), count) };
    match subject.store(instance, text) {
        Ok(()) => count as isize,
        Err(error) => error.to_errno() as isize,
    }
}

/// # Safety
///
/// Called by the driver core on the kobject of a device that is bound to a driver of this `T`, for one of its attributes.
unsafe extern "C" fn is_visible<T: Device>(
    kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    _index: c_int,
) -> bindings::umode_t {
    // SAFETY: By contract, the kobject is a device's, and that is bound.
    let instance = unsafe { Bound::<T>::instance(container_of!(kobj, bindings::device, kobj)) };
    // SAFETY: By contract, `attribute` is the first field of the first field of one of ours.
    let subject = unsafe { (*attribute.cast::<Attribute>()).subject };
    match subject.is_visible(instance) {
        true => subject.mode(),
        false => 0,
    }
}
