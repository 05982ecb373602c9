/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The contract's header as a C or C++ program of any age sees it: the layout
 * is checked when this is compiled, the calls when it runs. It is valid C89
 * and C++98, and prints KTAP. With LAYOUT_ONLY it is
 * the checks of the layout alone and needs no C library. With the header of the
 * contract's first version (abi-1/freelist.h, which never changes) it is a
 * program of that time: what came later is left out.
 * Prior art: vulnerabilities 32_bit_layout.
 *
 * Usage: header [DEVICE]	(default /dev/freelist)
 */
/* First and alone: the header includes what it needs itself. */
#include "freelist.h"

#include <stddef.h>
#ifndef LAYOUT_ONLY
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

/* A second time: the guard holds. */
#include "freelist.h"

#define CHECK_AT_COMPILE_TIME(name, condition) \
	typedef char check_##name[(condition) ? 1 : -1]
#define CHECK_SIZE(type, bytes) \
	CHECK_AT_COMPILE_TIME(size_of_##type, sizeof(struct type) == (bytes))
#define CHECK_FIELD(type, field, at, bytes) \
	CHECK_AT_COMPILE_TIME(type##_##field, \
			      offsetof(struct type, field) == (at) && \
			      sizeof(((struct type *)0)->field) == (bytes))

CHECK_SIZE(freelist_info, 40);
CHECK_FIELD(freelist_info, abi, 0, 4);
CHECK_FIELD(freelist_info, page_size, 4, 4);
CHECK_FIELD(freelist_info, min_shift, 8, 4);
CHECK_FIELD(freelist_info, max_shift, 12, 4);
CHECK_FIELD(freelist_info, arena_bytes, 16, 8);
CHECK_FIELD(freelist_info, limit_bytes, 24, 8);
CHECK_FIELD(freelist_info, features, 32, 8);

CHECK_SIZE(freelist_alloc, 40);
CHECK_FIELD(freelist_alloc, size, 0, 8);
CHECK_FIELD(freelist_alloc, flags, 8, 4);
CHECK_FIELD(freelist_alloc, timeout_ns, 16, 8);
CHECK_FIELD(freelist_alloc, offset, 24, 8);
CHECK_FIELD(freelist_alloc, block_bytes, 32, 8);

CHECK_SIZE(freelist_free, 8);
CHECK_FIELD(freelist_free, offset, 0, 8);

CHECK_SIZE(freelist_bulk, 40);
CHECK_FIELD(freelist_bulk, size, 0, 8);
CHECK_FIELD(freelist_bulk, offsets, 8, 8);
CHECK_FIELD(freelist_bulk, count, 16, 4);
CHECK_FIELD(freelist_bulk, flags, 20, 4);
CHECK_FIELD(freelist_bulk, timeout_ns, 24, 8);
CHECK_FIELD(freelist_bulk, done, 32, 4);

CHECK_FIELD(freelist_limit, bytes, 0, 8);
CHECK_FIELD(freelist_limit, span, 8, 8);

CHECK_SIZE(freelist_trim, 16);
CHECK_FIELD(freelist_trim, keep_bytes, 0, 8);
CHECK_FIELD(freelist_trim, freed_bytes, 8, 8);

CHECK_SIZE(freelist_stat, 256);
CHECK_FIELD(freelist_stat, live_blocks, 0, 8);
CHECK_FIELD(freelist_stat, live_bytes, 8, 8);
CHECK_FIELD(freelist_stat, free_bytes, 16, 8);
CHECK_FIELD(freelist_stat, held_bytes, 24, 8);
CHECK_FIELD(freelist_stat, metadata_bytes, 32, 8);
CHECK_FIELD(freelist_stat, limit_bytes, 40, 8);
CHECK_FIELD(freelist_stat, requested_bytes, 48, 8);
CHECK_FIELD(freelist_stat, allocs, 56, 8);
CHECK_FIELD(freelist_stat, frees, 64, 8);
CHECK_FIELD(freelist_stat, grows, 72, 8);
CHECK_FIELD(freelist_stat, splits, 80, 8);
CHECK_FIELD(freelist_stat, merges, 88, 8);
CHECK_FIELD(freelist_stat, waits, 96, 8);
CHECK_FIELD(freelist_stat, timeouts, 104, 8);
CHECK_FIELD(freelist_stat, trims, 112, 8);
CHECK_FIELD(freelist_stat, shrinks, 120, 8);
CHECK_FIELD(freelist_stat, failures, 128, 8);
#if FREELIST_ABI >= 2
CHECK_FIELD(freelist_alloc, align_shift, 12, 4);
CHECK_FIELD(freelist_bulk, align_shift, 36, 4);

CHECK_SIZE(freelist_limit, 24);
CHECK_FIELD(freelist_limit, slack_permille, 16, 4);
CHECK_FIELD(freelist_limit, reserved, 20, 4);

CHECK_FIELD(freelist_stat, moved_bytes, 136, 8);
CHECK_FIELD(freelist_stat, faulted_bytes, 144, 8);
CHECK_FIELD(freelist_stat, huge_bytes, 152, 8);
CHECK_FIELD(freelist_stat, reserved, 160, 96);

CHECK_SIZE(freelist_discard, 16);
CHECK_FIELD(freelist_discard, offset, 0, 8);
CHECK_FIELD(freelist_discard, bytes, 8, 8);

CHECK_SIZE(freelist_resize, 32);
CHECK_FIELD(freelist_resize, offset, 0, 8);
CHECK_FIELD(freelist_resize, size, 8, 8);
CHECK_FIELD(freelist_resize, flags, 16, 4);
CHECK_FIELD(freelist_resize, reserved, 20, 4);
CHECK_FIELD(freelist_resize, block_bytes, 24, 8);

CHECK_SIZE(freelist_clone, 16);
CHECK_FIELD(freelist_clone, flags, 0, 4);
CHECK_FIELD(freelist_clone, reserved, 4, 4);
CHECK_FIELD(freelist_clone, fd, 8, 4);
CHECK_FIELD(freelist_clone, reserved2, 12, 4);
#else
CHECK_FIELD(freelist_alloc, reserved, 12, 4);
CHECK_FIELD(freelist_bulk, reserved, 36, 4);
CHECK_SIZE(freelist_limit, 16);
CHECK_FIELD(freelist_stat, reserved, 136, 120);
#endif

/*
 * Written out as numbers, once, here: programs that were compiled with an
 * older header carry them, so they may never change.
 */
CHECK_AT_COMPILE_TIME(ioc_info, FREELIST_IOC_INFO == 0x8028f100UL);
CHECK_AT_COMPILE_TIME(ioc_alloc, FREELIST_IOC_ALLOC == 0xc028f101UL);
CHECK_AT_COMPILE_TIME(ioc_free, FREELIST_IOC_FREE == 0x4008f102UL);
CHECK_AT_COMPILE_TIME(ioc_alloc_bulk, FREELIST_IOC_ALLOC_BULK == 0xc028f103UL);
CHECK_AT_COMPILE_TIME(ioc_free_bulk, FREELIST_IOC_FREE_BULK == 0xc028f104UL);
CHECK_AT_COMPILE_TIME(ioc_trim, FREELIST_IOC_TRIM == 0xc010f106UL);
CHECK_AT_COMPILE_TIME(ioc_stat, FREELIST_IOC_STAT == 0x8100f107UL);
CHECK_AT_COMPILE_TIME(flag_default, FREELIST_DEFAULT == 3);
CHECK_AT_COMPILE_TIME(flag_highest, FREELIST_POPULATE == 64);
#if FREELIST_ABI >= 2
CHECK_AT_COMPILE_TIME(ioc_limit, FREELIST_IOC_LIMIT == 0xc018f105UL);
CHECK_AT_COMPILE_TIME(ioc_resize, FREELIST_IOC_RESIZE == 0xc020f108UL);
CHECK_AT_COMPILE_TIME(ioc_discard, FREELIST_IOC_DISCARD == 0x4010f109UL);
CHECK_AT_COMPILE_TIME(ioc_clone, FREELIST_IOC_CLONE == 0xc010f10aUL);
#else
CHECK_AT_COMPILE_TIME(ioc_limit, FREELIST_IOC_LIMIT == 0xc010f105UL);
#endif

#ifndef LAYOUT_ONLY
/* Tests, and blocks that other_calls() allocates beside its batch. */
#if FREELIST_ABI >= 2
#define TESTS 18
#define OTHER_BLOCKS 2
#else
#define TESTS 14
#define OTHER_BLOCKS 1
#endif

static int failed;
static int number;

static int report(int passed, const char *promise)
{
	if (!passed) {
		printf("    # %s: errno %d (%s)\n", promise, errno,
		       strerror(errno));
		failed++;
	}
	printf("    %s %d %s\n", passed ? "ok" : "not ok", ++number, promise);
	fflush(stdout);
	return passed;
}

/* Returns 1 if the call fails with @error. */
static int refused(int fd, unsigned long request, void *argument, int error)
{
	errno = 0;
	return ioctl(fd, request, argument) == -1 && errno == error;
}

#define BATCH 100

#if FREELIST_ABI >= 2
/* Resizes a block in place, and sets the slack. */
static void resize_and_slack(int fd, __u64 page, __u64 span)
{
	struct freelist_resize resize;
	struct freelist_alloc request;
	struct freelist_limit limit;
	int same;

	memset(&request, 0, sizeof(request));
	request.size = 5 * page;
	request.flags = FREELIST_DEFAULT;
	request.align_shift = 20;
	memset(&resize, 0, sizeof(resize));
	report(ioctl(fd, FREELIST_IOC_ALLOC, &request) == 0 &&
	       request.offset % ((__u64)1 << 20) == 0,
	       "a_block_is_aligned_as_asked_for");
	resize.offset = request.offset;
	resize.size = 2 * page - 1;
	resize.flags = FREELIST_DEFAULT;
	same = ioctl(fd, FREELIST_IOC_RESIZE, &resize) == 0 &&
	       resize.block_bytes == 2 * page;
	resize.size = 9 * page;
	same = same && ioctl(fd, FREELIST_IOC_RESIZE, &resize) == 0 &&
	       resize.block_bytes == resize.size;
	resize.offset += page;
	same = same && refused(fd, FREELIST_IOC_RESIZE, &resize, EINVAL);
	report(same && ioctl(fd, FREELIST_IOC_FREE, &request.offset) == 0 &&
	       refused(fd, FREELIST_IOC_RESIZE, &resize, ENOENT),
	       "a_block_is_resized_where_it_is");

	memset(&limit, 0, sizeof(limit));
	limit.slack_permille = 20;
	same = ioctl(fd, FREELIST_IOC_LIMIT, &limit) == 0 &&
	       limit.slack_permille == 20 && limit.span == span;
	memset(&limit, 0, sizeof(limit));
	limit.slack_permille = 1001;
	same = same && refused(fd, FREELIST_IOC_LIMIT, &limit, EINVAL);
	limit.slack_permille = FREELIST_SLACK_NONE;
	report(same && ioctl(fd, FREELIST_IOC_LIMIT, &limit) == 0 &&
	       limit.slack_permille == FREELIST_SLACK_NONE,
	       "the_slack_is_as_it_was_set");
}

/* Copies the live blocks to another arena. */
static void copied(int fd, const struct freelist_alloc *block, const char *memory)
{
	struct freelist_clone clone;
	struct freelist_free release;
	char *copy = (char *)MAP_FAILED;
	int same;

	memset(&clone, 0, sizeof(clone));
	clone.flags = 1;
	same = refused(fd, FREELIST_IOC_CLONE, &clone, EINVAL);
	clone.flags = 0;
	clone.fd = -1;
	release.offset = block->offset;
	if (ioctl(fd, FREELIST_IOC_CLONE, &clone) == 0)
		copy = (char *)mmap(NULL, (size_t)block->block_bytes, PROT_READ | PROT_WRITE,
				    MAP_SHARED, clone.fd, (off_t)block->offset);
	same = same && copy != (char *)MAP_FAILED &&
	       memcmp(copy, memory, (size_t)block->block_bytes) == 0;
	if (same)
		copy[1] = 1;
	report(same && memory[1] != 1 && fcntl(clone.fd, F_GETFD) == FD_CLOEXEC &&
	       ioctl(clone.fd, FREELIST_IOC_FREE, &release) == 0 &&
	       refused(clone.fd, FREELIST_IOC_FREE, &release, ENOENT),
	       "a_clone_has_the_block_and_its_bytes");
	if (copy != (char *)MAP_FAILED)
		munmap(copy, (size_t)block->block_bytes);
	if (clone.fd >= 0)
		close(clone.fd);
}

/* Returns 1 if all features of the second version are there. */
static int has_features(__u64 features)
{
	const __u64 all = FREELIST_FEATURE_ALIGN | FREELIST_FEATURE_RESIZE |
			  FREELIST_FEATURE_SLACK | FREELIST_FEATURE_MOVED |
			  FREELIST_FEATURE_HUGE | FREELIST_FEATURE_CLONE;

	return (features & all) == all;
}
#endif

/* Allocates a batch in the arena that is mapped at @base, and writes to each block. */
static void batch_of_blocks(int fd, char *base, struct freelist_bulk *bulk, __u64 *offsets)
{
	int same, i;

	memset(bulk, 0, sizeof(*bulk));
	bulk->size = 3000;
	bulk->offsets = (__u64)(unsigned long)offsets;
	bulk->count = BATCH;
	bulk->flags = FREELIST_DEFAULT | FREELIST_ZERO;
	same = ioctl(fd, FREELIST_IOC_ALLOC_BULK, bulk) == 0 &&
	       bulk->done == BATCH && bulk->count == BATCH && bulk->size == 3000;
	for (i = 0; same && i < BATCH; i++)
		memset(base + offsets[i], i, 3000);
	for (i = 0; same && i < BATCH; i++)
		same = base[offsets[i]] == (char)i &&
		       base[offsets[i] + 2999] == (char)i;
	report(same, "a_batch_allocates_blocks_of_memory");
}

/* Makes calls that fail. @bulk is a batch of ALLOC_BULK. */
static void wrong_calls(int fd, struct freelist_bulk *bulk)
{
	struct freelist_alloc request;
	int same;

	/* More than fits: the wait times out, and leaves no time. */
	memset(&request, 0, sizeof(request));
	request.size = (__u64)900 << 10;
	request.flags = FREELIST_DEFAULT | FREELIST_WAIT;
	request.timeout_ns = 2000000;
	same = refused(fd, FREELIST_IOC_ALLOC, &request, ETIMEDOUT);
	request.timeout_ns = 0;
	report(same && refused(fd, FREELIST_IOC_ALLOC, &request, EAGAIN),
	       "waiting_has_an_end");

	request.size = (__u64)5 << 33;
	same = refused(fd, FREELIST_IOC_ALLOC, &request, E2BIG);
	request.size = (__u64)2 << 20;
	same = same && refused(fd, FREELIST_IOC_ALLOC, &request, EDQUOT);
#if FREELIST_ABI >= 2
	request.align_shift = 31;
	same = same && refused(fd, FREELIST_IOC_ALLOC, &request, EINVAL);
#endif
	bulk->offsets = ~(__u64)4095;
	bulk->done = 0;
	same = same && refused(fd, FREELIST_IOC_ALLOC_BULK, bulk, EFAULT);
	report(same && refused(fd, FREELIST_IOC_STAT, NULL, EFAULT),
	       "wrong_requests_are_refused");
}

/* Releases the free pages of an arena but two, and compares all counters with the calls of other_calls(). */
static void trim_and_stat(int fd, const struct freelist_info *info, __u64 limit_bytes)
{
	struct freelist_trim trim;
	struct freelist_stat stat;

	memset(&trim, 0, sizeof(trim));
	trim.keep_bytes = 2 * (__u64)info->page_size;
	memset(&stat, 0, sizeof(stat));
	report(ioctl(fd, FREELIST_IOC_TRIM, &trim) == 0 &&
	       trim.freed_bytes >= (__u64)BATCH * 3000 / 2 &&
	       ioctl(fd, FREELIST_IOC_STAT, &stat) == 0 &&
	       stat.live_blocks == 0 &&
	       stat.held_bytes == 2 * (__u64)info->page_size &&
	       stat.trims == trim.freed_bytes / info->page_size &&
	       stat.allocs == BATCH + OTHER_BLOCKS &&
	       stat.frees == BATCH + OTHER_BLOCKS &&
	       stat.timeouts == 1 && stat.limit_bytes == limit_bytes,
	       "trim_releases_free_pages");
}

/*
 * The other calls, as a 32-bit program has to use them too: with a span that it
 * can map, and addresses as numbers of 64 bits.
 */
static void other_calls(const char *device)
{
	static __u64 offsets[BATCH];
	const __u64 span = (__u64)64 << 20;
	struct freelist_limit limit;
	struct freelist_alloc request;
	struct freelist_bulk bulk;
	struct freelist_info info;
	char *base;
	int fd;

	fd = open(device, O_RDWR);
	memset(&limit, 0, sizeof(limit));
	limit.bytes = (__u64)1 << 20;
	limit.span = span;
	report(ioctl(fd, FREELIST_IOC_LIMIT, &limit) == 0 &&
	       limit.bytes == (__u64)1 << 20 && limit.span == span &&
	       ioctl(fd, FREELIST_IOC_INFO, &info) == 0 &&
	       info.arena_bytes == span && info.limit_bytes == limit.bytes,
	       "limit_bounds_the_arena");

	base = (char *)mmap(NULL, (size_t)span, PROT_READ | PROT_WRITE,
			    MAP_SHARED, fd, 0);
	report(base != (char *)MAP_FAILED, "the_whole_arena_is_mapped");
	if (base == (char *)MAP_FAILED)
		return;

	batch_of_blocks(fd, base, &bulk, offsets);

	memset(&request, 0, sizeof(request));
	request.size = 29;
	request.flags = FREELIST_DEFAULT | FREELIST_HEADER;
	report(ioctl(fd, FREELIST_IOC_ALLOC, &request) == 0 &&
	       request.block_bytes == 48 && request.offset % 64 == 16 &&
	       ioctl(fd, FREELIST_IOC_FREE, &request.offset) == 0,
	       "a_block_may_have_a_header");

	wrong_calls(fd, &bulk);
#if FREELIST_ABI >= 2
	resize_and_slack(fd, info.page_size, span);
#endif

	bulk.offsets = (__u64)(unsigned long)offsets;
	bulk.size = 0;
	bulk.flags = 0;
	report(ioctl(fd, FREELIST_IOC_FREE_BULK, &bulk) == 0 &&
	       bulk.done == BATCH, "a_batch_frees_all");
	trim_and_stat(fd, &info, limit.bytes);

	munmap(base, (size_t)span);
	close(fd);
}

/* Returns whether INFO describes a module that serves this header. Stores the answer in @info. */
static int described(int fd, struct freelist_info *info)
{
	int same;

	memset(info, 0xff, sizeof(*info));
	same = ioctl(fd, FREELIST_IOC_INFO, info) == 0 && info->min_shift == 5 &&
	       (__u64)1 << info->max_shift == ((__u64)info->page_size << 23) &&
	       info->page_size == (__u32)sysconf(_SC_PAGESIZE) &&
	       (info->features & FREELIST_DEFAULT) == FREELIST_DEFAULT;
#if FREELIST_ABI >= 2
	return same && info->abi == FREELIST_ABI && has_features(info->features);
#else
	/* A later module serves it. */
	return same && info->abi > FREELIST_ABI;
#endif
}

/* Allocates, uses and frees one block. */
static void one_block(int fd, __u64 page_size)
{
	struct freelist_alloc request;
	struct freelist_free release;
	struct freelist_stat stat;
	char *block = NULL;
	size_t length = 0;

	memset(&request, 0, sizeof(request));
	request.size = 3 * page_size - 1;
	request.flags = FREELIST_DEFAULT;
	if (report(ioctl(fd, FREELIST_IOC_ALLOC, &request) == 0 &&
		   request.block_bytes == 3 * page_size &&
		   request.offset % (4 * page_size) == 0,
		   "alloc_returns_a_block")) {
		length = (size_t)request.block_bytes;
		block = (char *)mmap(NULL, length, PROT_READ | PROT_WRITE,
				     MAP_SHARED, fd, (off_t)request.offset);
		if (block == (char *)MAP_FAILED)
			block = NULL;
	}

	if (block)
		memset(block, 0x5a, length);
	report(block && block[0] == 0x5a && block[length - 1] == 0x5a,
	       "the_block_is_memory");

#if FREELIST_ABI >= 2
	if (block)
		copied(fd, &request, block);
#endif

	memset(&stat, 0xff, sizeof(stat));
	report(ioctl(fd, FREELIST_IOC_STAT, &stat) == 0 &&
	       stat.live_blocks == 1 && stat.live_bytes == length &&
	       stat.requested_bytes == request.size && stat.allocs == 1 &&
	       stat.held_bytes == stat.live_bytes + stat.free_bytes &&
	       stat.reserved[0] == 0 &&
	       stat.reserved[sizeof(stat.reserved) / sizeof(__u64) - 1] == 0,
	       "stat_counts_the_block");

	release.offset = request.offset;
	report(ioctl(fd, FREELIST_IOC_FREE, &release) == 0 &&
	       ioctl(fd, FREELIST_IOC_FREE, &release) == -1 && errno == ENOENT,
	       "free_takes_the_block_once");

	if (block)
		munmap(block, length);
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "/dev/freelist";
	struct freelist_info info;
	int fd;

	printf("KTAP version 1\n1..1\n");
	printf("    KTAP version 1\n    # Subtest: freelist_header\n    1..%d\n", TESTS);

	fd = open(device, O_RDWR);
	report(fd >= 0, "the_device_opens");
	report(described(fd, &info), "info_describes_the_module");
	one_block(fd, info.page_size);
	if (fd >= 0)
		close(fd);
	other_calls(device);
	printf("%s 1 freelist_header\n", failed ? "not ok" : "ok");
	return failed != 0;
}
#endif /* LAYOUT_ONLY */
