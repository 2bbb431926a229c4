/* SPDX-License-Identifier: GPL-2.0 */
/* What rust/helpers.c has. */

#ifndef RUST_VFIO_HELPERS_H
#define RUST_VFIO_HELPERS_H

#include <linux/types.h>

struct mutex;

int rust_vfio_mutex_lock_killable(struct mutex *lock);
void rust_vfio_smp_mb(void);
void rust_vfio_smp_rmb(void);
void rust_vfio_smp_wmb(void);
bool rust_vfio_fatal_signal_pending(void);

#endif
