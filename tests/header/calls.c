/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Makes every call in each way that has the same result each time, and prints
 * the results. Compiled for 32 and for 64 bit: if these differ, so does the
 * layout of a structure.
 * Prior art: vulnerabilities 32_bit_layout.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "freelist.h"

static const char *call = "";

static void put(const char *name, unsigned long long value)
{
	printf("%s.%s %#llx\n", call, name, value);
}

/* Makes a call, and prints its name and its result. */
static int made(int fd, const char *name, unsigned long request, void *argument)
{
	int result = ioctl(fd, request, argument);

	call = name;
	put("errno", result ? errno : 0);
	return result;
}

static unsigned long long alloc(int fd, unsigned long long size, unsigned int flags,
				long long timeout_ns)
{
	struct freelist_alloc request = {
		.size = size, .flags = flags, .timeout_ns = timeout_ns,
	};

	if (made(fd, "alloc", FREELIST_IOC_ALLOC, &request))
		return -1;
	put("offset", request.offset);
	put("block_bytes", request.block_bytes);
	put("timeout_ns", request.timeout_ns);
	return request.offset;
}

static unsigned long long alloc_aligned(int fd, unsigned long long size, unsigned int align_shift)
{
	struct freelist_alloc request = {
		.size = size, .flags = FREELIST_DEFAULT, .align_shift = align_shift,
	};

	if (made(fd, "alloc_aligned", FREELIST_IOC_ALLOC, &request))
		return -1;
	put("offset", request.offset);
	put("block_bytes", request.block_bytes);
	return request.offset;
}

static void resize(int fd, unsigned long long offset, unsigned long long size, unsigned int flags)
{
	struct freelist_resize request = { .offset = offset, .size = size, .flags = flags };

	made(fd, "resize", FREELIST_IOC_RESIZE, &request);
	put("block_bytes", request.block_bytes);
}

static void slack(int fd, unsigned int permille)
{
	struct freelist_limit bounds = { .slack_permille = permille };

	made(fd, "slack", FREELIST_IOC_LIMIT, &bounds);
	put("bytes", bounds.bytes);
	put("span", bounds.span);
	put("slack_permille", bounds.slack_permille);
}

static void release(int fd, unsigned long long offset)
{
	struct freelist_free request = { .offset = offset };

	made(fd, "free", FREELIST_IOC_FREE, &request);
}

static void bulk(int fd, unsigned long request, unsigned long long size, unsigned int count,
		 unsigned long long offsets, unsigned int flags)
{
	struct freelist_bulk many = {
		.size = size, .offsets = offsets, .count = count, .flags = flags,
	};

	made(fd, request == FREELIST_IOC_FREE_BULK ? "free_bulk" : "alloc_bulk", request, &many);
	put("done", many.done);
}

static void limit(int fd, unsigned long long bytes, unsigned long long span)
{
	struct freelist_limit bounds = { .bytes = bytes, .span = span };

	made(fd, "limit", FREELIST_IOC_LIMIT, &bounds);
	put("bytes", bounds.bytes);
	put("span", bounds.span);
}

static void trim(int fd, unsigned long long keep_bytes)
{
	struct freelist_trim request = { .keep_bytes = keep_bytes };

	made(fd, "trim", FREELIST_IOC_TRIM, &request);
	put("freed_bytes", request.freed_bytes);
}

static void copy(int fd, unsigned int flags, unsigned int reserved)
{
	struct freelist_clone request = { .flags = flags, .reserved = reserved, .fd = -1 };

	made(fd, "clone", FREELIST_IOC_CLONE, &request);
	put("opened", request.fd >= 0);
	if (request.fd >= 0)
		close(request.fd);
}

static void counters(int fd)
{
	struct freelist_stat stat;

	memset(&stat, 255, sizeof(stat));
	made(fd, "stat", FREELIST_IOC_STAT, &stat);
	put("live_blocks", stat.live_blocks);
	put("live_bytes", stat.live_bytes);
	put("free_bytes", stat.free_bytes);
	put("held_bytes", stat.held_bytes);
	put("metadata_bytes", stat.metadata_bytes);
	put("limit_bytes", stat.limit_bytes);
	put("requested_bytes", stat.requested_bytes);
	put("allocs", stat.allocs);
	put("frees", stat.frees);
	put("grows", stat.grows);
	put("splits", stat.splits);
	put("merges", stat.merges);
	put("waits", stat.waits);
	put("timeouts", stat.timeouts);
	put("trims", stat.trims);
	put("failures", stat.failures);
	put("moved_bytes", stat.moved_bytes);
	put("faulted_bytes", stat.faulted_bytes);
	put("huge_bytes", stat.huge_bytes);
	put("reserved", stat.reserved[11]);
}

