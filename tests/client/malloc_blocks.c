/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Blocks of libfreelist_malloc.so: their bytes, sizes and alignments, and the memory that they hold.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "malloc_test.h"

static void *early_block, *late_block;

__attribute__((constructor)) static void before_main(void)
{
	early_block = malloc(3 * MIB);
	if (early_block)
		memset(early_block, 'e', 3 * MIB);
}

__attribute__((destructor)) static void after_main(void)
{
	free(early_block);
	free(late_block);
	free(use(malloc(5 * MIB)));
}

int large_blocks_are_in_the_arena_and_small_ones_are_not(void)
{
	size_t before = large_bytes();
	void *small = use(malloc(64 * KIB - 1)), *large = use(malloc(64 * KIB)), *odd;

	CHECK(small && large && large_bytes() == before + 64 * KIB);
	odd = use(malloc(MIB + 1));
	CHECK(odd && malloc_usable_size(odd) >= MIB + 1 && malloc_usable_size(odd) <= MIB + 64 * KIB);
	memset(odd, 1, malloc_usable_size(odd));
	free(large);
	free(odd);
	free(small);
	CHECK(large_bytes() == before);
	return 1;
}

int memory_is_allocated_when_it_is_touched(void)
{
	size_t before, at;
	unsigned char *block, *longer, *behind;

	malloc_trim(0);
	before = module_says("held_bytes");
	block = malloc(64 * MIB);
	CHECK(block && before && module_says("held_bytes") == before);
	for (at = 0; at < 4 * MIB; at++)
		block[at] = (unsigned char)at;
	CHECK(module_says("held_bytes") >= before + 4 * MIB && module_says("held_bytes") <= before + 6 * MIB);
	/* Pages in use after it make it move: only touched pages are copied. */
	behind = malloc(64 * KIB);
	longer = realloc(block, 128 * MIB);
	CHECK(longer && longer != block && module_says("held_bytes") <= before + 12 * MIB);
	free(behind);
	for (at = 0; at < 4 * MIB; at++)
		CHECK(longer[at] == (unsigned char)at);
	CHECK(longer[127 * MIB] == 0);
	free(longer);
	malloc_trim(0);
	CHECK(module_says("held_bytes") == before);
	return 1;
}

int a_block_from_before_main_is_whole(void)
{
	CHECK(early_block && all(early_block, 'e', 3 * MIB));
	late_block = malloc(3 * MIB);
	CHECK(late_block);
	return 1;
}

int calloc_is_zero_where_memory_was_used_before(void)
{
	int round;

	for (round = 0; round < 5; round++) {
		char *block = malloc(2 * MIB);

		CHECK(block);
		memset(block, 0xff, 2 * MIB);
		free(block);
		block = calloc(2, MIB);
		CHECK(block && all(block, 0, 2 * MIB));
		free(block);
	}
	return 1;
}

int each_alignment_is_kept_and_holds_no_more_than_the_block(void)
{
	static const size_t sizes[] = { 1, 100, 64 * KIB, 65 * KIB, MIB, 5 * MIB };
	size_t align, at, before = large_bytes();

	for (align = 16; align <= 64 * MIB; align *= 2) {
		for (at = 0; at < COUNT(sizes); at++) {
			size_t size = sizes[at];
			void *blocks[3] = { memalign(align, size), aligned_alloc(align, size), NULL };
			int each;

			CHECK(!posix_memalign(&blocks[2], align, size));
			for (each = 0; each < 3; each++) {
				CHECK(blocks[each] && (uintptr_t)blocks[each] % align == 0);
				CHECK(malloc_usable_size(blocks[each]) >= size);
				memset(blocks[each], 7, size);
			}
			/* glibc may map memory for the small blocks; the others are in the arena. */
			CHECK(size < 64 * KIB || large_bytes() <= before + 3 * (size + 64 * KIB));
			CHECK(size < 64 * KIB || large_bytes() >= before + 3 * size);
			for (each = 0; each < 3; each++)
				free(blocks[each]);
		}
	}
	CHECK((uintptr_t)use(valloc(100 * KIB)) % 4096 == 0);
	free(sink);
	CHECK((uintptr_t)use(pvalloc(100 * KIB + 1)) % 4096 == 0);
	CHECK(malloc_usable_size(sink) >= 104 * KIB);
	free(sink);
	CHECK(large_bytes() == before);
	return 1;
}

