// SPDX-License-Identifier: GPL-2.0
/* What headers of the kernel have as macros and inline functions only, and the kernel crate has no name for. */

#include <linux/mutex.h>
#include <linux/sched/signal.h>

#include "bindings/helpers.h"

int rust_vfio_mutex_lock_killable(struct mutex *lock)
{
	return mutex_lock_killable(lock);
}

bool rust_vfio_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}
