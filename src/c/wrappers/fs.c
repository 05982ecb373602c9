// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's macros and inline functions, as functions for Rust.
 */
#include <linux/capability.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/highmem.h>
#include <linux/list_lru.h>
#include <linux/kstrtox.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/nospec.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/pgtable.h>
#include <linux/poll.h>
#include <linux/pseudo_fs.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>

#include "helpers.h"

bool freelist_file_writable(const struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

bool freelist_file_nonblocking(const struct file *file)
{
	return READ_ONCE(file->f_flags) & O_NONBLOCK;
}

/* The largest order that the buddy allocator has. */
unsigned int freelist_page_max_order(void)
{
	return MAX_PAGE_ORDER;
}

/*
 * Pages of one order, zeroed and charged to the memory cgroup, as single pages
 * that are freed one by one; NULL when there are none.
 *
 * A high order is for speed only: it is taken when it is there, without any
 * reclaim. A single page is worth reclaiming for, but never the OOM killer.
 */
struct page *freelist_page_alloc(unsigned int order)
{
	gfp_t gfp = GFP_HIGHUSER | __GFP_ACCOUNT | __GFP_ZERO | __GFP_NOWARN;
	struct page *page;

	if (order)
		gfp = (gfp & ~__GFP_RECLAIM) | __GFP_NORETRY | __GFP_NOMEMALLOC;
	else
		gfp |= __GFP_RETRY_MAYFAIL;
	page = alloc_pages(gfp, order);
	if (page && order)
		split_page(page, order);
	return page;
}

unsigned long freelist_page_frame(struct page *page)
{
	return page_to_pfn(page);
}

void freelist_page_get(struct page *page)
{
	get_page(page);
}

void freelist_page_put(struct page *page)
{
	put_page(page);
}

/* The same for @number pages: what they cost together is paid once. */
void freelist_pages_put(struct page **pages, unsigned int number)
{
	release_pages(pages, number);
}

/*
 * Whether the caller's reference to a page that is mapped nowhere is the only
 * one. Whoever looks it up at this moment, through a page table that he has
 * read before, finds no reference to take, or has to look again.
 */
bool freelist_page_is_sole(struct page *page)
{
	if (!page_ref_freeze(page, 1))
		return false;
	page_ref_unfreeze(page, 1);
	return true;
}

/* The file system that the inodes of arenas are in. */
static int freelist_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, FREELIST_IOC_MAGIC) ? 0 : -ENOMEM;
}

static struct file_system_type freelist_fs = {
	.name = "freelist",
	.owner = THIS_MODULE,
	.init_fs_context = freelist_fs_context,
	.kill_sb = kill_anon_super,
};

static struct vfsmount *freelist_mount;
static int freelist_mount_count;

/* An inode for one arena; NULL when memory is short. */
struct inode *freelist_space_new(void)
{
	struct inode *inode;

	if (simple_pin_fs(&freelist_fs, &freelist_mount, &freelist_mount_count))
		return NULL;
	inode = alloc_anon_inode(freelist_mount->mnt_sb);
	if (!IS_ERR(inode))
		return inode;
	simple_release_fs(&freelist_mount, &freelist_mount_count);
	return NULL;
}

void freelist_space_free(struct inode *inode)
{
	iput(inode);
	simple_release_fs(&freelist_mount, &freelist_mount_count);
}

void freelist_space_attach(struct inode *inode, struct file *file)
{
	file->f_mapping = inode->i_mapping;
}

/* The lock between faults and pages that leave is the kernel's own for that. */
void freelist_space_hold(struct inode *inode)
{
	filemap_invalidate_lock_shared(inode->i_mapping);
}

void freelist_space_release(struct inode *inode)
{
	filemap_invalidate_unlock_shared(inode->i_mapping);
}

void freelist_space_settle(struct inode *inode)
{
	filemap_invalidate_lock(inode->i_mapping);
	filemap_invalidate_unlock(inode->i_mapping);
}

bool freelist_space_is_settled(struct inode *inode)
{
	if (!down_write_trylock(&inode->i_mapping->invalidate_lock))
		return false;
	filemap_invalidate_unlock(inode->i_mapping);
	return true;
}

void freelist_space_unmap(struct inode *inode, __u64 first, __u64 pages)
{
	unmap_mapping_range(inode->i_mapping, (loff_t)first << PAGE_SHIFT,
			    (loff_t)pages << PAGE_SHIFT, true);
}

/*
 * The caller's address space, locked for reading; NULL when it has none or is
 * being killed.
 */
struct mm_struct *freelist_mm_lock(void)
{
	struct mm_struct *mm = current->mm;

