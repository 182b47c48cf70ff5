/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What few programs have reason to do to the kernel, to other processes and to their own rights: modules, ptrace, eBPF
 * programs, namespaces, capabilities, becoming root.
 *
 * None of these programs runs with every system call; sensor/kernel.rs says why, and what that means. For namespaces
 * and rights it is kept what each process had when it was looked at last, and compared when it forks, starts a program
 * or ends.
 *
 * The layout of the records is read by sensor/kernel/ebpf_record.rs; numbers are in the machine's byte order.
 */
#include "bpf.h"
#include "limit.h"

enum {
	/* Ring buffer, bytes. The agent maps it twice one after the other, and both count as its memory. */
	RING_BYTES = 64 * 1024,
	/* Most processes whose namespaces and rights are kept. */
	PROCESSES_MAX = 32768,
	/* Most attachments of one process to another that are kept, so that each is told once. */
	ATTACHMENTS_MAX = 1024,
	NAME_BYTES = 64,
};

/* Kinds of records, and where the counts of what was too much begin. */
enum { ACTIVITY = 1, THROTTLED = 4 };

/* Actions: codes of KernelAction. */
enum {
	MODULE_LOAD = 0,
	MODULE_UNLOAD = 1,
	PTRACE_ATTACH = 2,
	BPF_PROGRAM_LOAD = 3,
	NAMESPACE_CHANGE = 6,
	BECOME_ROOT = 7,
	CAPABILITY_GAIN = 8,
};

/* Of the kernel and of its interface: sched.h, signal.h, ptrace.h, bpf.h. */
enum {
	PF_KTHREAD = 0x00200000,
	CLONE_THREAD = 0x00010000,
	CLONE_NEWTIME = 0x00000080,
	CLONE_NEWNS = 0x00020000,
	CLONE_NEWCGROUP = 0x02000000,
	CLONE_NEWUTS = 0x04000000,
	CLONE_NEWIPC = 0x08000000,
	CLONE_NEWUSER = 0x10000000,
	CLONE_NEWPID = 0x20000000,
	CLONE_NEWNET = 0x40000000,
	SIGCHLD = 17,
	SIGSTOP = 19,
	/* The kernel's own signal, not one that a process sent (SEND_SIG_PRIV). */
	OF_KERNEL = 1,
	PT_PTRACED = 1,
	PT_SEIZED = 0x10000,
	PTRACE_REQUEST_ATTACH = 16,
	PTRACE_REQUEST_SEIZE = 0x4206,
	BPF_PROG_LOAD = 5,
	BPF_CALL_X86_64 = 321,
	BPF_CALL_GENERIC = 280,
	BPF_ATTRIBUTE_NAME = 48,
	BPF_NAME_BYTES = 16,
};

/* The flags that stand for a namespace in clone(2), but for CLONE_NEWTIME, which is a signal there. */
enum {
	CLONE_NEW = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
};

typedef struct {
	s32 counter;
} KERNEL_STRUCT atomic_t;
typedef struct {
	u32 val;
} KERNEL_STRUCT kuid_t;
/* One or two numbers, of the same size. */
typedef struct {
	u64 val;
} kernel_cap_t;

struct user_namespace;
struct cred {
	kuid_t uid;
	kuid_t suid;
	kuid_t euid;
	kernel_cap_t cap_permitted;
	struct user_namespace *user_ns;
} KERNEL_STRUCT;
struct nsproxy {
	void *uts_ns;
	void *ipc_ns;
	void *mnt_ns;
	void *pid_ns_for_children;
	void *net_ns;
	void *time_ns_for_children;
	void *cgroup_ns;
} KERNEL_STRUCT;
struct signal_struct {
	atomic_t live;
} KERNEL_STRUCT;
struct task_struct {
	u32 flags;
	u32 ptrace;
	s32 pid;
	s32 tgid;
	u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *parent;
	struct task_struct *group_leader;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct cred *cred;
	u8 comm[16];
} KERNEL_STRUCT;
struct module {
	u8 name[56];
	unsigned long taints;
} KERNEL_STRUCT;
struct bpf_prog_stats {
	u64 cnt;
} KERNEL_STRUCT;
struct trace_event_raw_percpu_alloc_percpu {
	unsigned long call_site;
} KERNEL_STRUCT;
/* Of x86-64. */
struct pt_regs {
	unsigned long orig_ax;
	unsigned long di;
	unsigned long si;
} KERNEL_STRUCT;
/* Of arm64, and much the same elsewhere. */
struct pt_regs___arm64 {
	u64 regs[31];
	s32 syscallno;
} KERNEL_STRUCT;

