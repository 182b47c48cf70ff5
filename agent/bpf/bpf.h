/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What every program here needs of the compiler and of the kernel's interface: types, helpers by their number (which
 * is the kernel's ABI), map definitions, and reading kernel memory at offsets that are adjusted when the program is
 * loaded (CO-RE). No headers of a kernel or of a library are needed.
 */
#ifndef PICKET_BPF_H
#define PICKET_BPF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NULL ((void *)0)

/* A map is described by the types of the members of a variable in section ".maps". */
#define MAP_UINT(name, value) int (*name)[value]
#define MAP_TYPE(name, value) value *name

enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_LRU_HASH = 9,
	MAP_SK_STORAGE = 24,
	MAP_RINGBUF = 27,
};

enum { MAP_NO_PREALLOC = 1 };
enum { MAP_NO_EXIST = 1 };
enum { SK_STORAGE_CREATE = 1 };

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static s64 (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static s64 (*const map_delete)(void *map, const void *key) = (void *)3;
static u64 (*const monotonic_ns)(void) = (void *)5;
static s64 (*const packet_bytes)(const void *packet, u32 at, void *to, u32 size) = (void *)26;
static u64 (*const current_task)(void) = (void *)35;
static u64 (*const packet_cookie)(void *packet) = (void *)46;
static u32 (*const packet_user)(void *packet) = (void *)47;
static u64 (*const current_cgroup)(void) = (void *)80;
static u64 (*const packet_cgroup)(void *packet) = (void *)79;
static void *(*const full_socket)(void *socket) = (void *)95;
static u64 (*const socket_cookie)(void *socket) = (void *)46;
static void *(*const socket_storage)(void *map, void *socket, void *value, u64 flags) = (void *)107;
static s64 (*const read_user)(void *to, u32 size, const void *from) = (void *)112;
static s64 (*const read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static s64 (*const read_kernel_text)(void *to, u32 size, const void *from) = (void *)115;
static s64 (*const ring_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static void *(*const ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*const ring_submit)(void *data, u64 flags) = (void *)132;
static void *(*const socket_to_tcp)(void *socket) = (void *)137;
static void *(*const current_task_typed)(void) = (void *)158;
static s64 (*const task_registers)(void *task) = (void *)175;

/* The structures of the kernel are declared with what is used of them only; where it is, is found when loading. */
#define KERNEL_STRUCT __attribute__((preserve_access_index))

/* Reads `pointer->member`; zero when that cannot be read. */
#define READ(pointer, member)                                                                                          \
	({                                                                                                             \
		__typeof__(pointer) pointer_ = (pointer);                                                              \
		__typeof__(pointer_->member) value_ = {0};                                                             \
		read_kernel((void *)&value_, sizeof(value_), &pointer_->member);                                       \
		value_;                                                                                                \
	})

/* Where a member is in its structure, in this kernel. */
#define OFFSET(type, member) __builtin_preserve_field_info(((type *)0)->member, 0)

/* Whether this kernel's structure has such a member. */
#define EXISTS(pointer, member) __builtin_preserve_field_info((pointer)->member, 2)

#endif
