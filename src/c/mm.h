/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mappings of an arena, and the machine's memory.
 */
#ifndef _FREELIST_MM_H
#define _FREELIST_MM_H

#include <linux/types.h>

struct inode;
struct mm_struct;
struct vm_area_struct;

struct mm_struct *freelist_mmap_read_lock(void);
struct vm_area_struct *freelist_vma_at(struct mm_struct *mm, struct inode *inode,
				       unsigned long address);
struct vm_area_struct *freelist_vma_from(struct mm_struct *mm, struct inode *inode,
					 unsigned long address);
unsigned long freelist_vma_mapped(struct vm_area_struct *vma, unsigned long address,
				  unsigned long pages);
int freelist_vma_fault(struct vm_area_struct *vma, unsigned long address);

void freelist_mmap_read_unlock(struct mm_struct *mm);
bool freelist_vma_is_shared(const struct vm_area_struct *vma);
unsigned int freelist_huge_page_order(void);
__u64 freelist_ram_bytes(void);
int freelist_node(void);
unsigned int freelist_nodes(void);
void freelist_add_reclaimable(int node, __s64 pages);

#endif /* _FREELIST_MM_H */