/* A process, by the pid that it has in the host's own namespace. */
struct process {
	/* When it was created, CLOCK_BOOTTIME. */
	u64 created_ns;
	u32 pid;
	/* Effective user. */
	u32 user;
};

struct record {
	u32 kind;
	u32 action;
	/* CLOCK_MONOTONIC. */
	u64 time_ns;
	struct process process;
	/* The process it was done to; pid 0: there is none. */
	struct process target;
	u64 value;
	/* Ended by NUL. */
	u8 name[NAME_BYTES];
};

/* The namespaces of a process, but for that of its users. */
struct kinds {
	void *uts;
	void *ipc;
	void *mount;
	void *pid;
	void *network;
	void *cgroup;
	void *time;
};

/* What a process had when it was looked at last. */
struct state {
	u64 created_ns;
	struct nsproxy *namespaces;
	struct user_namespace *user_namespace;
	/* What is in `namespaces`, which may be gone by now. */
	struct kinds kinds;
	u64 capabilities;
	u32 user;
	/* One of its user ids is root's: it can become root as it likes. */
	u32 may_be_root;
};

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, RING_BYTES);
} kernel_records SECTION(".maps");

/* Records that did not fit, by kind; and from THROTTLED on, those that were too many, by kind. */
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 8);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} kernel_lost SECTION(".maps");

struct {
	MAP_UINT(type, MAP_HASH);
	MAP_UINT(map_flags, MAP_NO_PREALLOC);
	MAP_UINT(max_entries, PROCESSES_MAX);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct state);
} kernel_states SECTION(".maps");

struct attachment {
	/* When the process that is attached to was created, and by whom it is. */
	u64 target_created_ns;
	u64 tracer_created_ns;
};

struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, ATTACHMENTS_MAX);
	MAP_TYPE(key, struct attachment);
	MAP_TYPE(value, u8);
} kernel_attachments SECTION(".maps");

LIMIT_MAPS(kernel_limit, kernel_due);

INLINE void count_lost(u32 kind)
{
	u64 *lost = map_lookup(&kernel_lost, &kind);
	if (lost)
		*lost += 1;
}

INLINE void describe(struct process *process, struct task_struct *task)
{
	process->pid = READ(task, tgid);
	process->created_ns = READ(READ(task, group_leader), start_boottime);
	process->user = READ(READ(task, cred), euid.val);
}

/* Begins a record of what the current task does; nothing else of it is set. */
#define NEW_RECORD(record, what)                                                                                       \
	struct record record;                                                                                          \
	__builtin_memset(&record, 0, sizeof(record));                                                                  \
	record.kind = ACTIVITY;                                                                                        \
	record.action = what;

INLINE void tell(struct record *record, struct task_struct *task)
{
	record->time_ns = monotonic_ns();
	if (exceeds_limit(&kernel_limit, &kernel_due, current_cgroup(), record->time_ns)) {
		count_lost(THROTTLED + ACTIVITY);
		return;
	}
	describe(&record->process, task);
	if (ring_output(&kernel_records, record, sizeof(*record), 0) != 0)
		count_lost(ACTIVITY);
}

INLINE int tell_module(struct module *module, u32 action)
{
	struct task_struct *task = (void *)current_task();
	NEW_RECORD(record, action);

	read_kernel_text(record.name, NAME_BYTES, (void *)module + OFFSET(struct module, name));
	if (action == MODULE_LOAD)
		record.value = READ(module, taints);
	tell(&record, task);
	return 0;
}

SECTION("raw_tp/module_load")
int kernel_module_load(u64 *context)
{
	return tell_module((struct module *)context[0], MODULE_LOAD);
}

SECTION("raw_tp/module_free")
int kernel_module_free(u64 *context)
{
	return tell_module((struct module *)context[0], MODULE_UNLOAD);
}

INLINE void read_kinds(struct kinds *kinds, struct nsproxy *namespaces)
{
	kinds->uts = READ(namespaces, uts_ns);
	kinds->ipc = READ(namespaces, ipc_ns);
	kinds->mount = READ(namespaces, mnt_ns);
	kinds->pid = READ(namespaces, pid_ns_for_children);
	kinds->network = READ(namespaces, net_ns);
	kinds->cgroup = READ(namespaces, cgroup_ns);
	/* Since 5.6. */
	kinds->time = EXISTS(namespaces, time_ns_for_children) ? READ(namespaces, time_ns_for_children) : NULL;
}

INLINE void read_rights(struct state *state, struct cred *cred)
{
	u32 user = cred->euid.val;

	state->user_namespace = cred->user_ns;
	state->capabilities = READ(cred, cap_permitted).val;
	state->user = user;
	state->may_be_root = user == 0 || cred->uid.val == 0 || cred->suid.val == 0;
}

