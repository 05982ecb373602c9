// SPDX-License-Identifier: GPL-2.0-only
/*
 * Benchmarks of the kernel's own allocators, to which the module's costs are
 * compared. In the build for benchmarks only.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "baseline.h"

/* Taken by freelist_bench_lock() alone. */
static DEFINE_SPINLOCK(lock);

/* Takes and releases an uncontended spin lock @count times. */
void freelist_bench_lock(unsigned int count)
{
	while (count--) {
		spin_lock(&lock);
		spin_unlock(&lock);
	}
}

/* Creates a slab cache for objects of @size bytes. Returns NULL when memory is short. */
struct kmem_cache *freelist_bench_cache_create(unsigned int size)
{
	return kmem_cache_create("freelist_bench", size, 0, SLAB_NO_MERGE, NULL);
}

void freelist_bench_cache_destroy(struct kmem_cache *cache)
{
	kmem_cache_destroy(cache);
}

/* Allocates and frees an object @count times. Returns whether there was memory. */
bool freelist_bench_cache_pairs(struct kmem_cache *cache, unsigned int count)
{
	while (count--) {
		void *object = kmem_cache_alloc(cache, GFP_KERNEL);

		if (!object)
			return false;
		kmem_cache_free(cache, object);
	}
	return true;
}

/* Allocates and frees @number objects at a time, @count times. @objects has room for them. */
bool freelist_bench_cache_bulk(struct kmem_cache *cache, void **objects, unsigned int number,
			       unsigned int count)
{
	while (count--) {
		if (!kmem_cache_alloc_bulk(cache, GFP_KERNEL, number, objects))
			return false;
		kmem_cache_free_bulk(cache, number, objects);
	}
	return true;
}

/* Allocates and frees @size bytes @count times. Returns whether there was memory. */
bool freelist_bench_kmalloc_pairs(unsigned long size, unsigned int count)
{
	while (count--) {
		void *object = kmalloc(size, GFP_KERNEL);

		if (!object)
			return false;
		kfree(object);
	}
	return true;
}

/* Allocates and frees a zeroed page @count times. Returns whether there was memory. */
bool freelist_bench_page_pairs(unsigned int count)
{
	while (count--) {
		struct page *page = alloc_page(GFP_HIGHUSER | __GFP_ZERO);

		if (!page)
			return false;
		__free_page(page);
	}
	return true;
}

/* Allocates @number zeroed pages. Returns how many it got. */
unsigned int freelist_bench_pages_take(struct page **pages, unsigned int number)
{
	unsigned int taken;

	for (taken = 0; taken < number; taken++) {
		pages[taken] = alloc_page(GFP_HIGHUSER | __GFP_ZERO);
		if (!pages[taken])
			break;
	}
	return taken;
}

/* Frees @number pages. */
void freelist_bench_pages_give(struct page **pages, unsigned int number)
{
	while (number--)
		__free_page(pages[number]);
}
