/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mistakes that a compiler finds by the attributes of freelist_client.h: the one with the number
 * MISTAKE; 0 is none. tests/scripts/make compiles it; it is not run.
 */
#include "freelist_client.h"

#include <stdlib.h>
#include <string.h>

int main(void)
{
	struct freelist_heap *heap = freelist_heap_open(NULL);
	char *block;

	if (!heap)
		return 1;
	block = (char *)freelist_malloc(heap, 100);
	if (!block)
		return 1;
#if MISTAKE == 1 /* -Wmismatched-dealloc */
	free(block);
#elif MISTAKE == 2 /* -Wmismatched-dealloc */
	freelist_free(heap, block);
	free(heap);
	return 0;
#elif MISTAKE == 3 /* -Wunused-result */
	freelist_realloc(heap, block, 200);
#elif MISTAKE == 4 /* -Wnonnull */
	freelist_free(NULL, block);
#elif MISTAKE == 5 /* -Warray-bounds= */
	memset(block, 1, 101);
	freelist_free(heap, block);
#elif MISTAKE == 6 /* -Wuse-after-free */
	freelist_free(heap, block);
	block[0] = 1;
#else
	freelist_free(heap, block);
#endif
	freelist_heap_close(heap);
	return 0;
}