/* The namespaces that are others than before, as flags of clone(2). */
INLINE u64 changed_kinds(const struct kinds *before, const struct kinds *now)
{
	u64 changed = 0;

	changed |= before->uts != now->uts ? CLONE_NEWUTS : 0;
	changed |= before->ipc != now->ipc ? CLONE_NEWIPC : 0;
	changed |= before->mount != now->mount ? CLONE_NEWNS : 0;
	changed |= before->pid != now->pid ? CLONE_NEWPID : 0;
	changed |= before->network != now->network ? CLONE_NEWNET : 0;
	changed |= before->cgroup != now->cgroup ? CLONE_NEWCGROUP : 0;
	changed |= before->time != now->time ? CLONE_NEWTIME : 0;
	return changed;
}

INLINE void tell_namespaces(struct task_struct *task, struct task_struct *child, u64 flags)
{
	NEW_RECORD(record, NAMESPACE_CHANGE);

	record.value = flags;
	if (child)
		describe(&record.target, child);
	tell(&record, task);
}

INLINE void tell_rights(struct task_struct *task, u32 action, u64 value)
{
	NEW_RECORD(record, action);

	record.value = value;
	tell(&record, task);
}

/*
 * Compares what a process has with what it had. Gives what is kept of it; NULL when there was no room. Here memory of the
 * kernel is read without helpers, which the verifier permits where it knows what a pointer refers to.
 */
INLINE struct state *look_at(struct task_struct *task)
{
	struct state now;
	struct nsproxy *namespaces = task->nsproxy;
	u32 pid = task->tgid;

	__builtin_memset(&now, 0, sizeof(now));
	if (!namespaces)
		return NULL;
	now.created_ns = task->group_leader->start_boottime;
	now.namespaces = namespaces;
	read_rights(&now, task->cred);
	struct state *before = map_lookup(&kernel_states, &pid);
	if (!before || before->created_ns != now.created_ns) {
		read_kinds(&now.kinds, namespaces);
		map_update(&kernel_states, &pid, &now, 0);
		return map_lookup(&kernel_states, &pid);
	}
	u32 is_same_user_namespace = before->user_namespace == now.user_namespace;
	u64 changed = is_same_user_namespace ? 0 : CLONE_NEWUSER;
	if (before->namespaces != namespaces) {
		read_kinds(&now.kinds, namespaces);
		changed |= changed_kinds(&before->kinds, &now.kinds);
		before->kinds = now.kinds;
		before->namespaces = namespaces;
	}
	u64 gained = now.capabilities & ~before->capabilities;
	u32 has_become_root = now.user == 0 && !before->may_be_root;
	u32 user_before = before->user;
	before->user_namespace = now.user_namespace;
	before->capabilities = now.capabilities;
	before->user = now.user;
	before->may_be_root = now.may_be_root;
	if (changed)
		tell_namespaces(task, NULL, changed);
	/* In another user namespace its rights are for that one only. */
	if (is_same_user_namespace && has_become_root)
		tell_rights(task, BECOME_ROOT, user_before);
	else if (is_same_user_namespace && gained)
		tell_rights(task, CAPABILITY_GAIN, gained);
	return before;
}

SECTION("tp_btf/task_newtask")
int kernel_fork(u64 *context)
{
	struct task_struct *child = (struct task_struct *)context[0];
	struct task_struct *task = current_task_typed();
	u64 flags = context[1];

	if (flags & CLONE_THREAD || (task->flags | child->flags) & PF_KTHREAD)
		return 0;
	struct state *parent = look_at(task);
	struct nsproxy *namespaces = child->nsproxy;
	struct state state;
	u32 pid = child->tgid;
	__builtin_memset(&state, 0, sizeof(state));
	state.created_ns = child->start_boottime;
	state.namespaces = namespaces;
	read_rights(&state, child->cred);
	if (parent && parent->namespaces == namespaces)
		state.kinds = parent->kinds;
	else
		read_kinds(&state.kinds, namespaces);
	map_update(&kernel_states, &pid, &state, 0);
	if (flags & CLONE_NEW)
		tell_namespaces(task, child, flags & CLONE_NEW);
	return 0;
}

SECTION("tp_btf/sched_process_exec")
int kernel_exec(u64 *context)
{
	look_at((struct task_struct *)context[0]);
	return 0;
}

SECTION("tp_btf/sched_process_exit")
int kernel_exit(u64 *context)
{
	struct task_struct *task = (struct task_struct *)context[0];
	u32 pid = task->tgid;

	if (task->signal->live.counter != 0 || task->flags & PF_KTHREAD)
		return 0;
	look_at(task);
	map_delete(&kernel_states, &pid);
	return 0;
}

