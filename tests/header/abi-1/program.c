/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The test of the header as it was for abi 1, compiled with the header of then,
 * which lies beside it and is never changed: programs of that time go on.
 *
 * What abi 2 changed is not looked at: the largest block, alignment above
 * 64 KiB, and that a 'reserved' of freelist_alloc had to be 0.
 *
 * Usage: header-abi-1 [DEVICE]	(default /dev/freelist)
 */
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
CHECK_FIELD(freelist_alloc, reserved, 12, 4);
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
CHECK_FIELD(freelist_bulk, reserved, 36, 4);

CHECK_SIZE(freelist_limit, 16);
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
CHECK_FIELD(freelist_stat, reserved, 136, 120);

/*
 * Written out as numbers, once, here: programs that were compiled with an
 * older header carry them, so they may never change.
 */
CHECK_AT_COMPILE_TIME(ioc_info, FREELIST_IOC_INFO == 0x8028f100UL);
CHECK_AT_COMPILE_TIME(ioc_alloc, FREELIST_IOC_ALLOC == 0xc028f101UL);
CHECK_AT_COMPILE_TIME(ioc_free, FREELIST_IOC_FREE == 0x4008f102UL);
CHECK_AT_COMPILE_TIME(ioc_alloc_bulk, FREELIST_IOC_ALLOC_BULK == 0xc028f103UL);
CHECK_AT_COMPILE_TIME(ioc_free_bulk, FREELIST_IOC_FREE_BULK == 0xc028f104UL);
CHECK_AT_COMPILE_TIME(ioc_limit, FREELIST_IOC_LIMIT == 0xc010f105UL);
CHECK_AT_COMPILE_TIME(ioc_trim, FREELIST_IOC_TRIM == 0xc010f106UL);
CHECK_AT_COMPILE_TIME(ioc_stat, FREELIST_IOC_STAT == 0x8100f107UL);
CHECK_AT_COMPILE_TIME(flag_default, FREELIST_DEFAULT == 3);
CHECK_AT_COMPILE_TIME(flag_highest, FREELIST_POPULATE == 64);

#ifndef LAYOUT_ONLY
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

/* 1 when the call fails with @error. */
static int refused(int fd, unsigned long request, void *argument, int error)
{
	errno = 0;
	return ioctl(fd, request, argument) == -1 && errno == error;
}

