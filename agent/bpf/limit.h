/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A limit on records, for each cgroup by itself: what one service or container does in excess does not drive out what
 * the others do. What is left out is counted.
 *
 * For each cgroup the time is kept at which its next record would be due if all were spread evenly (the generic cell rate
 * algorithm). One that comes earlier than the burst allows is left out. Two processors may both let one through; none
 * goes uncounted.
 */
#ifndef PICKET_LIMIT_H
#define PICKET_LIMIT_H

#include "bpf.h"

enum {
	/* Cgroups kept apart; of more, those that were quiet for longest begin anew. */
	LIMITED_CGROUPS_MAX = 1024,
};

/* Set by the sensor when it starts. */
struct limit {
	/* Time between two records of one cgroup, when spread evenly; 0: no limit. */
	u64 interval_ns;
	/* How much earlier than due a record may come. */
	u64 burst_ns;
};

#define LIMIT_MAPS(limit_map, due_map)                                                                                 \
	struct {                                                                                                       \
		MAP_UINT(type, MAP_ARRAY);                                                                             \
		MAP_UINT(max_entries, 1);                                                                              \
		MAP_TYPE(key, u32);                                                                                    \
		MAP_TYPE(value, struct limit);                                                                         \
	} limit_map SECTION(".maps");                                                                                  \
	struct {                                                                                                       \
		MAP_UINT(type, MAP_LRU_HASH);                                                                          \
		MAP_UINT(max_entries, LIMITED_CGROUPS_MAX);                                                            \
		MAP_TYPE(key, u64);                                                                                    \
		MAP_TYPE(value, u64);                                                                                  \
	} due_map SECTION(".maps")

/* Whether one more record of a cgroup is too many. */
INLINE u32 exceeds_limit(void *limits, void *due_times, u64 cgroup, u64 now)
{
	u32 zero = 0;
	struct limit *limit = map_lookup(limits, &zero);

	if (!limit || limit->interval_ns == 0)
		return 0;
	u64 *due = map_lookup(due_times, &cgroup);
	if (!due) {
		u64 next = now + limit->interval_ns;
		map_update(due_times, &cgroup, &next, 0);
		return 0;
	}
	if (*due > now + limit->burst_ns)
		return 1;
	*due = (*due > now ? *due : now) + limit->interval_ns;
	return 0;
}

#endif
