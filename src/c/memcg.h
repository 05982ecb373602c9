/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory cgroups, and allocations that are charged to them.
 */
#ifndef _FREELIST_MEMCG_H
#define _FREELIST_MEMCG_H

#include <linux/types.h>

struct mem_cgroup;

/* Charged; reclaims, but neither calls the OOM killer nor warns of a failure. */
#define METADATA_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

struct mem_cgroup *freelist_memcg_get(void);
void freelist_memcg_put(struct mem_cgroup *memcg);
struct mem_cgroup *freelist_memcg_enter(struct mem_cgroup *memcg);

int freelist_trees_create(unsigned int size);
void freelist_trees_destroy(void);
void *freelist_tree_alloc(unsigned long size);
void freelist_tree_free(void *tree);
void *freelist_table_alloc(unsigned long size);
void *freelist_buffer_alloc(unsigned long size);

#endif /* _FREELIST_MEMCG_H */
