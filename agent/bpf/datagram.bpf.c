/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * UDP flows and DNS messages, from the packets of all sockets below one cgroup (the root). No packet is held up or
 * dropped.
 *
 * A flow is what one socket exchanges with one other end. It is counted in a table that the sensor reads and clears of
 * what is idle; only its beginning is a record. DNS messages to and from port 53 of another end are records, over TCP
 * those that are one segment. The layout of both is read by sensor/datagram/ebpf_record.rs; numbers are in the machine's
 * byte order, addresses in network order.
 */
#include "bpf.h"

enum {
	/* Ring buffer, bytes. The agent maps it twice one after the other, and both count as its memory. */
	RING_BYTES = 256 * 1024,
	/* Most flows at once. */
	FLOWS_MAX = 8192,
	/* Most bytes of a DNS message: a power of two, for the verifier. */
	MESSAGE_BYTES_MAX = 1024,
};

/* Kinds of records. */
enum { FLOW_BEGUN = 1, DNS_MESSAGE = 2 };

enum { INBOUND = 1, OUTBOUND = 2 };

/* Of the kernel and of the protocols. */
enum {
	PASS = 1,
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_IPV6 = 0x86dd,
	AF_INET = 2,
	AF_INET6 = 10,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPV4_HEADER_BYTES = 20,
	IPV6_HEADER_BYTES = 40,
	UDP_HEADER_BYTES = 8,
	TCP_HEADER_BYTES = 20,
	DNS_HEADER_BYTES = 12,
	DNS_PORT = 53,
	PF_KTHREAD = 0x00200000,
	EEXIST = 17,
};

/* Of the kernel's interface: linux/bpf.h. */
struct bpf_sock {
	u32 bound_dev_if;
	u32 family;
	u32 type;
	u32 protocol;
	u32 mark;
	u32 priority;
	u32 src_ip4;
	u32 src_ip6[4];
	u32 src_port;
	u16 dst_port;
};
struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 unused[36];
	u32 gso_segs;
	struct bpf_sock *sk;
};

struct task_struct {
	u32 flags;
	s32 tgid;
	u64 start_boottime;
	struct task_struct *group_leader;
} KERNEL_STRUCT;

struct ends {
	u8 local[16];
	u8 remote[16];
	/* Host order. */
	u16 local_port;
	u16 remote_port;
	/* AF_INET or AF_INET6. */
	u16 family;
	u16 protocol;
	u64 cookie;
};

struct flow {
	/* CLOCK_MONOTONIC. */
	u64 begun_ns;
	u64 last_ns;
	/* Payload. */
	u64 bytes_sent;
	u64 bytes_received;
	u32 packets_sent;
	u32 packets_received;
	/* When the owner was created, CLOCK_BOOTTIME. */
	u64 owner_created_ns;
	/* 0: not known. */
	u32 owner_pid;
	u32 user;
	u64 cgroup;
	u32 direction;
	u32 unused;
};

struct record {
	u32 kind;
	u32 direction;
	struct ends ends;
	struct flow flow;
	/* Bytes of the message, and how many of them follow. */
	u32 message_bytes;
	u32 copied_bytes;
	u8 message[MESSAGE_BYTES_MAX];
};

enum { HEAD_BYTES = __builtin_offsetof(struct record, message) };

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, RING_BYTES);
} datagram_records SECTION(".maps");

/* By kind: records that did not fit; packets of flows that did not fit into the table. */
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 8);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} datagram_lost SECTION(".maps");

struct {
	MAP_UINT(type, MAP_HASH);
	MAP_UINT(map_flags, MAP_NO_PREALLOC);
	MAP_UINT(max_entries, FLOWS_MAX);
	MAP_TYPE(key, struct ends);
	MAP_TYPE(value, struct flow);
} datagram_flows SECTION(".maps");

/* Where a record is put together. */
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct record);
} datagram_scratch SECTION(".maps");

INLINE void count_lost(u32 kind)
{
	u64 *lost = map_lookup(&datagram_lost, &kind);
	if (lost)
		*lost += 1;
}

