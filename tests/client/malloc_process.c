/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Programs that change their files, limits and memory, and the drop-in's environment variables.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "malloc_test.h"

int a_program_that_closes_all_files_continues(void)
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
	/* A child has the blocks of the arena without a file, and of the new one. */
	child = fork();
	if (child == 0)
		_exit(!all(old, 'o', MIB) || !all(later, 'l', 2 * MIB));
	CHECK(went_well(child));
	free(old);
	CHECK(large_bytes() == before + MIB);
	/* Any number of times; the C library serves in the end. */
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

int a_program_cannot_get_the_number_of_the_device(void)
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

int another_file_under_the_number_is_left_alone(void)
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

int little_address_space_suffices(void)
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

int locked_memory_within_a_limit_suffices(void)
{
	struct rlimit most = { 64 * MIB, 64 * MIB };
	char *block = malloc(MIB);

	/* Without the right to lock any amount of memory. */
	CHECK(block && !setrlimit(RLIMIT_MEMLOCK, &most) && !setuid(65534));
	CHECK(!mlockall(MCL_CURRENT | MCL_FUTURE));
	free(block);
	block = malloc(8 * MIB);
	CHECK(block);
	memset(block, 1, 8 * MIB);
	free(block);
	return 1;
}

int strict_overcommit_suffices(void)
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

int a_block_grows_beyond_what_is_mapped(void)
{
	/* A new process has little mapped, and nothing after its last block. */
	unsigned char *block = malloc(MIB), *new;
	size_t at, steps[] = { 3 * MIB, 20 * MIB, 64 * MIB };

	memset(block, 1, MIB);
	for (at = 0; at < COUNT(steps); at++) {
		new = realloc(block, steps[at]);
		CHECK(new && all(new, 1, at ? steps[at - 1] : MIB));
		/* It is at the same address, and all of it has memory. */
		CHECK(new == block);
		memset(block, 1, steps[at]);
		CHECK(large_bytes() >= steps[at]);
	}
	free(block);
	return 1;
}

/* Calls one of the functions that pass small blocks on, and prints which if it fails. */
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

/* Returns 1 if two threads that call functions for the first time at once are both served. */
int threads_call_functions_for_the_first_time(void)
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

int above_a_limit_the_c_library_serves(void)
{
	char *blocks[24];
	size_t at, before = large_bytes();

	for (at = 0; at < COUNT(blocks); at++) {
		blocks[at] = malloc(MIB);
		CHECK(blocks[at]);
		memset(blocks[at], (int)at, MIB);
	}
	/* The block from before main is there too. glibc maps all others. */
	CHECK(before + 24 * MIB <= large_bytes() && large_bytes() <= before + 24 * (MIB + 8 * KIB));
	for (at = 0; at < COUNT(blocks); at++) {
		CHECK(all(blocks[at], (int)at, MIB));
		free(blocks[at]);
	}
	return 1;
}

int above_a_limit_strict_programs_get_enomem(void)
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

int a_larger_threshold_leaves_more_to_the_c_library(void)
{
	size_t before = mallinfo2().hblks;
	void *block = malloc(100 * KIB), *large = malloc(MIB);

	CHECK(mallinfo2().hblks == before + 1);
	free(block);
	free(large);
	return 1;
}

/* Whether this process has the device open. */
static int has_device(void)
{
	DIR *files = opendir("/proc/self/fd");
	struct dirent *entry;
	int has = 0;

	while (files && (entry = readdir(files))) {
		char target[64] = "";

		if (readlinkat(dirfd(files), entry->d_name, target, sizeof(target) - 1) > 0)
			has |= !strcmp(target, "/dev/freelist");
	}
	if (files)
		closedir(files);
	return has;
}

static int copied(const char *from, const char *to, mode_t mode)
{
	static char buffer[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	int good = in >= 0 && out >= 0;
	ssize_t length;

	while (good && (length = read(in, buffer, sizeof(buffer))) != 0)
		good = length > 0 && write(out, buffer, (size_t)length) == length;
	good = good && !fchmod(out, mode);
	close(in);
	close(out);
	return good;
}

int the_c_library_has_all_blocks(void)
{
	char *block = malloc(4 * MIB);

	CHECK(block && getauxval(AT_SECURE) && !has_device());
	memset(block, 1, 4 * MIB);
	block = realloc(block, 8 * MIB);
	CHECK(block && all(block, 1, 4 * MIB) && !has_device());
	free(block);
	return 1;
}

int a_setuid_program_has_all_blocks_from_the_c_library(void)
{
	/* The loader takes libraries of a setuid program from the system's directories alone. */
	static const char library[] = "/usr/lib/libfreelist_malloc.so.0", program[] = "/usr/lib/privileged";
	void *block = use(malloc(MIB));
	pid_t child;

	CHECK(block && has_device() && !getauxval(AT_SECURE));
	free(block);
	mkdir("/usr", 0755);
	mkdir("/usr/lib", 0755);
	CHECK(copied("libfreelist_malloc.so.0", library, 0755) && copied("/proc/self/exe", program, 04755));
	child = fork();
	if (child == 0) {
		if (!setgid(65534) && !setuid(65534))
			execl(program, "malloc", "the_c_library_has_all_blocks", (char *)NULL);
		_exit(127);
	}
	CHECK(went_well(child));
	CHECK(!unlink(program) && !unlink(library));
	return 1;
}
