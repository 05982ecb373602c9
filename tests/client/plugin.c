/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A plugin that the static library is linked into. client.c loads and unloads it.
 */
#include "freelist_client.h"

/* Uses a heap, some memory of which this thread caches. Returns NULL on success. */
void *use_heap(void *device);

void *use_heap(void *device)
{
	struct freelist_heap *heap = freelist_heap_open((const char *)device);
	int i;

	if (!heap)
		return (void *)"no heap";
	for (i = 1; i < 100; i++)
		freelist_free(heap, freelist_malloc(heap, (size_t)i * 10));
	return NULL;
}
