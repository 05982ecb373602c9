/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The calling thread.
 */
#ifndef _FREELIST_SCHED_H
#define _FREELIST_SCHED_H

#include <linux/types.h>

/* Bytes of a process's name. */
enum {
	FREELIST_NAME_LEN = 16,
};

void freelist_process_name(char *name);
bool freelist_may_exceed_defaults(void);
__u64 freelist_random(void);
bool freelist_fatal_signal(void);
bool freelist_signal_pending(void);
bool freelist_dumps_core(void);
__s64 freelist_now(void);
void freelist_sleep_prepare(void);
void freelist_sleep_finish(void);
bool freelist_sleep(__s64 until);
void freelist_resched(void);

#endif /* _FREELIST_SCHED_H */
