// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs, as functions for Rust.
 */
#include <linux/debugfs.h>
#include <linux/kstrtox.h>

#include "../debugfs.h"

/* Without debugfs these functions do nothing. */
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

/*
 * Reads a number that user space has written as text. Returns -EINVAL, -ERANGE
 * or -EFAULT. May sleep.
 */
int freelist_number_from_user(const char *from, unsigned long len, __u64 *number)
{
	return kstrtou64_from_user((const char __user *)from, len, 0, number);
}
