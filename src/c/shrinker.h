/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Giving free pages back.
 */
#ifndef _FREELIST_SHRINKER_H
#define _FREELIST_SHRINKER_H

#include <linux/types.h>

struct freelist_member;

/*
 * What arenas are asked for: how many free pages they have, under a spin lock,
 * and to give at most so many back, which may sleep.
 */
struct freelist_shrinking {
	/* For a system, or a cgroup, that is short of memory. */
	unsigned long (*count)(void *arena);
	unsigned long (*shrink)(void *arena, unsigned long pages);
	/* For another arena: without those that somebody waits for. */
	unsigned long (*count_spare)(void *arena);
	unsigned long (*hand_over)(void *arena, unsigned long pages);
};

unsigned long freelist_spare_count(void *arena);
unsigned long freelist_spare_take(void *arena, unsigned long pages);
int freelist_shrinker_register(const struct freelist_shrinking *functions);
void freelist_shrinker_unregister(void);
struct freelist_member *freelist_member_new(void *arena);
void freelist_member_free(struct freelist_member *member);

#endif /* _FREELIST_SHRINKER_H */
