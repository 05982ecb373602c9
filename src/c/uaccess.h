/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies from and to user space.
 */
#ifndef _FREELIST_UACCESS_H
#define _FREELIST_UACCESS_H

#include <linux/types.h>

struct freelist_alloc;

int freelist_copy_in(void *to, unsigned long size, unsigned long from, unsigned long user_size);
int freelist_copy_out(unsigned long to, unsigned long user_size, const void *from,
		      unsigned long size);
int freelist_copy_out_nofault(unsigned long to, unsigned long user_size,
			      const struct freelist_alloc *from);

unsigned long freelist_index_nospec(unsigned long index, unsigned long size);
unsigned long freelist_array_in(void *to, unsigned long from, unsigned long size);
unsigned long freelist_array_out(unsigned long to, const void *from, unsigned long size);

#endif /* _FREELIST_UACCESS_H */
