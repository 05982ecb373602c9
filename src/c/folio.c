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
 * is a multiple of its pages. -ENOMEM when there is none, or it cannot be
 * charged; -EEXIST when something is there. @node gets the folio's.
 *
 * A high order is for speed only: it is taken when it is there, without any
 * reclaim of pages, and charged with little. A single page is worth reclaiming
 * for, but never the OOM killer.
 */
int freelist_folio_add(struct inode *inode, __u64 index, unsigned int order, int *node)
{
	gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_ZERO | __GFP_NOWARN;
	gfp_t charge = GFP_KERNEL | __GFP_NOWARN;
	struct folio *folio;
	int err;

	if (order) {
		gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NORETRY | __GFP_NOMEMALLOC;
		charge |= __GFP_NORETRY;
	} else {
		gfp |= __GFP_RETRY_MAYFAIL;
		charge |= __GFP_RETRY_MAYFAIL;
	}
	folio = folio_alloc(gfp, order);
	if (!folio)
		return -ENOMEM;
	*node = folio_nid(folio);
	__folio_mark_uptodate(folio);
	/* A clean one that is pinned would be dropped as a whole where a part of it leaves. */
	folio_set_dirty(folio);
	err = filemap_add_folio(inode->i_mapping, folio, index, charge);
	if (!err)
		folio_unlock(folio);
	folio_put(folio);
	return err;
}