INLINE u16 u16_at(const u8 *bytes)
{
	return (u16)bytes[0] << 8 | bytes[1];
}

/* Reads addresses and protocol. Gives where the transport's header begins; 0: none of ours. */
INLINE u32 read_addresses(struct __sk_buff *packet, struct ends *ends, u32 direction)
{
	u8 header[IPV6_HEADER_BYTES];
	u8 *source = direction == OUTBOUND ? ends->local : ends->remote;
	u8 *destination = direction == OUTBOUND ? ends->remote : ends->local;

	if (packet->protocol == __builtin_bswap16(ETHERTYPE_IPV4)) {
		if (packet_bytes(packet, 0, header, IPV4_HEADER_BYTES) != 0)
			return 0;
		/* A fragment that is not the first has no ports. */
		if (u16_at(header + 6) & 0x1fff)
			return 0;
		ends->family = AF_INET;
		ends->protocol = header[9];
		__builtin_memcpy(source, header + 12, 4);
		__builtin_memcpy(destination, header + 16, 4);
		return (header[0] & 15) * 4;
	}
	if (packet->protocol == __builtin_bswap16(ETHERTYPE_IPV6)) {
		if (packet_bytes(packet, 0, header, IPV6_HEADER_BYTES) != 0)
			return 0;
		ends->family = AF_INET6;
		ends->protocol = header[6];
		__builtin_memcpy(source, header + 8, 16);
		__builtin_memcpy(destination, header + 24, 16);
		return IPV6_HEADER_BYTES;
	}
	return 0;
}

/* Whoever sends does so itself; what is received is so at any time. */
INLINE void write_owner(struct flow *flow, u32 direction)
{
	if (direction != OUTBOUND)
		return;
	struct task_struct *task = (void *)current_task();
	if (READ(task, flags) & PF_KTHREAD)
		return;
	flow->owner_created_ns = READ(READ(task, group_leader), start_boottime);
	flow->owner_pid = READ(task, tgid);
}

INLINE struct flow *begin_flow(struct __sk_buff *packet, struct record *record, u32 direction, u64 now)
{
	struct flow *flow = &record->flow;

	__builtin_memset(flow, 0, sizeof(*flow));
	flow->begun_ns = now;
	flow->last_ns = now;
	flow->user = packet_user(packet);
	flow->cgroup = packet_cgroup(packet);
	flow->direction = direction;
	write_owner(flow, direction);
	s64 error = map_update(&datagram_flows, &record->ends, flow, MAP_NO_EXIST);
	if (error == 0) {
		record->kind = FLOW_BEGUN;
		if (ring_output(&datagram_records, record, HEAD_BYTES, 0) != 0)
			count_lost(FLOW_BEGUN);
	} else if (error != -EEXIST) {
		count_lost(0);
		return NULL;
	}
	return map_lookup(&datagram_flows, &record->ends);
}

INLINE void count_packet(struct flow *flow, u32 direction, u32 bytes, u32 packets, u64 now)
{
	if (direction == OUTBOUND) {
		__sync_fetch_and_add(&flow->bytes_sent, bytes);
		__sync_fetch_and_add(&flow->packets_sent, packets);
		if (flow->owner_pid == 0)
			write_owner(flow, direction);
	} else {
		__sync_fetch_and_add(&flow->bytes_received, bytes);
		__sync_fetch_and_add(&flow->packets_received, packets);
	}
	flow->last_ns = now;
}

INLINE void tell_message(struct __sk_buff *packet, struct record *record, u32 at, u32 bytes)
{
	if (bytes < DNS_HEADER_BYTES)
		return;
	u32 copied = bytes < MESSAGE_BYTES_MAX ? bytes : MESSAGE_BYTES_MAX;
	/* For the verifier, which lost sight of the bounds. */
	copied = ((copied - 1) & (MESSAGE_BYTES_MAX - 1)) + 1;
	record->kind = DNS_MESSAGE;
	record->message_bytes = bytes;
	record->copied_bytes = copied;
	if (packet_bytes(packet, at, record->message, copied) != 0 ||
	    ring_output(&datagram_records, record, HEAD_BYTES + copied, 0) != 0)
		count_lost(DNS_MESSAGE);
}

