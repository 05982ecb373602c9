/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The functions that the tests of libfreelist_malloc.so share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "malloc_test.h"

void *volatile sink;

void *use(void *block)
{
	sink = block;
	return block;
}

size_t large_bytes(void)
{
	return mallinfo2().hblkhd;
}

int all(const void *block, int byte, size_t size)
{
	const unsigned char *bytes = block;

	return size == 0 || (bytes[0] == byte && !memcmp(bytes, bytes + 1, size - 1));
}

int child_status(pid_t child)
{
	int status = -1;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

int went_well(pid_t child)
{
	return child > 0 && child_status(child) == 0;
}

size_t module_says(const char *name)
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
