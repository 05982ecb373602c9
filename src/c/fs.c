// SPDX-License-Identifier: GPL-2.0-only
/*
 * The inodes of arenas, the character device, and wait queues of pollers.
 */
#include <linux/cdev.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/fcntl.h>
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
#include "metadata.h"

/* Sets up the file system of the inodes of arenas. */
static int freelist_fs_context(struct fs_context *fc)
{
	return init_pseudo(fc, FREELIST_IOC_MAGIC) ? 0 : -ENOMEM;
}

/*
 * Has no .owner: it is mounted as long as the module is loaded, and would keep
 * it loaded for good.
 */
static struct file_system_type freelist_fs = {
	.name = "freelist",
	.init_fs_context = freelist_fs_context,
	.kill_sb = kill_anon_super,
};

static struct vfsmount *freelist_mount;

/* Mounts the file system. Returns an error when memory is short. May sleep. */
int freelist_fs_mount(void)
{
	struct vfsmount *mount = kern_mount(&freelist_fs);

	if (IS_ERR(mount))
		return PTR_ERR(mount);
	freelist_mount = mount;
	return 0;
}

/* Unmounts the file system. No inode of it is left. */
void freelist_fs_unmount(void)
{
	kern_unmount(freelist_mount);
	freelist_mount = NULL;
}

/*
 * Allocates an inode for one arena, of @pages pages at most, whose page cache is
 * the arena's memory: never written back, movable, in folios of any order.
 * Returns NULL when memory is short. May sleep.
 */
struct inode *freelist_address_space_new(const struct address_space_operations *operations,
					 __u64 pages)
{
	struct inode *inode = alloc_anon_inode(freelist_mount->mnt_sb);

	if (IS_ERR(inode))
		return NULL;
	/* Memory failure removes pages of regular files alone. */
	inode->i_mode |= S_IFREG;
	inode->i_size = (loff_t)pages << PAGE_SHIFT;
	inode->i_mapping->a_ops = operations;
	mapping_set_gfp_mask(inode->i_mapping, GFP_HIGHUSER_MOVABLE);
	mapping_set_unevictable(inode->i_mapping);
	mapping_set_large_folios(inode->i_mapping);
	/* A folio is divided only if its owner agrees (release_folio). */
	mapping_set_release_always(inode->i_mapping);
	return inode;
}

/* Frees the inode with its folios. A pinned folio lives until it is unpinned. */
void freelist_address_space_free(struct inode *inode)
{
	iput(inode);
}

/* A character device with its data. (Not all releases have bindings of struct cdev for Rust.) */
struct freelist_cdev {
	struct cdev cdev;
	void *data;
};

/* Adds a character device of @number. Returns an ERR_PTR() on failure. May sleep. */
struct freelist_cdev *freelist_cdev_add(__u32 number, const struct file_operations *operations,
					void *data)
{
	struct freelist_cdev *new = kzalloc(sizeof(*new), GFP_KERNEL);
	int error;

	if (!new)
		return ERR_PTR(-ENOMEM);
	new->data = data;
	cdev_init(&new->cdev, operations);
	new->cdev.owner = THIS_MODULE;
	error = cdev_add(&new->cdev, number, 1);
	if (error) {
		kfree(new);
		return ERR_PTR(error);
	}
	return new;
}

/* Removes a character device. No file of it is open: an open file keeps the module loaded. */
void freelist_cdev_remove(struct freelist_cdev *cdev)
{
	cdev_del(&cdev->cdev);
	kfree(cdev);
}

/* Returns the data of the character device of @inode. */
void *freelist_cdev_data(struct inode *inode)
{
	return container_of(inode->i_cdev, struct freelist_cdev, cdev)->data;
}

/*
 * Opens the path of @file again, as the caller, in the mode of @file. Returns an
 * ERR_PTR() on failure. May sleep.
 */
struct file *freelist_file_reopen(struct file *file)
{
	int flags = file->f_flags & (O_ACCMODE | O_NONBLOCK | O_LARGEFILE);

	return dentry_open(&file->f_path, flags, current_cred());
}

/* Allocates an empty wait queue. Returns NULL when memory is short. May sleep. */
struct wait_queue_head *freelist_poll_new(void)
{
	struct wait_queue_head *queue = kmalloc(sizeof(*queue), METADATA_GFP);

	if (queue)
		init_waitqueue_head(queue);
	return queue;
}
