/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The events of the system `freelist`, for perf, trace-cmd and bpftrace.
 *
 * Offsets and sizes are bytes. An arena has the number that debugfs and fdinfo
 * show. A result is 0 or a negative errno (-512, ERESTARTSYS: a signal came). No
 * event has an address.
 *
 * free is reported before any other request can get the block, under the arena's
 * lock: an event of the next block at its offset comes after it. No other event
 * is reported under that lock.
 *
 * Bytes that an arena holds are the sum of grow (result 0) and fault, less what
 * was freed by reclaim. The blocks that CLONE makes have a grow for their memory,
 * and no alloc; a block that RESIZE changes is freed with other bytes than it was
 * allocated with.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM freelist

#if !defined(_FREELIST_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _FREELIST_EVENTS_H

#include <linux/tracepoint.h>

#define FREELIST_TRACE_FLAGS			\
	{ FREELIST_LARGER,	"LARGER" },	\
	{ FREELIST_GROW,	"GROW" },	\
	{ FREELIST_WAIT,	"WAIT" },	\
	{ FREELIST_ZERO,	"ZERO" },	\
	{ FREELIST_CONTIG,	"CONTIG" },	\
	{ FREELIST_HEADER,	"HEADER" },	\
	{ FREELIST_POPULATE,	"POPULATE" },	\
	{ FREELIST_LAZY,	"LAZY" }

/* Tools read the numbers, not the names. */
TRACE_DEFINE_ENUM(FREELIST_RECLAIM_FREE);
TRACE_DEFINE_ENUM(FREELIST_RECLAIM_MOVE);
TRACE_DEFINE_ENUM(FREELIST_RECLAIM_DISCARD);
TRACE_DEFINE_ENUM(FREELIST_RECLAIM_CLOSE);
TRACE_DEFINE_ENUM(FREELIST_FAULT_AROUND);
TRACE_DEFINE_ENUM(FREELIST_FAULT_PRESENT);
TRACE_DEFINE_ENUM(FREELIST_FAULT_NEW);
TRACE_DEFINE_ENUM(FREELIST_FAULT_RETRY);
TRACE_DEFINE_ENUM(FREELIST_FAULT_SIGBUS);
TRACE_DEFINE_ENUM(FREELIST_SHRINK_RECLAIM);
TRACE_DEFINE_ENUM(FREELIST_SHRINK_OOM);
TRACE_DEFINE_ENUM(FREELIST_SHRINK_LIMIT);

/* A request ended: a block of @bytes at @offset is live, or the request was refused. */
TRACE_EVENT(alloc,
	TP_PROTO(u64 arena, u64 offset, u64 bytes, u64 size, u32 align_shift, u32 flags, s32 result),
	TP_ARGS(arena, offset, bytes, size, align_shift, flags, result),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, offset)
		__field(u64, bytes)
		__field(u64, size)
		__field(u32, align_shift)
		__field(u32, flags)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->offset = offset;
		__entry->bytes = bytes;
		__entry->size = size;
		__entry->align_shift = align_shift;
		__entry->flags = flags;
		__entry->result = result;
	),
	TP_printk("arena=%llu offset=0x%llx bytes=%llu size=%llu align_shift=%u flags=%s result=%d",
		  __entry->arena, __entry->offset, __entry->bytes, __entry->size,
		  __entry->align_shift,
		  __print_flags(__entry->flags, "|", FREELIST_TRACE_FLAGS), __entry->result)
);

/* The block of @bytes at @offset was freed, or the release was refused. */
TRACE_EVENT(free,
	TP_PROTO(u64 arena, u64 offset, u64 bytes, s32 result),
	TP_ARGS(arena, offset, bytes, result),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, offset)
		__field(u64, bytes)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->offset = offset;
		__entry->bytes = bytes;
		__entry->result = result;
	),
	TP_printk("arena=%llu offset=0x%llx bytes=%llu result=%d",
		  __entry->arena, __entry->offset, __entry->bytes, __entry->result)
);

/* A folio was added to the arena, or the allocation of one of that order failed. */
TRACE_EVENT(grow,
	TP_PROTO(u64 arena, u64 offset, u64 bytes, u32 order, s32 result),
	TP_ARGS(arena, offset, bytes, order, result),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, offset)
		__field(u64, bytes)
		__field(u32, order)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->offset = offset;
		__entry->bytes = bytes;
		__entry->order = order;
		__entry->result = result;
	),
	TP_printk("arena=%llu offset=0x%llx bytes=%llu order=%u result=%d",
		  __entry->arena, __entry->offset, __entry->bytes, __entry->order,
		  __entry->result)
);

