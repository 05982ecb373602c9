/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory cgroups: the one that an arena is charged to.
 */
#ifndef _FREELIST_MEMCG_H
#define _FREELIST_MEMCG_H

struct mem_cgroup;

struct mem_cgroup *freelist_memcg_get(void);
void freelist_memcg_put(struct mem_cgroup *memcg);
struct mem_cgroup *freelist_memcg_enter(struct mem_cgroup *memcg);

#endif /* _FREELIST_MEMCG_H */