int impossible_sizes_and_alignments_fail_as_in_the_c_library(void)
{
	volatile size_t huge = SIZE_MAX, most = PTRDIFF_MAX, terabyte = (size_t)1 << 46;
	void *block = malloc(MIB), *untouched = block;

	memset(block, 3, MIB);
	errno = 0;
	CHECK(!malloc(huge) && errno == ENOMEM);
	errno = 0;
	CHECK(!malloc(most + 1) && errno == ENOMEM);
	errno = 0;
	CHECK(!calloc(huge / 2, 3) && errno == ENOMEM);
	errno = 0;
	CHECK(!realloc(block, huge) && errno == ENOMEM);
	errno = 0;
	CHECK(!realloc(block, terabyte * 1024) && errno == ENOMEM);
	errno = 0;
	CHECK(!reallocarray(block, huge / 2, 3) && errno == ENOMEM);
	CHECK(all(block, 3, MIB));
	CHECK(posix_memalign(&untouched, 3, MIB) == EINVAL && untouched == block);
	CHECK(posix_memalign(&untouched, 0, MIB) == EINVAL && untouched == block);
	CHECK(posix_memalign(&untouched, 4, MIB) == EINVAL && untouched == block);
	CHECK(posix_memalign(&untouched, 64, most) == ENOMEM && untouched == block);
	errno = 0;
	CHECK(!aligned_alloc((size_t)1 << 63, MIB) && errno != 0);
	errno = 0;
	CHECK(!memalign((size_t)1 << 62, huge - 100) && errno == ENOMEM);
	free(block);
	free(NULL);
	CHECK(malloc_usable_size(NULL) == 0);
	/* A release keeps the result of the last call. */
	block = malloc(MIB);
	errno = 99;
	free(block);
	CHECK(errno == 99);
	return 1;
}

int sizes_of_0_bytes_are_as_in_the_c_library(void)
{
	size_t before = large_bytes();
	void *block = malloc(MIB), *none = use(malloc(0));

	CHECK(block && none);
	CHECK(!use(realloc(block, 0)) && large_bytes() == before);
	free(none);
	none = use(calloc(0, MIB));
	CHECK(none);
	free(none);
	none = use(realloc(NULL, 2 * MIB));
	CHECK(none && large_bytes() >= before + 2 * MIB);
	free(none);
	return 1;
}

int a_resized_block_keeps_its_bytes_and_no_more_memory_than_it_needs(void)
{
	/* A sixth of the machine's memory at most, which an arena may hold. */
	const size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
	const size_t most = memory / 6 < 512 * MIB ? memory / 6 / MIB * MIB : 512 * MIB;
	const size_t sizes[] = { 100, 10000, 64 * KIB - 1, 64 * KIB, 3 * MIB, 20 * MIB, 19 * MIB,
				 9 * MIB, 40 * KIB, most, 40 * KIB, 70 * KIB, 1 };
	size_t at, has = 1, before = large_bytes();
	unsigned char *block = malloc(1);

	block[0] = 1;
	for (at = 0; at < COUNT(sizes); at++) {
		size_t size = sizes[at], kept = size < has ? size : has;

		block = realloc(block, size);
		CHECK(block && all(block, 1, kept));
		memset(block, 1, size < 32 * MIB ? size : 32 * MIB);
		if (size < 64 * KIB)
			CHECK(large_bytes() == before);
		else
			CHECK(large_bytes() >= before + size && large_bytes() <= before + size * 9 / 8 + 64 * KIB);
		has = size < 32 * MIB ? size : 32 * MIB;
	}
	free(block);
	return 1;
}

int a_block_that_grows_by_pages_keeps_its_bytes(void)
{
	size_t size, middle, moves = 0, before = large_bytes();
	uint32_t *block = NULL;

	for (size = 64 * KIB; size <= 16 * MIB; size += 4 * KIB) {
		uint32_t *new = realloc(block, size);

		CHECK(new);
		moves += new != block;
		block = new;
		block[size / 4 - 1] = size;
		/* The bytes of the first and the middle step. */
		middle = size / 2 / (4 * KIB) * (4 * KIB);
		CHECK(block[16 * KIB - 1] == 64 * KIB);
		CHECK(middle < 64 * KIB || block[middle / 4 - 1] == middle);
	}
	/* The pages after it are free: it does not move. */
	CHECK(moves < 8);
	free(block);
	CHECK(large_bytes() == before);
	return 1;
}

