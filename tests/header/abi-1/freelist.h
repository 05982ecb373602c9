/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * freelist: page-backed power-of-2 freelists behind /dev/freelist.
 *
 * Every open() of the device makes a private *arena*: an address space of
 * offsets from which blocks are handed out. One mmap() of the file maps the
 * arena; a block lies at `base + offset`. All sizes and offsets are in bytes.
 *
 * Type and number decide which call is meant, direction and size do not: a
 * structure shorter than this version's is extended with zeros, a longer one
 * has to end in zeros (E2BIG) and its answer ends in zeros. Calls that are
 * unknown to the module answer ENOTTY.
 *
 * Usable from C and C++; the layout is the same for 32-bit callers.
 */
#ifndef _UAPI_LINUX_FREELIST_H
#define _UAPI_LINUX_FREELIST_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The version of the contract; see &struct freelist_info. */
#define FREELIST_ABI 1

/*
 * Flags of a request. LARGER, GROW and WAIT say what may be done, in this
 * order, when the request's own list is empty. A flag that the running module
 * does not have yet is EOPNOTSUPP, and its bit in freelist_info.features is
 * clear.
 */
#define FREELIST_LARGER		1	/* split a larger free block */
#define FREELIST_GROW		2	/* take new pages from the buddy allocator */
#define FREELIST_WAIT		4	/* sleep until a block comes back */
#define FREELIST_ZERO		8	/* the block reads as zero */
#define FREELIST_CONTIG		16	/* physically contiguous, always fresh: with GROW, without WAIT */
#define FREELIST_HEADER		32	/* the classic 16-byte header before the block */
#define FREELIST_POPULATE	64	/* mapped for the caller before the call returns */

#define FREELIST_DEFAULT	(FREELIST_LARGER | FREELIST_GROW)

/**
 * struct freelist_info - what this module offers (FREELIST_IOC_INFO)
 * @abi: version of the contract, %FREELIST_ABI.
 * @page_size: bytes of a page; larger blocks are whole pages.
 * @min_shift: the smallest size class is 1 << @min_shift bytes.
 * @max_shift: the largest size class is 1 << @max_shift bytes.
 * @arena_bytes: span of the arena's offsets, the largest useful mmap() length.
 * @limit_bytes: the most bytes of pages that the arena may hold.
 * @features: the FREELIST_* request flags that this module serves.
 */
struct freelist_info {
	__u32 abi;
	__u32 page_size;
	__u32 min_shift;
	__u32 max_shift;
	__u64 arena_bytes;
	__u64 limit_bytes;
	__u64 features;
};

/**
 * struct freelist_alloc - ask for one block (FREELIST_IOC_ALLOC)
 * @size: in: bytes wanted, at least 1.
 * @flags: in: FREELIST_* request flags.
 * @reserved: in: must be 0.
 * @timeout_ns: in: nanoseconds to wait at most, negative for ever; 0 without
 *	%FREELIST_WAIT. Out: what is left of it.
 * @offset: out: where the block lies in the arena, aligned to its size class;
 *	with %FREELIST_HEADER 16 bytes behind that.
 * @block_bytes: out: bytes that belong to the block: its size class up to half
 *	a page, whole pages above; less those of its header.
 */
struct freelist_alloc {
	__u64 size;
	__u32 flags;
	__u32 reserved;
	__s64 timeout_ns;
	__u64 offset;
	__u64 block_bytes;
};

/**
 * struct freelist_free - give one block back (FREELIST_IOC_FREE)
 * @offset: in: the offset that FREELIST_IOC_ALLOC gave. If the block has a
 *	header and that was overwritten the answer is EUCLEAN, and the block is
 *	released all the same.
 */
struct freelist_free {
	__u64 offset;
};

/**
 * struct freelist_bulk - get or give back many blocks of one size
 *	(FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK)
 * @size: in: bytes wanted of each block, at least 1. FREE_BULK: 0.
 * @offsets: in: address of an array of @count __u64. ALLOC_BULK writes the
 *	offsets of the blocks there, FREE_BULK reads them.
 * @count: in: elements of the array, at least 1.
 * @flags: in: FREELIST_* request flags, for every block. FREE_BULK: 0.
 * @timeout_ns: in: nanoseconds to wait at most for all blocks together,
 *	negative for ever; 0 without %FREELIST_WAIT, and for FREE_BULK. Out:
 *	what is left of it.
 * @done: out: elements done, from the first; in FREE_BULK also those whose
 *	header was overwritten. Fewer than @count is a success all the same:
 *	ask for the rest to learn why. The call is refused, and this untouched,
 *	only when not one was done.
 * @reserved: in: must be 0.
 */
