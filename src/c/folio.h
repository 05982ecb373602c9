/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Folios of the page cache of an arena's inode.
 */
#ifndef _FREELIST_FOLIO_H
#define _FREELIST_FOLIO_H

#include <linux/types.h>

struct folio;
struct inode;
struct vm_fault;

/* How hard the allocation of a single page tries. */
enum freelist_urge {
	FREELIST_URGE_RECLAIM,	/* reclaims, but never calls the OOM killer */
	FREELIST_URGE_KILL,	/* calls the OOM killer too, as for anonymous memory */
};

struct folio *freelist_folio_new(unsigned int order);
int freelist_folio_insert(struct inode *inode, struct folio *folio, __u64 index,
			  enum freelist_urge urge);
int freelist_folio_add(struct inode *inode, __u64 index, unsigned int order,
		       enum freelist_urge urge, struct folio **added);

unsigned int freelist_folio_max_order(struct inode *inode);
struct folio *freelist_folio_get(struct inode *inode, __u64 index);
struct folio *freelist_folio_get_first(struct inode *inode, __u64 index, __u64 end);
struct folio *freelist_folio_lock(struct inode *inode, __u64 index);
bool freelist_folio_trylock(struct folio *folio);
void freelist_folio_unlock(struct folio *folio);
void freelist_folio_put(struct folio *folio);
__u64 freelist_folio_index(const struct folio *folio);
unsigned int freelist_folio_order(const struct folio *folio);
int freelist_folio_node(const struct folio *folio);
struct address_space *freelist_folio_mapping(const struct folio *folio);
bool freelist_folio_has_bad_page(struct folio *folio);
bool freelist_folio_is_of(const struct folio *folio, const struct inode *inode);
bool freelist_folio_is_pinned(const struct folio *folio);
bool freelist_folio_is_dma_pinned(struct folio *folio);
bool freelist_folio_is_mapped(const struct folio *folio);
int freelist_folio_remove(struct inode *inode, struct folio *folio);
void freelist_folio_zero(struct folio *folio, __u64 index, unsigned long at, unsigned long len);
void freelist_folio_write(struct folio *folio, __u64 index, unsigned long at, const void *from,
			  unsigned long len);
void freelist_folio_read(struct folio *folio, __u64 index, unsigned long at, void *to,
			 unsigned long len);
unsigned long freelist_folio_copy(struct folio *to, unsigned long at, struct folio *from, __u64 index,
				  unsigned long pages);
unsigned long freelist_folio_frame(struct folio *folio, __u64 index);

void freelist_pages_unmap(struct inode *inode, __u64 first, __u64 pages);
void freelist_pages_truncate(struct inode *inode, __u64 first, __u64 pages);
bool freelist_pages_any(struct inode *inode, __u64 first, __u64 pages);

unsigned int freelist_fault_around(struct vm_fault *vmf, unsigned long around);
unsigned int freelist_fault_found(struct vm_fault *vmf, struct folio *folio);
unsigned int freelist_fault_new(struct vm_fault *vmf, struct folio *folio);
unsigned int freelist_fault_again(void);
unsigned int freelist_fault_sigbus(void);

#endif /* _FREELIST_FOLIO_H */
