/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * TCP connections: established, ended (or failed to be established), and sockets that begin or cease to listen, as
 * records in one ring buffer, in the order they happened.
 *
 * A connection that this host begins is told in the context of the task that calls connect(): who that is stays with the
 * socket until it ends. The layout of the records is read by sensor/connection/ebpf_record.rs; numbers are in the
 * machine's byte order, addresses in network order.
 *
 * A socket is named by its cookie, and by how often an attempt or connection of the same socket has ended before: a
 * program may connect a socket again.
 *
 * The kernel leaves a program out where it runs already on the same processor: when packets arrive in the midst of it, and
 * change another socket. What the first program was left out of is told by a second one, which is attached after it.
 */
#include "bpf.h"
#include "limit.h"

enum {
	/*
	 * Ring buffer, bytes; some 15,000 records. The agent maps it twice one after the other, and both count as its
	 * memory.
	 */
	RING_BYTES = 2 * 1024 * 1024,
};

/* Kinds of records. */
enum { ESTABLISHED = 1, ENDED = 2, LISTENS = 3, THROTTLED = 4 };

enum { UNKNOWN = 0, INBOUND = 1, OUTBOUND = 2 };

/* Flags. */
enum {
	/* The other end has closed. */
	FIN_RECEIVED = 1,
	/* `owner` is known. */
	HAS_OWNER = 2,
};

/* Of the kernel: net/tcp_states.h, socket.h, in.h, net/sock.h. */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
	TCP_NEW_SYN_RECV = 12,
};
enum { AF_INET = 2, SOCK_DONE = 1 };

typedef struct {
	u32 val;
} KERNEL_STRUCT kuid_t;
struct task_struct {
	s32 tgid;
	u64 start_boottime;
	struct task_struct *group_leader;
} KERNEL_STRUCT;
struct ns_common {
	u32 inum;
} KERNEL_STRUCT;
struct net {
	struct ns_common ns;
} KERNEL_STRUCT;
typedef struct {
	struct net *net;
} KERNEL_STRUCT possible_net_t;
struct in6_addr {
	u8 bytes[16];
};
struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport;
	u16 skc_family;
	unsigned long skc_flags;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} KERNEL_STRUCT;
struct kernfs_node {
	u64 id;
} KERNEL_STRUCT;
struct cgroup {
	struct kernfs_node *kn;
} KERNEL_STRUCT;
struct sock_cgroup_data {
	struct cgroup *cgroup;
} KERNEL_STRUCT;
struct socket;
struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	s32 sk_err;
	kuid_t sk_uid;
	struct socket *sk_socket;
	struct sock_cgroup_data sk_cgrp_data;
} KERNEL_STRUCT;
struct inet_sock {
	u32 inet_saddr;
	u16 inet_sport;
} KERNEL_STRUCT;
struct inet_connection_sock {
	struct inet_sock icsk_inet;
} KERNEL_STRUCT;
struct minmax_sample {
	u32 v;
} KERNEL_STRUCT;
struct minmax {
	struct minmax_sample s[3];
} KERNEL_STRUCT;
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u64 bytes_acked;
	u64 bytes_received;
	u64 bytes_sent;
	u64 bytes_retrans;
	u32 segs_in;
	u32 segs_out;
	u32 data_segs_in;
	u32 data_segs_out;
	struct minmax rtt_min;
} KERNEL_STRUCT;

struct owner {
	u32 pid;
	/* When the process was created, CLOCK_BOOTTIME. */
	u64 created_ns;
};

/* What stays with a socket. */
struct socket_state {
	struct owner owner;
	/* When the attempt began or the connection was established, CLOCK_MONOTONIC; 0: unknown. */
	u64 begun_ns;
	/* How many attempts or connections of this socket have ended. */
	u32 ended;
	u32 direction;
};

struct record {
	u8 kind;
	u8 state_before;
	u8 direction;
	u8 flags;
	/* AF_INET or AF_INET6. */
	u16 family;
	/* Error number that the socket ended with; 0: none. */
	u16 error;
	/* CLOCK_MONOTONIC. */
	u64 time_ns;
	u64 begun_ns;
	u64 cookie;
	u32 ended;
	/* Inode of the network namespace. */
	u32 network;
	u64 owner_created_ns;
	u32 owner_pid;
	u32 user;
	/* Of the socket, in the hierarchy of version 2. */
	u64 cgroup;
	u8 local[16];
	u8 remote[16];
	/* Host order. */
	u16 local_port;
	u16 remote_port;
	u32 round_trip_min_us;
	/* The counters of an end; no part of other records. */
	u64 bytes_acknowledged;
	u64 bytes_received;
	u64 bytes_sent;
	u64 bytes_retransmitted;
	u32 segments_sent;
	u32 segments_received;
	u32 data_segments_sent;
	u32 data_segments_received;
};

enum { HEAD_BYTES = __builtin_offsetof(struct record, bytes_acknowledged) };

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, RING_BYTES);
} connection_records SECTION(".maps");

