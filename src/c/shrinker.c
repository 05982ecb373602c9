// SPDX-License-Identifier: GPL-2.0-only
/*
 * Free pages are given back when memory is short, and handed over.
 */
#include <linux/list_lru.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/page_counter.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/wait_bit.h>

#include "memcg.h"
#include "shrinker.h"

/* What the shrinker asks for the memory of one node of one of those that it shrinks. */
struct freelist_member {
	struct list_head list;
	int node;
	/* Those who ask it at this moment: it is not freed as long. */
	atomic_t busy;
	/* The last sweep over all members that asked it, or a later one. */
	unsigned long sweep;
	void *of;
};

/* All of one, in the lists of a memory cgroup, on which their owner holds a reference. */
struct freelist_members {
	struct mem_cgroup *memcg;
	unsigned int number;
	struct freelist_member *each[] __counted_by(number);
};

static struct {
	struct list_lru members;
	struct kmem_cache *cache;
	struct shrinker *shrinker;
	const struct freelist_shrinking *ask;
	/* Sweeps so far. */
	atomic_long_t sweeps;
} shrinking;

static enum lru_status add_count(struct list_head *item, struct list_lru_one *list, void *sum)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);

	*(unsigned long *)sum += shrinking.ask->count(member->of, member->node);
	return LRU_SKIP;
}

/* Never SHRINK_EMPTY while there is a member: nothing would have the kernel ask again. */
static unsigned long shrink_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long members = list_lru_shrink_count(&shrinking.members, sc);
	unsigned long sum = 0;

	if (!members)
		return SHRINK_EMPTY;
	list_lru_walk_one(&shrinking.members, sc->nid, sc->memcg, add_count, &sum, &members);
	return sum;
}

/* Members that are asked, and cannot be freed as long as they are here. */
struct held {
	struct freelist_member *members[8];
	unsigned int number;
	/* Not those that this sweep has asked, nor the one that it is for. 0: whoever has something. */
	unsigned long sweep;
	void *except;
};

static enum lru_status hold_member(struct list_head *item, struct list_lru_one *list, void *arg)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);
	struct held *held = arg;

	if (held->number == ARRAY_SIZE(held->members) || member->of == held->except)
		return LRU_SKIP;
	if (held->sweep ? member->sweep >= held->sweep : !shrinking.ask->count(member->of, member->node))
		return LRU_SKIP;
	if (held->sweep)
		member->sweep = held->sweep;
	atomic_inc(&member->busy);
	held->members[held->number++] = member;
	/* The next one's turn, the next time. */
	return LRU_ROTATE;
}

/* Asks members that are held for @most pages in all, and lets them go. Answers the sum of what they say. */
static unsigned long ask_held(struct held *held,
			      unsigned long (*ask)(void *of, int node, unsigned long pages),
			      unsigned long most)
{
	unsigned long sum = 0;
	unsigned int i;

	for (i = 0; i < held->number; i++) {
		struct freelist_member *member = held->members[i];

		if (sum < most)
			sum += ask(member->of, member->node, most - sum);
		if (atomic_dec_and_test(&member->busy))
			wake_up_var(&member->busy);
	}
	return sum;
}

/* Asks each member but that of @except once, until they have said @most pages. Answers how many. */
static unsigned long ask_each(unsigned long (*ask)(void *of, int node, unsigned long pages),
			      void *except, unsigned long most)
{
	unsigned long sweep = atomic_long_inc_return(&shrinking.sweeps);
	unsigned long sum = 0;

	while (sum < most) {
		struct held held = { .sweep = sweep, .except = except };

		list_lru_walk(&shrinking.members, hold_member, &held, ULONG_MAX);
		if (!held.number)
			break;
		sum += ask_held(&held, ask, most - sum);
	}
	return sum;
}

/* A cgroup that has so much room is not short. */
#define ROOM_PAGES (SZ_2M >> PAGE_SHIFT)

/* Whether a cgroup has a limit, or one above it has, and all that there are leave it room. */
static bool memcg_has_room(struct mem_cgroup *memcg)
{
	bool limited = false;
#ifdef CONFIG_MEMCG
	struct page_counter *counter;

	for (counter = &memcg->memory; counter; counter = counter->parent) {
		unsigned long most = min(READ_ONCE(counter->max), READ_ONCE(counter->high));

		if (page_counter_read(counter) + ROOM_PAGES > most)
			return false;
		limited |= most < PAGE_COUNTER_MAX;
	}
#endif
	return limited;
}

