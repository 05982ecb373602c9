/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The C library of the client, as a C or C++ program uses it. Prints KTAP.
 * tests/device has the other tests of the heap.
 *
 * Usage: client [DEVICE]	(default /dev/freelist)
 *
 * Prior art: reports mimalloc#288.
 */
/* First and alone: the header includes what it needs itself. */
#include "freelist_client.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int number, failed;

static void result(int passed, const char *promise)
{
	if (!passed) {
		printf("    # %s: errno %d (%s)\n", promise, errno, strerror(errno));
		failed = 1;
	}
	printf("    %s %d %s\n", passed ? "ok" : "not ok", ++number, promise);
	/* A child must not print the buffer again. */
	fflush(stdout);
}

/* Returns 1 if all bytes of a block are @byte. */
static int all(const void *block, int byte, size_t size)
{
	const unsigned char *bytes = (const unsigned char *)block;
	size_t at;

	for (at = 0; at < size; at++)
		if (bytes[at] != byte)
			return 0;
	return 1;
}

/* Returns the live blocks of the arena, after a trim of the heap. */
static unsigned long long live(struct freelist_heap *heap)
{
	struct freelist_stat stat;
	uint64_t freed;

	if (freelist_heap_trim(heap, 0, &freed) || freelist_heap_stat(heap, &stat))
		return ~0ull;
	return stat.live_blocks;
}

static const size_t sizes[] = { 0, 1, 16, 17, 100, 4096, 32768, 32769, 100000, 3 << 20 };

static int blocks_hold_what_is_written(struct freelist_heap *heap)
{
	void *blocks[COUNT(sizes)];
	size_t i;
	int good = 1;

	for (i = 0; i < COUNT(sizes); i++) {
		blocks[i] = freelist_malloc(heap, sizes[i]);
		if (!blocks[i] || (uintptr_t)blocks[i] % 16 ||
		    freelist_usable_size(heap, blocks[i]) < sizes[i])
			return 0;
		memset(blocks[i], (int)i, sizes[i]);
	}
	for (i = 0; i < COUNT(sizes); i++) {
		good &= all(blocks[i], (int)i, sizes[i]);
		freelist_free(heap, blocks[i]);
	}
	freelist_free(heap, NULL);
	return good && live(heap) == 0;
}

static int calloc_returns_zeros(struct freelist_heap *heap)
{
	/* Volatile: the compiler warns of a product that it sees to overflow. */
	volatile size_t many = SIZE_MAX / 2 + 2;
	size_t i;
	int good = 1;

	for (i = 1; i < COUNT(sizes); i++) {
		void *block = freelist_malloc(heap, sizes[i]);

		if (!block)
			return 0;
		memset(block, 0xaa, sizes[i]);
		freelist_free(heap, block);
		block = freelist_calloc(heap, sizes[i], 1);
		good &= block && all(block, 0, sizes[i]);
		freelist_free(heap, block);
	}
	errno = 0;
	good &= !freelist_calloc(heap, many, 2) && errno == ENOMEM;
	return good && live(heap) == 0;
}

static int realloc_keeps_what_is_there(struct freelist_heap *heap)
{
	void *block = freelist_realloc(heap, NULL, 10), *same;
	size_t i, size = 10;
	int good = block != NULL;

	for (i = 0; good && i < 2 * COUNT(sizes); i++) {
		size_t next = sizes[i * 7 % COUNT(sizes)];

		memset(block, 0x5a, size);
		block = freelist_realloc(heap, block, next);
		good = block && all(block, 0x5a, size < next ? size : next);
		size = next;
	}
	/* A refused block is unchanged. */
	memset(block, 0x5a, size);
	errno = 0;
	good &= !freelist_realloc(heap, block, (size_t)64 << 30) && errno == ENOMEM &&
		freelist_heap_refused() == E2BIG;
	good &= all(block, 0x5a, size);
	/* A block stays in place within its bytes. */
	size = freelist_usable_size(heap, block);
	same = freelist_realloc(heap, block, size);
	good &= same == block;
	freelist_free(heap, same);
	return good && live(heap) == 0;
}

