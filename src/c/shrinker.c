// SPDX-License-Identifier: GPL-2.0-only
/*
 * The shrinker: members return free pages when memory is short, to another
 * member, or when they are idle.
 */
#include <linux/jiffies.h>
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
#include <linux/workqueue.h>

#include "metadata.h"
#include "shrinker.h"

/* The member of an object for one NUMA node. */
struct freelist_member {
	struct list_head list;
	int node;
	/* Threads that call its functions at this moment. It is not freed while there are any. */
	atomic_t busy;
	/* The last sweep over all members that called it. */
	unsigned long sweep;
	void *of;
};

/*
 * All members of an object, in the lists of a memory cgroup on which the object
 * holds a reference.
 */
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
	/* The number of the last sweep. */
	atomic_long_t sweeps;
	/* The seconds between two searches for idle objects, while there are members. 0: never. */
	struct delayed_work idle_work;
	unsigned int idle_seconds;
} shrinking;

static enum lru_status add_count(struct list_head *item, struct list_lru_one *list, void *sum)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);

	*(unsigned long *)sum += shrinking.ask->count(member->of, member->node);
	return LRU_SKIP;
}

/*
 * Returns SHRINK_EMPTY without members only: the kernel would not call the
 * shrinker again after that.
 */
static unsigned long shrink_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long members = list_lru_shrink_count(&shrinking.members, sc);
	unsigned long sum = 0;

	if (!members)
		return SHRINK_EMPTY;
	list_lru_walk_one(&shrinking.members, sc->nid, sc->memcg, add_count, &sum, &members);
	return sum;
}

/* A batch of busy members, whose functions are called next. */
struct member_batch {
	struct freelist_member *members[8];
	unsigned int number;
	/* The sweep that takes members, each once. 0: takes members that have reclaimable pages. */
	unsigned long sweep;
	/* The object whose members are not taken. */
	void *except;
};

/* Marks a member busy and adds it to a batch, unless the batch is full or leaves it out. */
static enum lru_status batch_member(struct list_head *item, struct list_lru_one *list, void *arg)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);
	struct member_batch *batch = arg;

	if (batch->number == ARRAY_SIZE(batch->members) || member->of == batch->except)
		return LRU_SKIP;
	if (batch->sweep ? member->sweep >= batch->sweep : !shrinking.ask->count(member->of, member->node))
		return LRU_SKIP;
	if (batch->sweep)
		member->sweep = batch->sweep;
	atomic_inc(&member->busy);
	batch->members[batch->number++] = member;
	/* The next walk begins with other members. */
	return LRU_ROTATE;
}

/*
 * Calls @ask for the members of @batch until it has @max_pages pages, and ends
 * their busy state. Returns the sum.
 */
static unsigned long ask_batch(struct member_batch *batch,
			      unsigned long (*ask)(void *of, int node, unsigned long pages),
			      unsigned long max_pages)
{
	unsigned long sum = 0;
	unsigned int i;

	for (i = 0; i < batch->number; i++) {
		struct freelist_member *member = batch->members[i];

		if (sum < max_pages)
			sum += ask(member->of, member->node, max_pages - sum);
		if (atomic_dec_and_test(&member->busy))
			wake_up_var(&member->busy);
	}
	return sum;
}

/*
 * Calls @ask once for each member but those of @except, until it has @max_pages
 * pages. Returns the sum.
 */
static unsigned long ask_each(unsigned long (*ask)(void *of, int node, unsigned long pages),
			      void *except, unsigned long max_pages)
{
	unsigned long sweep = atomic_long_inc_return(&shrinking.sweeps);
	unsigned long sum = 0;

	while (sum < max_pages) {
		struct member_batch batch = { .sweep = sweep, .except = except };

		list_lru_walk(&shrinking.members, batch_member, &batch, ULONG_MAX);
		if (!batch.number)
			break;
		sum += ask_batch(&batch, ask, max_pages - sum);
	}
	return sum;
}

/* A cgroup with so much headroom below its limits is not short of memory. */
#define HEADROOM_PAGES (SZ_2M >> PAGE_SHIFT)

/* Returns whether limits apply to a cgroup, its own or those above it, and all leave headroom. */
static bool memcg_has_headroom(struct mem_cgroup *memcg)
{
	bool limited = false;
#ifdef CONFIG_MEMCG
	struct page_counter *counter;

	for (counter = &memcg->memory; counter; counter = counter->parent) {
		unsigned long limit = min(READ_ONCE(counter->max), READ_ONCE(counter->high));

		if (page_counter_read(counter) + HEADROOM_PAGES > limit)
			return false;
		limited |= limit < PAGE_COUNTER_MAX;
	}
#endif
	return limited;
}

/* Returns whether the node is short of memory: a zone is near its high watermark. */
static bool node_is_short(int nid)
{
	int i;

	for (i = 0; i < MAX_NR_ZONES; i++) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[i];

		/* Small zones do not count. */
		if (zone_managed_pages(zone) > NODE_DATA(nid)->node_present_pages / 16 &&
		    zone_page_state(zone, NR_FREE_PAGES) < high_wmark_pages(zone) + 4 * HEADROOM_PAGES)
			return true;
	}
	return false;
}