/* The memory of @bytes from @offset on was to be dropped, and that of @freed bytes was. */
TRACE_EVENT(reclaim,
	TP_PROTO(u64 arena, u64 offset, u64 bytes, u64 freed, u32 reason),
	TP_ARGS(arena, offset, bytes, freed, reason),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, offset)
		__field(u64, bytes)
		__field(u64, freed)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->offset = offset;
		__entry->bytes = bytes;
		__entry->freed = freed;
		__entry->reason = reason;
	),
	TP_printk("arena=%llu offset=0x%llx bytes=%llu freed=%llu reason=%s",
		  __entry->arena, __entry->offset, __entry->bytes, __entry->freed,
		  __print_symbolic(__entry->reason,
				   { FREELIST_RECLAIM_FREE,	"free" },
				   { FREELIST_RECLAIM_MOVE,	"move" },
				   { FREELIST_RECLAIM_DISCARD,	"discard" },
				   { FREELIST_RECLAIM_CLOSE,	"close" }))
);

/*
 * A page at @offset was touched that was not mapped; @bytes is the new memory that
 * it got. A read of a page that is present is mapped by the core, without an event.
 */
TRACE_EVENT(fault,
	TP_PROTO(u64 arena, u64 offset, u64 bytes, bool write, u32 outcome),
	TP_ARGS(arena, offset, bytes, write, outcome),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, offset)
		__field(u64, bytes)
		__field(bool, write)
		__field(u32, outcome)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->offset = offset;
		__entry->bytes = bytes;
		__entry->write = write;
		__entry->outcome = outcome;
	),
	TP_printk("arena=%llu offset=0x%llx bytes=%llu write=%d outcome=%s",
		  __entry->arena, __entry->offset, __entry->bytes, __entry->write,
		  __print_symbolic(__entry->outcome,
				   { FREELIST_FAULT_AROUND,	"around" },
				   { FREELIST_FAULT_PRESENT,	"present" },
				   { FREELIST_FAULT_NEW,	"new" },
				   { FREELIST_FAULT_RETRY,	"retry" },
				   { FREELIST_FAULT_SIGBUS,	"sigbus" }))
);

/* A request for @size bytes has waited. */
TRACE_EVENT(wait,
	TP_PROTO(u64 arena, u64 size, u32 flags, u64 waited_ns, s32 result),
	TP_ARGS(arena, size, flags, waited_ns, result),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, size)
		__field(u64, waited_ns)
		__field(u32, flags)
		__field(s32, result)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->size = size;
		__entry->waited_ns = waited_ns;
		__entry->flags = flags;
		__entry->result = result;
	),
	TP_printk("arena=%llu size=%llu flags=%s waited_ns=%llu result=%d",
		  __entry->arena, __entry->size,
		  __print_flags(__entry->flags, "|", FREELIST_TRACE_FLAGS),
		  __entry->waited_ns, __entry->result)
);

/* The arena was to return @bytes of free memory of @node (-1: any), and returned @freed. */
TRACE_EVENT(shrink,
	TP_PROTO(u64 arena, s32 node, u64 bytes, u64 freed, u32 reason),
	TP_ARGS(arena, node, bytes, freed, reason),
	TP_STRUCT__entry(
		__field(u64, arena)
		__field(u64, bytes)
		__field(u64, freed)
		__field(s32, node)
		__field(u32, reason)
	),
	TP_fast_assign(
		__entry->arena = arena;
		__entry->bytes = bytes;
		__entry->freed = freed;
		__entry->node = node;
		__entry->reason = reason;
	),
	TP_printk("arena=%llu node=%d bytes=%llu freed=%llu reason=%s",
		  __entry->arena, __entry->node, __entry->bytes, __entry->freed,
		  __print_symbolic(__entry->reason,
				   { FREELIST_SHRINK_RECLAIM,	"reclaim" },
				   { FREELIST_SHRINK_OOM,	"oom" },
				   { FREELIST_SHRINK_LIMIT,	"limit" }))
);

#endif /* _FREELIST_EVENTS_H */

/* Outside of the guard: it reads this file again. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE freelist_trace
#include <trace/define_trace.h>
