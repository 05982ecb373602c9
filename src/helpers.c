// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's macros and inline functions, as functions for Rust.
 */
#include <linux/capability.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "helpers.h"

bool freelist_file_writable(const struct file *file)
{
	return file->f_mode & FMODE_WRITE;
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

/* The page @n behind @page, both of one allocation. */
struct page *freelist_page_nth(struct page *page, unsigned long n)
{
	return page + n;
}

void freelist_page_get(struct page *page)
{
	get_page(page);
}

void freelist_page_put(struct page *page)
{
	put_page(page);
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

void *freelist_object_alloc(unsigned long size)
{
	return kmalloc(size, METADATA_GFP);
}

void *freelist_table_alloc(unsigned long size)
{
	return __vmalloc(size, METADATA_GFP);
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

bool freelist_fatal_signal(void)
{
	return fatal_signal_pending(current);
}

void freelist_resched(void)
{
	cond_resched();
}

/* A structure of user space, extended with zeros or ending in zeros. */
int freelist_copy_in(void *to, unsigned long size, unsigned long from, unsigned long user_size)
{
	return copy_struct_from_user(to, size, (const void __user *)from, user_size);
}

/* Its answer: as much as user space has room for, and zeros beyond. */
int freelist_copy_out(unsigned long to, unsigned long user_size, const void *from,
		       unsigned long size)
{
	return copy_struct_to_user((void __user *)to, user_size, from, size, NULL);
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

void freelist_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}