/*
 * Records that did not fit, by kind; and from THROTTLED on, those that were too many, by kind. The first is for what the
 * first program was left out of without harm: the second told it, or there was nothing to tell.
 */
enum { TOLD_BY_SECOND = 0 };
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 8);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} connection_lost SECTION(".maps");

struct {
	MAP_UINT(type, MAP_SK_STORAGE);
	MAP_UINT(map_flags, MAP_NO_PREALLOC);
	MAP_TYPE(key, s32);
	MAP_TYPE(value, struct socket_state);
} connection_sockets SECTION(".maps");

enum { CHANGES_NOTED = 16 };

/*
 * The changes of this processor that the first program took and the second has not seen yet, the last one on top: one,
 * or two where the second program has yet to see a change that was interrupted by another. What is interrupted goes on
 * only when what came between is done, however much that was.
 */
struct changes {
	volatile u64 taken[CHANGES_NOTED];
	/* Grows and shrinks, modulo their number; what is left over when the second was left out is below, or overwritten. */
	volatile u32 top;
	/* The second program runs: it is left out of what comes now. */
	volatile u32 second_runs;
};

struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct changes);
} connection_changes SECTION(".maps");

/* Beginnings and ends of connections. */
LIMIT_MAPS(connection_limit, connection_due);

INLINE void count_lost(u32 kind)
{
	u64 *lost = map_lookup(&connection_lost, &kind);
	/* The other program may come in between. */
	if (lost)
		__sync_fetch_and_add(lost, 1);
}

INLINE u16 host_order(u16 port)
{
	return __builtin_bswap16(port);
}

INLINE struct owner current_owner(void)
{
	struct task_struct *task = current_task_typed();
	struct owner owner = {
		.pid = task->tgid,
		.created_ns = task->group_leader->start_boottime,
	};
	return owner;
}

INLINE u64 cgroup_of(struct sock *sock)
{
	return EXISTS(sock, sk_cgrp_data.cgroup) ? READ(READ(sock->sk_cgrp_data.cgroup, kn), id) : 0;
}

INLINE void write_ends(struct record *record, struct sock *sock, struct inet_sock *inet)
{
	u16 family = sock->__sk_common.skc_family;

	record->family = family;
	/* The bound port is given back before the end is told, but not forgotten here. */
	record->local_port = host_order(inet->inet_sport);
	record->remote_port = host_order(sock->__sk_common.skc_dport);
	__builtin_memset(record->local, 0, sizeof(record->local));
	__builtin_memset(record->remote, 0, sizeof(record->remote));
	if (family == AF_INET) {
		*(u32 *)record->local = inet->inet_saddr;
		*(u32 *)record->remote = sock->__sk_common.skc_daddr;
	} else if (EXISTS(sock, __sk_common.skc_v6_daddr)) {
		read_kernel(record->local, sizeof(record->local), &sock->__sk_common.skc_v6_rcv_saddr);
		read_kernel(record->remote, sizeof(record->remote), &sock->__sk_common.skc_v6_daddr);
	}
}

INLINE void write_counters(struct record *record, struct tcp_sock *tcp)
{
	record->bytes_acknowledged = tcp->bytes_acked;
	record->bytes_received = tcp->bytes_received;
	record->bytes_sent = tcp->bytes_sent;
	record->bytes_retransmitted = tcp->bytes_retrans;
	record->segments_sent = tcp->segs_out;
	record->segments_received = tcp->segs_in;
	record->data_segments_sent = tcp->data_segs_out;
	record->data_segments_received = tcp->data_segs_in;
}

/* What a change of state means; 0: nothing that is told. */
INLINE u32 kind_of(u32 from, u32 to)
{
	if (to == TCP_ESTABLISHED)
		return ESTABLISHED;
	if (to == TCP_LISTEN)
		return LISTENS;
	/* What dies on the accepting side before it was established never was anybody's connection. */
	if (to == TCP_CLOSE && from != TCP_CLOSE && from != TCP_SYN_RECV && from != TCP_NEW_SYN_RECV)
		return ENDED;
	return 0;
}

/* What is told of a change beside the counters. */
INLINE void write_head(struct record *record, struct sock *sock, struct tcp_sock *tcp, struct socket_state *state,
		       u32 kind, u32 from, u64 now)
{
	record->kind = kind;
	record->state_before = from;
	record->direction = from == TCP_SYN_SENT ? OUTBOUND : kind == ESTABLISHED ? INBOUND : UNKNOWN;
	record->flags = sock->__sk_common.skc_flags & (1 << SOCK_DONE) ? FIN_RECEIVED : 0;
	record->error = sock->sk_err;
	record->time_ns = now;
	record->begun_ns = 0;
	record->cookie = socket_cookie(sock);
	record->ended = 0;
	record->network = sock->__sk_common.skc_net.net->ns.inum;
	record->owner_created_ns = 0;
	record->owner_pid = 0;
	record->user = sock->sk_uid.val;
	record->cgroup = cgroup_of(sock);
	record->round_trip_min_us = tcp->rtt_min.s[0].v;
	write_ends(record, sock, &tcp->inet_conn.icsk_inet);
	if (state) {
		record->begun_ns = state->begun_ns;
		record->ended = state->ended;
		if (state->direction != UNKNOWN)
			record->direction = state->direction;
	}
	if (kind == LISTENS) {
		struct owner owner = current_owner();
		record->owner_pid = owner.pid;
		record->owner_created_ns = owner.created_ns;
		record->flags |= HAS_OWNER;
	} else if (state && state->direction == OUTBOUND) {
		record->owner_pid = state->owner.pid;
		record->owner_created_ns = state->owner.created_ns;
		record->flags |= HAS_OWNER;
	}
}

