// SPDX-License-Identifier: GPL-2.0-only
/*
 * Structures of user space.
 */
#include <linux/uaccess.h>

#include "../uapi/freelist.h"
#include "uaccess.h"

/*
 * A structure of user space, extended with zeros or ending in zeros. Nearly all have our size, and
 * every size is one of whole words: a few moves, where a copy of any size, to any place, would be
 * looked at byte by byte. For the two calls that are made most there is not even a loop.
 */
static __always_inline int freelist_words_in(u64 *ours, const u64 __user *theirs,
					     unsigned long words)
{
	unsigned long i;

	if (!user_read_access_begin(theirs, words * sizeof(*ours)))
		return -EFAULT;
#pragma GCC unroll 8
	for (i = 0; i < words; i++)
		unsafe_get_user(ours[i], theirs + i, fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

static __always_inline int freelist_words_out(u64 __user *theirs, const u64 *ours,
					      unsigned long words)
{
	unsigned long i;

	if (!user_write_access_begin(theirs, words * sizeof(*ours)))
		return -EFAULT;
#pragma GCC unroll 8
	for (i = 0; i < words; i++)
		unsafe_put_user(ours[i], theirs + i, fault);
	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}

int freelist_copy_in(void *to, unsigned long size, unsigned long from, unsigned long user_size)
{
	const u64 __user *theirs = (const u64 __user *)from;

	if (unlikely(user_size != size))
		return copy_struct_from_user(to, size, theirs, user_size);
	switch (size) {
	case sizeof(struct freelist_free):
		return freelist_words_in(to, theirs, sizeof(struct freelist_free) / sizeof(u64));
	case sizeof(struct freelist_alloc):
		return freelist_words_in(to, theirs, sizeof(struct freelist_alloc) / sizeof(u64));
	default:
		return freelist_words_in(to, theirs, size / sizeof(u64));
	}
}

/* Its answer: as much as user space has room for, and zeros beyond. */
int freelist_copy_out(unsigned long to, unsigned long user_size, const void *from,
		      unsigned long size)
{
	u64 __user *theirs = (u64 __user *)to;

	if (unlikely(user_size != size))
		return copy_struct_to_user(theirs, user_size, from, size, NULL);
	switch (size) {
	case sizeof(struct freelist_alloc):
		return freelist_words_out(theirs, from, sizeof(struct freelist_alloc) / sizeof(u64));
	default:
		return freelist_words_out(theirs, from, size / sizeof(u64));
	}
}

/*
 * The same of the call that is made most, without a page fault and so under a spin lock. -EFAULT: user
 * space may have it by freelist_copy_out().
 */
int freelist_copy_out_nofault(unsigned long to, unsigned long user_size,
			      const struct freelist_alloc *from)
{
	int status;

	if (unlikely(user_size != sizeof(*from)))
		return -EFAULT;
	pagefault_disable();
	status = freelist_words_out((u64 __user *)to, (const u64 *)from,
				    sizeof(*from) / sizeof(u64));
	pagefault_enable();
	return status;
}
