// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copies of the contract's structures from and to user space.
 */
#include <linux/uaccess.h>

#include "../uapi/freelist.h"
#include "uaccess.h"

/*
 * Copies @words words from user space. Returns -EFAULT when they cannot be read.
 *
 * Nearly all callers' structures have the kernel's size, which is a multiple of a
 * word: copying words takes fewer instructions than copying any size at any
 * alignment. The sizes of the two most frequent ioctls are constants, so that
 * their loops are unrolled.
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

/*
 * Copies a structure of @user_size bytes from user space, and extends a shorter
 * one with zeros. Returns -E2BIG when a longer one does not end in zeros, -EFAULT
 * when it cannot be read. May sleep.
 */
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

/*
 * Copies a structure to @user_size bytes in user space: its first bytes if these
 * are fewer, all of it and zeros if they are more. Returns -EFAULT when it cannot
 * be written. May sleep.
 */
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
 * Copies the answer of ALLOC without a page fault. May be called under a spin
 * lock. Returns -EFAULT when that needs a page fault: freelist_copy_out() may
 * succeed.
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
