/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory for metadata, charged to the cgroup of an arena.
 */
#ifndef _FREELIST_METADATA_H
#define _FREELIST_METADATA_H

/* Charged; reclaims, but neither calls the OOM killer nor warns of a failure. */
#define METADATA_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

int freelist_trees_create(unsigned int size);
void freelist_trees_destroy(void);
void *freelist_tree_alloc(unsigned long size);
void freelist_tree_free(void *tree);
void *freelist_table_alloc(unsigned long size);
void *freelist_buffer_alloc(unsigned long size);

#endif /* _FREELIST_METADATA_H */
