/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The shrinker: returns free pages to the system.
 */
#ifndef _FREELIST_SHRINKER_H
#define _FREELIST_SHRINKER_H

#include <linux/types.h>

struct freelist_members;
struct mem_cgroup;

/*
 * The functions of a member. All but @count may sleep. Only @hand_over and
 * @return_idle wait for folio locks.
 */
struct freelist_shrinking {
	/* Returns about how many pages of a node @shrink could return. Under a spin lock. */
	unsigned long (*count)(void *of, int node);
	/*
	 * Return about @pages free pages of a node to the system: out of a part of
	 * the member's free pages, or out of all. Return how many.
	 */
	unsigned long (*shrink)(void *of, int node, unsigned long pages);
	unsigned long (*shrink_all)(void *of, int node, unsigned long pages);
	/* Returns how many @hand_over would return: 0 while the member has waiters. */
	unsigned long (*count_for_others)(void *of, int node, unsigned long pages);
	/* Returns at most @pages free pages of any node to the system, for another member. */
	unsigned long (*hand_over)(void *of, int node, unsigned long pages);
	/* Returns all free pages to the system if nothing was asked of the object since the last call. */
	void (*return_idle)(void *of);
};

unsigned long freelist_reclaimable_of_others(void *of);
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages);
int freelist_shrinker_register(const struct freelist_shrinking *functions, unsigned int idle_seconds);
void freelist_shrinker_unregister(void);
struct freelist_members *freelist_members_new(void *of, struct mem_cgroup *memcg);
void freelist_members_free(struct freelist_members *members);

#endif /* _FREELIST_SHRINKER_H */