int malloc_trim_releases_free_blocks_and_mallinfo_agrees(void)
{
	static char text[65536];
	struct mallinfo2 info;
	void *blocks[32];
	FILE *stream;
	size_t at;

	malloc_trim(0);
	for (at = 0; at < COUNT(blocks); at++)
		memset(blocks[at] = malloc(MIB), 1, MIB);
	/* A second time, so that the drop-in keeps free memory. */
	for (at = 0; at < COUNT(blocks); at++)
		free(blocks[at]);
	for (at = 0; at < COUNT(blocks); at++)
		memset(blocks[at] = malloc(MIB), 1, MIB);
	info = mallinfo2();
	CHECK(info.hblks >= 32 && info.hblkhd >= 32 * MIB);
	for (at = 0; at < COUNT(blocks); at++)
		free(blocks[at]);
	CHECK(mallinfo2().keepcost >= 16 * MIB);
	CHECK(malloc_trim(0) == 1);
	/* glibc's share of both sums is small. */
	CHECK(mallinfo2().keepcost < MIB);
	stream = fmemopen(text, sizeof(text), "w");
	CHECK(stream && malloc_info(0, stream) == 0);
	fclose(stream);
	CHECK(strstr(text, "<freelist>") && strstr(text, "</freelist>"));
	CHECK(!strcmp(strstr(text, "</malloc>"), "</malloc>\n"));
	CHECK(mallopt(M_MMAP_THRESHOLD, 128 * 1024) == 1);
	return 1;
}

/* Fills @text with what malloc_stats() writes to standard error. Returns whether it could. */
static int statistics(char *text, size_t size)
{
	int ends[2], was = dup(STDERR_FILENO);
	ssize_t length = -1;

	if (was >= 0 && !pipe(ends)) {
		dup2(ends[1], STDERR_FILENO);
		malloc_stats();
		fflush(stderr);
		dup2(was, STDERR_FILENO);
		close(ends[1]);
		length = read(ends[0], text, size - 1);
		close(ends[0]);
	}
	close(was);
	text[length > 0 ? length : 0] = '\0';
	return length > 0;
}

int statistics_of_the_c_library_count_large_blocks(void)
{
	static char text[4096];
	struct mallinfo2 before = mallinfo2(), after;
	const char *line;
	char *block = malloc(5 * MIB);

	CHECK(block);
	memset(block, 1, 5 * MIB);
	after = mallinfo2();
	CHECK(after.hblks == before.hblks + 1 && after.hblkhd == before.hblkhd + 5 * MIB);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
	CHECK((size_t)mallinfo().hblks == after.hblks && (size_t)mallinfo().hblkhd == after.hblkhd);
#pragma GCC diagnostic pop
	/* The C library's own numbers come first. */
	CHECK(statistics(text, sizeof(text)) && strstr(text, "Arena 0:"));
	line = strstr(text, "freelist arena:\nlive blocks      = ");
	CHECK(line && strtoull(strchr(line, '=') + 1, NULL, 10) == after.hblks);
	line = strstr(line, "live bytes       = ");
	CHECK(line && strtoull(strchr(line, '=') + 1, NULL, 10) == after.hblkhd);
	free(block);
	CHECK(mallinfo2().hblkhd == before.hblkhd);
	return 1;
}

int free_memory_of_a_burst_is_released(void)
{
	void *blocks[64];
	size_t at, before;

	malloc_trim(0);
	before = mallinfo2().keepcost;
	for (at = 0; at < COUNT(blocks); at++)
		memset(blocks[at] = malloc(300 * KIB), 1, 300 * KIB);
	for (at = 0; at < COUNT(blocks); at++)
		free(blocks[at]);
	CHECK(mallinfo2().keepcost <= before + MIB);
	return 1;
}

int a_program_that_works_in_steps_keeps_what_it_needs_again(void)
{
	void *blocks[64];
	size_t at;
	int step;

	for (step = 0; step < 4; step++) {
		struct rusage use;
		long faults;

		getrusage(RUSAGE_SELF, &use);
		faults = use.ru_minflt;
		for (at = 0; at < COUNT(blocks); at++)
			memset(blocks[at] = malloc(300 * KIB), 1, 300 * KIB);
		for (at = 0; at < COUNT(blocks); at++)
			free(blocks[at]);
		getrusage(RUSAGE_SELF, &use);
		/* 4,800 pages are touched each time. */
		CHECK(step < 2 || use.ru_minflt - faults < 96);
	}
	CHECK(mallinfo2().keepcost >= 16 * MIB);
	return 1;
}
