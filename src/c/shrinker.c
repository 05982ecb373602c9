// SPDX-License-Identifier: GPL-2.0
/*
 * Free pages are given back when memory is short, and handed over.
 */
#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/wait_bit.h>

#include "memcg.h"
#include "shrinker.h"

/* One of those that the shrinker shrinks. */
struct freelist_member {
	struct list_head list;
	/* Those who shrink it at this moment: it is not freed as long. */
	atomic_t busy;
	void *of;
};

static struct {
	struct list_lru members;
	struct kmem_cache *cache;
	struct shrinker *shrinker;
	const struct freelist_shrinking *ask;
} shrinking;

static enum lru_status add_count(struct list_head *item, struct list_lru_one *list, void *sum)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);

	*(unsigned long *)sum += shrinking.ask->count(member->of);
	return LRU_SKIP;
}

static unsigned long shrink_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long members = list_lru_shrink_count(&shrinking.members, sc);
	unsigned long sum = 0;

	if (!members)
		return SHRINK_EMPTY;
	list_lru_walk_one(&shrinking.members, sc->nid, sc->memcg, add_count, &sum, &members);
	return sum;
}

/* Members with something to give, that cannot be freed as long as they are here. */
struct held {
	struct freelist_member *members[8];
	unsigned int number;
	unsigned long (*count)(void *of);
	unsigned long (*shrink)(void *of, unsigned long pages);
	/* The one that is not meant. */
	void *except;
};

static enum lru_status hold_member(struct list_head *item, struct list_lru_one *list, void *arg)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);
	struct held *held = arg;

	if (held->number == ARRAY_SIZE(held->members) || member->of == held->except ||
	    !held->count(member->of))
		return LRU_SKIP;
	atomic_inc(&member->busy);
	held->members[held->number++] = member;
	/* The next one's turn, the next time. */
	return LRU_ROTATE;
}

/* Takes at most @most pages from members that are held. Answers how many came. */
static unsigned long shrink_held(struct held *held, unsigned long most)
{
	unsigned long freed = 0;
	unsigned int i;

	for (i = 0; i < held->number; i++) {
		struct freelist_member *member = held->members[i];

		if (freed < most)
			freed += held->shrink(member->of, most - freed);
		if (atomic_dec_and_test(&member->busy))
			wake_up_var(&member->busy);
	}
	return freed;
}

static unsigned long shrink_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long members = list_lru_shrink_count(&shrinking.members, sc);
	struct held held = { .count = shrinking.ask->count, .shrink = shrinking.ask->shrink };
	unsigned long freed;

	/* Whoever may not enter file systems may hold what unmapping takes. */
	if (!(sc->gfp_mask & __GFP_FS))
		return SHRINK_STOP;
	list_lru_walk_one(&shrinking.members, sc->nid, sc->memcg, hold_member, &held, &members);
	freed = shrink_held(&held, sc->nr_to_scan);
	/* So that nobody thinks that reclaim leads nowhere. */
	mm_account_reclaimed_pages(freed);
	return freed ? freed : SHRINK_STOP;
}

/* What is given at least before somebody is killed: well above the watermarks. */
#define OOM_PAGES (SZ_32M >> PAGE_SHIFT)

/*
 * The system is about to kill. Its reclaim counts what could still be got from
 * the page cache and from swap, but not what shrinkers have: so it can give up
 * while free pages are held here.
 */
static int shrink_before_kill(struct notifier_block *block, unsigned long event, void *arg)
{
	unsigned long *freed = arg, one;

	do {
		struct held held = { .count = shrinking.ask->count, .shrink = shrinking.ask->shrink_all };

		list_lru_walk(&shrinking.members, hold_member, &held, ULONG_MAX);
		one = shrink_held(&held, OOM_PAGES);
		*freed += one;
	} while (one && *freed < OOM_PAGES);
	return NOTIFY_OK;
}

struct others {
	void *except;
	unsigned long pages;
};

static enum lru_status add_for_others(struct list_head *item, struct list_lru_one *list, void *arg)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);
	struct others *others = arg;

	if (member->of != others->except)
		others->pages += shrinking.ask->count_for_others(member->of);
	return LRU_SKIP;
}

/* How many pages members other than that of @of would hand over. */
unsigned long freelist_reclaimable_of_others(void *of)
{
	struct others others = { .except = of };

	list_lru_walk(&shrinking.members, add_for_others, &others, ULONG_MAX);
	return others.pages;
}

/* Makes them hand over at most @pages. Answers how many came. */
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages)
{
	unsigned long taken = 0, one;

	do {
		struct held held = {
			.count = shrinking.ask->count_for_others,
			.shrink = shrinking.ask->hand_over,
			.except = of,
		};

		list_lru_walk(&shrinking.members, hold_member, &held, ULONG_MAX);
		one = shrink_held(&held, min(pages - taken, OOM_PAGES));
		taken += one;
	} while (one && taken < pages && !fatal_signal_pending(current));
	return taken;
}

static struct notifier_block oom_block = {
	.notifier_call = shrink_before_kill,
};

int freelist_shrinker_register(const struct freelist_shrinking *functions)
{
	shrinking.ask = functions;
	shrinking.cache = KMEM_CACHE(freelist_member, SLAB_ACCOUNT);
	if (!shrinking.cache)
		return -ENOMEM;
	shrinking.shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE | SHRINKER_MEMCG_AWARE, "freelist");
	if (!shrinking.shrinker)
		goto err_cache;
	if (list_lru_init_memcg(&shrinking.members, shrinking.shrinker))
		goto err_shrinker;
	shrinking.shrinker->count_objects = shrink_count;
	shrinking.shrinker->scan_objects = shrink_scan;
	/* A free page is dearer to fetch again than to keep, but cheaper than one read from disk. */
	shrinking.shrinker->seeks = 1;
	if (register_oom_notifier(&oom_block))
		goto err_members;
	shrinker_register(shrinking.shrinker);
	return 0;

err_members:
	list_lru_destroy(&shrinking.members);
err_shrinker:
	shrinker_free(shrinking.shrinker);
err_cache:
	kmem_cache_destroy(shrinking.cache);
	return -ENOMEM;
}

void freelist_shrinker_unregister(void)
{
	unregister_oom_notifier(&oom_block);
	shrinker_free(shrinking.shrinker);
	list_lru_destroy(&shrinking.members);
	kmem_cache_destroy(shrinking.cache);
}

/* Lets the shrinker know @of, in the list of the caller's memory cgroup; NULL if memory is short. */
struct freelist_member *freelist_member_new(void *of)
{
	struct freelist_member *member;

	member = kmem_cache_alloc_lru(shrinking.cache, &shrinking.members, METADATA_GFP);
	if (!member)
		return NULL;
	INIT_LIST_HEAD(&member->list);
	atomic_set(&member->busy, 0);
	member->of = of;
	list_lru_add_obj(&shrinking.members, &member->list);
	return member;
}

/* Nobody shrinks what it is of any more when this returns. */
void freelist_member_free(struct freelist_member *member)
{
	list_lru_del_obj(&shrinking.members, &member->list);
	wait_var_event(&member->busy, !atomic_read(&member->busy));
	kmem_cache_free(shrinking.cache, member);
}
