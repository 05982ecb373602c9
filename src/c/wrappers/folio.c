// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions of folios, as functions for Rust.
 */
#include <linux/err.h>
#include <linux/folio_batch.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/sched.h>

#include "../folio.h"

/* The largest order that the page cache takes; 0 without large folios. */
unsigned int freelist_folio_max_order(struct inode *inode)
{
	return mapping_max_folio_order(inode->i_mapping);
}

/* The folio that has page @index, with a reference; NULL if there is none. */
struct folio *freelist_folio_get(struct inode *inode, __u64 index)
{
	struct folio *folio = filemap_get_folio(inode->i_mapping, index);

	return IS_ERR(folio) ? NULL : folio;
}

/* The same, of the first page from @index on, before @end. Does not sleep. */
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

/* The same as freelist_folio_get(), locked. */
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

bool freelist_folio_is_of(const struct folio *folio, const struct inode *inode)
{
	return folio->mapping == inode->i_mapping;
}

/* Whether somebody else than the page cache and the caller refers to a folio that is mapped nowhere. */
bool freelist_folio_is_pinned(const struct folio *folio)
{
	return folio_ref_count(folio) > folio_nr_pages(folio) + 1;
}

/* Whether it is pinned for I/O (pin_user_pages). */
bool freelist_folio_is_dma_pinned(struct folio *folio)
{
	return folio_maybe_dma_pinned(folio);
}

bool freelist_folio_is_mapped(const struct folio *folio)
{
	return folio_mapped(folio);
}

/* Takes a locked folio out of the page cache. */
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
 * Copies @pages pages from page @index on, which @from has, to those of @to from
 * its page @at on. Returns how many were copied: a bad one cannot be read. May
 * sleep.
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

/* Whether one of the pages has memory. */
bool freelist_pages_any(struct inode *inode, __u64 first, __u64 pages)
{
	loff_t start = (loff_t)first << PAGE_SHIFT;

	return filemap_range_has_page(inode->i_mapping, start,
				      start + ((loff_t)pages << PAGE_SHIFT) - 1);
}

/* Pages that are mapped around one that the program itself has not touched. */
#define AROUND_UNTOUCHED 16UL

/*
 * Maps what is there of the pages @first to @last, as far as they lie in the area
 * and in the page table of what faulted. 0: not what faulted.
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
 * Maps what is there around a write that faulted, at most @around pages, a power
 * of 2, as the core does for reads alone; fewer where it is not the program that
 * writes, but POPULATE or another call. 0: not what faulted.
 */
unsigned int freelist_fault_around(struct vm_fault *vmf, unsigned long around)
{
	struct address_space *mapping = vmf->vma->vm_file->f_mapping;
	pgoff_t first;

	if (!(vmf->flags & FAULT_FLAG_WRITE))
		return 0;
	/* Where what faulted has no memory, what is around it was mapped when it came. */
	if (!xa_load(&mapping->i_pages, vmf->pgoff))
		return 0;
	if (!(vmf->flags & FAULT_FLAG_USER))
		around = min(around, AROUND_UNTOUCHED);
	first = vmf->pgoff - vmf->pgoff % around;
	return freelist_map_pages(vmf, first, first + around - 1);
}

/* What faulted is in @folio, which is locked and new: maps all of it, and unlocks. */
unsigned int freelist_fault_new(struct vm_fault *vmf, struct folio *folio)
{
	pgoff_t first = folio->index, last = first + folio_nr_pages(folio) - 1;
	unsigned int mapped;

	if (first == last)
		return freelist_fault_found(vmf, folio);
	folio_unlock(folio);
	mapped = freelist_map_pages(vmf, first, last);
	folio_put(folio);
	/* Somebody has locked it, or it has left: what faulted is touched again. */
	return mapped ? mapped : freelist_fault_again();
}

/* What faulted is in @folio, which is locked: the core maps it, and unlocks. */
unsigned int freelist_fault_found(struct vm_fault *vmf, struct folio *folio)
{
	vmf->page = folio_file_page(folio, vmf->pgoff);
	return (__force unsigned int)VM_FAULT_LOCKED;
}

/* What faulted is to be touched again. */
unsigned int freelist_fault_again(void)
{
	return (__force unsigned int)VM_FAULT_NOPAGE;
}

unsigned int freelist_fault_sigbus(void)
{
	return (__force unsigned int)VM_FAULT_SIGBUS;
}