/* A DNS message over TCP that is one segment: its length comes first. */
INLINE void observe_tcp(struct __sk_buff *packet, struct record *record, u32 at, u32 direction, u64 now)
{
	u8 header[TCP_HEADER_BYTES];
	u8 length[2];

	if (packet_bytes(packet, at, header, sizeof(header)) != 0)
		return;
	u32 payload = at + (header[12] >> 4) * 4;
	if (packet->len < payload + sizeof(length) + DNS_HEADER_BYTES ||
	    packet_bytes(packet, payload, length, sizeof(length)) != 0)
		return;
	u32 bytes = u16_at(length);
	if (bytes != packet->len - payload - sizeof(length))
		return;
	u16 source = u16_at(header), destination = u16_at(header + 2);
	record->ends.local_port = direction == OUTBOUND ? source : destination;
	record->ends.remote_port = direction == OUTBOUND ? destination : source;
	__builtin_memset(&record->flow, 0, sizeof(record->flow));
	record->flow.begun_ns = now;
	record->flow.last_ns = now;
	record->flow.user = packet_user(packet);
	record->flow.cgroup = packet_cgroup(packet);
	write_owner(&record->flow, direction);
	tell_message(packet, record, payload + sizeof(length), bytes);
}

INLINE int observe(struct __sk_buff *packet, u32 direction)
{
	struct bpf_sock *socket = packet->sk;
	u32 zero = 0;

	if (!socket)
		return PASS;
	socket = full_socket(socket);
	if (!socket)
		return PASS;
	u32 protocol = socket->protocol;
	/* Of TCP only what talks to a DNS server. */
	if (protocol != IPPROTO_UDP && (protocol != IPPROTO_TCP || socket->dst_port != __builtin_bswap16(DNS_PORT)))
		return PASS;
	struct record *record = map_lookup(&datagram_scratch, &zero);
	if (!record)
		return PASS;
	u64 now = monotonic_ns();
	struct ends *ends = &record->ends;
	__builtin_memset(ends, 0, sizeof(*ends));
	record->direction = direction;
	record->message_bytes = 0;
	record->copied_bytes = 0;
	ends->cookie = packet_cookie(packet);
	u32 at = read_addresses(packet, ends, direction);
	if (at == 0 || ends->protocol != protocol)
		return PASS;
	if (protocol == IPPROTO_TCP) {
		observe_tcp(packet, record, at, direction, now);
		return PASS;
	}

	u8 header[UDP_HEADER_BYTES];
	if (packet_bytes(packet, at, header, sizeof(header)) != 0)
		return PASS;
	u16 source = u16_at(header), destination = u16_at(header + 2);
	ends->local_port = direction == OUTBOUND ? source : destination;
	ends->remote_port = direction == OUTBOUND ? destination : source;
	u32 bytes = packet->len - at - UDP_HEADER_BYTES;
	u32 packets = packet->gso_segs ? packet->gso_segs : 1;

	struct flow *flow = map_lookup(&datagram_flows, ends);
	if (!flow)
		flow = begin_flow(packet, record, direction, now);
	if (flow)
		count_packet(flow, direction, bytes, packets, now);
	if (ends->remote_port == DNS_PORT) {
		if (flow)
			__builtin_memcpy(&record->flow, flow, sizeof(*flow));
		tell_message(packet, record, at + UDP_HEADER_BYTES, bytes);
	}
	return PASS;
}

SECTION("cgroup_skb/egress")
int datagram_sent(struct __sk_buff *packet)
{
	return observe(packet, OUTBOUND);
}

SECTION("cgroup_skb/ingress")
int datagram_received(struct __sk_buff *packet)
{
	return observe(packet, INBOUND);
}

/* The kernel's helpers used here are for programs under a licence compatible with the GPL only. */
char LICENSE[] SECTION("license") = "Dual BSD/GPL";
