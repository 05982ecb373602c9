// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory for metadata, charged to the cgroup of an arena: trees from a slab cache, tables in whole
 * pages, and buffers that live as long as a call.
 */
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "metadata.h"

/* The trees of divided pages: objects of one size, in a cache that slabinfo shows by name. */
static struct kmem_cache *trees;

/* Creates the cache of trees of @size bytes. Returns -ENOMEM when memory is short. May sleep. */
int freelist_trees_create(unsigned int size)
{
	trees = kmem_cache_create("freelist_tree", size, __alignof__(u64),
				  SLAB_ACCOUNT | SLAB_NO_MERGE, NULL);
	return trees ? 0 : -ENOMEM;
}

/* Destroys the cache. The kernel warns of trees that are left. */
void freelist_trees_destroy(void)
{
	kmem_cache_destroy(trees);
}

/* Returns NULL when memory is short, or @size is not that of the cache. May sleep. */
void *freelist_tree_alloc(unsigned long size)
{
	return size == kmem_cache_size(trees) ? kmem_cache_alloc(trees, METADATA_GFP) : NULL;
}

void freelist_tree_free(void *tree)
{
	kmem_cache_free(trees, tree);
}

/* Allocates whole pages for a table. Returns NULL when memory is short. May sleep. */
void *freelist_table_alloc(unsigned long size)
{
	/* vmalloc tries high orders first, which may not reclaim: neither may they wake kswapd. */
	return __vmalloc(size, METADATA_GFP & ~__GFP_KSWAPD_RECLAIM);
}

/* Allocates a buffer. Returns NULL when memory is short. May sleep. */
void *freelist_buffer_alloc(unsigned long size)
{
	return kmalloc(size, METADATA_GFP);
}
