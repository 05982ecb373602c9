/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Benchmarks of the kernel's own allocators, for comparison.
 */
#ifndef _FREELIST_BASELINE_H
#define _FREELIST_BASELINE_H

#include <linux/types.h>

struct kmem_cache;
struct page;

void freelist_bench_lock(unsigned int count);
struct kmem_cache *freelist_bench_cache_create(unsigned int size);
void freelist_bench_cache_destroy(struct kmem_cache *cache);
bool freelist_bench_cache_pairs(struct kmem_cache *cache, unsigned int count);
bool freelist_bench_cache_bulk(struct kmem_cache *cache, void **objects, unsigned int number,
			       unsigned int count);
bool freelist_bench_kmalloc_pairs(unsigned long size, unsigned int count);
bool freelist_bench_page_pairs(unsigned int count);
unsigned int freelist_bench_pages_take(struct page **pages, unsigned int number);
void freelist_bench_pages_give(struct page **pages, unsigned int number);

#endif /* _FREELIST_BASELINE_H */
