/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files, the inodes of arenas, and wait queues of pollers.
 */
#ifndef _FREELIST_FS_H
#define _FREELIST_FS_H

#include <linux/types.h>

struct address_space_operations;
struct file;
struct file_operations;
struct freelist_cdev;
struct inode;
struct poll_table_struct;
struct wait_queue_head;

int freelist_fs_mount(void);
void freelist_fs_unmount(void);
struct inode *freelist_address_space_new(const struct address_space_operations *operations,
					 __u64 pages);
void freelist_address_space_free(struct inode *inode);
struct freelist_cdev *freelist_cdev_add(__u32 number, const struct file_operations *operations,
					void *data);
void freelist_cdev_remove(struct freelist_cdev *cdev);
void *freelist_cdev_data(struct inode *inode);
struct file *freelist_file_reopen(struct file *file);
struct wait_queue_head *freelist_poll_new(void);

void freelist_address_space_attach(struct inode *inode, struct file *file);
void freelist_poll_free(struct wait_queue_head *queue);
void freelist_poll_register(struct wait_queue_head *queue, struct file *file,
			    struct poll_table_struct *table);
bool freelist_poll_is_idle(struct wait_queue_head *queue);
void freelist_poll_wake(struct wait_queue_head *queue);

#endif /* _FREELIST_FS_H */
