/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Giving free pages back.
 */
#ifndef _FREELIST_SHRINKER_H
#define _FREELIST_SHRINKER_H

#include <linux/types.h>

struct freelist_member;

/*
 * What members are asked for. Each but the first may sleep, and none waits for a
 * folio unless it says so.
 */
struct freelist_shrinking {
	/* How many free pages it has, about; under a spin lock. */
	unsigned long (*count)(void *of);
	/* To give about so many back to a system, or a cgroup, that is short; of a part, or of all it has. */
	unsigned long (*shrink)(void *of, unsigned long pages);
	unsigned long (*shrink_all)(void *of, unsigned long pages);
	/* How many it would hand over to another one: not what somebody waits for there. */
	unsigned long (*count_for_others)(void *of, unsigned long most);
	/* To hand over at most so many. Waits for folios. */
	unsigned long (*hand_over)(void *of, unsigned long pages);
};

unsigned long freelist_reclaimable_of_others(void *of);
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages);
int freelist_shrinker_register(const struct freelist_shrinking *functions);
void freelist_shrinker_unregister(void);
struct freelist_member *freelist_member_new(void *of);
void freelist_member_free(struct freelist_member *member);

#endif /* _FREELIST_SHRINKER_H */
