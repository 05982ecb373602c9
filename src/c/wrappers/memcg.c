// SPDX-License-Identifier: GPL-2.0-only
/*
 * Inline functions of memory cgroups, as functions for Rust.
 */
#include <linux/memcontrol.h>
#include <linux/sched/mm.h>

#include "../memcg.h"

/* Returns the memory cgroup of the caller, with a reference; NULL without cgroups. */
struct mem_cgroup *freelist_memcg_get(void)
{
	return get_mem_cgroup_from_mm(current->mm);
}

void freelist_memcg_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}

/*
 * Charges the caller's allocations to @memcg from now on. Returns the cgroup
 * that was set before.
 */
struct mem_cgroup *freelist_memcg_enter(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}