/* Whether reclaim may be of the machine: a zone of the node is near its high watermark. */
static bool node_is_short(int nid)
{
	int i;

	for (i = 0; i < MAX_NR_ZONES; i++) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[i];

		/* A small one says nothing. */
		if (zone_managed_pages(zone) > NODE_DATA(nid)->node_present_pages / 16 &&
		    zone_page_state(zone, NR_FREE_PAGES) < high_wmark_pages(zone) + 4 * ROOM_PAGES)
			return true;
	}
	return false;
}

static unsigned long shrink_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long members = list_lru_shrink_count(&shrinking.members, sc);
	struct held held = {};
	unsigned long freed;

	/* Whoever may not enter file systems may hold what unmapping takes. */
	if (!(sc->gfp_mask & __GFP_FS))
		return SHRINK_STOP;
	/* Else one charge beyond the limit would cost the cgroup all that is free. */
	if (sc->memcg && memcg_has_room(sc->memcg) && !node_is_short(sc->nid))
		return SHRINK_STOP;
	list_lru_walk_one(&shrinking.members, sc->nid, sc->memcg, hold_member, &held, &members);
	freed = ask_held(&held, shrinking.ask->shrink, sc->nr_to_scan);
	if (!freed)
		return SHRINK_STOP;
	/* Folios are larger than what was asked for. */
	sc->nr_scanned = freed;
	/* So that nobody thinks that reclaim leads nowhere. */
	mm_account_reclaimed_pages(freed);
	return freed;
}

/* What is given at most before a process is killed: well above the watermarks. */
#define OOM_PAGES (SZ_32M >> PAGE_SHIFT)

/*
 * The system is about to kill. Its reclaim counts what could still be got from
 * the page cache and from swap, but not what shrinkers have: so it can give up
 * while free pages are held here.
 */
static int shrink_before_kill(struct notifier_block *block, unsigned long event, void *arg)
{
	*(unsigned long *)arg += ask_each(shrinking.ask->shrink_all, NULL, OOM_PAGES);
	return NOTIFY_OK;
}

/* How many pages members other than that of @of would hand over. */
unsigned long freelist_reclaimable_of_others(void *of)
{
	return ask_each(shrinking.ask->count_for_others, of, ULONG_MAX);
}

/* Makes them hand over at most @pages. Answers how many came. */
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages)
{
	return ask_each(shrinking.ask->hand_over, of, pages);
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
	/* A huge page at a time. */
	shrinking.shrinker->batch = ROOM_PAGES;
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

static void remove_member(struct freelist_members *members, struct freelist_member *member)
{
	list_lru_del(&shrinking.members, &member->list, member->node, members->memcg);
	wait_var_event(&member->busy, !atomic_read(&member->busy));
	kmem_cache_free(shrinking.cache, member);
}

/* Nobody shrinks what they are of any more when this returns. */
void freelist_members_free(struct freelist_members *members)
{
	while (members->number > 0)
		remove_member(members, members->each[--members->number]);
	kfree(members);
}

/*
 * Lets the shrinker know @of, in the lists of @memcg, the caller's, for each
 * node that has memory; NULL if memory is short.
 */
struct freelist_members *freelist_members_new(void *of, struct mem_cgroup *memcg)
{
	unsigned int most = num_node_state(N_MEMORY);
	struct freelist_members *members;
	int node;

	members = kzalloc(struct_size(members, each, most), METADATA_GFP);
	if (!members)
		return NULL;
	members->memcg = memcg;
	for_each_node_state(node, N_MEMORY) {
		struct freelist_member *member;

		/* One that came a moment ago has nothing of ours. */
		if (members->number == most)
			break;
		member = kmem_cache_alloc_lru(shrinking.cache, &shrinking.members, METADATA_GFP);
		if (!member) {
			freelist_members_free(members);
			return NULL;
		}
		INIT_LIST_HEAD(&member->list);
		member->node = node;
		atomic_set(&member->busy, 0);
		member->sweep = 0;
		member->of = of;
		members->number++;
		members->each[members->number - 1] = member;
		list_lru_add(&shrinking.members, &member->list, node, memcg);
	}
	return members;
}
