// SPDX-License-Identifier: GPL-2.0
/*
 * Forks of a program that has libfreelist_malloc.so and no live large block.
 *
 * The cost of a fork is counted in instructions: in a VM whose clock counts them (scripts/vm
 * --icount). Elsewhere there is nothing to measure. Each figure is of a process of its own
 * that forks a child which ends at once, and waits for it: the least of several rounds.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "malloc_test.h"

#define ROUNDS 9
/*
 * The cost of a fork with an open arena and no live block, over one without an arena: the aim,
 * and the most that is allowed. Two builds had 1.034 and 0.990.
 */
#define AIM 1.01
#define MOST 1.06

static void *filled(size_t size)
{
	void *block = malloc(size);

	if (!block)
		exit(3);
	return use(memset(block, 1, size));
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long fork_once(void)
{
	long long start = now();
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	if (!went_well(child))
		exit(4);
	return now() - start;
}

/* Prints the least of several rounds. `before` is done first in each of them. */
static int measured(void (*before)(void))
{
	long long least = 0, cost;
	int round;

	for (round = 0; round < ROUNDS; round++) {
		before();
		cost = fork_once();
		if (!least || cost < least)
			least = cost;
	}
	printf("%lld\n", least);
	return 0;
}

static void nothing(void)
{
}

/* A program that works in steps: a large block is allocated and freed before each fork. */
static void step(void)
{
	free(filled(MIB));
}

static int state(const char *name)
{
	if (!strcmp(name, "no arena"))
		return measured(nothing);
	if (!strcmp(name, "freed")) {
		free(filled(8 * MIB));
		return measured(nothing);
	}
	if (!strcmp(name, "steps"))
		return measured(step);
	if (!strcmp(name, "live")) {
		filled(64 * KIB);
		return measured(nothing);
	}
	if (!strcmp(name, "256 MiB live")) {
		size_t at;

		for (at = 0; at < 256; at++)
			filled(MIB);
		return measured(nothing);
	}
	return 2;
}

/* Returns the cost that a process of its own in that state prints. */
static double cost_of(const char *name)
{
	double cost = -1;
	char command[64];
	FILE *output;

	snprintf(command, sizeof(command), "exec ./client-forks '%s'", name);
	output = popen(command, "r");
	if (!output || fscanf(output, "%lf", &cost) != 1)
		cost = -1;
	if (output)
		pclose(output);
	return cost;
}

/* Returns the lowest number of the device in this process, or -1. */
static int device_number(void)
{
	char path[64], to[64];
	int number;

	for (number = 0; number < 8192; number++) {
		ssize_t length;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", number);
		length = readlink(path, to, sizeof(to));
		if (length == 13 && !memcmp(to, "/dev/freelist", 13))
			return number;
	}
	return -1;
}

static int serves(void)
{
	size_t before = large_bytes();
	unsigned char *block = filled(2 * MIB);
	int served = large_bytes() == before + 2 * MIB && block[0] == 1 && block[2 * MIB - 1] == 1;

	free(block);
	return served && large_bytes() == before;
}

/* The child's arena is its own, and a grandchild's too. */
static int a_child_of_a_process_without_live_blocks_has_an_arena_of_its_own(void)
{
	size_t arenas;
	pid_t child;

	free(filled(8 * MIB));
	arenas = module_says("arenas");
	CHECK(arenas > 0);
	child = fork();
	if (child == 0) {
		char *block;

		/* The child has no arena before it needs one. */
		if (module_says("arenas") != arenas)
			_exit(1);
		child = fork();
		if (child == 0)
			_exit(!serves());
		if (!went_well(child))
			_exit(2);
		block = filled(MIB);
		if (module_says("arenas") != arenas + 1 || !serves())
			_exit(3);
		child = fork();
		if (child == 0)
			_exit(block[MIB - 1] != 1 || !serves());
		if (!went_well(child))
			_exit(4);
		free(block);
		_exit(large_bytes() != 0);
	}
	CHECK(went_well(child));
	CHECK(module_says("arenas") == arenas && serves() && module_says("arenas") == arenas);
	return 1;
}

/* The device is at a low number from the fork to the next large block. */
static int the_device_is_out_of_reach_again_after_a_fork(void)
{
	struct rlimit files;
	int number, round;

	CHECK(!getrlimit(RLIMIT_NOFILE, &files));
	for (round = 0; round < 3; round++) {
		pid_t child;

		free(filled(MIB));
		number = device_number();
		CHECK(number >= 0);
		if (files.rlim_cur < files.rlim_max && files.rlim_cur <= 4096)
			CHECK((rlim_t)number >= files.rlim_cur);
		child = fork();
		if (child == 0)
			_exit(device_number() > 63);
		CHECK(went_well(child));
		CHECK(device_number() >= 0 && device_number() < 64);
	}
	CHECK(serves() && device_number() == number);
	return 1;
}

/* No block is lost with the closed device. */
static int a_program_that_closes_the_number_after_a_fork_continues(void)
{
	int round, number, other, second;

	for (round = 0; round < 20; round++) {
		pid_t child;

		free(filled(MIB));
		child = fork();
		if (child == 0)
			_exit(close_range(3, ~0u, 0) || !serves());
		CHECK(went_well(child));
		number = device_number();
		CHECK(number >= 0);
		/* The number is closed, another file's, or another arena's. */
		close(number);
		other = round % 3 == 0 ? -1 : open(round % 3 == 1 ? "/dev/null" : "/dev/freelist", O_RDWR);
		if (other >= 0)
			CHECK(dup2(other, number) == number);
		CHECK(serves());
		if (other >= 0) {
			second = fcntl(number, F_GETFD);
			CHECK(second == 0);
			close(number);
			close(other);
		}
	}
	return 1;
}

static void *allocate(void *argument)
{
	(void)argument;
	return filled(MIB);
}

/* Threads that wake the arena at once, in parent and child. */
static int threads_after_a_fork_are_served(void)
{
	pthread_t threads[4];
	void *blocks[4];
	size_t at;
	pid_t child;
	int round;

	for (round = 0; round < 10; round++) {
		free(filled(MIB));
		child = fork();
		for (at = 0; at < COUNT(threads); at++)
			CHECK(!pthread_create(&threads[at], NULL, allocate, NULL));
		for (at = 0; at < COUNT(threads); at++)
			CHECK(!pthread_join(threads[at], &blocks[at]));
		CHECK(large_bytes() == COUNT(threads) * MIB);
		for (at = 0; at < COUNT(threads); at++)
			free(blocks[at]);
		CHECK(large_bytes() == 0);
		if (child == 0)
			_exit(!serves());
		CHECK(went_well(child));
	}
	return 1;
}

static int a_fork_without_live_blocks_costs_as_much_as_without_an_arena(void)
{
	double none, freed, steps, live, full;

	/* With random addresses the number of page tables that a fork copies is random, too. */
	CHECK(personality(ADDR_NO_RANDOMIZE) >= 0);
	none = cost_of("no arena");
	freed = cost_of("freed");
	steps = cost_of("steps");
	live = cost_of("live");
	full = cost_of("256 MiB live");
	printf("    # a fork: %.0f instructions without an arena, %.0f with one that has no live block (%.4f), "
	       "%.0f (%.4f) after a step, %.0f (%.4f) with 64 KiB live, %.0f with 256 MiB\n",
	       none, freed, freed / none, steps, steps / none, live, live / none, full);
	printf("    # trust: fork_with_none_live %.4f ratio <=%.2f\n", freed / none, AIM);
	CHECK(none > 0 && freed > 0 && steps > 0 && live > 0 && full > 0);
	CHECK(freed / none <= MOST);
	return 1;
}

static const struct promise promises[] = {
	PROMISE(a_child_of_a_process_without_live_blocks_has_an_arena_of_its_own),
	PROMISE(the_device_is_out_of_reach_again_after_a_fork),
	PROMISE(a_program_that_closes_the_number_after_a_fork_continues),
	PROMISE(threads_after_a_fork_are_served),
	PROMISE(a_fork_without_live_blocks_costs_as_much_as_without_an_arena),
};

/* Each test runs in a process of its own. */
static int holds(const struct promise *promise)
{
	pid_t child = fork();

	if (child == 0) {
		int holds = promise->holds();

		fflush(stdout);
		_exit(!holds);
	}
	return went_well(child);
}

int main(int argc, char **argv)
{
	size_t at;
	int failed = 0;

	if (argc > 1)
		return state(argv[1]);
	printf("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: freelist_forks\n    1..%zu\n",
	       COUNT(promises));
	for (at = 0; at < COUNT(promises); at++) {
		const char *skipped = "";
		int held = 1;

		fflush(stdout);
		if (at == COUNT(promises) - 1 && !getenv("FREELIST_ICOUNT"))
			skipped = " # SKIP the clock counts no instructions here; needs scripts/vm --icount";
		else
			held = holds(&promises[at]);
		failed |= !held;
		printf("    %s %zu %s%s\n", held ? "ok" : "not ok", at + 1, promises[at].name, skipped);
	}
	printf("%s 1 freelist_forks\n", failed ? "not ok" : "ok");
	return failed;
}
