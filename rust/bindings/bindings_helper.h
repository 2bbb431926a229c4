/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads. Types that the kernel crate binds already are taken from there: the rule in Kbuild allows only what
 * the VFIO, mdev, anonymous-inode and checksum headers declare themselves.
 */

#include <linux/anon_inodes.h>
#include <linux/crc32.h>
#include <linux/iova_bitmap.h>
#include <linux/mdev.h>
#include <linux/vfio.h>

#include "helpers.h"

/* bindgen does not evaluate the _IO() macros: constants with this prefix keep their values, and Kbuild strips it. */
#define CONST_HELPER(name) static const unsigned int RUST_CONST_HELPER_##name = name

CONST_HELPER(VFIO_DEVICE_GET_INFO);
CONST_HELPER(VFIO_DEVICE_GET_IRQ_INFO);
CONST_HELPER(VFIO_DEVICE_SET_IRQS);
CONST_HELPER(VFIO_DEVICE_RESET);
CONST_HELPER(VFIO_MIG_GET_PRECOPY_INFO);
CONST_HELPER(CRC32_LE_OPTIMIZATION);

/* The C compiler's view of the structures that are embedded in Rust ones; lib.rs compares. */
#define LAYOUT_HELPER(type) static const size_t RUST_CONST_HELPER_SIZEOF_##type = sizeof(struct type)
#define OFFSET_HELPER(type, field) \
	static const size_t RUST_CONST_HELPER_OFFSETOF_##type##_##field = offsetof(struct type, field)

LAYOUT_HELPER(vfio_device);
OFFSET_HELPER(vfio_device, mig_ops);
OFFSET_HELPER(vfio_device, log_ops);
OFFSET_HELPER(vfio_device, migration_flags);
OFFSET_HELPER(vfio_device, precopy_info_v2);
OFFSET_HELPER(vfio_device, device);
LAYOUT_HELPER(vfio_device_ops);
OFFSET_HELPER(vfio_device_ops, get_region_info_caps);
OFFSET_HELPER(vfio_device_ops, device_feature);
LAYOUT_HELPER(mdev_device);
OFFSET_HELPER(mdev_device, dev);
OFFSET_HELPER(mdev_device, type);
LAYOUT_HELPER(mdev_type);
OFFSET_HELPER(mdev_type, kobj);
LAYOUT_HELPER(mdev_parent);
OFFSET_HELPER(mdev_parent, mdev_driver);
LAYOUT_HELPER(mdev_driver);
OFFSET_HELPER(mdev_driver, driver);