/* Allocates and frees blocks of many sizes, with all flags. The arena is mapped at @base. */
static void single_blocks(int fd, char *base)
{
	static const unsigned long long sizes[] = {
		0, 1, 32, 33, 2048, 2049, 4096, 5000, 65536, 5347738, 0x40000000, 0x40000001,
		0x100000001, 0xffffffff00000001, -1ULL,
	};
	unsigned int i, j;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (j = 0; j < 128; j++) {
			unsigned long long offset = alloc(fd, sizes[i], j, 0);

			if (offset == -1ULL)
				continue;
			base[offset] = 1;
			base[offset + sizes[i] - 1] = 1;
			release(fd, offset);
			release(fd, offset);
		}
	}
	for (i = 0; i < 8; i++)
		alloc(fd, 64, 1 << (7 + i), 0);
	alloc(fd, 64, FREELIST_DEFAULT, 1);
	alloc(fd, 48 << 20, FREELIST_DEFAULT, 0);
	alloc(fd, 32 << 20, FREELIST_DEFAULT | FREELIST_WAIT, 1000);
	alloc(fd, 4096, FREELIST_DEFAULT | FREELIST_WAIT, -0x100000001);
	release(fd, 0x100000000);
	release(fd, 0xffffffff00000000);
	release(fd, 3);
}

/* Allocates and frees batches, with arrays at valid and at wrong addresses. */
static void batches(int fd)
{
	static unsigned long long offsets[200];
	unsigned int i;

	bulk(fd, FREELIST_IOC_ALLOC_BULK, 100, 200, (unsigned long)offsets, FREELIST_DEFAULT);
	for (i = 0; i < 200; i++)
		put("offset", offsets[i]);
	bulk(fd, FREELIST_IOC_FREE_BULK, 0, 150, (unsigned long)offsets, 0);
	bulk(fd, FREELIST_IOC_FREE_BULK, 0, 200, (unsigned long)offsets, 0);
	bulk(fd, FREELIST_IOC_FREE_BULK, 0, 0, (unsigned long)offsets, 0);
	bulk(fd, FREELIST_IOC_ALLOC_BULK, 100, 2, 0, FREELIST_DEFAULT);
	/* Neither program has anything at the end of the 32-bit addresses. */
	bulk(fd, FREELIST_IOC_ALLOC_BULK, 100, 2, 0xffffffff00000000, FREELIST_DEFAULT);
	bulk(fd, FREELIST_IOC_ALLOC_BULK, 100, 2, -8ULL, FREELIST_DEFAULT);
}

/* Resizes blocks of all alignments, some beyond what there is. */
static void resizes(int fd)
{
	unsigned int i;

	for (i = 0; i < 34; i++) {
		unsigned long long offset = alloc_aligned(fd, 5000, i);

		resize(fd, offset, 1, FREELIST_DEFAULT);
		resize(fd, offset, 70000, FREELIST_DEFAULT);
		resize(fd, offset, 0x100001000, FREELIST_DEFAULT);
		resize(fd, offset, 70000, FREELIST_DEFAULT | FREELIST_WAIT);
		resize(fd, offset, 70000, FREELIST_HEADER);
		resize(fd, offset, 0, 0);
		resize(fd, offset + 4096, 4096, 0);
		resize(fd, offset + 0x100000000, 4096, 0);
		release(fd, offset);
		resize(fd, offset, 4096, 0);
	}
}

int main(void)
{
	struct freelist_info info;
	const unsigned int span = 256 << 20;
	char *base;
	int fd = open("/dev/freelist", O_RDWR);

	if (fd < 0) {
		perror("/dev/freelist");
		return 1;
	}
	memset(&info, 255, sizeof(info));
	made(fd, "info", FREELIST_IOC_INFO, &info);
	put("abi", info.abi);
	put("page_size", info.page_size);
	put("min_shift", info.min_shift);
	put("max_shift", info.max_shift);
	put("arena_bytes", info.arena_bytes);
	put("limit_bytes", info.limit_bytes);
	put("features", info.features);

	limit(fd, 0, 0x100000001);
	limit(fd, 0, -1ULL);
	limit(fd, 0x700000001, 0);
	limit(fd, 64 << 20, span);
	/* A program of 32 bits can map no more. */
	base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED) {
		perror("mmap");
		return 1;
	}

	single_blocks(fd, base);
	batches(fd);
	resizes(fd);
	slack(fd, 20);
	slack(fd, FREELIST_SLACK_NONE);
	slack(fd, 1001);
	slack(fd, 50);

	copy(fd, 0, 0);
	copy(fd, 1, 0);
	copy(fd, 0, 1);

	trim(fd, 0x100000000);
	trim(fd, 4096);
	trim(fd, 0);
	limit(fd, 0, span);
	made(fd, "info", FREELIST_IOC_INFO, NULL);
	made(fd, "unknown", _IO(FREELIST_IOC_MAGIC, 99), NULL);
	counters(fd);
	return 0;
}
