/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's macros, inline functions and allocation flags that Rust cannot
 * use directly. bindgen reads this file, with the contract.
 */
#ifndef _FREELIST_HELPERS_H
#define _FREELIST_HELPERS_H

#include "../uapi/freelist.h"
#include "debugfs.h"
#include "folio.h"
#include "fs.h"
#include "memcg.h"
#include "metadata.h"
#include "mm.h"
#include "sched.h"
#include "shrinker.h"
#include "trace.h"
#include "uaccess.h"
#ifdef FREELIST_BENCH
#include "baseline.h"
#endif

struct module;

/* This module; the kernel crate's name for it differs between releases. */
extern struct module __this_module;

/* Macros that bindgen cannot evaluate. */
enum {
	/* The numbers of the ioctls, without direction and size, which do not identify an ioctl. */
	FREELIST_NR_INFO = _IOC_NR(FREELIST_IOC_INFO),
	FREELIST_NR_ALLOC = _IOC_NR(FREELIST_IOC_ALLOC),
	FREELIST_NR_FREE = _IOC_NR(FREELIST_IOC_FREE),
	FREELIST_NR_ALLOC_BULK = _IOC_NR(FREELIST_IOC_ALLOC_BULK),
	FREELIST_NR_FREE_BULK = _IOC_NR(FREELIST_IOC_FREE_BULK),
	FREELIST_NR_LIMIT = _IOC_NR(FREELIST_IOC_LIMIT),
	FREELIST_NR_TRIM = _IOC_NR(FREELIST_IOC_TRIM),
	FREELIST_NR_STAT = _IOC_NR(FREELIST_IOC_STAT),
	FREELIST_NR_RESIZE = _IOC_NR(FREELIST_IOC_RESIZE),
	FREELIST_NR_DISCARD = _IOC_NR(FREELIST_IOC_DISCARD),
	FREELIST_NR_CLONE = _IOC_NR(FREELIST_IOC_CLONE),
};
static const __u64 FREELIST_OFFERS_ALIGN = FREELIST_FEATURE_ALIGN;
static const __u64 FREELIST_OFFERS_RESIZE = FREELIST_FEATURE_RESIZE;
static const __u64 FREELIST_OFFERS_SLACK = FREELIST_FEATURE_SLACK;
static const __u64 FREELIST_OFFERS_MOVED = FREELIST_FEATURE_MOVED;
static const __u64 FREELIST_OFFERS_HUGE = FREELIST_FEATURE_HUGE;
static const __u64 FREELIST_OFFERS_DISCARD = FREELIST_FEATURE_DISCARD;
static const __u64 FREELIST_OFFERS_CLONE = FREELIST_FEATURE_CLONE;

#endif /* _FREELIST_HELPERS_H */
