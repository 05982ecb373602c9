/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Invalid frees: the drop-in aborts the program, with a line that names the address.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "malloc_test.h"

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

/* Returns 1 if @misuse ends a child by SIGABRT, with @line on its standard error unless that is NULL. */
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

int an_invalid_free_aborts_with_a_line_that_names_the_address(void)
{
	CHECK(aborts(double_free, "freelist: invalid or double free of 0x"));
	CHECK(aborts(free_inside, "freelist: invalid or double free of 0x"));
	CHECK(aborts(free_far_inside, "freelist: invalid or double free of 0x"));
	CHECK(aborts(resize_inside, "freelist: realloc of 0x"));
	/* The C library prints the message, possibly to a terminal. */
	CHECK(aborts(free_of_the_stack, NULL));
	return 1;
}
