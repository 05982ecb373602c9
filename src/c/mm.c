// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VMAs that map an arena.
 */
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/swap.h>

#include "metadata.h"
#include "mm.h"

/*
 * Locks the caller's address space for reading. Returns NULL when it has none or
 * is being killed. May sleep.
 */
struct mm_struct *freelist_mmap_read_lock(void)
{
	struct mm_struct *mm = current->mm;

	return mm && !mmap_read_lock_killable(mm) ? mm : NULL;
}

/* Returns whether a VMA maps @inode and is not PROT_NONE. */
static bool freelist_vma_maps(struct vm_area_struct *vma, struct inode *inode)
{
	return vma->vm_file && vma->vm_file->f_mapping == inode->i_mapping &&
	       vma_is_accessible(vma);
}

/* Returns the VMA at @address, if it maps @inode and is not PROT_NONE. */
struct vm_area_struct *freelist_vma_at(struct mm_struct *mm, struct inode *inode,
				       unsigned long address)
{
	struct vm_area_struct *vma = vma_lookup(mm, address);

	return vma && freelist_vma_maps(vma, inode) ? vma : NULL;
}

/*
 * Returns the first VMA that ends after @address, maps @inode and is not
 * PROT_NONE; NULL also when the caller is being killed. May sleep.
 */
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

/* Returns the PMD of @address; NULL where there is none. */
static pmd_t *freelist_pmd(struct vm_area_struct *vma, unsigned long address)
{
	pgd_t *pgd = pgd_offset(vma->vm_mm, address);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(pgdp_get(pgd)))
		return NULL;
	p4d = p4d_offset(pgd, address);
	if (p4d_none(p4dp_get(p4d)))
		return NULL;
	pud = pud_offset(p4d, address);
	if (pud_none(pudp_get(pud)) || pud_leaf(pudp_get(pud)))
		return NULL;
	return pmd_offset(pud, address);
}

/* Returns how many pages from @address on a huge page maps with the access that @vma allows. */
static unsigned long freelist_huge_mapped(struct vm_area_struct *vma, unsigned long address)
{
	pmd_t *entry = freelist_pmd(vma, address);
	pmd_t pmd;

	if (!entry)
		return 0;
	pmd = pmdp_get_lockless(entry);
	if (!pmd_present(pmd) || !pmd_leaf(pmd) || (vma->vm_flags & VM_WRITE && !pmd_write(pmd)))
		return 0;
	return (PMD_SIZE - (address & ~PMD_MASK)) >> PAGE_SHIFT;
}

/*
 * Returns how many of the @pages pages from @address on are mapped, up to the
 * first that is not: cheaper than a fault. The lock of the address space keeps
 * all page tables above the last level. May sleep.
 */
unsigned long freelist_vma_mapped(struct vm_area_struct *vma, unsigned long address,
				  unsigned long pages)
{
	unsigned int flags = vma->vm_flags & VM_WRITE ? FOLL_WRITE : 0;
	struct page *found[16];
	unsigned long count = 0;

	while (count < pages) {
		unsigned long at = address + (count << PAGE_SHIFT);
		int batch = min(pages - count, ARRAY_SIZE(found));
		int number = freelist_huge_mapped(vma, at);

		if (!number) {
			number = get_user_pages_fast_only(at, batch, flags, found);
			if (number <= 0)
				break;
			release_pages(found, number);
			if (number < batch)
				return count + number;
		}
		count += number;
		cond_resched();
	}
	return min(count, pages);
}

/*
 * Returns whether there is memory for the page tables that @address may lack.
 * The kernel always calls the OOM killer for page tables. So this allocates and
 * frees as much beforehand, without the OOM killer.
 */
static bool freelist_has_tables(struct vm_area_struct *vma, unsigned long address)
{
	pmd_t *entry = freelist_pmd(vma, address);
	void *tables;

	if (entry && !pmd_none(pmdp_get_lockless(entry)))
		return true;
	tables = kmalloc((CONFIG_PGTABLE_LEVELS - 1) * PAGE_SIZE, METADATA_GFP);
	kfree(tables);
	return tables;
}

/*
 * Maps the page at @address as a touch would: a write where @vma allows it.
 * Returns -ENOMEM when there is no memory for page tables. May sleep.
 */
int freelist_vma_fault(struct vm_area_struct *vma, unsigned long address)
{
	unsigned int flags = vma->vm_flags & VM_WRITE ? FAULT_FLAG_WRITE : 0;

	if (!freelist_has_tables(vma, address))
		return -ENOMEM;
	return fixup_user_fault(vma->vm_mm, address, flags, NULL);
}