	return mm && !mmap_read_lock_killable(mm) ? mm : NULL;
}

void freelist_mm_unlock(struct mm_struct *mm)
{
	mmap_read_unlock(mm);
}

static bool freelist_area_maps(struct vm_area_struct *vma, struct inode *inode)
{
	return vma->vm_file && vma->vm_file->f_mapping == inode->i_mapping &&
	       vma_is_accessible(vma);
}

/* The area at @address, if it maps @inode and is not PROT_NONE. */
struct vm_area_struct *freelist_area_at(struct mm_struct *mm, struct inode *inode,
					unsigned long address)
{
	struct vm_area_struct *vma = vma_lookup(mm, address);

	return vma && freelist_area_maps(vma, inode) ? vma : NULL;
}

/* The first such area that ends behind @address. */
struct vm_area_struct *freelist_area_from(struct mm_struct *mm, struct inode *inode,
					  unsigned long address)
{
	struct vm_area_struct *vma;

	while ((vma = find_vma(mm, address)) && !freelist_area_maps(vma, inode)) {
		if (fatal_signal_pending(current))
			return NULL;
		address = vma->vm_end;
		cond_resched();
	}
	return vma;
}

static int freelist_count_mapped(pte_t *pte, unsigned long address, void *count)
{
	if (pte_none(ptep_get(pte)))
		return 1;
	++*(unsigned long *)count;
	return 0;
}

/*
 * How many page table entries are in use from @address on, up to one that is
 * not, of @pages, all of them in @vma. To ask is cheaper than to insert in vain.
 */
unsigned long freelist_area_mapped(struct vm_area_struct *vma, unsigned long address,
				   unsigned long pages)
{
	unsigned long count = 0;

	apply_to_page_range(vma->vm_mm, address, pages << PAGE_SHIFT, freelist_count_mapped, &count);
	return count;
}

int freelist_area_insert(struct vm_area_struct *vma, unsigned long address, struct page **pages,
			 unsigned long *left)
{
	return vm_insert_pages(vma, address, pages, left);
}

void freelist_page_zero(struct page *page, unsigned long at, unsigned long len)
{
	memzero_page(page, at, len);
}

void freelist_page_write(struct page *page, unsigned long at, const void *from, unsigned long len)
{
	memcpy_to_page(page, at, from, len);
}

void freelist_page_read(struct page *page, unsigned long at, void *to, unsigned long len)
{
	memcpy_from_page(to, page, at, len);
}

/*
 * Also of a file that is open for reading only, where it has this flag alone.
 * The kernel crate's constant has another flag's value in 7.2.
 */
bool freelist_area_is_shared(const struct vm_area_struct *area)
{
	return area->vm_flags & VM_MAYSHARE;
}

/* Maps @page where the fault was, writable at once if it was a write. */
unsigned int freelist_fault_insert(struct vm_fault *vmf, struct page *page)
{
	return (__force unsigned int)vmf_insert_page_mkwrite(vmf, page,
							     vmf->flags & FAULT_FLAG_WRITE);
}

unsigned int freelist_fault_sigbus(void)
{
	return (__force unsigned int)VM_FAULT_SIGBUS;
}

unsigned long freelist_huge_page_bytes(void)
{
	return PMD_SIZE;
}

/* The memory cgroup of the caller, with a reference; NULL without cgroups. */
struct mem_cgroup *freelist_memcg_get(void)
{
	return get_mem_cgroup_from_mm(current->mm);
}

void freelist_memcg_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}

/* From now on @memcg is charged for the caller; answers what was before. */
struct mem_cgroup *freelist_memcg_enter(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}

/* Worth reclaiming for, but never the OOM killer, and no news if there is none. */
#define METADATA_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* The trees of broken pages: objects of one size, in a cache of their own that slabinfo names. */
static struct kmem_cache *trees;

int freelist_trees_create(unsigned int size)
{
	trees = kmem_cache_create("freelist_tree", size, __alignof__(u64),
				  SLAB_ACCOUNT | SLAB_NO_MERGE, NULL);
	return trees ? 0 : -ENOMEM;
}

/* None of them is left. The kernel warns of those that are. */
void freelist_trees_destroy(void)
{
	kmem_cache_destroy(trees);
}

/* NULL when memory is short, or @size is not that of the cache. */
void *freelist_tree_alloc(unsigned long size)
{
	return size == kmem_cache_size(trees) ? kmem_cache_alloc(trees, METADATA_GFP) : NULL;
}

void freelist_tree_free(void *tree)
{
	kmem_cache_free(trees, tree);
}

