/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A heap over /dev/freelist: malloc() and its kin, with a cache for each thread.
 *
 * Small blocks, up to 32 KiB, have eight sizes a doubling, 16 bytes apart up to 128.
 * They are cut from slabs of 4 to 64 KiB, which the heap allocates in batches. Each
 * thread caches some free blocks, at most 48 KiB of all sizes together, and allocates
 * and frees those without a lock; its cache is drained when it ends, and when another
 * thread is short of memory. Larger blocks are whole pages of the arena. Any thread
 * may free a block that another one allocated.
 *
 * With FREELIST_CHECK=1 in the environment a heap caches no blocks, and holds back the
 * last 1,024 small blocks that were freed: a second free of one of these ends the
 * program, for certain.
 *
 * A heap is for one process. In a forked child requests fail, releases do nothing,
 * and the parent sees what the child writes into blocks. A child that only calls
 * exec() is safe.
 *
 * Link with `pkg-config --libs freelist_client`, or with libfreelist_client.a and
 * `pkg-config --static --libs freelist_client`.
 */
#ifndef FREELIST_CLIENT_H
#define FREELIST_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "freelist.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The version of this header, a number that grows with each release:
 *
 *	#if FREELIST_CLIENT_VERSION >= FREELIST_CLIENT_VERSION_OF(0, 2, 0)
 *
 * tests for 0.2.0 or later. freelist_client_version() returns that of the library.
 */
#define FREELIST_CLIENT_VERSION_MAJOR	0
#define FREELIST_CLIENT_VERSION_MINOR	1
#define FREELIST_CLIENT_VERSION_PATCH	0
#define FREELIST_CLIENT_VERSION_OF(major, minor, patch) \
	(((major) << 16) | ((minor) << 8) | (patch))
#define FREELIST_CLIENT_VERSION \
	FREELIST_CLIENT_VERSION_OF(FREELIST_CLIENT_VERSION_MAJOR, \
				   FREELIST_CLIENT_VERSION_MINOR, \
				   FREELIST_CLIENT_VERSION_PATCH)

/*
 * Attributes by which compilers warn of an ignored result, of a block that is passed
 * to another function than freelist_free() (GCC 11), and of accesses beyond a block;
 * empty for other compilers. FREELIST_OWNED leaves out GCC's plain `malloc`, by which
 * no other pointer has that address: a resized block may be where it was.
 */
#if defined(__GNUC__) && __GNUC__ >= 11 && !defined(__clang__)
#define FREELIST_OWNED(release, argument) \
	__attribute__((__warn_unused_result__, __malloc__(release, argument)))
#define FREELIST_NEW __attribute__((__malloc__)) FREELIST_OWNED(freelist_free, 2)
#elif defined(__GNUC__)
#define FREELIST_OWNED(release, argument) __attribute__((__warn_unused_result__))
#define FREELIST_NEW __attribute__((__malloc__, __warn_unused_result__))
#else
#define FREELIST_OWNED(release, argument)
#define FREELIST_NEW
#endif
#ifdef __GNUC__
#define FREELIST_ATTRIBUTES(list) __attribute__(list)
#else
#define FREELIST_ATTRIBUTES(list)
#endif

/** A heap: a mapped arena, and the state of its blocks. */
struct freelist_heap;

/**
 * freelist_client_version() - the version of the library that is linked, or loaded
 *
 * Return: the number, in the form of FREELIST_CLIENT_VERSION.
 */
uint32_t freelist_client_version(void);

/**
 * freelist_heap_close() - ends a heap and all of its blocks
 * @heap: the heap, which no thread uses during the call or afterwards; NULL does nothing
 */
void freelist_heap_close(struct freelist_heap *heap);

/**
 * freelist_heap_open() - opens a heap over a new arena
 * @device: the device file; NULL is /dev/freelist
 *
 * Return: the heap, or NULL with errno set to that of open() (ENOENT: the module is
 * not loaded), to ENOTTY for another device, or to ENOMEM.
 */
struct freelist_heap *freelist_heap_open(const char *device)
	FREELIST_OWNED(freelist_heap_close, 1);

/**
 * freelist_free() - frees a block
 * @heap: the heap
 * @block: one of its blocks; NULL does nothing
 *
 * Ends the program by abort() if it finds that @block is not live. It always finds
 * that for an address at which no block starts, and for blocks above 32 KiB. A double
 * free of a smaller block is found at once if it is the last of its size that this
 * thread freed, otherwise when the thread's cache is emptied, unless the block was
 * allocated again. For FREELIST_CHECK=1 see above.
 */
