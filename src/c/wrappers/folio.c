// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions of folios, and the mapping of pages by a fault, as functions for Rust.
 */
#include <linux/err.h>
#include <linux/folio_batch.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/sched.h>

#include "../folio.h"

/* Returns the largest order that the page cache supports; 0 without large folios. */
unsigned int freelist_folio_max_order(struct inode *inode)
{
	return mapping_max_folio_order(inode->i_mapping);
}

/* Returns the folio that has page @index, with a reference; NULL if there is none. */
struct folio *freelist_folio_get(struct inode *inode, __u64 index)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, index);

	return IS_ERR(folio) ? NULL : folio;
}

/*
 * Returns the first folio that has a page in @index..@end, with a reference;
 * NULL if there is none. Does not sleep.
 */
struct folio *freelist_folio_get_first(struct inode *inode, __u64 index, __u64 end)
{
	struct folio *first = index < end ? freelist_folio_get(inode, index) : NULL;
	pgoff_t start = index + 1;
	struct folio_batch batch;

	if (first || start >= end)
		return first;
	folio_batch_init(&batch);
	if (filemap_get_folios(inode->i_mapping, &start, end - 1, &batch)) {
		first = batch.folios[0];
		folio_get(first);
		folio_batch_release(&batch);
	}
	return first;
}

/*
 * Returns the folio that has page @index, with a reference and locked; NULL if
 * there is none. May sleep.
 */
struct folio *freelist_folio_lock(struct inode *inode, __u64 index)
{
	struct folio *folio = filemap_lock_folio(inode->i_mapping, index);

	return IS_ERR(folio) ? NULL : folio;
}

bool freelist_folio_trylock(struct folio *folio)
{
	return folio_trylock(folio);
}

void freelist_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

void freelist_folio_put(struct folio *folio)
{
	folio_put(folio);
}

__u64 freelist_folio_index(const struct folio *folio)
{
	return folio->index;
}

unsigned int freelist_folio_order(const struct folio *folio)
{
	return folio_order(folio);
}

int freelist_folio_node(const struct folio *folio)
{
	return folio_nid(folio);
}

struct address_space *freelist_folio_mapping(const struct folio *folio)
{
	return folio->mapping;
}

bool freelist_folio_has_bad_page(struct folio *folio)
{
	return folio_contain_hwpoisoned_page(folio);
}

bool freelist_folio_is_of(const struct folio *folio, const struct inode *inode)
{
	return folio->mapping == inode->i_mapping;
}

/*
 * Returns whether an unmapped folio has references beside those of the page
 * cache and the caller.
 */
bool freelist_folio_is_pinned(const struct folio *folio)
{
	return folio_ref_count(folio) > folio_nr_pages(folio) + 1;
}

/* Returns whether a folio may be pinned for I/O (pin_user_pages). */
bool freelist_folio_is_dma_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio);
}

bool freelist_folio_is_mapped(const struct folio *folio)
{
	return folio_mapped(folio);
}

/* Removes a locked folio from the page cache. Returns 0 on success. */
int freelist_folio_remove(struct inode *inode, struct folio *folio)
{
	return generic_error_remove_folio(inode->i_mapping, folio);
}

void freelist_folio_zero(struct folio *folio, __u64 index, unsigned long at, unsigned long len)
{
	memzero_page(folio_file_page(folio, index), at, len);
}

void freelist_folio_write(struct folio *folio, __u64 index, unsigned long at, const void *from,
			  unsigned long len)
{
	memcpy_to_page(folio_file_page(folio, index), at, from, len);
}

void freelist_folio_read(struct folio *folio, __u64 index, unsigned long at, void *to,
			 unsigned long len)
{
	memcpy_from_page(to, folio_file_page(folio, index), at, len);
}

/*
 * Copies @pages pages of @from, from page @index on, to the pages of @to from
 * index @at on. Returns the number that it copied: fewer than all if a page is
 * poisoned. May sleep.
 */
unsigned long freelist_folio_copy(struct folio *to, unsigned long at, struct folio *from, __u64 index,
				  unsigned long pages)
{
	unsigned long done;

	for (done = 0; done < pages; done++) {
		if (copy_mc_highpage(folio_page(to, at + done), folio_file_page(from, index + done)))
			break;
		cond_resched();
	}
	return done;
}

