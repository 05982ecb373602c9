// SPDX-License-Identifier: GPL-2.0
/*
 * New folios for an arena.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "folio.h"

/*
 * Adds a folio, zeroed, dirty and charged to the memory cgroup, at @index, which
 * is a multiple of its pages; locked, and with a reference. -ENOMEM when there is
 * none, or it cannot be charged; -EEXIST when something is there.
 */
static int add(struct inode *inode, __u64 index, unsigned int order, gfp_t gfp, gfp_t charge,
	       struct folio **added)
{
	struct folio *folio = folio_alloc(gfp, order);
	int err;

	if (!folio)
		return -ENOMEM;
	__folio_mark_uptodate(folio);
	/* A clean one that is pinned would be dropped as a whole where a part of it leaves. */
	folio_set_dirty(folio);
	err = filemap_add_folio(inode->i_mapping, folio, index, charge);
	if (err)
		folio_put(folio);
	else
		*added = folio;
	return err;
}

/*
 * Adds a folio as add() does. @urge says what may be done for it.
 *
 * A high order is for speed only: it is taken when it is there, without any
 * reclaim of pages, and charged with little. A single page is worth reclaiming
 * for, and the OOM killer where @urge is FREELIST_URGE_KILL.
 */
int freelist_folio_add(struct inode *inode, __u64 index, unsigned int order,
		       enum freelist_urge urge, struct folio **added)
{
	gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_ZERO | __GFP_NOWARN;
	gfp_t charge = GFP_KERNEL | __GFP_NOWARN;

	if (order) {
		gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NORETRY | __GFP_NOMEMALLOC;
		charge |= __GFP_NORETRY;
	} else if (urge == FREELIST_URGE_RECLAIM) {
		gfp |= __GFP_RETRY_MAYFAIL;
		charge |= __GFP_RETRY_MAYFAIL;
	}
	return add(inode, index, order, gfp, charge, added);
}
