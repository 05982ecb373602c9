/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Files, the inodes of arenas, and those who poll.
 */
#ifndef _FREELIST_FS_H
#define _FREELIST_FS_H

#include <linux/cdev.h>
#include <linux/types.h>

struct address_space_operations;
struct file;
struct file_operations;
struct inode;
struct poll_table_struct;
struct wait_queue_head;

int freelist_fs_mount(void);
void freelist_fs_unmount(void);
struct inode *freelist_address_space_new(const struct address_space_operations *operations,
					 __u64 pages);
void freelist_address_space_free(struct inode *inode);
int freelist_cdev_add(struct cdev *cdev, const struct file_operations *operations, dev_t number);
struct file *freelist_file_reopen(struct file *file);
struct wait_queue_head *freelist_poll_new(void);

void freelist_address_space_attach(struct inode *inode, struct file *file);
struct cdev *freelist_cdev_of(struct inode *inode);
void freelist_poll_free(struct wait_queue_head *queue);
void freelist_poll_register(struct wait_queue_head *queue, struct file *file,
			    struct poll_table_struct *table);
bool freelist_poll_is_idle(struct wait_queue_head *queue);
void freelist_poll_wake(struct wait_queue_head *queue);

#endif /* _FREELIST_FS_H */
