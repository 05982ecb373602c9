/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A heap over /dev/freelist: malloc() and its kin, with a cache a thread.
 *
 * Small blocks, up to 32 KiB, are of eight sizes a doubling, 16 bytes apart up to
 * 128, cut from slabs of 4 to 64 KiB that come from the module in batches. A thread
 * keeps some free ones, at most 48 KiB of all sizes together, and takes and gives
 * those without a lock; they go back when it ends, and when another thread is short
 * of memory. Larger blocks are whole pages of the arena. Any thread may free what
 * another one allocated.
 *
 * With FREELIST_CHECK=1 in the environment a heap keeps nothing in threads, and the
 * last 1,024 small blocks that were freed are not handed out again: one that is
 * freed twice meanwhile ends the program, for certain.
 *
 * A heap is for one process: in a forked child requests fail and releases do nothing, and what the child writes into blocks the parent sees. A
 * child that only calls exec() is fine.
 *
 * Link with what `pkg-config --libs freelist_client` says, or with
 * libfreelist_client.a and `pkg-config --static --libs freelist_client`.
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
 * The version of this header. It is a number that grows, so that
 *
 *	#if FREELIST_CLIENT_VERSION >= FREELIST_CLIENT_VERSION_OF(0, 2, 0)
 *
 * asks for what came with 0.2.0; freelist_client_version() is that of the library.
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
 * What compilers may know, and warn of: a result that is ignored, a block that is
 * given to another function than freelist_free() (GCC 11), bytes beyond a block.
 * Nothing for other compilers. FREELIST_OWNED is without what GCC's plain `malloc`
 * promises, that nothing else points there: a resized block may be where it was.
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

/** A heap: an arena, mapped, and what is known of its blocks. */
struct freelist_heap;

/**
 * freelist_client_version() - the version of the library that is linked, or loaded
 *
 * Return: its number, as FREELIST_CLIENT_VERSION is the header's.
 */
uint32_t freelist_client_version(void);

/**
 * freelist_heap_close() - ends a heap and all of its blocks
 * @heap: the heap, that no thread uses meanwhile or afterwards; NULL does nothing
 */
void freelist_heap_close(struct freelist_heap *heap);

/**
 * freelist_heap_open() - a heap over a new arena
 * @device: the device file; NULL is /dev/freelist
 *
 * Return: the heap, or NULL with errno set: that of open() (ENOENT: the module is
 * not loaded), ENOTTY for another device, ENOMEM.
 */
struct freelist_heap *freelist_heap_open(const char *device)
	FREELIST_OWNED(freelist_heap_close, 1);

/**
 * freelist_free() - gives a block back
 * @heap: the heap
 * @block: one of its blocks; NULL does nothing
 *
 * Ends the program by abort() where @block is seen not to be one: an address that
 * is no block's start, a block above 32 KiB that was freed before. A smaller one
 * that was freed before is seen at once if it is the last of its size that this
 * thread freed; else when the thread's cache is emptied, unless it was handed out
 * again by then. With FREELIST_CHECK=1 see above.
 */
void freelist_free(struct freelist_heap *heap, void *block)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_malloc() - a block of at least @size bytes, and at least one
 * @heap: the heap
 * @size: bytes; what is in them may be anything of this heap's
 *
 * It is aligned to 16 bytes, to the largest power of 2 that divides @size, and above
 * 32 KiB to 64 KiB. (Where more is needed: freelist_aligned_alloc().)
 *
 * Return: the block, or NULL with errno set to ENOMEM, as malloc() sets it;
 * freelist_heap_refused() says why.
 */
void *freelist_malloc(struct freelist_heap *heap, size_t size)
	FREELIST_NEW FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_size__(2)));

/**
 * freelist_heap_refused() - why the last allocation of this thread failed that did
 *
 * Return: an errno: ENOMEM (the system is short of memory), EDQUOT (a limit), ENOSPC
 * (no address space), E2BIG (above 32 GiB), EPERM (a forked child), EINVAL (an
 * alignment); 0 if none failed.
 */
int freelist_heap_refused(void);

/**
 * freelist_calloc() - a block of @count times @size bytes, all zero
 * @heap: the heap
 * @count: how many
 * @size: bytes of each
 *
 * Return: as freelist_malloc().
 */
void *freelist_calloc(struct freelist_heap *heap, size_t count, size_t size)
	FREELIST_NEW FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_size__(2, 3)));

/**
 * freelist_aligned_alloc() - a block at a multiple of @align
 * @heap: the heap
 * @align: a power of 2, up to 1 GiB; the block has a multiple of as many bytes
 * @size: bytes
 *
 * Return: as freelist_malloc(); EINVAL for another @align.
 */
void *freelist_aligned_alloc(struct freelist_heap *heap, size_t align, size_t size)
	FREELIST_NEW FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_align__(2), __alloc_size__(3)));

/**
 * freelist_realloc() - makes a block one of @size bytes
 * @heap: the heap
 * @block: one of its blocks; with NULL this is freelist_malloc()
 * @size: bytes; 0 is 1
 *
 * It stays where it is if it holds as many, and not more than twice as many. More
 * than 16 bytes of alignment are kept only then.
 *
 * Return: the block, or NULL with errno set as by freelist_malloc(): @block is as
 * it was then.
 */
void *freelist_realloc(struct freelist_heap *heap, void *block, size_t size)
	FREELIST_OWNED(freelist_free, 2) FREELIST_ATTRIBUTES((__nonnull__(1), __alloc_size__(3)));

/**
 * freelist_usable_size() - bytes that belong to a block
 * @heap: the heap
 * @block: one of its blocks
 *
 * Return: at least as many as were asked for; 0 for NULL, and where no block of
 * this heap can begin.
 */
size_t freelist_usable_size(struct freelist_heap *heap, const void *block)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_set_limit() - bounds the bytes of pages that the heap may hold
 * @heap: the heap
 * @bytes: the limit
 *
 * Return: 0, or -1 with errno set: EPERM when it is above the administrator's
 * default, without CAP_SYS_RESOURCE.
 */
int freelist_heap_set_limit(struct freelist_heap *heap, uint64_t bytes)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_set_slack() - bounds what the heap may hold beyond its need
 * @heap: the heap
 * @permille: how much more than the most that its blocks ever needed it may hold
 *	before it reuses scattered free memory instead of growing, in thousandths,
 *	1 to 1000; FREELIST_SLACK_NONE is no bound
 *
 * Return: 0, or -1 with errno set: EINVAL when @permille is out of range.
 */
int freelist_heap_set_slack(struct freelist_heap *heap, uint32_t permille)
	FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_trim() - gives free memory back to the system
 * @heap: the heap
 * @keep_bytes: bytes of free pages that may stay
 * @freed_bytes: where the bytes that went are put, or NULL
 *
 * What this thread keeps goes too; what other threads keep stays.
 *
 * Return: 0, or -1 with errno set: EPERM in a forked child.
 */
int freelist_heap_trim(struct freelist_heap *heap, uint64_t keep_bytes,
		       uint64_t *freed_bytes) FREELIST_ATTRIBUTES((__nonnull__(1)));

/**
 * freelist_heap_stat() - the arena's counters
 * @heap: the heap
 * @stat: where they are put; slabs and large blocks are the live blocks
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
