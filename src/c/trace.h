/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints for Rust: the key of each, and the function that reports an event.
 * freelist_trace.h has the fields of the events.
 */
#ifndef _FREELIST_TRACE_H
#define _FREELIST_TRACE_H

#include <linux/types.h>

/* Why memory is dropped. */
enum {
	FREELIST_RECLAIM_FREE,		/* returned to the system: TRIM, a limit, or memory is short */
	FREELIST_RECLAIM_MOVE,		/* reused: the arena allocates as much elsewhere */
	FREELIST_RECLAIM_DISCARD,	/* DISCARD, of live blocks */
	FREELIST_RECLAIM_CLOSE,		/* the arena ends */
};

/* The outcome of a page fault. */
enum {
	FREELIST_FAULT_AROUND,		/* the page was present: mapped, and those around it */
	FREELIST_FAULT_PRESENT,		/* the page was present: mapped */
	FREELIST_FAULT_NEW,		/* the page of a lazy block got new memory: mapped */
	FREELIST_FAULT_RETRY,		/* another thread changes the page: the access is retried */
	FREELIST_FAULT_SIGBUS,		/* there is no memory for it */
};

/* Why an arena is to return free pages. */
enum {
	FREELIST_SHRINK_RECLAIM,	/* the system or a cgroup reclaims memory */
	FREELIST_SHRINK_OOM,		/* the system is about to kill a process */
	FREELIST_SHRINK_LIMIT,		/* another arena needs to grow under the shared limit */
};

struct tracepoint;

extern struct tracepoint __tracepoint_alloc;
extern struct tracepoint __tracepoint_free;
extern struct tracepoint __tracepoint_grow;
extern struct tracepoint __tracepoint_reclaim;
extern struct tracepoint __tracepoint_fault;
extern struct tracepoint __tracepoint_wait;
extern struct tracepoint __tracepoint_shrink;

void rust_do_trace_alloc(__u64 arena, __u64 offset, __u64 bytes, __u64 size, __u32 align_shift,
			 __u32 flags, __s32 result);
void rust_do_trace_free(__u64 arena, __u64 offset, __u64 bytes, __s32 result);
void rust_do_trace_grow(__u64 arena, __u64 offset, __u64 bytes, __u32 order, __s32 result);
void rust_do_trace_reclaim(__u64 arena, __u64 offset, __u64 bytes, __u64 freed, __u32 reason);
void rust_do_trace_fault(__u64 arena, __u64 offset, __u64 bytes, bool write, __u32 outcome);
void rust_do_trace_wait(__u64 arena, __u64 size, __u32 flags, __u64 waited_ns, __s32 result);
void rust_do_trace_shrink(__u64 arena, __s32 node, __u64 bytes, __u64 freed, __u32 reason);

#endif /* _FREELIST_TRACE_H */
