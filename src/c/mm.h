/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages, and where they are mapped.
 */
#ifndef _FREELIST_MM_H
#define _FREELIST_MM_H

#include <linux/types.h>

struct inode;
struct mm_struct;
struct page;
struct vm_area_struct;
struct vm_fault;

struct page *freelist_page_alloc(unsigned int order);
bool freelist_page_is_sole(struct page *page);
struct mm_struct *freelist_mmap_read_lock(void);
struct vm_area_struct *freelist_vma_at(struct mm_struct *mm, struct inode *inode,
				       unsigned long address);
struct vm_area_struct *freelist_vma_from(struct mm_struct *mm, struct inode *inode,
					 unsigned long address);
unsigned long freelist_vma_mapped(struct vm_area_struct *vma, unsigned long address,
				  unsigned long pages);

unsigned int freelist_page_max_order(void);
unsigned long freelist_page_frame(struct page *page);
void freelist_page_get(struct page *page);
void freelist_page_put(struct page *page);
void freelist_pages_put(struct page **pages, unsigned int number);
void freelist_mmap_read_unlock(struct mm_struct *mm);
int freelist_vma_insert(struct vm_area_struct *vma, unsigned long address, struct page **pages,
			unsigned long *left);
void freelist_page_zero(struct page *page, unsigned long at, unsigned long len);
void freelist_page_write(struct page *page, unsigned long at, const void *from, unsigned long len);
void freelist_page_read(struct page *page, unsigned long at, void *to, unsigned long len);
bool freelist_vma_is_shared(const struct vm_area_struct *vma);
unsigned int freelist_fault_insert(struct vm_fault *vmf, struct page *page);
unsigned int freelist_fault_sigbus(void);
unsigned long freelist_huge_page_bytes(void);
__u64 freelist_ram_bytes(void);

#endif /* _FREELIST_MM_H */
