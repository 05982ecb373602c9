/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files in debugfs.
 */
#ifndef _FREELIST_DEBUGFS_H
#define _FREELIST_DEBUGFS_H

#include <linux/types.h>

struct dentry;
struct file_operations;

struct dentry *freelist_debugfs_dir(const char *name, struct dentry *parent);
struct dentry *freelist_debugfs_file(const char *name, unsigned short mode, struct dentry *parent,
				     void *data, const struct file_operations *fops);
void freelist_debugfs_number(const char *name, struct dentry *parent, __u32 *number);
void freelist_debugfs_remove(struct dentry *dentry);
int freelist_number_from_user(const char *from, unsigned long len, __u64 *number);

#endif /* _FREELIST_DEBUGFS_H */
