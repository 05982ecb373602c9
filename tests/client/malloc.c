/* SPDX-License-Identifier: GPL-2.0 */
/*
 * libfreelist_malloc.so as programs use it: it is linked before the C library, and
 * this program calls malloc() and its family. Prints KTAP.
 *
 * Promises that depend on the environment are tested by running this program again, with
 * the name of the promise as its argument.
 *
 * Prior art: reports jemalloc#2402, jemalloc#2019, jemalloc#1805, jemalloc#315, gperftools#499,
 * snmalloc#630; scudo wrappers_c.Reallocarray.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "malloc_test.h"

int again(const char *promise, ...)
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

static int nothing(void)
{
	return 1;
}

static int each_environment_variable_has_its_effect(void)
{
	int round;

	CHECK(again("with_fork_share_a_child_reads_and_may_not_write", "FREELIST_FORK=share", NULL));
	CHECK(again("free_memory_of_a_burst_is_released", NULL));
	CHECK(again("a_program_that_works_in_steps_keeps_what_it_needs_again", NULL));
	CHECK(again("a_program_that_closes_all_files_continues", NULL));
	CHECK(again("a_program_cannot_get_the_number_of_the_device", NULL));
	CHECK(again("another_file_under_the_number_is_left_alone", "FREELIST_QUIET=1", NULL));
	CHECK(again("little_address_space_suffices", NULL));
	CHECK(again("locked_memory_within_a_limit_suffices", NULL));
	CHECK(again("strict_overcommit_suffices", NULL));
	CHECK(again("a_block_grows_beyond_what_is_mapped", NULL));
	/* A first call is possible in a new process only. */
	for (round = 0; round < 40; round++)
		CHECK(again("threads_call_functions_for_the_first_time", NULL));
	CHECK(again("above_a_limit_the_c_library_serves", "FREELIST_LIMIT=8M", NULL));
	CHECK(again("above_a_limit_strict_programs_get_enomem", "FREELIST_LIMIT=8M", "FREELIST_STRICT=1", NULL));
	CHECK(again("a_larger_threshold_leaves_more_to_the_c_library", "FREELIST_THRESHOLD=128K", NULL));
	CHECK(again("a_forked_child_has_a_copy_and_both_continue", NULL));
	return 1;
}

static const struct promise promises[] = {
	PROMISE(large_blocks_are_in_the_arena_and_small_ones_are_not),
	PROMISE(memory_is_allocated_when_it_is_touched),
	PROMISE(a_block_from_before_main_is_whole),
	PROMISE(calloc_is_zero_where_memory_was_used_before),
	PROMISE(each_alignment_is_kept_and_holds_no_more_than_the_block),
	PROMISE(impossible_sizes_and_alignments_fail_as_in_the_c_library),
	PROMISE(sizes_of_0_bytes_are_as_in_the_c_library),
	PROMISE(a_resized_block_keeps_its_bytes_and_no_more_memory_than_it_needs),
	PROMISE(a_block_that_grows_by_pages_keeps_its_bytes),
	PROMISE(malloc_trim_releases_free_blocks_and_mallinfo_agrees),
	PROMISE(statistics_of_the_c_library_count_large_blocks),
	PROMISE(an_invalid_free_aborts_with_a_line_that_names_the_address),
	PROMISE(a_forked_child_has_a_copy_and_both_continue),
	PROMISE(a_child_has_no_more_memory_than_its_parents_blocks),
	PROMISE(a_fork_without_memory_for_a_copy_fails_and_leaves_nothing),
	PROMISE(a_fork_copies_bytes_that_handlers_wrote),
	PROMISE(forks_beside_threads_that_allocate_copy_whole_blocks),
	PROMISE(every_way_to_run_another_program_works),
	PROMISE(a_child_of_a_bare_system_call_shares_no_block_with_its_parent),
	PROMISE(a_setuid_program_has_all_blocks_from_the_c_library),
	PROMISE(each_environment_variable_has_its_effect),
};

/* Run by each_environment_variable_has_its_effect() only. */
static const struct promise others[] = {
	PROMISE(free_memory_of_a_burst_is_released),
	PROMISE(a_program_that_works_in_steps_keeps_what_it_needs_again),
	PROMISE(with_fork_share_a_child_reads_and_may_not_write),
	PROMISE(the_c_library_has_all_blocks),
	PROMISE(a_program_that_closes_all_files_continues),
	PROMISE(a_program_cannot_get_the_number_of_the_device),
	PROMISE(another_file_under_the_number_is_left_alone),
	PROMISE(little_address_space_suffices),
	PROMISE(locked_memory_within_a_limit_suffices),
	PROMISE(strict_overcommit_suffices),
	PROMISE(a_block_grows_beyond_what_is_mapped),
	PROMISE(threads_call_functions_for_the_first_time),
	PROMISE(above_a_limit_the_c_library_serves),
	PROMISE(above_a_limit_strict_programs_get_enomem),
	PROMISE(a_larger_threshold_leaves_more_to_the_c_library),
	PROMISE(a_forked_child_has_a_copy_and_both_continue),
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
