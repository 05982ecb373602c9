/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * freelist: page-backed power-of-2 freelists behind /dev/freelist.
 *
 * Every open() of the device makes a private *arena*: an address space of
 * offsets from which blocks are allocated. One mmap() of the file maps the
 * arena; a block lies at `base + offset`. All sizes and offsets are in bytes.
 *
 * Type and number identify an ioctl, direction and size do not. A structure
 * shorter than the module's is extended with zeros. A longer one has to end in
 * zeros (E2BIG otherwise), and its answer ends in zeros. An ioctl that the
 * module does not know fails with ENOTTY.
 *
 * Usable from C and C++; the layout is the same for 32-bit callers. freelist(4)
 * describes the calls in whole.
 */
/*
 * Errors of the calls and of mmap():
 *
 * E2BIG	larger than the largest block; a longer structure that does not end in zeros
 * EAGAIN	the request would have to wait, and may not
 * EBADF	the file is not open for writing
 * EDQUOT	a limit forbids the request
 * EFAULT	a bad address
 * EINTR	a signal arrived while the request waited
 * EINVAL	an invalid value or combination of values
 * EMFILE	CLONE: the process has as many open files as it may
 * ENFILE	CLONE: the system has as many open files as it may
 * ENOENT	no live block begins at the offset
 * ENOMEM	the flags allow no other source, or memory is short
 * ENOSPC	no address space; RESIZE: the pages after the block are in use
 * ENOTTY	an unknown call
 * EOPNOTSUPP	a request flag that this module does not have
 * EPERM	a limit above the administrator's default
 * ETIMEDOUT	the timeout of the request passed
 * EUCLEAN	the header of the freed block was overwritten
 */
#ifndef _UAPI_LINUX_FREELIST_H
#define _UAPI_LINUX_FREELIST_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The version of the contract; see &struct freelist_info. */
#define FREELIST_ABI 2

/*
 * Flags of a request. LARGER, GROW and WAIT say which steps are allowed, in this
 * order, when the request's own list is empty. A flag that the running module
 * does not support fails with EOPNOTSUPP, and its bit in freelist_info.features
 * is clear.
 */
#define FREELIST_LARGER		1	/* split a larger free block */
#define FREELIST_GROW		2	/* allocate new pages from the system */
#define FREELIST_WAIT		4	/* sleep until memory is freed */
#define FREELIST_ZERO		8	/* the block reads as zero */
#define FREELIST_CONTIG		16	/* one new folio of a power of 2 pages: with GROW, without WAIT */
#define FREELIST_HEADER		32	/* a 16-byte header before the block, checked by FREE */
#define FREELIST_POPULATE	64	/* map the block before the call returns */
#define FREELIST_LAZY		128	/* pages get memory when they are touched: with GROW, without
					   CONTIG and HEADER */

#define FREELIST_DEFAULT	(FREELIST_LARGER | FREELIST_GROW)

/*
 * Further features of a module, in freelist_info.features above the request
 * flags: freelist_alloc.align_shift, FREELIST_IOC_RESIZE,
 * freelist_limit.slack_permille, freelist_stat.moved_bytes,
 * freelist_stat.huge_bytes, FREELIST_IOC_DISCARD and FREELIST_IOC_CLONE. A module
 * whose bit is clear refuses an alignment (EINVAL) and the ioctls (ENOTTY), and
 * ignores the other fields.
 */
#define FREELIST_FEATURE_ALIGN	((__u64)1 << 32)
#define FREELIST_FEATURE_RESIZE	((__u64)1 << 33)
#define FREELIST_FEATURE_SLACK	((__u64)1 << 34)
#define FREELIST_FEATURE_MOVED	((__u64)1 << 35)
#define FREELIST_FEATURE_HUGE	((__u64)1 << 36)
#define FREELIST_FEATURE_DISCARD	((__u64)1 << 37)
#define FREELIST_FEATURE_CLONE	((__u64)1 << 38)

/* The value of freelist_limit.slack_permille for no bound. */
#define FREELIST_SLACK_NONE	0xffffffffU