#define BATCH 100

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
	struct freelist_trim trim;
	struct freelist_stat stat;
	struct freelist_info info;
	char *base;
	int same, i, fd;

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

	memset(&bulk, 0, sizeof(bulk));
	bulk.size = 3000;
	bulk.offsets = (__u64)(unsigned long)offsets;
	bulk.count = BATCH;
	bulk.flags = FREELIST_DEFAULT | FREELIST_ZERO;
	same = ioctl(fd, FREELIST_IOC_ALLOC_BULK, &bulk) == 0 &&
	       bulk.done == BATCH && bulk.count == BATCH && bulk.size == 3000;
	for (i = 0; same && i < BATCH; i++)
		memset(base + offsets[i], i, 3000);
	for (i = 0; same && i < BATCH; i++)
		same = base[offsets[i]] == (char)i &&
		       base[offsets[i] + 2999] == (char)i;
	report(same, "a_batch_gives_blocks_of_memory");

	memset(&request, 0, sizeof(request));
	request.size = 29;
	request.flags = FREELIST_DEFAULT | FREELIST_HEADER;
	report(ioctl(fd, FREELIST_IOC_ALLOC, &request) == 0 &&
	       request.block_bytes == 48 && request.offset % 64 == 16 &&
	       ioctl(fd, FREELIST_IOC_FREE, &request.offset) == 0,
	       "a_block_may_have_a_header");

	/* More than is left: waited for in vain, and what is left of the time. */
	memset(&request, 0, sizeof(request));
	request.size = (__u64)900 << 10;
	request.flags = FREELIST_DEFAULT | FREELIST_WAIT;
	request.timeout_ns = 2000000;
	same = refused(fd, FREELIST_IOC_ALLOC, &request, ETIMEDOUT);
	request.timeout_ns = 0;
	report(same && refused(fd, FREELIST_IOC_ALLOC, &request, EAGAIN),
	       "waiting_has_an_end");

	request.size = (__u64)5 << 40;
	same = refused(fd, FREELIST_IOC_ALLOC, &request, E2BIG);
	request.size = (__u64)2 << 20;
	same = same && refused(fd, FREELIST_IOC_ALLOC, &request, EDQUOT);
	bulk.offsets = ~(__u64)4095;
	bulk.done = 0;
	same = same && refused(fd, FREELIST_IOC_ALLOC_BULK, &bulk, EFAULT);
	report(same && refused(fd, FREELIST_IOC_STAT, NULL, EFAULT),
	       "what_is_wrong_is_refused");

	bulk.offsets = (__u64)(unsigned long)offsets;
	bulk.size = 0;
	bulk.flags = 0;
	report(ioctl(fd, FREELIST_IOC_FREE_BULK, &bulk) == 0 &&
	       bulk.done == BATCH, "a_batch_takes_all_back");

	memset(&trim, 0, sizeof(trim));
	trim.keep_bytes = 2 * (__u64)info.page_size;
	memset(&stat, 0, sizeof(stat));
	report(ioctl(fd, FREELIST_IOC_TRIM, &trim) == 0 &&
	       trim.freed_bytes >= (__u64)BATCH * 3000 / 2 &&
	       ioctl(fd, FREELIST_IOC_STAT, &stat) == 0 &&
	       stat.live_blocks == 0 &&
	       stat.held_bytes == 2 * (__u64)info.page_size &&
	       stat.trims == trim.freed_bytes / info.page_size &&
	       stat.allocs == BATCH + 1 && stat.frees == BATCH + 1 &&
	       stat.timeouts == 1 && stat.limit_bytes == limit.bytes,
	       "trim_gives_free_pages_back");

	munmap(base, (size_t)span);
	close(fd);
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "/dev/freelist";
	struct freelist_info info;
	struct freelist_alloc request;
	struct freelist_free release;
	struct freelist_stat stat;
	char *block = NULL;
	size_t length = 0;
	int fd;

	printf("KTAP version 1\n1..1\n");
	printf("    KTAP version 1\n    # Subtest: freelist_abi_1\n    1..14\n");

	fd = open(device, O_RDWR);
	report(fd >= 0, "the_device_opens");

	memset(&info, 0xff, sizeof(info));
	report(ioctl(fd, FREELIST_IOC_INFO, &info) == 0 &&
	       info.abi >= FREELIST_ABI && info.min_shift == 5 &&
	       info.max_shift >= 30 &&
	       info.page_size == (__u32)sysconf(_SC_PAGESIZE) &&
	       (info.features & FREELIST_DEFAULT) == FREELIST_DEFAULT,
	       "info_describes_the_module");

	memset(&request, 0, sizeof(request));
	request.size = 3 * (__u64)info.page_size - 1;
	request.flags = FREELIST_DEFAULT;
	if (report(ioctl(fd, FREELIST_IOC_ALLOC, &request) == 0 &&
		   request.block_bytes == 3 * (__u64)info.page_size &&
		   request.offset % (4 * (__u64)info.page_size) == 0,
		   "alloc_gives_a_block")) {
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

	memset(&stat, 0xff, sizeof(stat));
	report(ioctl(fd, FREELIST_IOC_STAT, &stat) == 0 &&
	       stat.live_blocks == 1 && stat.live_bytes == length &&
	       stat.requested_bytes == request.size && stat.allocs == 1 &&
	       stat.held_bytes == stat.live_bytes + stat.free_bytes &&
	       stat.reserved[0] == 0 && stat.reserved[14] == 0,
	       "stat_counts_the_block");

	release.offset = request.offset;
	report(ioctl(fd, FREELIST_IOC_FREE, &release) == 0 &&
	       ioctl(fd, FREELIST_IOC_FREE, &release) == -1 && errno == ENOENT,
	       "free_takes_the_block_once");

	if (block)
		munmap(block, length);
	if (fd >= 0)
		close(fd);
	other_calls(device);
	printf("%s 1 freelist_abi_1\n", failed ? "not ok" : "ok");
	return failed != 0;
}
#endif /* LAYOUT_ONLY */
