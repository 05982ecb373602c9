// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory for metadata, charged to a cgroup.
 */
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "memcg.h"

/* The trees of divided pages: objects of one size, in a cache of their own that slabinfo names. */
static struct kmem_cache *trees;

int freelist_trees_create(unsigned int size)
{
	trees = kmem_cache_create("freelist_tree", size, __alignof__(u64),
				  SLAB_ACCOUNT | SLAB_NO_MERGE, NULL);
	return trees ? 0 : -ENOMEM;
}

/* None of them is left. The kernel warns of those that are. */
void freelist_trees_destroy(void)
{
	kmem_cache_destroy(trees);
}

/* NULL when memory is short, or @size is not that of the cache. */
void *freelist_tree_alloc(unsigned long size)
{
	return size == kmem_cache_size(trees) ? kmem_cache_alloc(trees, METADATA_GFP) : NULL;
}

void freelist_tree_free(void *tree)
{
	kmem_cache_free(trees, tree);
}

void *freelist_table_alloc(unsigned long size)
{
	/* It tries high orders, without reclaim but for this. */
	return __vmalloc(size, METADATA_GFP & ~__GFP_KSWAPD_RECLAIM);
}

void *freelist_buffer_alloc(unsigned long size)
{
	return kmalloc(size, METADATA_GFP);
}
