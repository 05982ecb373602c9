// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions of VMAs and nodes, as functions for Rust.
 */
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/pgtable.h>
#include <linux/topology.h>
#include <linux/vmstat.h>

#include "../mm.h"

void freelist_mmap_read_unlock(struct mm_struct *mm)
{
	mmap_read_unlock(mm);
}

/*
 * Returns whether a mapping is shared. VM_SHARED is clear for a file that is open
 * for reading only. (The kernel crate's constant has another flag's value in 7.2.)
 */
bool freelist_vma_is_shared(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MAYSHARE;
}

/* Returns the order of a huge page: what one PMD maps. */
unsigned int freelist_huge_page_order(void)
{
	return PMD_SHIFT - PAGE_SHIFT;
}

/* Returns the bytes of the machine's memory. */
__u64 freelist_ram_bytes(void)
{
	return (__u64)totalram_pages() << PAGE_SHIFT;
}

/* Returns the nearest node with memory of the CPU that the caller runs on. */
int freelist_node(void)
{
	return numa_mem_id();
}

/* Returns the upper bound of node numbers: all are below it. */
unsigned int freelist_nodes(void)
{
	return nr_node_ids;
}

void freelist_add_reclaimable(int node, __s64 pages)
{
	mod_node_page_state(NODE_DATA(node), NR_KERNEL_MISC_RECLAIMABLE, pages);
}