void *freelist_table_alloc(unsigned long size)
{
	/* It tries high orders, without reclaim but for this. */
	return __vmalloc(size, METADATA_GFP & ~__GFP_KSWAPD_RECLAIM);
}

/* An arena that the shrinker knows. */
struct freelist_member {
	struct list_head list;
	/* Those who shrink it at this moment: it is not freed as long. */
	atomic_t busy;
	void *arena;
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

	*(unsigned long *)sum += shrinking.ask->count(member->arena);
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
	unsigned long (*count)(void *arena);
	unsigned long (*shrink)(void *arena, unsigned long pages);
	/* The arena that is not meant. */
	void *except;
};

static enum lru_status hold_member(struct list_head *item, struct list_lru_one *list, void *arg)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);
	struct held *held = arg;

	if (held->number == ARRAY_SIZE(held->members) || member->arena == held->except ||
	    !held->count(member->arena))
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
			freed += held->shrink(member->arena, most - freed);
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
		struct held held = { .count = shrinking.ask->count, .shrink = shrinking.ask->shrink };

		list_lru_walk(&shrinking.members, hold_member, &held, ULONG_MAX);
		one = shrink_held(&held, OOM_PAGES);
		*freed += one;
	} while (one && *freed < OOM_PAGES);
	return NOTIFY_OK;
}

struct spare {
	void *except;
	unsigned long pages;
};

static enum lru_status add_spare(struct list_head *item, struct list_lru_one *list, void *arg)
{
	struct freelist_member *member = container_of(item, struct freelist_member, list);
	struct spare *spare = arg;

	if (member->arena != spare->except)
		spare->pages += shrinking.ask->count_spare(member->arena);
	return LRU_SKIP;
}

/* How many pages arenas other than @arena would hand over. */
unsigned long freelist_spare_count(void *arena)
{
	struct spare spare = { .except = arena };

	list_lru_walk(&shrinking.members, add_spare, &spare, ULONG_MAX);
	return spare.pages;
}