struct freelist_bulk {
	__u64 size;
	__u64 offsets;
	__u32 count;
	__u32 flags;
	__s64 timeout_ns;
	__u32 done;
	__u32 reserved;
};

/**
 * struct freelist_limit - set and get the arena's bounds (FREELIST_IOC_LIMIT)
 * @bytes: in: the most bytes of pages that the arena may hold from now on, 0 to
 *	leave it as it is. More than the administrator's default needs
 *	CAP_SYS_RESOURCE. What is held beyond it is given back as far as it is
 *	free. Out: what is in force.
 * @span: in: bytes of the arena's offsets, in whole pages, before the first
 *	block was asked for only; 0 to leave it as it is. Out: what is in force.
 */
struct freelist_limit {
	__u64 bytes;
	__u64 span;
};

/**
 * struct freelist_trim - give free pages back (FREELIST_IOC_TRIM)
 * @keep_bytes: in: bytes of wholly free pages that may stay.
 * @freed_bytes: out: bytes of the pages that were given back to the system.
 */
struct freelist_trim {
	__u64 keep_bytes;
	__u64 freed_bytes;
};

/**
 * struct freelist_stat - the arena's counters (FREELIST_IOC_STAT)
 * @live_blocks: blocks handed out now.
 * @live_bytes: bytes of those blocks (their block_bytes, and their headers).
 * @free_bytes: bytes of pages held that no block occupies.
 * @held_bytes: bytes of all pages that the arena has now.
 * @metadata_bytes: kernel memory behind the arena beside its pages.
 * @limit_bytes: the most that @held_bytes may become.
 * @requested_bytes: bytes asked for by all allocations so far.
 * @allocs: blocks handed out so far.
 * @frees: blocks given back so far.
 * @grows: allocations so far that took new pages.
 * @splits: free blocks halved so far.
 * @merges: pairs of free halves joined so far.
 * @waits: allocations so far that slept.
 * @timeouts: allocations so far whose time ran out.
 * @trims: pages given back to the system by request so far.
 * @shrinks: pages given back under memory pressure so far.
 * @failures: allocations and frees refused so far.
 * @reserved: 0.
 */
struct freelist_stat {
	__u64 live_blocks;
	__u64 live_bytes;
	__u64 free_bytes;
	__u64 held_bytes;
	__u64 metadata_bytes;
	__u64 limit_bytes;
	__u64 requested_bytes;
	__u64 allocs;
	__u64 frees;
	__u64 grows;
	__u64 splits;
	__u64 merges;
	__u64 waits;
	__u64 timeouts;
	__u64 trims;
	__u64 shrinks;
	__u64 failures;
	__u64 reserved[15];
};

#define FREELIST_IOC_MAGIC	0xF1

#define FREELIST_IOC_INFO	_IOR(FREELIST_IOC_MAGIC, 0, struct freelist_info)
#define FREELIST_IOC_ALLOC	_IOWR(FREELIST_IOC_MAGIC, 1, struct freelist_alloc)
#define FREELIST_IOC_FREE	_IOW(FREELIST_IOC_MAGIC, 2, struct freelist_free)
#define FREELIST_IOC_ALLOC_BULK	_IOWR(FREELIST_IOC_MAGIC, 3, struct freelist_bulk)
#define FREELIST_IOC_FREE_BULK	_IOWR(FREELIST_IOC_MAGIC, 4, struct freelist_bulk)
#define FREELIST_IOC_LIMIT	_IOWR(FREELIST_IOC_MAGIC, 5, struct freelist_limit)
#define FREELIST_IOC_TRIM	_IOWR(FREELIST_IOC_MAGIC, 6, struct freelist_trim)
#define FREELIST_IOC_STAT	_IOR(FREELIST_IOC_MAGIC, 7, struct freelist_stat)

#endif /* _UAPI_LINUX_FREELIST_H */
