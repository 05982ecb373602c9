// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions of the calling thread, as functions for Rust.
 */
#include <linux/capability.h>
#include <linux/hrtimer.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>

#include "../sched.h"

/* Copies the name of the caller's process, padded with zeros to FREELIST_NAME_LEN bytes. */
void freelist_process_name(char *name)
{
	BUILD_BUG_ON((int)FREELIST_NAME_LEN != (int)TASK_COMM_LEN);
	strscpy_pad(name, current->group_leader->comm, FREELIST_NAME_LEN);
}

bool freelist_may_exceed_defaults(void)
{
	return capable(CAP_SYS_RESOURCE);
}

__u64 freelist_random(void)
{
	return get_random_u64();
}

bool freelist_fatal_signal(void)
{
	return fatal_signal_pending(current);
}

bool freelist_signal_pending(void)
{
	return signal_pending(current);
}

bool freelist_dumps_core(void)
{
	return current->flags & PF_DUMPCORE;
}

/* Returns the time of the monotonic clock, in nanoseconds. */
__s64 freelist_now(void)
{
	return ktime_get();
}

/* Prepares to sleep: a wake-up from here on ends the sleep that follows, or this state. */
void freelist_sleep_prepare(void)
{
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
}

void freelist_sleep_finish(void)
{
	__set_current_state(TASK_RUNNING);
}

/*
 * Sleeps until @until, in nanoseconds of the monotonic clock; KTIME_MAX is for
 * ever. Returns whether a wake-up or a signal came before.
 */
bool freelist_sleep(__s64 until)
{
	ktime_t end = until;

	return schedule_hrtimeout_range(until == KTIME_MAX ? NULL : &end,
					current->timer_slack_ns, HRTIMER_MODE_ABS);
}

void freelist_resched(void)
{
	cond_resched();
}
