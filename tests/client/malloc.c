/* SPDX-License-Identifier: GPL-2.0 */
/*
 * libfreelist_malloc.so as programs use it: it is linked before the C library, and
 * this program calls malloc() and its family. Prints KTAP.
 *
 * What the environment decides is tried by running this program again, with the name
 * of a promise as its argument.
 *
 * Peer: reports jemalloc#2402, jemalloc#2019, jemalloc#1805, jemalloc#315, gperftools#499,
 * snmalloc#630; scudo wrappers_c.Reallocarray.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A failed check is told with its line, and the promise is broken. */
#define CHECK(condition)                                                           \
	do {                                                                       \
		if (!(condition)) {                                                \
			printf("    # line %d: %s (errno %d)\n", __LINE__,         \
			       #condition, errno);                                 \
			fflush(stdout);                                            \
			return 0;                                                  \
		}                                                                  \
	} while (0)

/* Keeps the compiler from knowing that a block is never looked at. */
static void *volatile sink;

static void *use(void *block)
{
	sink = block;
	return block;
}

/* Bytes of large blocks in the arena. glibc counts what it maps itself, too: none here. */
static size_t large_bytes(void)
{
	return mallinfo2().hblkhd;
}

/* What all arenas hold, in bytes, as the module says. */
static size_t held_bytes(void)
{
	FILE *stats = fopen("/sys/kernel/debug/freelist/stats", "r");
	char name[64];
	unsigned long long value, held = 0;

	while (stats && fscanf(stats, "%63s %llu", name, &value) == 2)
		if (!strcmp(name, "held_bytes"))
			held = value;
	if (stats)
		fclose(stats);
	return (size_t)held;
}

static int all(const void *block, int byte, size_t size)
{
	const unsigned char *bytes = block;

	return size == 0 || (bytes[0] == byte && !memcmp(bytes, bytes + 1, size - 1));
}

static int child_status(pid_t child)
{
	int status = -1;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* Whether a child ended with status 0. */
static int went_well(pid_t child)
{
	return child > 0 && child_status(child) == 0;
}

/* Runs this program again for one promise, with more of an environment. */
static int again(const char *promise, ...)
{
	pid_t child = fork();
	const char *pair;
	va_list pairs;

	if (child == 0) {
		va_start(pairs, promise);
		while ((pair = va_arg(pairs, const char *)))
			putenv((char *)pair);
		va_end(pairs);
		execl("/proc/self/exe", "malloc", promise, (char *)NULL);
		_exit(127);
	}
	return went_well(child);
}

/* --- blocks --- */

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

static int large_blocks_are_in_the_arena_and_small_ones_are_not(void)
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

static int memory_comes_when_it_is_touched(void)
{
	size_t before, at;
	unsigned char *block, *longer, *behind;

	malloc_trim(0);
	before = held_bytes();
	block = malloc(64 * MIB);
	CHECK(block && before && held_bytes() == before);
	for (at = 0; at < 4 * MIB; at++)
		block[at] = (unsigned char)at;
	CHECK(held_bytes() >= before + 4 * MIB && held_bytes() <= before + 6 * MIB);
	/* What lies behind it has it copied: what was touched, alone. */
	behind = malloc(64 * KIB);
	longer = realloc(block, 128 * MIB);
	CHECK(longer && longer != block && held_bytes() <= before + 12 * MIB);
	free(behind);
	for (at = 0; at < 4 * MIB; at++)
		CHECK(longer[at] == (unsigned char)at);
	CHECK(longer[127 * MIB] == 0);
	free(longer);
	malloc_trim(0);
	CHECK(held_bytes() == before);
	return 1;
}

static int a_block_from_before_main_is_whole(void)
{
	CHECK(early_block && all(early_block, 'e', 3 * MIB));
	late_block = malloc(3 * MIB);
	CHECK(late_block);
	return 1;
}

static int calloc_is_zero_where_memory_was_used_before(void)
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

static int each_alignment_is_kept_and_holds_no_more_than_the_block(void)
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
			/* glibc's own for the small ones may be mapped; the others are in the arena. */
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

static int what_cannot_be_is_refused_as_the_c_library_refuses_it(void)
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
	/* A release keeps what the last call left. */
	block = malloc(MIB);
	errno = 99;
	free(block);
	CHECK(errno == 99);
	return 1;
}

static int sizes_of_nothing_are_as_in_the_c_library(void)
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

static int a_resized_block_keeps_its_bytes_and_no_more_memory_than_it_needs(void)
{
	/* As much as an arena may hold on this machine, too: it is not half of its memory. */
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

static int a_block_that_grows_by_pages_keeps_its_bytes(void)
{
	size_t size, middle, moves = 0, before = large_bytes();
	uint32_t *block = NULL;

	for (size = 64 * KIB; size <= 16 * MIB; size += 4 * KIB) {
		uint32_t *new = realloc(block, size);

		CHECK(new);
		moves += new != block;
		block = new;
		block[size / 4 - 1] = size;
		/* What the first and the middle step wrote. */
		middle = size / 2 / (4 * KIB) * (4 * KIB);
		CHECK(block[16 * KIB - 1] == 64 * KIB);
		CHECK(middle < 64 * KIB || block[middle / 4 - 1] == middle);
	}
	/* The pages behind it are free: it does not move. */
	CHECK(moves < 8);
	free(block);
	CHECK(large_bytes() == before);
	return 1;
}

static int what_is_free_goes_back_and_the_numbers_say_so(void)
{
	static char text[65536];
	struct mallinfo2 info;
	void *blocks[32];
	FILE *stream;
	size_t at;

	malloc_trim(0);
	for (at = 0; at < COUNT(blocks); at++)
		memset(blocks[at] = malloc(MIB), 1, MIB);
	/* A second time, so that what is free is worth keeping. */
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
	/* glibc's own part of the two is small. */
	CHECK(mallinfo2().keepcost < MIB);
	stream = fmemopen(text, sizeof(text), "w");
	CHECK(stream && malloc_info(0, stream) == 0);
	fclose(stream);
	CHECK(strstr(text, "<freelist>") && strstr(text, "</freelist>"));
	CHECK(!strcmp(strstr(text, "</malloc>"), "</malloc>\n"));
	CHECK(mallopt(M_MMAP_THRESHOLD, 128 * 1024) == 1);
	return 1;
}

static int a_burst_leaves_nothing_behind(void)
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

static int a_program_that_works_in_steps_keeps_what_it_needs_again(void)
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

/* --- misuse --- */

static void double_free(void)
{
	void *block = malloc(MIB);

	free(block);
	free(use(block));
}

static void free_inside(void)
{
	free((char *)use(malloc(MIB)) + 4096);
}

static void free_far_inside(void)
{
	free((char *)use(malloc(MIB)) + 64 * KIB);
}

static void resize_inside(void)
{
	use(realloc((char *)use(malloc(MIB)) + 64 * KIB, 2 * MIB));
}

static void free_of_the_stack(void)
{
	char local[64];

	free((char *)use(local) + 16);
}

/* Whether @misuse ends a child by SIGABRT, with @line on its standard error unless that is NULL. */
static int aborts(void (*misuse)(void), const char *line)
{
	char said[1024] = "";
	int pipes[2], status;
	ssize_t length;
	pid_t child;

	CHECK(!pipe(pipes));
	child = fork();
	if (child == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		dup2(pipes[1], 2);
		misuse();
		_exit(0);
	}
	close(pipes[1]);
	length = read(pipes[0], said, sizeof(said) - 1);
	close(pipes[0]);
	status = child_status(child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	CHECK(!line || (length > 0 && strstr(said, line)));
	return 1;
}

static int a_wrong_release_aborts_with_a_line_that_names_the_address(void)
{
	CHECK(aborts(double_free, "freelist: invalid or double free of 0x"));
	CHECK(aborts(free_inside, "freelist: invalid or double free of 0x"));
	CHECK(aborts(free_far_inside, "freelist: invalid or double free of 0x"));
	CHECK(aborts(resize_inside, "freelist: realloc of 0x"));
	/* The C library's to say, where it likes: it may take a terminal. */
	CHECK(aborts(free_of_the_stack, NULL));
	return 1;
}

/* --- forks --- */

static int a_forked_child_has_a_copy_and_both_go_on(void)
{
	char *mine = malloc(5 * MIB), *other = malloc(200 * KIB), *gone = malloc(MIB);
	size_t before = large_bytes();
	pid_t child;

	memset(mine, 'a', 5 * MIB);
	memset(other, 'b', 200 * KIB);
	free(gone);
	child = fork();
	if (child == 0) {
		char *new;

		if (!all(mine, 'a', 5 * MIB) || !all(other, 'b', 200 * KIB))
			_exit(1);
		if (large_bytes() != before - MIB)
			_exit(2);
		memset(mine, 'c', 5 * MIB);
		new = malloc(8 * MIB);
		if (!new)
			_exit(3);
		memset(new, 'd', 8 * MIB);
		if (!all(mine, 'c', 5 * MIB) || !all(other, 'b', 200 * KIB))
			_exit(4);
		free(other);
		mine = realloc(mine, 6 * MIB);
		if (!mine || !all(mine, 'c', 5 * MIB) || !all(new, 'd', 8 * MIB))
			_exit(5);
		/* A grandchild has the same again, and the rest of it. */
		child = fork();
		if (child == 0)
			_exit(!all(mine, 'c', 5 * MIB) || !all(new, 'd', 8 * MIB));
		if (!went_well(child))
			_exit(6);
		free(mine);
		free(new);
		/* Two of the parent's three went, which it has had before. */
		exit(large_bytes() == before - MIB - 5 * MIB - 200 * KIB ? 0 : 7);
	}
	memset(other, 'x', 200 * KIB);
	gone = malloc(3 * MIB);
	memset(gone, 'y', 3 * MIB);
	child = child_status(child);
	if (child)
		printf("    # the child ended with %#x\n", child);
	CHECK(child == 0);
	CHECK(all(mine, 'a', 5 * MIB) && all(other, 'x', 200 * KIB) && all(gone, 'y', 3 * MIB));
	free(mine);
	free(other);
	free(gone);
	return 1;
}

/* What the module says that all arenas have: a line of its statistics. */
static size_t module_says(const char *name)
{
	FILE *file = fopen("/sys/kernel/debug/freelist/stats", "r");
	char line[256], found[64];
	size_t value = 0, has;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %zu", found, &has) == 2 && !strcmp(found, name))
			value = has;
	if (file)
		fclose(file);
	return value;
}

static int a_child_has_no_more_memory_than_its_parents_blocks(void)
{
	/* Between the ends of such blocks and the next ones lies address space. */
	char *blocks[32];
	size_t at, arenas, held;
	pid_t child;

	for (at = 0; at < COUNT(blocks); at++)
		memset(blocks[at] = malloc(MIB + 4 * KIB), 'h', MIB + 4 * KIB);
	arenas = module_says("arenas");
	held = module_says("held_bytes");
	CHECK(arenas > 0 && held >= 32 * MIB);
	child = fork();
	if (child == 0) {
		size_t has = module_says("held_bytes") - held;

		if (module_says("arenas") != arenas + 1 || has < 32 * MIB || has > large_bytes() + 64 * KIB)
			_exit(1);
		for (at = 0; at < COUNT(blocks); at++)
			memset(blocks[at], 'H', MIB);
		/* What it wrote was its own already. */
		if (module_says("held_bytes") != held + has)
			_exit(2);
		/* The copy serves. */
		memset(malloc(MIB), 'n', MIB);
		_exit(module_says("arenas") != arenas + 1 ? 3 : 0);
	}
	CHECK(went_well(child));
	CHECK(module_says("arenas") == arenas && module_says("held_bytes") == held);
	for (at = 0; at < COUNT(blocks); at++) {
		CHECK(all(blocks[at], 'h', MIB + 4 * KIB));
		free(blocks[at]);
	}
	return 1;
}

static int a_fork_without_room_for_a_copy_fails_and_leaves_nothing(void)
{
	struct rlimit before, none;
	char *block = malloc(3 * MIB);
	size_t held, arenas;
	pid_t child;
	int next;

	memset(block, 'f', 3 * MIB);
	/* No number is left for the copy's file. */
	CHECK(!getrlimit(RLIMIT_NOFILE, &before));
	next = dup(1);
	CHECK(next >= 0);
	close(next);
	held = module_says("held_bytes");
	arenas = module_says("arenas");
	none = before;
	none.rlim_cur = (rlim_t)next;
	none.rlim_max = (rlim_t)next;
	CHECK(!setrlimit(RLIMIT_NOFILE, &none));
	errno = 0;
	child = fork();
	if (child == 0)
		_exit(1);
	CHECK(child == -1 && errno == ENOMEM);
	CHECK(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
	CHECK(!setrlimit(RLIMIT_NOFILE, &before));
	CHECK(module_says("arenas") == arenas && module_says("held_bytes") == held);
	CHECK(all(block, 'f', 3 * MIB));
	child = fork();
	if (child == 0)
		_exit(!all(block, 'f', 3 * MIB));
	CHECK(went_well(child));
	free(block);
	return 1;
}

static volatile int stop;

static void *churn(void *argument)
{
	unsigned int seed = (unsigned int)(uintptr_t)argument;
	unsigned char *blocks[16] = { NULL };
	size_t sizes[16];
	size_t at;

	while (!stop) {
		at = rand_r(&seed) % COUNT(blocks);
		if (blocks[at]) {
			if (!all(blocks[at], (int)at, sizes[at]))
				return "a block has other bytes than its owner's";
			if (rand_r(&seed) % 4 == 0) {
				size_t size = 1 + rand_r(&seed) % (500 * KIB);

				blocks[at] = realloc(blocks[at], size);
				if (!blocks[at] || !all(blocks[at], (int)at, size < sizes[at] ? size : sizes[at]))
					return "a resized block has other bytes";
				sizes[at] = size;
				memset(blocks[at], (int)at, size);
				continue;
			}
			free(blocks[at]);
			blocks[at] = NULL;
		} else {
			sizes[at] = 1 + rand_r(&seed) % (500 * KIB);
			blocks[at] = rand_r(&seed) % 2 ? malloc(sizes[at]) : calloc(1, sizes[at]);
			if (!blocks[at])
				return "no memory";
			memset(blocks[at], (int)at, sizes[at]);
		}
	}
	for (at = 0; at < COUNT(blocks); at++)
		free(blocks[at]);
	return NULL;
}

static int forks_beside_threads_that_allocate_find_all_in_order(void)
{
	size_t before = large_bytes();
	pthread_t threads[4];
	char *mine = malloc(MIB);
	void *wrong;
	size_t at;
	int round;

	memset(mine, 'm', MIB);
	stop = 0;
	for (at = 0; at < COUNT(threads); at++)
		CHECK(!pthread_create(&threads[at], NULL, churn, (void *)(at + 1)));
	for (round = 0; round < 30; round++) {
		pid_t child = fork();

		if (child == 0) {
			char *new;

			if (!all(mine, 'm', MIB))
				_exit(1);
			new = malloc(2 * MIB);
			memset(new, 'n', 2 * MIB);
			free(mine);
			_exit(!all(new, 'n', 2 * MIB));
		}
		CHECK(went_well(child));
		usleep(1000);
	}
	stop = 1;
	for (at = 0; at < COUNT(threads); at++) {
		pthread_join(threads[at], &wrong);
		if (wrong)
			printf("    # %s\n", (char *)wrong);
		CHECK(!wrong);
	}
	CHECK(all(mine, 'm', MIB));
	free(mine);
	CHECK(large_bytes() == before);
	return 1;
}

static char *handled;

static void write_before(void)
{
	if (handled)
		handled[MIB - 1] = 'h';
}

static void read_after(void)
{
	if (handled && (handled[0] != 't' || handled[MIB - 1] != 'h'))
		_exit(9);
}

static void *fork_in_a_thread(void *argument)
{
	pid_t child = fork();

	(void)argument;
	if (child == 0)
		_exit(handled[0] != 't' || handled[MIB - 1] != 'h');
	return went_well(child) ? NULL : "the child had other bytes";
}

/* Handlers of others run before the copy is made, and after it is there. */
static int a_fork_of_a_thread_has_what_handlers_wrote(void)
{
	pthread_t thread;
	void *wrong;

	handled = malloc(MIB);
	memset(handled, 't', MIB);
	CHECK(!pthread_atfork(write_before, NULL, read_after));
	CHECK(!pthread_create(&thread, NULL, fork_in_a_thread, NULL));
	CHECK(!pthread_join(thread, &wrong) && !wrong);
	free(handled);
	handled = NULL;
	return 1;
}

static int another_program_is_run_by_any_way(void)
{
	char *block = malloc(2 * MIB);
	pid_t child;
	FILE *pipe;
	char line[64] = "";

	memset(block, 'v', 2 * MIB);
	CHECK(system("exit 3") == 3 << 8);
	child = vfork();
	if (child == 0) {
		execl("/proc/self/exe", "malloc", "nothing", (char *)NULL);
		_exit(127);
	}
	CHECK(went_well(child));
	pipe = popen("echo out", "r");
	CHECK(pipe && fgets(line, sizeof(line), pipe) && !strcmp(line, "out\n"));
	pclose(pipe);
	CHECK(all(block, 'v', 2 * MIB));
	free(block);
	return 1;
}

static int a_child_of_a_bare_call_takes_and_gives_nothing(void)
{
	char *block = malloc(MIB), *new;
	size_t before;
	pid_t child;
	int status;

	memset(block, 'r', MIB);
	before = large_bytes();
	child = (pid_t)syscall(SYS_fork);
	if (child == 0) {
		free(block);
		new = malloc(MIB);
		if (!new)
			_exit(1);
		memset(new, 's', MIB);
		_exit(!all(new, 's', MIB));
	}
	CHECK(went_well(child));
	CHECK(all(block, 'r', MIB) && large_bytes() == before);
	/* Its parent's blocks are not there. */
	child = (pid_t)syscall(SYS_fork);
	if (child == 0) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		_exit(block[0] == 'r');
	}
	status = child_status(child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	free(block);
	CHECK(large_bytes() == before - MIB);
	return 1;
}

static int with_sharing_a_child_reads_and_may_not_write(void)
{
	volatile char *block = malloc(MIB);
	struct rlimit none = { 0, 0 };
	pid_t child;
	int status;

	memset((void *)block, 'p', MIB);
	child = fork();
	if (child == 0) {
		char *new = malloc(MIB);

		memset(new, 'q', MIB);
		free((void *)block);
		_exit(block[0] != 'p' || !all(new, 'q', MIB));
	}
	CHECK(went_well(child));
	child = fork();
	if (child == 0) {
		setrlimit(RLIMIT_CORE, &none);
		block[0] = 'z';
		_exit(0);
	}
	status = child_status(child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK(all((void *)block, 'p', MIB));
	free((void *)block);
	return 1;
}

/* --- what a program does to its files, limits and memory --- */

static int a_program_that_closes_all_files_goes_on(void)
{
	char *old = malloc(MIB), *later;
	size_t before, round;
	pid_t child;

	memset(old, 'o', MIB);
	CHECK(!close_range(3, ~0u, 0));
	before = large_bytes();
	later = malloc(2 * MIB);
	CHECK(later && large_bytes() == before + 2 * MIB);
	memset(later, 'l', 2 * MIB);
	CHECK(all(old, 'o', MIB));
	/* A child has what lies in the arena without a file, and in the new one. */
	child = fork();
	if (child == 0)
		_exit(!all(old, 'o', MIB) || !all(later, 'l', 2 * MIB));
	CHECK(went_well(child));
	free(old);
	CHECK(large_bytes() == before + MIB);
	/* As often as it likes; at last the C library has them. */
	for (round = 0; round < 20; round++) {
		CHECK(!close_range(3, ~0u, 0));
		old = malloc(MIB);
		CHECK(old);
		memset(old, (int)round, MIB);
		CHECK(!close_range(3, ~0u, 0));
		CHECK(all(old, (int)round, MIB) && all(later, 'l', 2 * MIB));
		free(old);
	}
	free(later);
	return 1;
}

static int a_program_cannot_come_by_the_devices_number(void)
{
	char *block = malloc(MIB), path[64], to[64];
	struct rlimit files;
	int number, found = -1;

	CHECK(!getrlimit(RLIMIT_NOFILE, &files));
	for (number = 0; number < 8192; number++) {
		ssize_t length;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
		length = readlink(path, to, sizeof(to) - 1);
		if (length > 0) {
			to[length] = 0;
			if (!strcmp(to, "/dev/freelist"))
				found = number;
		}
	}
	CHECK(found >= 0);
	if (files.rlim_cur < files.rlim_max && files.rlim_cur <= 4096) {
		CHECK((rlim_t)found >= files.rlim_cur);
		CHECK(dup2(1, found) < 0 && errno == EBADF);
	}
	/* Closed one by one, as daemons do, up to the limit. */
	for (number = 3; (rlim_t)number < files.rlim_cur && number < 4096; number++)
		close(number);
	memset(block, 'c', MIB);
	free(block);
	block = malloc(MIB);
	CHECK(block && large_bytes() >= MIB);
	free(block);
	return 1;
}

static int another_file_under_the_number_is_left_alone(void)
{
	struct rlimit files, more;
	char *block = malloc(MIB), *later;
	char path[64], to[64];
	int number;

	/* A program that raises its limit can reach it. */
	CHECK(!getrlimit(RLIMIT_NOFILE, &files));
	more = files;
	more.rlim_cur = files.rlim_cur + 100 < files.rlim_max ? files.rlim_cur + 100 : files.rlim_max;
	CHECK(!setrlimit(RLIMIT_NOFILE, &more));
	for (number = 3; number < 8192; number++) {
		ssize_t length;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
		length = readlink(path, to, sizeof(to) - 1);
		if (length == 13 && !memcmp(to, "/dev/freelist", 13))
			CHECK(dup2(0, number) == number);
	}
	memset(block, 'w', MIB);
	later = malloc(MIB);
	CHECK(later);
	memset(later, 'W', MIB);
	CHECK(all(block, 'w', MIB));
	free(block);
	free(later);
	return 1;
}

static int little_address_space_suffices(void)
{
	struct rlimit most = { 400 * MIB, 400 * MIB };
	size_t before = large_bytes();
	char *block;

	CHECK(!setrlimit(RLIMIT_AS, &most));
	block = malloc(20 * MIB);
	CHECK(block && large_bytes() >= before + 20 * MIB);
	memset(block, 1, 20 * MIB);
	CHECK(!malloc(2000 * MIB) && errno == ENOMEM);
	free(block);
	return 1;
}

static int locked_memory_within_a_limit_suffices(void)
{
	struct rlimit most = { 64 * MIB, 64 * MIB };
	char *block = malloc(MIB);

	/* Without the right to lock what it likes. */
	CHECK(block && !setrlimit(RLIMIT_MEMLOCK, &most) && !setuid(65534));
	CHECK(!mlockall(MCL_CURRENT | MCL_FUTURE));
	free(block);
	block = malloc(8 * MIB);
	CHECK(block);
	memset(block, 1, 8 * MIB);
	free(block);
	return 1;
}

static int strict_overcommit_suffices(void)
{
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDWR), right;
	char was, *block;

	CHECK(fd >= 0 && read(fd, &was, 1) == 1 && pwrite(fd, "2", 1, 0) == 1);
	block = malloc(64 * MIB);
	right = block && large_bytes() >= 64 * MIB;
	pwrite(fd, &was, 1, 0);
	close(fd);
	CHECK(right);
	memset(block, 1, 64 * MIB);
	free(block);
	return 1;
}

static int a_block_grows_beyond_what_is_mapped(void)
{
	/* Of a new process little is mapped yet, and nothing lies behind its last block. */
	unsigned char *block = malloc(MIB), *new;
	size_t at, steps[] = { 3 * MIB, 20 * MIB, 64 * MIB };

	memset(block, 1, MIB);
	for (at = 0; at < COUNT(steps); at++) {
		new = realloc(block, steps[at]);
		CHECK(new && all(new, 1, at ? steps[at - 1] : MIB));
		/* It is where it was, and all of it is memory. */
		CHECK(new == block);
		memset(block, 1, steps[at]);
		CHECK(large_bytes() >= steps[at]);
	}
	free(block);
	return 1;
}

/* Calls one of the functions that pass small blocks on, and says which if it fails. */
static const char *call_once(size_t which)
{
	static const char *const names[] = {
		"malloc_usable_size", "memalign", "aligned_alloc", "posix_memalign",
		"calloc", "realloc", "valloc", "pvalloc",
	};
	void *block = NULL;
	int good = 1;

	switch (which) {
	case 0:
		block = malloc(5000);
		good = malloc_usable_size(block) >= 5000;
		break;
	case 1:
		block = memalign(64, 5000);
		break;
	case 2:
		block = aligned_alloc(64, 6400);
		break;
	case 3:
		good = !posix_memalign(&block, 64, 5000);
		break;
	case 4:
		block = calloc(50, 100);
		break;
	case 5:
		block = realloc(malloc(100), 9000);
		break;
	case 6:
		block = valloc(5000);
		break;
	default:
		block = pvalloc(5000);
	}
	good = good && block;
	free(block);
	return good ? NULL : names[which];
}

static atomic_size_t arrived;

/* Calls every other function, each at the moment at which the other thread calls its own. */
static void *first_calls(void *argument)
{
	size_t round;
	const char *wrong = NULL;

	for (round = 0; round < 4; round++) {
		atomic_fetch_add(&arrived, 1);
		while (atomic_load(&arrived) < 2 * (round + 1))
			;
		if (!wrong)
			wrong = call_once(2 * round + (size_t)argument);
	}
	return (void *)wrong;
}

/* Whether two threads that call functions for the first time at once get what they ask for. */
static int threads_call_functions_for_the_first_time(void)
{
	pthread_t threads[2];
	size_t at;
	void *wrong;

	for (at = 0; at < COUNT(threads); at++)
		CHECK(!pthread_create(&threads[at], NULL, first_calls, (void *)at));
	for (at = 0; at < COUNT(threads); at++) {
		CHECK(!pthread_join(threads[at], &wrong));
		if (wrong)
			fprintf(stderr, "    # %s failed\n", (char *)wrong);
		CHECK(!wrong);
	}
	return 1;
}

static int above_a_limit_the_c_library_serves(void)
{
	char *blocks[24];
	size_t at, before = large_bytes();

	for (at = 0; at < COUNT(blocks); at++) {
		blocks[at] = malloc(MIB);
		CHECK(blocks[at]);
		memset(blocks[at], (int)at, MIB);
	}
	/* The one from before main is there too. All beyond is mapped by glibc. */
	CHECK(before + 24 * MIB <= large_bytes() && large_bytes() <= before + 24 * (MIB + 8 * KIB));
	for (at = 0; at < COUNT(blocks); at++) {
		CHECK(all(blocks[at], (int)at, MIB));
		free(blocks[at]);
	}
	return 1;
}

static int above_a_limit_strict_programs_get_nothing(void)
{
	void *blocks[24] = { NULL };
	size_t at = 0;

	errno = 0;
	while (at < COUNT(blocks) && (blocks[at] = malloc(MIB)))
		at++;
	CHECK(at >= 4 && at <= 8 && errno == ENOMEM);
	while (at--)
		free(blocks[at]);
	CHECK(use(malloc(1000)));
	free(sink);
	return 1;
}

static int a_larger_threshold_leaves_more_to_the_c_library(void)
{
	size_t before = mallinfo2().hblks;
	void *block = malloc(100 * KIB), *large = malloc(MIB);

	CHECK(mallinfo2().hblks == before + 1);
	free(block);
	free(large);
	return 1;
}

static int nothing(void)
{
	return 1;
}

static int what_the_environment_decides(void)
{
	int round;

	CHECK(again("with_sharing_a_child_reads_and_may_not_write", "FREELIST_FORK=share", NULL));
	CHECK(again("a_burst_leaves_nothing_behind", NULL));
	CHECK(again("a_program_that_works_in_steps_keeps_what_it_needs_again", NULL));
	CHECK(again("a_program_that_closes_all_files_goes_on", NULL));
	CHECK(again("a_program_cannot_come_by_the_devices_number", NULL));
	CHECK(again("another_file_under_the_number_is_left_alone", "FREELIST_QUIET=1", NULL));
	CHECK(again("little_address_space_suffices", NULL));
	CHECK(again("locked_memory_within_a_limit_suffices", NULL));
	CHECK(again("strict_overcommit_suffices", NULL));
	CHECK(again("a_block_grows_beyond_what_is_mapped", NULL));
	/* What is called for the first time is so in a new process only. */
	for (round = 0; round < 40; round++)
		CHECK(again("threads_call_functions_for_the_first_time", NULL));
	CHECK(again("above_a_limit_the_c_library_serves", "FREELIST_LIMIT=8M", NULL));
	CHECK(again("above_a_limit_strict_programs_get_nothing", "FREELIST_LIMIT=8M", "FREELIST_STRICT=1", NULL));
	CHECK(again("a_larger_threshold_leaves_more_to_the_c_library", "FREELIST_THRESHOLD=128K", NULL));
	CHECK(again("a_forked_child_has_a_copy_and_both_go_on", NULL));
	return 1;
}

#define PROMISE(name) { #name, name }

static const struct promise {
	const char *name;
	int (*holds)(void);
} promises[] = {
	PROMISE(large_blocks_are_in_the_arena_and_small_ones_are_not),
	PROMISE(memory_comes_when_it_is_touched),
	PROMISE(a_block_from_before_main_is_whole),
	PROMISE(calloc_is_zero_where_memory_was_used_before),
	PROMISE(each_alignment_is_kept_and_holds_no_more_than_the_block),
	PROMISE(what_cannot_be_is_refused_as_the_c_library_refuses_it),
	PROMISE(sizes_of_nothing_are_as_in_the_c_library),
	PROMISE(a_resized_block_keeps_its_bytes_and_no_more_memory_than_it_needs),
	PROMISE(a_block_that_grows_by_pages_keeps_its_bytes),
	PROMISE(what_is_free_goes_back_and_the_numbers_say_so),
	PROMISE(a_wrong_release_aborts_with_a_line_that_names_the_address),
	PROMISE(a_forked_child_has_a_copy_and_both_go_on),
	PROMISE(a_child_has_no_more_memory_than_its_parents_blocks),
	PROMISE(a_fork_without_room_for_a_copy_fails_and_leaves_nothing),
	PROMISE(a_fork_of_a_thread_has_what_handlers_wrote),
	PROMISE(forks_beside_threads_that_allocate_find_all_in_order),
	PROMISE(another_program_is_run_by_any_way),
	PROMISE(a_child_of_a_bare_call_takes_and_gives_nothing),
	PROMISE(what_the_environment_decides),
};

/* Run by what_the_environment_decides() only. */
static const struct promise others[] = {
	PROMISE(a_burst_leaves_nothing_behind),
	PROMISE(a_program_that_works_in_steps_keeps_what_it_needs_again),
	PROMISE(with_sharing_a_child_reads_and_may_not_write),
	PROMISE(a_program_that_closes_all_files_goes_on),
	PROMISE(a_program_cannot_come_by_the_devices_number),
	PROMISE(another_file_under_the_number_is_left_alone),
	PROMISE(little_address_space_suffices),
	PROMISE(locked_memory_within_a_limit_suffices),
	PROMISE(strict_overcommit_suffices),
	PROMISE(a_block_grows_beyond_what_is_mapped),
	PROMISE(threads_call_functions_for_the_first_time),
	PROMISE(above_a_limit_the_c_library_serves),
	PROMISE(above_a_limit_strict_programs_get_nothing),
	PROMISE(a_larger_threshold_leaves_more_to_the_c_library),
	PROMISE(a_forked_child_has_a_copy_and_both_go_on),
	PROMISE(nothing),
};

int main(int argc, char **argv)
{
	size_t at;
	int failed = 0;

	if (argc > 1) {
		for (at = 0; at < COUNT(others); at++)
			if (!strcmp(argv[1], others[at].name))
				return !others[at].holds();
		fprintf(stderr, "malloc: no promise is named %s\n", argv[1]);
		return 2;
	}
	printf("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: freelist_malloc\n    1..%zu\n",
	       COUNT(promises));
	fflush(stdout);
	for (at = 0; at < COUNT(promises); at++) {
		int holds = promises[at].holds();

		failed |= !holds;
		printf("    %s %zu %s\n", holds ? "ok" : "not ok", at + 1, promises[at].name);
		fflush(stdout);
	}
	printf("%s 1 freelist_malloc\n", failed ? "not ok" : "ok");
	return failed;
}