static unsigned long shrink_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	unsigned long members = list_lru_shrink_count(&shrinking.members, sc);
	struct member_batch batch = {};
	unsigned long freed;

	/* A caller that may not enter file systems may hold a lock that unmapping takes. */
	if (!(sc->gfp_mask & __GFP_FS))
		return SHRINK_STOP;
	/* Otherwise one charge over the limit would reclaim all free pages of the cgroup. */
	if (sc->memcg && memcg_has_headroom(sc->memcg) && !node_is_short(sc->nid))
		return SHRINK_STOP;
	list_lru_walk_one(&shrinking.members, sc->nid, sc->memcg, batch_member, &batch, &members);
	freed = ask_batch(&batch, shrinking.ask->shrink, sc->nr_to_scan);
	if (!freed)
		return SHRINK_STOP;
	/* Folios may be larger than the requested number of pages. */
	sc->nr_scanned = freed;
	/* Counts as progress of reclaim. */
	mm_account_reclaimed_pages(freed);
	return freed;
}

/* The most pages that are returned before the OOM killer runs: well above the watermarks. */
#define OOM_PAGES (SZ_32M >> PAGE_SHIFT)

/*
 * Returns free pages right before the OOM killer runs. Reclaim decides that it
 * makes no progress by the page cache and by swap, not by shrinkers: it can give
 * up while members have free pages.
 */
static int shrink_before_kill(struct notifier_block *block, unsigned long event, void *arg)
{
	*(unsigned long *)arg += ask_each(shrinking.ask->shrink_all, NULL, OOM_PAGES);
	return NOTIFY_OK;
}

/* Returns how many pages the members of other objects than @of would hand over. May sleep. */
unsigned long freelist_reclaimable_of_others(void *of)
{
	return ask_each(shrinking.ask->count_for_others, of, ULONG_MAX);
}

/*
 * Makes the members of other objects than @of hand over at most @pages. Returns
 * how many. May sleep.
 */
unsigned long freelist_reclaim_from_others(void *of, unsigned long pages)
{
	return ask_each(shrinking.ask->hand_over, of, pages);
}

/* Calls @return_idle, once for an object. Returns 1 for it. */
static unsigned long return_idle(void *of, int node, unsigned long pages)
{
	if (node != first_node(node_states[N_MEMORY]))
		return 0;
	shrinking.ask->return_idle(of);
	return 1;
}

static void look_for_idle_later(void)
{
	unsigned long delay = shrinking.idle_seconds * (unsigned long)HZ;

	if (delay)
		queue_delayed_work(system_dfl_wq, &shrinking.idle_work, min(delay, MAX_JIFFY_OFFSET));
}

/* A member that is added after the sweep queues the work again. */
static void look_for_idle(struct work_struct *work)
{
	if (ask_each(return_idle, NULL, ULONG_MAX))
		look_for_idle_later();
}

static struct notifier_block oom_block = {
	.notifier_call = shrink_before_kill,
};

/*
 * Registers the shrinker and the OOM notifier. An object of which nothing is asked
 * for @idle_seconds, or up to twice as long, returns its free pages; never if that
 * is 0. Returns -ENOMEM when memory is short. May sleep.
 */
int freelist_shrinker_register(const struct freelist_shrinking *functions, unsigned int idle_seconds)
{
	shrinking.ask = functions;
	shrinking.idle_seconds = idle_seconds;
	INIT_DELAYED_WORK(&shrinking.idle_work, look_for_idle);
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
	/*
	 * Allocating a free page again costs less than reading a page from disk
	 * (DEFAULT_SEEKS, 2).
	 */
	shrinking.shrinker->seeks = 1;
	/* A huge page at a time. */
	shrinking.shrinker->batch = HEADROOM_PAGES;
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
	cancel_delayed_work_sync(&shrinking.idle_work);
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

/*
 * Removes all members of an object. No call on the object runs any more when
 * this returns. May sleep.
 */
void freelist_members_free(struct freelist_members *members)
{
	while (members->number > 0)
		remove_member(members, members->each[--members->number]);
	kfree(members);
}

/*
 * Adds a member of @of to the lists of @memcg, the caller's, for each node that
 * has memory. Returns NULL when memory is short. May sleep.
 */
struct freelist_members *freelist_members_new(void *of, struct mem_cgroup *memcg)
{
	unsigned int max_members = num_node_state(N_MEMORY);
	struct freelist_members *members;
	int node;

	members = kzalloc(struct_size(members, each, max_members), METADATA_GFP);
	if (!members)
		return NULL;
	members->memcg = memcg;
	for_each_node_state(node, N_MEMORY) {
		struct freelist_member *member;

		/* A node that was added a moment ago has no pages of ours. */
		if (members->number == max_members)
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
	look_for_idle_later();
	return members;
}