/**
 * struct freelist_info - the properties of the module and the arena (FREELIST_IOC_INFO)
 * @abi: version of the contract, %FREELIST_ABI.
 * @page_size: bytes of a page; larger blocks are whole pages.
 * @min_shift: the smallest size class is 1 << @min_shift bytes.
 * @max_shift: the largest size class is 1 << @max_shift bytes.
 * @arena_bytes: span of the arena's offsets, the largest useful mmap() length.
 * @limit_bytes: the most bytes of pages that the arena may hold.
 * @features: the FREELIST_* request flags and the FREELIST_FEATURE_* that the
 *	module supports.
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
 * struct freelist_alloc - allocate one block (FREELIST_IOC_ALLOC)
 * @size: in: requested bytes, at least 1.
 * @flags: in: FREELIST_* request flags.
 * @align_shift: in: the block is aligned to at least 1 << @align_shift bytes;
 *	at most 30. With 0 it is aligned to its size class, at most 64 KiB.
 * @timeout_ns: in: the longest wait in nanoseconds, negative for ever; 0
 *	without %FREELIST_WAIT. Out: the rest of it.
 * @offset: out: the offset of the block in the arena, aligned as described
 *	under @align_shift; with %FREELIST_HEADER 16 bytes after such an offset.
 * @block_bytes: out: bytes of the block: its size class up to half a page,
 *	whole pages above, a power of 2 of pages with %FREELIST_CONTIG. The
 *	header is not included.
 */
struct freelist_alloc {
	__u64 size;
	__u32 flags;
	__u32 align_shift;
	__s64 timeout_ns;
	__u64 offset;
	__u64 block_bytes;
};

/**
 * struct freelist_free - free one block (FREELIST_IOC_FREE)
 * @offset: in: the offset that FREELIST_IOC_ALLOC returned. If the block has a
 *	header that was overwritten, the call fails with EUCLEAN, and the block
 *	is freed all the same.
 */
struct freelist_free {
	__u64 offset;
};

/**
 * struct freelist_bulk - allocate or free many blocks of one size
 *	(FREELIST_IOC_ALLOC_BULK, FREELIST_IOC_FREE_BULK)
 * @size: in: requested bytes of each block, at least 1. FREE_BULK: 0.
 * @offsets: in: address of an array of @count __u64. ALLOC_BULK writes the
 *	offsets of the blocks there, FREE_BULK reads them.
 * @count: in: elements of the array, at least 1.
 * @flags: in: FREELIST_* request flags, for every block. FREE_BULK: 0.
 * @timeout_ns: in: the longest wait in nanoseconds for all blocks together,
 *	negative for ever; 0 without %FREELIST_WAIT, and for FREE_BULK. Out:
 *	the rest of it.
 * @done: out: how many elements are done, from the first one on; in FREE_BULK
 *	also those whose header was overwritten. A call that did fewer than
 *	@count succeeds: call again for the rest to learn why. The call fails,
 *	and leaves this field as it was, only when no element is done.
 * @align_shift: in: as in &struct freelist_alloc. FREE_BULK: 0.
 */
struct freelist_bulk {
	__u64 size;
	__u64 offsets;
	__u32 count;
	__u32 flags;
	__s64 timeout_ns;
	__u32 done;
	__u32 align_shift;
};

/**
 * struct freelist_limit - set and get the arena's bounds (FREELIST_IOC_LIMIT)
 * @bytes: in: the most bytes of pages that the arena may hold from now on; 0
 *	leaves it as it is. More than the administrator's default needs
 *	CAP_SYS_RESOURCE. Free pages beyond it are returned to the system. Out:
 *	the value in force.
 * @span: in: bytes of the arena's offsets, a multiple of the page size; 0 leaves
 *	it as it is. Only before the first allocation. Out: the value in force.
 * @slack_permille: in: how much more than the most that its blocks ever needed
 *	the arena may hold before it reuses scattered free memory instead of
 *	growing, in thousandths, at most 1000; %FREELIST_SLACK_NONE is no bound,
 *	0 leaves it as it is. It holds for blocks of whole pages that are not
 *	pinned. Out: the value in force.
 * @reserved: in: must be 0.
 */
struct freelist_limit {
	__u64 bytes;
	__u64 span;
	__u32 slack_permille;
	__u32 reserved;
};

/**
 * struct freelist_trim - return free pages to the system (FREELIST_IOC_TRIM)
 * @keep_bytes: in: the most bytes of wholly free pages that the arena keeps.
 * @freed_bytes: out: bytes of the pages that were returned to the system.
 */
struct freelist_trim {
	__u64 keep_bytes;
	__u64 freed_bytes;
};

