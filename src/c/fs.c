// SPDX-License-Identifier: GPL-2.0
/*
 * The inodes of arenas, and those who poll files.
 */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pseudo_fs.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "../uapi/freelist.h"
#include "fs.h"
#include "memcg.h"

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
struct inode *freelist_address_space_new(void)
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

void freelist_address_space_free(struct inode *inode)
{
	iput(inode);
	simple_release_fs(&freelist_mount, &freelist_mount_count);
}

bool freelist_try_invalidate_barrier(struct inode *inode)
{
	if (!down_write_trylock(&inode->i_mapping->invalidate_lock))
		return false;
	filemap_invalidate_unlock(inode->i_mapping);
	return true;
}

/* Those who poll a file; NULL when memory is short. */
struct wait_queue_head *freelist_poll_new(void)
{
	struct wait_queue_head *queue = kmalloc(sizeof(*queue), METADATA_GFP);

	if (queue)
		init_waitqueue_head(queue);
	return queue;
}
