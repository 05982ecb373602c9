/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Giving free pages back.
 */
#ifndef _FREELIST_SHRINKER_H
#define _FREELIST_SHRINKER_H

#include <linux/types.h>

struct freelist_members;
struct mem_cgroup;

/*
 * What members are asked for. Each but the first may sleep, and none waits for a
 * folio unless it says so.
 */
struct freelist_shrinking {
	/* How many free pages it has on a node, about; under a spin lock. */
	unsigned long (*count)(void *of, int node);
	/* To give about so many back to a system, or a cgroup, that is short; of a part, or of all it has. */
	unsigned long (*shrink)(void *of, int node, unsigned long pages);
	unsigned long (*shrink_all)(void *of, int node, unsigned long pages);
	/* How many it would hand over to another one: not what somebody waits for there. */
	unsigned long (*count_for_others)(void *of, int node, unsigned long most);
	/* To hand over at most so many, of whatever node. Waits for folios. */
	unsigned long (*hand_over)(void *of, int node, unsigned long pages);
};

unsigned long freelist_reclaimable_of_others(void *of);
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages);
int freelist_shrinker_register(const struct freelist_shrinking *functions);
void freelist_shrinker_unregister(void);
struct freelist_members *freelist_members_new(void *of, struct mem_cgroup *memcg);
void freelist_members_free(struct freelist_members *members);

#endif /* _FREELIST_SHRINKER_H */
