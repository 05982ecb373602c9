/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The functions that the tests of libfreelist_malloc.so share, and the promises of each file of
 * client-malloc.
 */
#ifndef FREELIST_TEST_MALLOC_H
#define FREELIST_TEST_MALLOC_H

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Prints a check that failed, with its line, and returns 0: the promise does not hold. */
#define CHECK(condition)                                                           \
	do {                                                                       \
		if (!(condition)) {                                                \
			printf("    # %s:%d: %s (errno %d)\n", __FILE__, __LINE__, \
			       #condition, errno);                                 \
			fflush(stdout);                                            \
			return 0;                                                  \
		}                                                                  \
	} while (0)

/* A test, by its name. `holds` returns whether it holds. */
struct promise {
	const char *name;
	int (*holds)(void);
};
#define PROMISE(name) { #name, name }

/* The last block that use() was called with. */
extern void *volatile sink;

/* Returns @block, and hides from the compiler that it is never read. */
void *use(void *block);

/* Returns the bytes of large blocks in the arena. glibc counts blocks that it maps itself, too: none here. */
size_t large_bytes(void);

/* Returns whether each of the @size bytes is @byte. */
int all(const void *block, int byte, size_t size);

/* Waits for a child and returns its status. */
int child_status(pid_t child);

/* Waits for a child and returns whether it ended with status 0. */
int went_well(pid_t child);

/* Returns a line of the statistics of all arenas. */
size_t module_says(const char *name);

/* Runs this program again for one promise, with more variables in its environment, up to NULL. Returns
 * whether the promise holds. */
int again(const char *promise, ...);

/* The promises. Each returns whether it holds. malloc_blocks.c: */
int large_blocks_are_in_the_arena_and_small_ones_are_not(void);
int memory_is_allocated_when_it_is_touched(void);
int a_block_from_before_main_is_whole(void);
int calloc_is_zero_where_memory_was_used_before(void);
int each_alignment_is_kept_and_holds_no_more_than_the_block(void);
int impossible_sizes_and_alignments_fail_as_in_the_c_library(void);
int sizes_of_0_bytes_are_as_in_the_c_library(void);
int a_resized_block_keeps_its_bytes_and_no_more_memory_than_it_needs(void);
int a_block_that_grows_by_pages_keeps_its_bytes(void);
int malloc_trim_releases_free_blocks_and_mallinfo_agrees(void);
int statistics_of_the_c_library_count_large_blocks(void);
int free_memory_of_a_burst_is_released(void);
int a_program_that_works_in_steps_keeps_what_it_needs_again(void);

/* malloc_misuse.c */
int an_invalid_free_aborts_with_a_line_that_names_the_address(void);

/* malloc_fork.c */
int a_forked_child_has_a_copy_and_both_continue(void);
int a_child_has_no_more_memory_than_its_parents_blocks(void);
int a_fork_without_memory_for_a_copy_fails_and_leaves_nothing(void);
int forks_beside_threads_that_allocate_copy_whole_blocks(void);
int a_fork_copies_bytes_that_handlers_wrote(void);
int every_way_to_run_another_program_works(void);
int a_child_of_a_bare_system_call_shares_no_block_with_its_parent(void);
int with_fork_share_a_child_reads_and_may_not_write(void);

/* malloc_process.c */
int a_setuid_program_has_all_blocks_from_the_c_library(void);
int the_c_library_has_all_blocks(void);
int a_program_that_closes_all_files_continues(void);
int a_program_cannot_get_the_number_of_the_device(void);
int another_file_under_the_number_is_left_alone(void);
int little_address_space_suffices(void);
int locked_memory_within_a_limit_suffices(void);
int strict_overcommit_suffices(void);
int a_block_grows_beyond_what_is_mapped(void);
int threads_call_functions_for_the_first_time(void);
int above_a_limit_the_c_library_serves(void);
int above_a_limit_strict_programs_get_enomem(void);
int a_larger_threshold_leaves_more_to_the_c_library(void);

#endif