unsigned long freelist_folio_frame(struct folio *folio, __u64 index)
{
	return page_to_pfn(folio_file_page(folio, index));
}

void freelist_pages_unmap(struct inode *inode, __u64 first, __u64 pages)
{
	unmap_mapping_pages(inode->i_mapping, first, pages, false);
}

void freelist_pages_truncate(struct inode *inode, __u64 first, __u64 pages)
{
	loff_t start = (loff_t)first << PAGE_SHIFT;

	truncate_inode_pages_range(inode->i_mapping, start, start + ((loff_t)pages << PAGE_SHIFT) - 1);
}

/* Returns whether one of the pages has memory. */
bool freelist_pages_any(struct inode *inode, __u64 first, __u64 pages)
{
	loff_t start = (loff_t)first << PAGE_SHIFT;

	return filemap_range_has_page(inode->i_mapping, start,
				      start + ((loff_t)pages << PAGE_SHIFT) - 1);
}

/* The most pages that are mapped around a fault of POPULATE or of a call. */
#define AROUND_UNTOUCHED 16UL

/*
 * Maps the pages @first to @last that have memory and lie in the VMA and the page
 * table of the fault. Returns 0 if the faulting page is not mapped by that.
 */
static unsigned int freelist_map_pages(struct vm_fault *vmf, pgoff_t first, pgoff_t last)
{
	pgoff_t in_vma = vmf->pgoff - vmf->vma->vm_pgoff;
	pgoff_t in_table = pte_index(vmf->address);
	pgoff_t back = min3(in_vma, in_table, vmf->pgoff - first);
	pgoff_t ahead = min3(vma_pages(vmf->vma) - 1 - in_vma, PTRS_PER_PTE - 1 - in_table,
			     last - vmf->pgoff);

	return (__force unsigned int)filemap_map_pages(vmf, vmf->pgoff - back, vmf->pgoff + ahead);
}

/*
 * Maps the pages with memory around a write fault, at most @around pages, a power
 * of 2; fewer for a fault of POPULATE or of a call. (The core maps around read
 * faults alone.) Returns 0 if the faulting page is not mapped by that.
 */
unsigned int freelist_fault_around(struct vm_fault *vmf, unsigned long around)
{
	struct address_space *mapping = vmf->vma->vm_file->f_mapping;
	pgoff_t first;

	if (!(vmf->flags & FAULT_FLAG_WRITE))
		return 0;
	/*
	 * Where the faulting page has no memory, the pages around it were
	 * mapped when they got theirs.
	 */
	if (!xa_load(&mapping->i_pages, vmf->pgoff))
		return 0;
	if (!(vmf->flags & FAULT_FLAG_USER))
		around = min(around, AROUND_UNTOUCHED);
	first = vmf->pgoff - vmf->pgoff % around;
	return freelist_map_pages(vmf, first, first + around - 1);
}

/*
 * Maps all pages of @folio, which is new, locked, and has the faulting page.
 * Unlocks it and puts it.
 */
unsigned int freelist_fault_new(struct vm_fault *vmf, struct folio *folio)
{
	pgoff_t first = folio->index, last = first + folio_nr_pages(folio) - 1;
	unsigned int mapped;

	if (first == last)
		return freelist_fault_found(vmf, folio);
	folio_unlock(folio);
	mapped = freelist_map_pages(vmf, first, last);
	folio_put(folio);
	/* Another thread has locked it, or it was removed: the access is retried. */
	return mapped ? mapped : freelist_fault_again();
}

/*
 * Returns to the core with @folio, which is locked and has the faulting page:
 * the core maps it and unlocks.
 */
unsigned int freelist_fault_found(struct vm_fault *vmf, struct folio *folio)
{
	vmf->page = folio_file_page(folio, vmf->pgoff);
	return (__force unsigned int)VM_FAULT_LOCKED;
}

/* Returns the code with which the core retries the access. */
unsigned int freelist_fault_again(void)
{
	return (__force unsigned int)VM_FAULT_NOPAGE;
}

unsigned int freelist_fault_sigbus(void)
{
	return (__force unsigned int)VM_FAULT_SIGBUS;
}
