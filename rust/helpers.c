// SPDX-License-Identifier: GPL-2.0
/* What headers of the kernel have as macros and inline functions only, and the kernel crate not in every version under one name. */

#include <asm/barrier.h>
#include <linux/mutex.h>
#include <linux/sched/signal.h>

#include "bindings/helpers.h"

int rust_vfio_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

void rust_vfio_smp_mb(void)
{
	smp_mb();
}

void rust_vfio_smp_rmb(void)
{
	smp_rmb();
}

void rust_vfio_smp_wmb(void)
{
	smp_wmb();
}

bool rust_vfio_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