static int blocks_are_aligned_as_asked_for(struct freelist_heap *heap)
{
	size_t align;
	int good = 1;

	for (align = 1; align <= (size_t)2 << 20; align *= 2) {
		void *block = freelist_aligned_alloc(heap, align, 100);

		good &= block && (uintptr_t)block % align == 0;
		freelist_free(heap, block);
	}
	errno = 0;
	good &= !freelist_aligned_alloc(heap, 24, 100) && errno == EINVAL;
	errno = 0;
	good &= !freelist_aligned_alloc(heap, (size_t)1 << 40, 100) && errno == EINVAL &&
		freelist_heap_refused() == EINVAL;
	return good && live(heap) == 0;
}

static int usable_size_knows_blocks(struct freelist_heap *heap)
{
	char *block = (char *)freelist_malloc(heap, 100);
	int good = block && freelist_usable_size(heap, block) == 112 &&
		   freelist_usable_size(heap, block + 16) == 0 &&
		   freelist_usable_size(heap, NULL) == 0 &&
		   freelist_usable_size(heap, &block) == 0;

	freelist_free(heap, block);
	return good;
}

static int a_trim_says_what_went(struct freelist_heap *heap)
{
	struct freelist_stat stat;
	uint64_t freed = 0;
	int good = live(heap) == 0;
	/* Volatile: the compiler may omit writes to a block that is freed. */
	volatile char *block = (volatile char *)freelist_malloc(heap, 3 << 20);
	size_t at;

	/* Its memory is allocated when it is touched. */
	for (at = 0; block && at < 3 << 20; at += 1024)
		block[at] = 1;
	freelist_free(heap, (void *)block);
	good &= !freelist_heap_trim(heap, 1 << 20, &freed) && freed == 2 << 20;
	good &= !freelist_heap_stat(heap, &stat) && stat.held_bytes == 1 << 20;
	return good;
}

static int a_limit_ends_in_null(struct freelist_heap *heap)
{
	struct freelist_stat stat;
	void *blocks[64], *block;
	size_t i, count = 0;
	int good;

	if (freelist_heap_trim(heap, 0, NULL) || freelist_heap_set_limit(heap, 1 << 20))
		return 0;
	errno = 0;
	while (count < COUNT(blocks) && (block = freelist_malloc(heap, 100000)))
		blocks[count++] = block;
	good = errno == ENOMEM && freelist_heap_refused() == EDQUOT && count > 5 && count < 11;
	for (i = 0; i < count; i++)
		freelist_free(heap, blocks[i]);
	good &= !freelist_heap_stat(heap, &stat) && stat.limit_bytes == 1 << 20;
	return good && live(heap) == 0;
}

static int a_slack_out_of_range_is_refused(struct freelist_heap *heap)
{
	int good = 1;

	errno = 0;
	good &= freelist_heap_set_slack(heap, 0) == -1 && errno == EINVAL;
	errno = 0;
	good &= freelist_heap_set_slack(heap, 1001) == -1 && errno == EINVAL;
	good &= !freelist_heap_set_slack(heap, FREELIST_SLACK_NONE);
	good &= !freelist_heap_set_slack(heap, 1000);
	return good && !freelist_heap_set_slack(heap, 50);
}

static void *free_and_allocate(void *argument)
{
	struct freelist_heap *heap = (struct freelist_heap *)((void **)argument)[0];
	void *block;
	int i;

	freelist_free(heap, ((void **)argument)[1]);
	block = freelist_malloc(heap, 500);
	memset(block, 0x77, 500);
	for (i = 0; i < 10000; i++)
		freelist_free(heap, freelist_malloc(heap, (size_t)i % 3000));
	return block;
}

static int threads_free_what_others_allocated(struct freelist_heap *heap)
{
	pthread_t threads[4];
	void *arguments[4][2], *block;
	int i, good = 1;

	for (i = 0; i < 4; i++) {
		arguments[i][0] = heap;
		arguments[i][1] = freelist_malloc(heap, 500);
		if (pthread_create(&threads[i], NULL, free_and_allocate, arguments[i]))
			return 0;
	}
	for (i = 0; i < 4; i++) {
		good &= !pthread_join(threads[i], &block) && all(block, 0x77, 500);
		freelist_free(heap, block);
	}
	return good && live(heap) == 0;
}

