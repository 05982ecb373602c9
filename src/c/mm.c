// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of the buddy allocator, and the areas where they are mapped.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/page_ref.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "mm.h"

/*
 * Pages of one order, zeroed and charged to the memory cgroup, as single pages
 * that are freed one by one; NULL when there are none.
 *
 * A high order is for speed only: it is taken when it is there, without any
 * reclaim. A single page is worth reclaiming for, but never the OOM killer.
 */
struct page *freelist_page_alloc(unsigned int order)
{
	gfp_t gfp = GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_ZERO | __GFP_NOWARN;
	struct page *page;

	if (order)
		gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NORETRY | __GFP_NOMEMALLOC;
	else
		gfp |= __GFP_RETRY_MAYFAIL;
	page = alloc_pages(gfp, order);
	if (page && order)
		split_page(page, order);
	return page;
}

/*
 * Whether the caller's reference to a page that is mapped nowhere is the only
 * one. Whoever looks it up at this moment, through a page table that he has
 * read before, finds no reference to take, or has to look again.
 */
bool freelist_page_is_sole(struct page *page)
{
	if (!page_ref_freeze(page, 1))
		return false;
	page_ref_unfreeze(page, 1);
	return true;
}

/*
 * The caller's address space, locked for reading; NULL when it has none or is
 * being killed.
 */
struct mm_struct *freelist_mmap_read_lock(void)
{
	struct mm_struct *mm = current->mm;

	return mm && !mmap_read_lock_killable(mm) ? mm : NULL;
}

static bool freelist_vma_maps(struct vm_area_struct *vma, struct inode *inode)
{
	return vma->vm_file && vma->vm_file->f_mapping == inode->i_mapping &&
	       vma_is_accessible(vma);
}

/* The area at @address, if it maps @inode and is not PROT_NONE. */
struct vm_area_struct *freelist_vma_at(struct mm_struct *mm, struct inode *inode,
				       unsigned long address)
{
	struct vm_area_struct *vma = vma_lookup(mm, address);

	return vma && freelist_vma_maps(vma, inode) ? vma : NULL;
}

/* The first such area that ends behind @address. */
struct vm_area_struct *freelist_vma_from(struct mm_struct *mm, struct inode *inode,
					 unsigned long address)
{
	struct vm_area_struct *vma;

	while ((vma = find_vma(mm, address)) && !freelist_vma_maps(vma, inode)) {
		if (fatal_signal_pending(current))
			return NULL;
		address = vma->vm_end;
		cond_resched();
	}
	return vma;
}

static int freelist_count_mapped(pte_t *pte, unsigned long address, void *count)
{
	if (pte_none(ptep_get(pte)))
		return 1;
	++*(unsigned long *)count;
	return 0;
}

/*
 * How many page table entries are in use from @address on, up to one that is
 * not, of @pages, all of them in @vma. To ask is cheaper than to insert in vain.
 */
unsigned long freelist_vma_mapped(struct vm_area_struct *vma, unsigned long address,
				  unsigned long pages)
{
	unsigned long count = 0;

	apply_to_page_range(vma->vm_mm, address, pages << PAGE_SHIFT, freelist_count_mapped, &count);
	return count;
}
