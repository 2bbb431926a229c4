// SPDX-License-Identifier: GPL-2.0

//! Raw bindings of the VFIO and mdev headers, made by bindgen when the modules are built.
//!
//! There is no logic here. Types of the driver core, of files and of memory are those of [`kernel::bindings`], so that a
//! pointer that one crate hands out is one that the other takes. Only the crates `vfio` and `crc32` use this crate.
//!
//! C headers: `include/linux/mdev.h`, `include/linux/vfio.h`, `include/uapi/linux/vfio.h`,
//! `include/linux/anon_inodes.h`, `include/linux/crc32.h`.

#![allow(
    clippy::all,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

mod generated {
    use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::MaybeZeroable;

    include!(env!("VFIO_BINDINGS_GENERATED"));
}

pub use generated::*;

/// Fails the build where bindgen laid a structure out otherwise than the C compiler does.
macro_rules! assert_layout {
    ($($type:ident: $size:ident { $($field:ident: $offset:ident),* };)*) => { $(
        const _: () = assert!(core::mem::size_of::<$type>() == $size as usize);
        $( const _: () = assert!(core::mem::offset_of!($type, $field) == $offset as usize); )*
    )* };
}

assert_layout! {
    vfio_device: SIZEOF_vfio_device {
        mig_ops: OFFSETOF_vfio_device_mig_ops,
        log_ops: OFFSETOF_vfio_device_log_ops,
        migration_flags: OFFSETOF_vfio_device_migration_flags,
        precopy_info_v2: OFFSETOF_vfio_device_precopy_info_v2,
        device: OFFSETOF_vfio_device_device
    };
    vfio_device_ops: SIZEOF_vfio_device_ops {
        get_region_info_caps: OFFSETOF_vfio_device_ops_get_region_info_caps,
        device_feature: OFFSETOF_vfio_device_ops_device_feature
    };
    mdev_device: SIZEOF_mdev_device {
        dev: OFFSETOF_mdev_device_dev,
        type_: OFFSETOF_mdev_device_type
    };
    mdev_type: SIZEOF_mdev_type { kobj: OFFSETOF_mdev_type_kobj };
    mdev_parent: SIZEOF_mdev_parent { mdev_driver: OFFSETOF_mdev_parent_mdev_driver };
    mdev_driver: SIZEOF_mdev_driver { driver: OFFSETOF_mdev_driver_driver };
}