INLINE void tell_attachment(struct task_struct *tracer, struct task_struct *target, u64 request)
{
	NEW_RECORD(record, PTRACE_ATTACH);
	struct attachment attachment;
	u8 told = 1;

	describe(&record.target, target);
	attachment.target_created_ns = record.target.created_ns;
	attachment.tracer_created_ns = READ(READ(tracer, group_leader), start_boottime);
	if (map_lookup(&kernel_attachments, &attachment))
		return;
	map_update(&kernel_attachments, &attachment, &told, 0);
	record.value = request;
	read_kernel_text(record.name, sizeof(((struct task_struct *)0)->comm),
			 (void *)READ(target, group_leader) + OFFSET(struct task_struct, comm));
	tell(&record, tracer);
}

/*
 * Who attaches to a process by PTRACE_ATTACH has the kernel stop it. One attached to by PTRACE_SEIZE has its tracer told
 * when it stops for the first time. Children and threads that are traced because their parent is, are not told; nor is a
 * process that asked its parent to trace it.
 */
SECTION("raw_tp/signal_generate")
int kernel_signal(u64 *context)
{
	s32 number = (s32)context[0];
	struct task_struct *to = (struct task_struct *)context[2];
	struct task_struct *task = (void *)current_task();

	if (number == SIGSTOP && context[1] == OF_KERNEL) {
		u32 is_traced = (READ(to, ptrace) & (PT_PTRACED | PT_SEIZED)) == PT_PTRACED;
		if (is_traced && READ(READ(to, parent), tgid) == READ(task, tgid))
			tell_attachment(task, to, PTRACE_REQUEST_ATTACH);
	} else if (number == SIGCHLD && READ(task, ptrace) & PT_SEIZED) {
		struct task_struct *tracer = READ(task, parent);
		struct task_struct *parent = READ(task, real_parent);
		s32 tracer_pid = READ(tracer, tgid);
		u32 is_inherited = READ(parent, ptrace) && READ(READ(parent, parent), tgid) == tracer_pid;
		if (tracer_pid == READ(to, tgid) && !is_inherited)
			tell_attachment(tracer, task, PTRACE_REQUEST_SEIZE);
	}
	return 0;
}

/* Whether the current task is in the call bpf(BPF_PROG_LOAD, …); then where its attributes are. */
INLINE const u8 *loading_program(void)
{
	struct pt_regs *registers = (void *)task_registers(current_task_typed());

	if (EXISTS(registers, orig_ax)) {
		if (READ(registers, orig_ax) != BPF_CALL_X86_64 || (u32)READ(registers, di) != BPF_PROG_LOAD)
			return NULL;
		return (void *)READ(registers, si);
	}
	struct pt_regs___arm64 *generic = (void *)registers;
	if (!EXISTS(generic, syscallno) || READ(generic, syscallno) != BPF_CALL_GENERIC)
		return NULL;
	u64 arguments[2] = {0};
	read_kernel(arguments, sizeof(arguments), (void *)generic + OFFSET(struct pt_regs___arm64, regs));
	return (u32)arguments[0] == BPF_PROG_LOAD ? (void *)arguments[1] : NULL;
}

/*
 * Each eBPF program that is loaded gets counters of its runs, for each processor: little else does, and nothing that is
 * done often. That is before the verifier looks at it.
 */
SECTION("raw_tp/percpu_alloc_percpu")
int kernel_program(u64 *context)
{
	struct trace_event_raw_percpu_alloc_percpu *newer = NULL;
	/* Since 5.19 the address of the caller comes first. The verifier wants to see where it is read. */
	volatile u64 *arguments = context;
	u64 third = arguments[2], fourth = arguments[3];
	u64 size = EXISTS(newer, call_site) ? fourth : third;

	if (size != __builtin_preserve_type_info(*(struct bpf_prog_stats *)0, 1))
		return 0;
	const u8 *attributes = loading_program();
	if (!attributes)
		return 0;
	struct task_struct *task = (void *)current_task();
	NEW_RECORD(record, BPF_PROGRAM_LOAD);
	u32 type = 0;
	read_user(&type, sizeof(type), attributes);
	record.value = type;
	read_user(record.name, BPF_NAME_BYTES, attributes + BPF_ATTRIBUTE_NAME);
	record.name[BPF_NAME_BYTES - 1] = 0;
	tell(&record, task);
	return 0;
}

/* The kernel's helpers used here are for programs under a licence compatible with the GPL only. */
char LICENSE[] SECTION("license") = "Dual BSD/GPL";
