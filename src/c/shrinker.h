/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Giving free pages back.
 */
#ifndef _FREELIST_SHRINKER_H
#define _FREELIST_SHRINKER_H

#include <linux/types.h>

struct freelist_member;

/*
 * What members are asked for: how many free pages they have, under a spin lock,
 * and to give at most so many back, which may sleep.
 */
struct freelist_shrinking {
	/* For a system, or a cgroup, that is short of memory. */
	unsigned long (*count)(void *of);
	unsigned long (*shrink)(void *of, unsigned long pages);
	unsigned long (*shrink_all)(void *of, unsigned long pages);
	/* For another one: without those that somebody waits for. */
	unsigned long (*count_for_others)(void *of);
	unsigned long (*hand_over)(void *of, unsigned long pages);
};

unsigned long freelist_reclaimable_of_others(void *of);
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages);
int freelist_shrinker_register(const struct freelist_shrinking *functions);
void freelist_shrinker_unregister(void);
struct freelist_member *freelist_member_new(void *of);
void freelist_member_free(struct freelist_member *member);

#endif /* _FREELIST_SHRINKER_H */