/**
 * struct freelist_resize - make a block longer or shorter at its offset
 *	(FREELIST_IOC_RESIZE)
 * @offset: in: the offset that FREELIST_IOC_ALLOC returned, of a block of whole
 *	pages without a header that is not CONTIG.
 * @size: in: requested bytes, at least 1.
 * @flags: in: %FREELIST_LARGER, %FREELIST_GROW, %FREELIST_ZERO,
 *	%FREELIST_POPULATE, %FREELIST_LAZY: for the pages that are added.
 * @reserved: in: must be 0.
 * @block_bytes: out: bytes of the block now: whole pages, at least one.
 *
 * The tail of a shortened block is free at once. A block that becomes longer
 * takes the free pages after it. If these are in use (ENOSPC), or the block was
 * freed meanwhile (ENOENT), nothing has changed.
 */
struct freelist_resize {
	__u64 offset;
	__u64 size;
	__u32 flags;
	__u32 reserved;
	__u64 block_bytes;
};

/**
 * struct freelist_discard - drop the memory of pages of live blocks
 *	(FREELIST_IOC_DISCARD)
 * @offset: in: the offset of the range in the arena.
 * @bytes: in: bytes of the range, at least 1. All of it has to lie in live blocks
 *	of whole pages without headers that are not CONTIG (EINVAL).
 *
 * The whole pages inside the range read as zero afterwards and get new memory
 * when they are touched, as those of a %FREELIST_LAZY block. They still count
 * against the limits. A page that is pinned for I/O keeps its memory, and is
 * zeroed.
 */
struct freelist_discard {
	__u64 offset;
	__u64 bytes;
};

/**
 * struct freelist_clone - copy an arena (FREELIST_IOC_CLONE)
 * @flags: in: must be 0.
 * @reserved: in: must be 0.
 * @fd: out: an open file of a new arena, in the mode of this one, closed when
 *	another program is executed.
 * @reserved2: in: must be 0.
 *
 * The new arena has the same live blocks at the same offsets, with a copy of
 * their bytes, and the limit, the span and the slack of this one. It is charged
 * to the caller. A block that another thread allocates, frees or resizes during
 * the call may be in the copy or not; of a byte that is written meanwhile the
 * copy has the old or the new value. A call that fails with ENOMEM, EDQUOT or
 * EMFILE leaves nothing of the copy.
 */
struct freelist_clone {
	__u32 flags;
	__u32 reserved;
	__s32 fd;
	__u32 reserved2;
};

/**
 * struct freelist_stat - the arena's counters (FREELIST_IOC_STAT)
 * @live_blocks: blocks that are live now.
 * @live_bytes: bytes of these blocks, their headers included.
 * @free_bytes: bytes of held pages that are in no block.
 * @held_bytes: bytes of all pages that the arena holds now.
 * @metadata_bytes: bytes of kernel memory for the arena's metadata.
 * @limit_bytes: the most that @held_bytes may become.
 * @requested_bytes: bytes requested by all allocations so far.
 * @allocs: blocks allocated so far.
 * @frees: blocks freed so far.
 * @grows: allocations so far that took new pages.
 * @splits: free blocks and runs split so far.
 * @merges: pairs of free neighbours merged so far.
 * @waits: allocations so far that slept.
 * @timeouts: allocations so far that timed out.
 * @trims: pages returned to the system so far by request, or by an idle arena.
 * @shrinks: pages returned to the system under memory pressure so far.
 * @failures: allocations and frees refused so far.
 * @moved_bytes: bytes of free memory that was dropped so far to back blocks
 *	elsewhere.
 * @faulted_bytes: bytes that touches of lazy blocks have backed so far; 0 from
 *	a module without such blocks.
 * @huge_bytes: bytes of @held_bytes in folios of the size of a huge page.
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
	__u64 moved_bytes;
	__u64 faulted_bytes;
	__u64 huge_bytes;
	__u64 reserved[12];
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
#define FREELIST_IOC_RESIZE	_IOWR(FREELIST_IOC_MAGIC, 8, struct freelist_resize)
#define FREELIST_IOC_DISCARD	_IOW(FREELIST_IOC_MAGIC, 9, struct freelist_discard)
#define FREELIST_IOC_CLONE	_IOWR(FREELIST_IOC_MAGIC, 10, struct freelist_clone)

#endif /* _UAPI_LINUX_FREELIST_H */
