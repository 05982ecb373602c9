// SPDX-License-Identifier: GPL-2.0
/*
 * Macros and inline functions of pages and areas, as functions for Rust.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/swap.h>

#include "../mm.h"

/* The largest order that the buddy allocator has. */
unsigned int freelist_page_max_order(void)
{
	return MAX_PAGE_ORDER;
}

unsigned long freelist_page_frame(struct page *page)
{
	return page_to_pfn(page);
}

void freelist_page_get(struct page *page)
{
	get_page(page);
}

void freelist_page_put(struct page *page)
{
	put_page(page);
}

/* The same for @number pages: what they cost together is paid once. */
void freelist_pages_put(struct page **pages, unsigned int number)
{
	release_pages(pages, number);
}

void freelist_mmap_read_unlock(struct mm_struct *mm)
{
	mmap_read_unlock(mm);
}

int freelist_vma_insert(struct vm_area_struct *vma, unsigned long address, struct page **pages,
			unsigned long *left)
{
	return vm_insert_pages(vma, address, pages, left);
}

void freelist_page_zero(struct page *page, unsigned long at, unsigned long len)
{
	memzero_page(page, at, len);
}

void freelist_page_write(struct page *page, unsigned long at, const void *from, unsigned long len)
{
	memcpy_to_page(page, at, from, len);
}

void freelist_page_read(struct page *page, unsigned long at, void *to, unsigned long len)
{
	memcpy_from_page(to, page, at, len);
}

/*
 * Also of a file that is open for reading only, where it has this flag alone.
 * The kernel crate's constant has another flag's value in 7.2.
 */
bool freelist_vma_is_shared(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MAYSHARE;
}

/* Maps @page where the fault was, writable at once if it was a write. */
unsigned int freelist_fault_insert(struct vm_fault *vmf, struct page *page)
{
	return (__force unsigned int)vmf_insert_page_mkwrite(vmf, page,
							     vmf->flags & FAULT_FLAG_WRITE);
}

unsigned int freelist_fault_sigbus(void)
{
	return (__force unsigned int)VM_FAULT_SIGBUS;
}

unsigned long freelist_huge_page_bytes(void)
{
	return PMD_SIZE;
}

/* The machine's memory, in bytes. */
__u64 freelist_ram_bytes(void)
{
	return (__u64)totalram_pages() << PAGE_SHIFT;
}