/* Makes them hand over at most @pages. Answers how many came. */
unsigned long freelist_spare_take(void *arena, unsigned long pages)
{
	unsigned long taken = 0, one;

	do {
		struct held held = {
			.count = shrinking.ask->count_spare,
			.shrink = shrinking.ask->hand_over,
			.except = arena,
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

/* Lets the shrinker know an arena of the caller's memory cgroup; NULL if memory is short. */
struct freelist_member *freelist_member_new(void *arena)
{
	struct freelist_member *member;

	member = kmem_cache_alloc_lru(shrinking.cache, &shrinking.members, METADATA_GFP);
	if (!member)
		return NULL;
	INIT_LIST_HEAD(&member->list);
	atomic_set(&member->busy, 0);
	member->arena = arena;
	list_lru_add_obj(&shrinking.members, &member->list);
	return member;
}

/* Nobody shrinks the arena any more when this returns. */
void freelist_member_free(struct freelist_member *member)
{
	list_lru_del_obj(&shrinking.members, &member->list);
	wait_var_event(&member->busy, !atomic_read(&member->busy));
	kmem_cache_free(shrinking.cache, member);
}

/* The machine's memory, in bytes. */
__u64 freelist_ram_bytes(void)
{
	return (__u64)totalram_pages() << PAGE_SHIFT;
}

/* The name of the caller's process, in FREELIST_NAME_LEN bytes. */
void freelist_process_name(char *name)
{
	BUILD_BUG_ON((int)FREELIST_NAME_LEN != (int)TASK_COMM_LEN);
	strscpy_pad(name, current->group_leader->comm, FREELIST_NAME_LEN);
}

bool freelist_may_exceed_defaults(void)
{
	return capable(CAP_SYS_RESOURCE);
}

/* @index where it is below @size, else 0, also under speculation. */
unsigned long freelist_index_nospec(unsigned long index, unsigned long size)
{
	return array_index_nospec(index, size);
}

__u64 freelist_random(void)
{
	return get_random_u64();
}

bool freelist_fatal_signal(void)
{
	return fatal_signal_pending(current);
}

bool freelist_signal_pending(void)
{
	return signal_pending(current);
}

/* Nanoseconds of the monotonic clock. */
__s64 freelist_now(void)
{
	return ktime_get();
}

/* From here on a wake-up ends the sleep that follows, or this state. */
void freelist_sleep_prepare(void)
{
	set_current_state(TASK_INTERRUPTIBLE | TASK_FREEZABLE);
}

void freelist_sleep_finish(void)
{
	__set_current_state(TASK_RUNNING);
}

/*
 * Sleeps until @until, for ever if that is KTIME_MAX. Answers whether a wake-up
 * or a signal came before.
 */
bool freelist_sleep(__s64 until)
{
	ktime_t end = until;

	return schedule_hrtimeout_range(until == KTIME_MAX ? NULL : &end,
					current->timer_slack_ns, HRTIMER_MODE_ABS);
}

/* Those who poll a file; NULL when memory is short. */
struct wait_queue_head *freelist_poll_new(void)
{
	struct wait_queue_head *queue = kmalloc(sizeof(*queue), METADATA_GFP);

	if (queue)
		init_waitqueue_head(queue);
	return queue;
}

void freelist_poll_free(struct wait_queue_head *queue)
{
	kfree(queue);
}

void freelist_poll_register(struct wait_queue_head *queue, struct file *file,
			    struct poll_table_struct *table)
{
	poll_wait(file, queue, table);
}

bool freelist_poll_is_idle(struct wait_queue_head *queue)
{
	return !waitqueue_active(queue);
}

void freelist_poll_wake(struct wait_queue_head *queue)
{
	wake_up_poll(queue, EPOLLOUT | EPOLLWRNORM);
}

void freelist_resched(void)
{
	cond_resched();
}

/*
 * A structure of user space, extended with zeros or ending in zeros. Nearly all have our size, and
 * every size is one of whole words: a few moves, where a copy of any size, to any place, would be
 * looked at byte by byte. For the two calls that are made most there is not even a loop.
 */
static __always_inline int freelist_words_in(u64 *ours, const u64 __user *theirs,
					     unsigned long words)
{
	unsigned long i;

	if (!user_read_access_begin(theirs, words * sizeof(*ours)))
		return -EFAULT;
#pragma GCC unroll 8
	for (i = 0; i < words; i++)
		unsafe_get_user(ours[i], theirs + i, fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

static __always_inline int freelist_words_out(u64 __user *theirs, const u64 *ours,
					      unsigned long words)
{
	unsigned long i;

	if (!user_write_access_begin(theirs, words * sizeof(*ours)))
		return -EFAULT;
#pragma GCC unroll 8
	for (i = 0; i < words; i++)
		unsafe_put_user(ours[i], theirs + i, fault);
	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}

int freelist_copy_in(void *to, unsigned long size, unsigned long from, unsigned long user_size)
{
	const u64 __user *theirs = (const u64 __user *)from;

	if (unlikely(user_size != size))
		return copy_struct_from_user(to, size, theirs, user_size);
	switch (size) {
	case sizeof(struct freelist_free):
		return freelist_words_in(to, theirs, sizeof(struct freelist_free) / sizeof(u64));
	case sizeof(struct freelist_alloc):
		return freelist_words_in(to, theirs, sizeof(struct freelist_alloc) / sizeof(u64));
	default:
		return freelist_words_in(to, theirs, size / sizeof(u64));
	}
}

/* Its answer: as much as user space has room for, and zeros beyond. */
int freelist_copy_out(unsigned long to, unsigned long user_size, const void *from,
		      unsigned long size)
{
	u64 __user *theirs = (u64 __user *)to;

	if (unlikely(user_size != size))
		return copy_struct_to_user(theirs, user_size, from, size, NULL);
	switch (size) {
	case sizeof(struct freelist_alloc):
		return freelist_words_out(theirs, from, sizeof(struct freelist_alloc) / sizeof(u64));
	default:
		return freelist_words_out(theirs, from, size / sizeof(u64));
	}
}

/* Parts of an array of user space; both answer the bytes that could not be copied. */
unsigned long freelist_array_in(void *to, unsigned long from, unsigned long size)
{
	return copy_from_user(to, (const void __user *)from, size);
}

unsigned long freelist_array_out(unsigned long to, const void *from, unsigned long size)
{
	return copy_to_user((void __user *)to, from, size);
}

/* debugfs, also where there is none: then these do nothing. */
struct dentry *freelist_debugfs_dir(const char *name, struct dentry *parent)
{
	return debugfs_create_dir(name, parent);
}

struct dentry *freelist_debugfs_file(const char *name, unsigned short mode, struct dentry *parent,
				     void *data, const struct file_operations *fops)
{
	return debugfs_create_file(name, mode, parent, data, fops);
}

void freelist_debugfs_number(const char *name, struct dentry *parent, __u32 *number)
{
	debugfs_create_u32(name, 0600, parent, number);
}

void freelist_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}

/* A number that user space has written as text. */
int freelist_number_from_user(const char *from, unsigned long len, __u64 *number)
{
	return kstrtou64_from_user((const char __user *)from, len, 0, number);
}
