# SPDX-License-Identifier: GPL-2.0
# mimalloc's own tests, of the standard interface: its stress of threads, and its cases call by call.
tests=/usr/src/mimalloc/test
# mimalloc's names of the standard functions, and functions made of these.
cat >mimalloc.h <<'C'
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#define MI_ALIGNMENT_MAX (1UL << 20)
#define mi_option_disable(option) ((void)0)
#define mi_malloc malloc
#define mi_calloc calloc
#define mi_free free
#define mi_realloc realloc
#define mi_reallocarray reallocarray
#define mi_usable_size malloc_usable_size
#define mi_posix_memalign posix_memalign
#define mi_memalign memalign
#define mi_realpath realpath
#define mi_malloc_aligned(size, align) memalign(align, size)
static inline void *mi_zalloc_aligned(size_t size, size_t align)
{
	void *block = memalign(align, size);

	return block ? memset(block, 0, size) : NULL;
}
C
touch mimalloc-types.h
# Without the tests of mimalloc's own functions: heaps, and blocks of which an inner address is aligned.
sed -e '/^  CHECK_BODY("\(malloc_aligned11\|malloc-aligned-at[12]\)")/,/^  }/d' -e '/^  CHECK("heap_/d' \
	-e '/^bool test_heap[12]() {/,/^}/d' "$tests/test-api.c" >test-api.c
# Unoptimised, as a compiler removes a malloc() whose block nothing uses. calloc0 and realloc-sizezero fail with
# and without the library: glibc has other rules there.
gcc -O0 -I. -I"$tests" -o test-api test-api.c && ./test-api 2>&1 | sed "s|$PWD||"
gcc -O1 -DNDEBUG -DUSE_STD_MALLOC -pthread -o stress "$tests/test-stress.c" && ./stress 8 20 10
