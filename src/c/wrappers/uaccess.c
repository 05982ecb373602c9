// SPDX-License-Identifier: GPL-2.0-only
/*
 * Macros and inline functions for the arguments of user space, as functions for Rust.
 */
#include <linux/nospec.h>
#include <linux/uaccess.h>

#include "../uaccess.h"

/* Returns @index if it is below @size, else 0, also under speculation. */
unsigned long freelist_index_nospec(unsigned long index, unsigned long size)
{
	return array_index_nospec(index, size);
}

/* Copy a part of an array from and to user space. Both return how many bytes were not copied. */
unsigned long freelist_array_in(void *to, unsigned long from, unsigned long size)
{
	return copy_from_user(to, (const void __user *)from, size);
}

unsigned long freelist_array_out(unsigned long to, const void *from, unsigned long size)
{
	return copy_to_user((void __user *)to, from, size);
}
