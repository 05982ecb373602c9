// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions of files and their inodes, as functions for Rust.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "../fs.h"

/* Makes mappings of @file map the pages of @inode, and writes to them update no time stamps. */
void freelist_address_space_attach(struct inode *inode, struct file *file)
{
	file->f_mapping = inode->i_mapping;
	file->f_wb_err = filemap_sample_wb_err(file->f_mapping);
	file->f_mode |= FMODE_NOCMTIME;
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
	return !wq_has_sleeper(queue);
}

void freelist_poll_wake(struct wait_queue_head *queue)
{
	wake_up_poll(queue, EPOLLOUT | EPOLLWRNORM);
}