static int a_forked_child_gets_null(struct freelist_heap *heap)
{
	void *block = freelist_malloc(heap, 100);
	int status = 1;
	pid_t child = fork();

	if (child == 0) {
		int good;

		errno = 0;
		good = !freelist_malloc(heap, 100) && errno == ENOMEM &&
			freelist_heap_refused() == EPERM;
		freelist_free(heap, block);
		_exit(!good);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 0;
	freelist_free(heap, block);
	return status == 0 && live(heap) == 0;
}

static int a_heap_that_cannot_be_opened_is_null(void)
{
	int good;

	errno = 0;
	good = !freelist_heap_open("/nonexistent/freelist") && errno == ENOENT;
	errno = 0;
	good &= !freelist_heap_open("/dev/null") && errno == ENOTTY;
	freelist_heap_close(NULL);
	return good;
}

#ifdef PLUGIN
struct plugin {
	void *(*use_heap)(void *);
	pthread_barrier_t used, unloaded;
};

static void *use_plugin(void *argument)
{
	struct plugin *plugin = argument;
	void *wrong = plugin->use_heap(NULL);

	pthread_barrier_wait(&plugin->used);
	pthread_barrier_wait(&plugin->unloaded);
	/* The code that the thread's end would call is unloaded. */
	return wrong;
}

static int a_thread_outlives_a_plugin_with_a_heap(void)
{
	struct plugin plugin;
	void *library = dlopen(PLUGIN, RTLD_NOW), *wrong;
	pthread_t thread;
	int good;

	if (!library)
		return 0;
	*(void **)&plugin.use_heap = dlsym(library, "use_heap");
	pthread_barrier_init(&plugin.used, NULL, 2);
	pthread_barrier_init(&plugin.unloaded, NULL, 2);
	if (pthread_create(&thread, NULL, use_plugin, &plugin))
		return 0;
	pthread_barrier_wait(&plugin.used);
	good = !dlclose(library) && !dlopen(PLUGIN, RTLD_NOW | RTLD_NOLOAD);
	pthread_barrier_wait(&plugin.unloaded);
	return good && !pthread_join(thread, &wrong) && !wrong;
}
#else
/* A program that is linked statically loads nothing. */
static int a_thread_outlives_a_plugin_with_a_heap(void)
{
	return 1;
}
#endif

int main(int argc, char **argv)
{
	struct freelist_heap *heap;

	printf("KTAP version 1\n1..1\n");
	printf("    KTAP version 1\n    # Subtest: freelist_client_c\n    1..14\n");
	heap = freelist_heap_open(argc > 1 ? argv[1] : NULL);
	result(heap != NULL, "a_heap_is_opened");
	if (!heap)
		return 1;
	result(blocks_hold_what_is_written(heap), "blocks_hold_what_is_written");
	result(calloc_returns_zeros(heap), "calloc_returns_zeros");
	result(realloc_keeps_what_is_there(heap), "realloc_keeps_what_is_there");
	result(blocks_are_aligned_as_asked_for(heap), "blocks_are_aligned_as_asked_for");
	result(usable_size_knows_blocks(heap), "usable_size_knows_blocks");
	result(threads_free_what_others_allocated(heap), "threads_free_what_others_allocated");
	result(a_forked_child_gets_null(heap), "a_forked_child_gets_null");
	result(a_trim_says_what_went(heap), "a_trim_says_what_went");
	result(a_limit_ends_in_null(heap), "a_limit_ends_in_null");
	result(a_slack_out_of_range_is_refused(heap), "a_slack_out_of_range_is_refused");
	result(freelist_client_version() == FREELIST_CLIENT_VERSION &&
	       FREELIST_CLIENT_VERSION >= FREELIST_CLIENT_VERSION_OF(0, 1, 0),
	       "header_and_library_are_of_one_version");
	result(a_heap_that_cannot_be_opened_is_null(), "a_heap_that_cannot_be_opened_is_null");
	result(a_thread_outlives_a_plugin_with_a_heap(), "a_thread_outlives_a_plugin_with_a_heap");
	freelist_heap_close(heap);
	printf("%s 1 freelist_client_c\n", failed ? "not ok" : "ok");
	return failed;
}
