// SPDX-License-Identifier: GPL-2.0-only
/*
 * New folios of an arena.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "folio.h"

/*
 * Allocates a folio, with a reference. Returns NULL when memory is short. @urge
 * says how hard the allocation of a single page tries.
 *
 * A high order only makes things faster, so its allocation never reclaims.
 */
static struct folio *new_folio(unsigned int order, enum freelist_urge urge, gfp_t gfp)
{
	gfp |= GFP_HIGHUSER_MOVABLE | __GFP_NOWARN;
	if (order)
		gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NORETRY | __GFP_NOMEMALLOC;
	else if (urge == FREELIST_URGE_RECLAIM)
		gfp |= __GFP_RETRY_MAYFAIL;
	return folio_alloc(gfp, order);
}

/* Allocates a folio whose bytes are not set. Returns NULL when memory is short. May sleep. */
struct folio *freelist_folio_new(unsigned int order)
{
	return new_folio(order, FREELIST_URGE_RECLAIM, 0);
}

/*
 * Adds a new folio, whose bytes are set, at @index, which is a multiple of its
 * pages: dirty, charged to the memory cgroup, and locked. Returns -ENOMEM when
 * it cannot be charged, -EEXIST when a folio is there. May sleep.
 */
int freelist_folio_insert(struct inode *inode, struct folio *folio, __u64 index,
			  enum freelist_urge urge)
{
	gfp_t charge = GFP_KERNEL | __GFP_NOWARN;

	if (folio_order(folio))
		charge |= __GFP_NORETRY;
	else if (urge == FREELIST_URGE_RECLAIM)
		charge |= __GFP_RETRY_MAYFAIL;
	__folio_mark_uptodate(folio);
	/*
	 * A clean folio that is pinned would be dropped as a whole where a part
	 * of it is removed.
	 */
	folio_set_dirty(folio);
	return filemap_add_folio(inode->i_mapping, folio, index, charge);
}

/*
 * Adds a zeroed folio as freelist_folio_insert() does, and stores it, with a
 * reference, in @added. Returns -ENOMEM also when memory is short. May sleep.
 */
int freelist_folio_add(struct inode *inode, __u64 index, unsigned int order,
		       enum freelist_urge urge, struct folio **added)
{
	struct folio *folio = new_folio(order, urge, __GFP_ZERO);
	int err;

	if (!folio)
		return -ENOMEM;
	err = freelist_folio_insert(inode, folio, index, urge);
	if (err)
		folio_put(folio);
	else
		*added = folio;
	return err;
}