void freelist_free(struct freelist_heap *heap, void *block)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_malloc() - allocates a block of at least @size bytes, and at least one
 * @heap: the heap
 * @size: bytes; their content is undefined, and may be that of an earlier block
 *
 * It is aligned to 16 bytes, to the largest power of 2 that divides @size, and above
 * 32 KiB to 64 KiB. freelist_aligned_alloc() aligns it to more.
 *
 * Return: the block, or NULL with errno set to ENOMEM, as by malloc();
 * freelist_heap_refused() returns the reason.
 */
void *freelist_malloc(struct freelist_heap *heap, size_t size)
	FREELIST_NEW FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_size__(2)));

/**
 * freelist_heap_refused() - the reason of this thread's last failed allocation
 *
 * Return: an errno: ENOMEM (the system is short of memory), EDQUOT (a limit), ENOSPC
 * (no address space), E2BIG (above 32 GiB), EPERM (a forked child), EINVAL (an
 * alignment); 0 if none failed.
 */
int freelist_heap_refused(void);

/**
 * freelist_calloc() - allocates a block of @count times @size bytes, all zero
 * @heap: the heap
 * @count: the number of objects
 * @size: the bytes of each
 *
 * Return: that of freelist_malloc().
 */
void *freelist_calloc(struct freelist_heap *heap, size_t count, size_t size)
	FREELIST_NEW FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_size__(2, 3)));

/**
 * freelist_aligned_alloc() - allocates a block at a multiple of @align
 * @heap: the heap
 * @align: a power of 2, up to 1 GiB; the block's size is a multiple of it, too
 * @size: bytes
 *
 * Return: that of freelist_malloc(); errno is EINVAL for another @align.
 */
void *freelist_aligned_alloc(struct freelist_heap *heap, size_t align, size_t size)
	FREELIST_NEW FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_align__(2), __alloc_size__(3)));

/**
 * freelist_realloc() - resizes a block to @size bytes
 * @heap: the heap
 * @block: one of its blocks; with NULL this is freelist_malloc()
 * @size: bytes; 0 is 1
 *
 * The block stays in place if it holds @size bytes, and not more than twice as many.
 * An alignment above 16 bytes is kept only then.
 *
 * Return: the block, or NULL with errno set as by freelist_malloc(): @block is
 * unchanged then.
 */
void *freelist_realloc(struct freelist_heap *heap, void *block, size_t size)
	FREELIST_OWNED(freelist_free, 2) FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_size__(3)));

/**
 * freelist_usable_size() - the bytes of a block
 * @heap: the heap
 * @block: one of its blocks
 *
 * Return: at least the bytes that were asked for; 0 for NULL, and for an address at
 * which no block of this heap can begin.
 */
size_t freelist_usable_size(struct freelist_heap *heap, const void *block)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_set_limit() - limits the bytes of pages that the heap may hold
 * @heap: the heap
 * @bytes: the limit
 *
 * Return: 0, or -1 with errno set: EPERM when @bytes is above the administrator's
 * default and the caller has no CAP_SYS_RESOURCE.
 */
int freelist_heap_set_limit(struct freelist_heap *heap, uint64_t bytes)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_set_slack() - limits what the heap may hold beyond its need
 * @heap: the heap
 * @permille: how much more memory it may hold than its blocks ever needed at once,
 *	before it reuses scattered free memory instead of growing, in thousandths,
 *	1 to 1000; FREELIST_SLACK_NONE is unlimited
 *
 * Return: 0, or -1 with errno set: EINVAL when @permille is out of range.
 */
int freelist_heap_set_slack(struct freelist_heap *heap, uint32_t permille)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_trim() - returns free memory to the system
 * @heap: the heap
 * @keep_bytes: bytes of free pages that may stay
 * @freed_bytes: set to the bytes that were returned, or NULL
 *
 * Drains the caches of this thread, and of all that are not in a call of the heap.
 *
 * Return: 0, or -1 with errno set: EPERM in a forked child.
 */
int freelist_heap_trim(struct freelist_heap *heap, uint64_t keep_bytes,
		       uint64_t *freed_bytes) FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_stat() - the arena's counters
 * @heap: the heap
 * @stat: set to the counters; slabs and large blocks are the live blocks
 *
 * Return: 0, or -1 with errno set.
 */
int freelist_heap_stat(struct freelist_heap *heap, struct freelist_stat *stat)
	FREELIST_ATTRIBUTES((__nonnull__(1, 2), __warn_unused_result__));

#undef FREELIST_OWNED
#undef FREELIST_NEW
#undef FREELIST_ATTRIBUTES

#ifdef __cplusplus
}
#endif

#endif /* FREELIST_CLIENT_H */
