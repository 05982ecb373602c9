/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Children of a program: by fork(), beside threads, by vfork() and by a bare call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "malloc_test.h"

int a_forked_child_has_a_copy_and_both_continue(void)
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
		/* A grandchild has the same blocks, with all of their bytes. */
		child = fork();
		if (child == 0)
			_exit(!all(mine, 'c', 5 * MIB) || !all(new, 'd', 8 * MIB));
		if (!went_well(child))
			_exit(6);
		free(mine);
		free(new);
		/* Blocks of the parent that the child has freed are not counted any more. */
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

int a_child_has_no_more_memory_than_its_parents_blocks(void)
{
	/* Address space lies between the end of each such block and the next one. */
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
		/* The pages that it wrote were its own already. */
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

int a_fork_without_memory_for_a_copy_fails_and_leaves_nothing(void)
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

int forks_beside_threads_that_allocate_copy_whole_blocks(void)
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

/* The program's handlers run before the copy is made, and after it is in place. */
int a_fork_copies_bytes_that_handlers_wrote(void)
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

int every_way_to_run_another_program_works(void)
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

int a_child_of_a_bare_system_call_shares_no_block_with_its_parent(void)
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
	/* It does not have its parent's blocks. */
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

int with_fork_share_a_child_reads_and_may_not_write(void)
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
