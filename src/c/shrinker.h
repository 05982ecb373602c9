/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the module needs of the kernel and Rust cannot reach: macros, inline
 * functions, and allocation flags. Read by bindgen, with the contract.
 */
#ifndef _FREELIST_HELPERS_H
#define _FREELIST_HELPERS_H

#include <linux/types.h>
#include <uapi/linux/mman.h>
#include "../uapi/freelist.h"

struct dentry;
struct file;
struct file_operations;
struct freelist_member;
struct inode;
struct kmem_cache;
struct mem_cgroup;
struct mm_struct;
struct module;
struct page;
struct poll_table_struct;
struct vm_area_struct;
struct vm_area_struct;
struct vm_fault;
struct wait_queue_head;

/* This module; the kernel crate's name for it differs between releases. */
extern struct module __this_module;

/* Macros of the kernel that bindgen cannot read as they are. */
enum {
	/* The numbers of the calls: direction and size do not tell them apart. */
	FREELIST_NR_INFO = _IOC_NR(FREELIST_IOC_INFO),
	FREELIST_NR_ALLOC = _IOC_NR(FREELIST_IOC_ALLOC),
	FREELIST_NR_FREE = _IOC_NR(FREELIST_IOC_FREE),
	FREELIST_NR_ALLOC_BULK = _IOC_NR(FREELIST_IOC_ALLOC_BULK),
	FREELIST_NR_FREE_BULK = _IOC_NR(FREELIST_IOC_FREE_BULK),
	FREELIST_NR_LIMIT = _IOC_NR(FREELIST_IOC_LIMIT),
	FREELIST_NR_TRIM = _IOC_NR(FREELIST_IOC_TRIM),
	FREELIST_NR_STAT = _IOC_NR(FREELIST_IOC_STAT),
	/* In the flags of an unmapped area that is looked for. */
	FREELIST_MAP_FIXED = MAP_FIXED,
	/* Bytes of a process's name. */
	FREELIST_NAME_LEN = 16,
};

bool freelist_file_writable(const struct file *file);
bool freelist_file_nonblocking(const struct file *file);
unsigned int freelist_page_max_order(void);
struct page *freelist_page_alloc(unsigned int order);
unsigned long freelist_page_frame(struct page *page);
void freelist_page_get(struct page *page);
void freelist_page_put(struct page *page);
void freelist_pages_put(struct page **pages, unsigned int number);
bool freelist_page_is_sole(struct page *page);
struct mm_struct *freelist_mm_lock(void);
void freelist_mm_unlock(struct mm_struct *mm);
struct vm_area_struct *freelist_area_at(struct mm_struct *mm, struct inode *inode,
					unsigned long address);
struct vm_area_struct *freelist_area_from(struct mm_struct *mm, struct inode *inode,
					  unsigned long address);
unsigned long freelist_area_mapped(struct vm_area_struct *vma, unsigned long address,
				   unsigned long pages);
int freelist_area_insert(struct vm_area_struct *vma, unsigned long address, struct page **pages,
			 unsigned long *left);

void freelist_page_zero(struct page *page, unsigned long at, unsigned long len);
void freelist_page_write(struct page *page, unsigned long at, const void *from, unsigned long len);
void freelist_page_read(struct page *page, unsigned long at, void *to, unsigned long len);
bool freelist_area_is_shared(const struct vm_area_struct *area);
unsigned int freelist_fault_insert(struct vm_fault *vmf, struct page *page);
unsigned int freelist_fault_sigbus(void);
unsigned long freelist_huge_page_bytes(void);

struct inode *freelist_space_new(void);
void freelist_space_free(struct inode *inode);
void freelist_space_attach(struct inode *inode, struct file *file);
void freelist_space_hold(struct inode *inode);
void freelist_space_release(struct inode *inode);
void freelist_space_settle(struct inode *inode);
bool freelist_space_is_settled(struct inode *inode);
void freelist_space_unmap(struct inode *inode, __u64 first, __u64 pages);

struct mem_cgroup *freelist_memcg_get(void);
void freelist_memcg_put(struct mem_cgroup *memcg);
struct mem_cgroup *freelist_memcg_enter(struct mem_cgroup *memcg);
int freelist_trees_create(unsigned int size);
void freelist_trees_destroy(void);
void *freelist_tree_alloc(unsigned long size);
void freelist_tree_free(void *tree);
void *freelist_table_alloc(unsigned long size);

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

int freelist_shrinker_register(const struct freelist_shrinking *functions);
void freelist_shrinker_unregister(void);
unsigned long freelist_spare_count(void *arena);
unsigned long freelist_spare_take(void *arena, unsigned long pages);
struct freelist_member *freelist_member_new(void *arena);
void freelist_member_free(struct freelist_member *member);

__u64 freelist_ram_bytes(void);
void freelist_process_name(char *name);
bool freelist_may_exceed_defaults(void);
unsigned long freelist_index_nospec(unsigned long index, unsigned long size);
__u64 freelist_random(void);
bool freelist_fatal_signal(void);
bool freelist_signal_pending(void);
void freelist_resched(void);

__s64 freelist_now(void);
void freelist_sleep_prepare(void);
void freelist_sleep_finish(void);
bool freelist_sleep(__s64 until);

struct wait_queue_head *freelist_poll_new(void);
void freelist_poll_free(struct wait_queue_head *queue);
void freelist_poll_register(struct wait_queue_head *queue, struct file *file,
			    struct poll_table_struct *table);
bool freelist_poll_is_idle(struct wait_queue_head *queue);
void freelist_poll_wake(struct wait_queue_head *queue);

int freelist_copy_in(void *to, unsigned long size, unsigned long from, unsigned long user_size);
int freelist_copy_out(unsigned long to, unsigned long user_size, const void *from,
		       unsigned long size);
unsigned long freelist_array_in(void *to, unsigned long from, unsigned long size);
unsigned long freelist_array_out(unsigned long to, const void *from, unsigned long size);

struct dentry *freelist_debugfs_dir(const char *name, struct dentry *parent);
struct dentry *freelist_debugfs_file(const char *name, unsigned short mode, struct dentry *parent,
				     void *data, const struct file_operations *fops);
void freelist_debugfs_number(const char *name, struct dentry *parent, __u32 *number);
void freelist_debugfs_remove(struct dentry *dentry);
int freelist_number_from_user(const char *from, unsigned long len, __u64 *number);

#ifdef FREELIST_BENCH
void freelist_bench_lock(unsigned int count);
struct kmem_cache *freelist_bench_cache_create(unsigned int size);
void freelist_bench_cache_destroy(struct kmem_cache *cache);
bool freelist_bench_cache_pairs(struct kmem_cache *cache, unsigned int count);
bool freelist_bench_cache_bulk(struct kmem_cache *cache, void **objects, unsigned int number,
			       unsigned int count);
bool freelist_bench_kmalloc_pairs(unsigned long size, unsigned int count);
bool freelist_bench_page_pairs(unsigned int count);
unsigned int freelist_bench_pages_take(struct page **pages, unsigned int number);
void freelist_bench_pages_give(struct page **pages, unsigned int number);
#endif

#endif /* _FREELIST_HELPERS_H */