INLINE u32 is_of_use(u32 from, u32 to)
{
	return to == TCP_SYN_SENT || kind_of(from, to) != 0;
}

INLINE struct changes *changes_of_processor(void)
{
	u32 zero = 0;
	return map_lookup(&connection_changes, &zero);
}

/* Which change this is; never 0. */
INLINE u64 change_of(struct sock *sock, u32 from, u32 to)
{
	return socket_cookie(sock) << 8 | from << 4 | to;
}

/* Says whether the first program took a change, and forgets that and what is above it. */
INLINE u32 take_note(struct changes *changes, u64 change)
{
	u32 top = changes->top;

	for (u32 below = 1; below <= CHANGES_NOTED; below++) {
		u32 place = (top - below) % CHANGES_NOTED;

		if (changes->taken[place] == change) {
			changes->taken[place] = 0;
			changes->top = top - below;
			return 1;
		}
	}
	return 0;
}

/* Puts down a change in the state of a socket. */
INLINE void tell(struct sock *sock, u32 from, u32 to)
{
	struct tcp_sock *tcp = socket_to_tcp(sock);
	if (!tcp)
		return;
	u64 now = monotonic_ns();

	if (to == TCP_SYN_SENT) {
		struct socket_state *state = socket_storage(&connection_sockets, sock, NULL, SK_STORAGE_CREATE);
		if (state) {
			state->owner = current_owner();
			state->begun_ns = now;
			state->direction = OUTBOUND;
		}
		return;
	}
	u32 kind = kind_of(from, to);
	/* A socket that somebody still holds may be connected again, and is then told apart by this. */
	u32 is_held = kind == ENDED && from != TCP_LISTEN && sock->sk_socket != NULL;
	struct socket_state *state =
		socket_storage(&connection_sockets, sock, NULL, is_held ? SK_STORAGE_CREATE : 0);
	struct record *record;
	u32 is_throttled = 0;
	if (kind != LISTENS && from != TCP_LISTEN)
		is_throttled = exceeds_limit(&connection_limit, &connection_due, cgroup_of(sock), now);
	if (is_throttled) {
		record = NULL;
	} else if (kind == ENDED) {
		record = ring_reserve(&connection_records, sizeof(*record), 0);
		if (record) {
			write_head(record, sock, tcp, state, kind, from, now);
			write_counters(record, tcp);
		}
	} else {
		record = ring_reserve(&connection_records, HEAD_BYTES, 0);
		if (record)
			write_head(record, sock, tcp, state, kind, from, now);
	}
	if (record) {
		ring_submit(record, 0);
	} else {
		count_lost(is_throttled ? THROTTLED + kind : kind);
	}
	if (state) {
		if (kind == ESTABLISHED) {
			state->begun_ns = now;
		} else if (kind == ENDED && from != TCP_LISTEN) {
			state->ended += 1;
			state->begun_ns = 0;
			state->direction = UNKNOWN;
		}
	}
}

SECTION("tp_btf/inet_sock_set_state")
int connection_state(u64 *context)
{
	struct sock *sock = (struct sock *)context[0];
	u32 from = context[1];
	u32 to = context[2];

	struct changes *changes = changes_of_processor();
	if (!changes)
		return 0;
	if (!changes->second_runs) {
		u32 top = changes->top;

		changes->taken[top % CHANGES_NOTED] = change_of(sock, from, to);
		changes->top = top + 1;
	}
	if (is_of_use(from, to))
		tell(sock, from, to);
	return 0;
}

/*
 * Must be attached after the other. What it is left out of itself, the other was not: a change can be interrupted by that
 * of another socket (by a softirq), but that one by no further.
 */
SECTION("tp_btf/inet_sock_set_state")
int connection_second(u64 *context)
{
	struct sock *sock = (struct sock *)context[0];
	u32 from = context[1];
	u32 to = context[2];

	struct changes *changes = changes_of_processor();
	if (!changes)
		return 0;
	changes->second_runs = 1;
	if (!take_note(changes, change_of(sock, from, to))) {
		count_lost(TOLD_BY_SECOND);
		if (is_of_use(from, to))
			tell(sock, from, to);
	}
	changes->second_runs = 0;
	return 0;
}

/* The kernel's helpers used here are for programs under a licence compatible with the GPL only. */
char LICENSE[] SECTION("license") = "Dual BSD/GPL";
