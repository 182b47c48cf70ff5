/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Processes: forks, program starts and ends, as records in one ring buffer, in the order they happened.
 *
 * Threads are left out: a fork is told when it makes a process, an end when the last thread of a process ends. The
 * layout of the records is read by sensor/process/ebpf_record.rs; numbers are in the machine's byte order.
 *
 * A program start carries what /proc would show of the process at that moment: the executable and the working directory
 * as names from the last to the first, each ended by NUL (they are turned round outside of the kernel), then the script
 * as it was asked for, ended by NUL, and the arguments as they lie in memory, each ended by NUL.
 *
 * What a cgroup is called is told once, before the first program start in it.
 */
#include "bpf.h"
#include "limit.h"

enum {
	/*
	 * Ring buffer, bytes; some 1,500 processes from fork to end. The agent maps it twice one after the other, and both
	 * count as its memory.
	 */
	RING_BYTES = 512 * 1024,
	/* Most names of one path, mount points included. */
	PATH_STEPS_MAX = 48,
	/* Longest name, with NUL (NAME_MAX + 1). */
	NAME_BYTES_MAX = 256,
	/* Most bytes of one path; a longer one is marked as incomplete. */
	PATH_BYTES_MAX = 3840,
	/* Where paths may begin and end: a power of two, for the verifier. */
	PATHS_BYTES = 8192,
	/* Longest name of a script, with NUL (PATH_MAX). */
	SCRIPT_BYTES_MAX = 4096,
	/* Where arguments may begin: a power of two, for the verifier. */
	TEXTS_BYTES = 16384,
	/* Most levels of cgroups. */
	CGROUP_LEVELS_MAX = 24,
	/* Cgroups known to be told; of more, those that were quiet for longest are told anew. */
	CGROUPS_MAX = 1024,
	/* Most bytes of arguments: one more than is kept, so that a cut is noticed. */
	ARGUMENTS_BYTES_MAX = 8192 + 1,
	STREAMS = 3,
};

enum { FORK = 1, EXEC = 2, EXIT = 3, CGROUP = 4 };
/* Where the counts of what was too much begin. */
enum { THROTTLED = 4 };

/* Flags of a program start. */
enum {
	HAS_TERMINAL = 1,
	EXECUTABLE_DELETED = 2,
	EXECUTABLE_COMPLETE = 4,
	DIRECTORY_COMPLETE = 8,
	ARGUMENTS_COMPLETE = 16,
};

/* Flags of a cgroup. */
enum { CGROUP_COMPLETE = 1 };

enum { STREAM_CLOSED = 0xffffffff };

/* Of the kernel: sched/signal.h, sched.h, pid_types.h. */
enum { SIGNAL_GROUP_EXIT = 4, PF_FORKNOEXEC = 0x40, PIDTYPE_SID = 3 };

typedef struct {
	s32 counter;
} KERNEL_STRUCT atomic_t;
typedef struct {
	u32 val;
} KERNEL_STRUCT kuid_t;
typedef struct {
	u32 val;
} KERNEL_STRUCT kgid_t;

struct upid {
	s32 nr;
} KERNEL_STRUCT;
struct pid {
	struct upid numbers[1];
} KERNEL_STRUCT;
struct cred {
	kuid_t euid;
	kgid_t egid;
} KERNEL_STRUCT;
struct tty_struct;
struct signal_struct {
	atomic_t live;
	u64 sum_sched_runtime;
	s32 group_exit_code;
	u32 flags;
	struct pid *pids[4];
	struct tty_struct *tty;
} KERNEL_STRUCT;
struct qstr {
	const u8 *name;
} KERNEL_STRUCT;
struct super_block {
	u32 s_dev;
} KERNEL_STRUCT;
struct inode {
	u16 i_mode;
	u32 i_rdev;
	u32 i_nlink;
	struct super_block *i_sb;
	unsigned long i_ino;
} KERNEL_STRUCT;
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
} KERNEL_STRUCT;
struct vfsmount {
	struct dentry *mnt_root;
} KERNEL_STRUCT;
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
} KERNEL_STRUCT;
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
} KERNEL_STRUCT;
struct file {
	struct path f_path;
	struct inode *f_inode;
} KERNEL_STRUCT;
struct fdtable {
	u32 max_fds;
	struct file **fd;
} KERNEL_STRUCT;
struct files_struct {
	struct fdtable *fdt;
} KERNEL_STRUCT;
struct fs_struct {
	struct path pwd;
} KERNEL_STRUCT;
struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
} KERNEL_STRUCT;
struct linux_binprm {
	const u8 *filename;
	const u8 *interp;
} KERNEL_STRUCT;
struct kernfs_node {
	const u8 *name;
	/* Until 6.14. */
	struct kernfs_node *parent;
} KERNEL_STRUCT;
/* Since 6.15. */
struct kernfs_node___6_15 {
	struct kernfs_node *__parent;
} KERNEL_STRUCT;
struct cgroup {
	struct kernfs_node *kn;
} KERNEL_STRUCT;
struct css_set {
	struct cgroup *dfl_cgrp;
} KERNEL_STRUCT;
struct sched_entity {
	u64 sum_exec_runtime;
} KERNEL_STRUCT;
struct task_struct {
	u32 flags;
	s32 exit_code;
	s32 pid;
	s32 tgid;
	u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct signal_struct *signal;
	struct cred *cred;
	struct css_set *cgroups;
	struct sched_entity se;
} KERNEL_STRUCT;

struct record {
	u32 kind;
	u32 pid;
	/* CLOCK_MONOTONIC. */
	u64 time_ns;
	/* When the process was created, CLOCK_BOOTTIME. */
	u64 created_ns;
};

struct fork_record {
	struct record head;
	u32 parent;
	u32 unused;
};

struct exit_record {
	struct record head;
	/* As wait(2) tells it. */
	u32 status;
	/* It was a program of its own, not only a fork of another. */
	u32 executed;
	/* Of all its threads; without what the last one ran since it was last interrupted, at most a tick. */
	u64 processor_ns;
};

struct stream {
	u32 mode;
	u32 device;
};

struct exec_record {
	struct record head;
	u32 parent;
	u32 flags;
	u32 user;
	u32 group;
	u32 session;
	struct stream streams[STREAMS];
	/* The executable's file system. */
	u32 device;
	u64 inode;
	u64 cgroup;
	/* Where each part of `data` ends; the next begins there. */
	u32 executable_end;
	u32 directory_end;
	u32 script_end;
	u32 arguments_end;
	u8 data[TEXTS_BYTES + ARGUMENTS_BYTES_MAX];
};

struct cgroup_record {
	struct record head;
	u64 cgroup;
	u32 flags;
	/* Bytes of its path: names from the last to the first, each ended by NUL. */
	u32 path_bytes;
	u8 path[PATHS_BYTES];
};

enum { CGROUP_HEAD_BYTES = __builtin_offsetof(struct cgroup_record, path) };

enum { EXEC_HEAD_BYTES = __builtin_offsetof(struct exec_record, data) };

struct {
	MAP_UINT(type, MAP_RINGBUF);
	MAP_UINT(max_entries, RING_BYTES);
} process_records SECTION(".maps");

/*
 * Records that did not fit, by kind; at 0 ends of processes that never started a program of their own; and from
 * THROTTLED on, those that were too many, by kind.
 */
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 8);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} process_lost SECTION(".maps");

/* Where a program start is put together. */
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct exec_record);
} process_scratch SECTION(".maps");

/* Where a cgroup is put together. */
struct {
	MAP_UINT(type, MAP_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct cgroup_record);
} process_cgroup_scratch SECTION(".maps");

/* The cgroups that were told. */
struct {
	MAP_UINT(type, MAP_LRU_HASH);
	MAP_UINT(max_entries, CGROUPS_MAX);
	MAP_TYPE(key, u64);
	MAP_TYPE(value, u8);
} process_cgroups SECTION(".maps");

/* Program starts. */
LIMIT_MAPS(process_limit, process_due);

INLINE void count_lost(u32 kind)
{
	u64 *lost = map_lookup(&process_lost, &kind);
	if (lost)
		*lost += 1;
}

INLINE void output(void *record, u64 size, u32 kind)
{
	if (ring_output(&process_records, record, size, 0) != 0)
		count_lost(kind);
}

SECTION("raw_tp/sched_process_fork")
int process_fork(u64 *context)
{
	struct task_struct *child = (struct task_struct *)context[1];
	u32 pid = READ(child, pid);

	if (pid != (u32)READ(child, tgid))
		return 0;
	struct fork_record record = {
		.head = {.kind = FORK, .pid = pid, .time_ns = monotonic_ns(), .created_ns = READ(child, start_boottime)},
		.parent = READ(READ(child, real_parent), tgid),
	};
	output(&record, sizeof(record), FORK);
	return 0;
}

SECTION("raw_tp/sched_process_exit")
int process_exit(u64 *context)
{
	struct task_struct *task = (struct task_struct *)context[0];
	struct signal_struct *signal = READ(task, signal);

	/* Threads of it are left. */
	if (READ(signal, live.counter) != 0)
		return 0;
	struct task_struct *leader = READ(task, group_leader);
	u32 is_group_exit = READ(signal, flags) & SIGNAL_GROUP_EXIT;
	struct exit_record record = {
		.head = {.kind = EXIT,
			 .pid = READ(task, tgid),
			 .time_ns = monotonic_ns(),
			 .created_ns = READ(leader, start_boottime)},
		.status = is_group_exit ? READ(signal, group_exit_code) : READ(leader, exit_code),
		.executed = !(READ(task, flags) & PF_FORKNOEXEC),
		.processor_ns = READ(signal, sum_sched_runtime) + READ(task, se.sum_exec_runtime),
	};
	/* The first thread is there until the last has ended. */
	if (leader != task)
		record.processor_ns += READ(leader, se.sum_exec_runtime);
	output(&record, sizeof(record), record.executed ? EXIT : 0);
	return 0;
}

/*
 * Writes the names of a path from the last to the first, and sets `flag` when all were written. Where they end is kept
 * in memory, not in a register: so the verifier need not follow each possible length through all steps.
 */
INLINE void write_path(struct exec_record *record, volatile u32 *end, struct path *path, u32 flag)
{
	struct vfsmount *mount_point = READ(path, mnt);
	struct dentry *dentry = READ(path, dentry);
	struct mount *mount = (void *)mount_point - OFFSET(struct mount, mnt);
	struct dentry *root = READ(mount_point, mnt_root);
	u32 limit = *end + PATH_BYTES_MAX;

	for (u32 step = 0; step < PATH_STEPS_MAX; step++) {
		if (dentry == root) {
			struct mount *above = READ(mount, mnt_parent);
			if (above == mount || !above) {
				record->flags |= flag;
				return;
			}
			dentry = READ(mount, mnt_mountpoint);
			mount = above;
			root = READ(mount, mnt.mnt_root);
			continue;
		}
		u32 at = *end & (PATHS_BYTES - 1);
		struct dentry *parent = READ(dentry, d_parent);
		s64 length = read_kernel_text(&record->data[at], NAME_BYTES_MAX, READ(dentry, d_name.name));
		if (length <= 1 || at + length > limit)
			return;
		*end = at + length;
		if (dentry == parent) {
			/* A root that is not mounted, of a file without a path such as memfd: its name is all there is. */
			if (step == 0)
				record->flags |= flag;
			return;
		}
		dentry = parent;
	}
}

/* The script's name as it was asked for, where the executable is an interpreter. */
INLINE u32 write_script(struct exec_record *record, u32 at, struct linux_binprm *program)
{
	const u8 *asked = READ(program, filename);

	if (asked == READ(program, interp))
		return 0;
	s64 length = read_kernel_text(&record->data[at], SCRIPT_BYTES_MAX, asked);
	return length > 0 && length <= SCRIPT_BYTES_MAX ? length : 0;
}

INLINE u32 write_arguments(struct exec_record *record, u32 at, struct mm_struct *mm)
{
	u64 begin = READ(mm, arg_start);
	u64 size = READ(mm, arg_end) - begin;

	if (size > ARGUMENTS_BYTES_MAX)
		size = ARGUMENTS_BYTES_MAX;
	if (read_user(&record->data[at], size, (void *)begin) != 0)
		return 0;
	record->flags |= ARGUMENTS_COMPLETE;
	return size;
}

INLINE void write_streams(struct exec_record *record, struct task_struct *task)
{
	struct fdtable *table = READ(READ(task, files), fdt);
	struct file **files = READ(table, fd);
	u32 count = READ(table, max_fds);

	for (u32 number = 0; number < STREAMS; number++) {
		struct file *file = NULL;
		record->streams[number].mode = STREAM_CLOSED;
		record->streams[number].device = 0;
		if (number < count)
			read_kernel(&file, sizeof(file), files + number);
		if (file) {
			struct inode *inode = READ(file, f_inode);
			record->streams[number].mode = READ(inode, i_mode);
			record->streams[number].device = READ(inode, i_rdev);
		}
	}
}

INLINE u32 session_of(struct signal_struct *signal)
{
	struct pid *session = READ(signal, pids[PIDTYPE_SID]);
	struct upid *number = (void *)session + OFFSET(struct pid, numbers);

	return READ(number, nr);
}

INLINE struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___6_15 *newer = (void *)node;

	return EXISTS(newer, __parent) ? READ(newer, __parent) : READ(node, parent);
}

/* Tells what a cgroup is called, if that was not told. When there is no room it is tried again with the next program. */
INLINE void tell_cgroup(struct task_struct *task, u64 cgroup, u64 now)
{
	u32 zero = 0;
	u8 told = 1;

	if (map_lookup(&process_cgroups, &cgroup))
		return;
	struct cgroup_record *record = map_lookup(&process_cgroup_scratch, &zero);
	if (!record)
		return;
	record->head.kind = CGROUP;
	record->head.pid = READ(task, tgid);
	record->head.time_ns = now;
	record->head.created_ns = 0;
	record->cgroup = cgroup;
	record->flags = 0;
	record->path_bytes = 0;
	struct kernfs_node *node = READ(READ(READ(task, cgroups), dfl_cgrp), kn);
	for (u32 level = 0; level < CGROUP_LEVELS_MAX; level++) {
		struct kernfs_node *parent = parent_of(node);
		if (!parent) {
			record->flags = CGROUP_COMPLETE;
			break;
		}
		u32 at = record->path_bytes & (PATHS_BYTES - 1);
		/* No more than is there. */
		if (at > PATHS_BYTES - NAME_BYTES_MAX)
			break;
		s64 length = read_kernel_text(&record->path[at], NAME_BYTES_MAX, READ(node, name));
		if (length <= 1)
			break;
		record->path_bytes = at + length;
		node = parent;
	}
	u64 size = CGROUP_HEAD_BYTES + (record->path_bytes & (PATHS_BYTES - 1));
	if (ring_output(&process_records, record, size, 0) == 0)
		map_update(&process_cgroups, &cgroup, &told, 0);
}

SECTION("raw_tp/sched_process_exec")
int process_exec(u64 *context)
{
	struct task_struct *task = (struct task_struct *)context[0];
	u32 zero = 0;
	struct exec_record *record = map_lookup(&process_scratch, &zero);

	if (!record)
		return 0;
	u64 now = monotonic_ns();
	u64 cgroup = current_cgroup();
	if (exceeds_limit(&process_limit, &process_due, cgroup, now)) {
		count_lost(THROTTLED + EXEC);
		return 0;
	}
	tell_cgroup(task, cgroup, now);
	struct cred *cred = READ(task, cred);
	struct signal_struct *signal = READ(task, signal);
	struct mm_struct *mm = READ(task, mm);
	struct file *executable = READ(mm, exe_file);
	struct fs_struct *fs = READ(task, fs);

	record->head.kind = EXEC;
	record->head.pid = READ(task, tgid);
	record->head.time_ns = now;
	record->head.created_ns = READ(READ(task, group_leader), start_boottime);
	record->parent = READ(READ(task, real_parent), tgid);
	record->user = READ(cred, euid.val);
	record->group = READ(cred, egid.val);
	record->session = session_of(signal);
	record->flags = READ(signal, tty) ? HAS_TERMINAL : 0;
	struct inode *inode = READ(executable, f_inode);
	if (READ(inode, i_nlink) == 0)
		record->flags |= EXECUTABLE_DELETED;
	record->inode = READ(inode, i_ino);
	record->device = READ(READ(inode, i_sb), s_dev);
	record->cgroup = cgroup;
	write_streams(record, task);

	record->executable_end = 0;
	write_path(record, &record->executable_end, &executable->f_path, EXECUTABLE_COMPLETE);
	record->directory_end = record->executable_end;
	write_path(record, &record->directory_end, &fs->pwd, DIRECTORY_COMPLETE);
	u32 script_at = record->directory_end & (PATHS_BYTES - 1);
	record->script_end = script_at + write_script(record, script_at, (struct linux_binprm *)context[2]);
	u32 at = record->script_end & (TEXTS_BYTES - 1);
	u32 arguments_bytes = write_arguments(record, at, mm);
	record->arguments_end = at + arguments_bytes;

	u64 size = EXEC_HEAD_BYTES + at + arguments_bytes;
	if (size > sizeof(*record))
		size = sizeof(*record);
	output(record, size, EXEC);
	return 0;
}

/* The kernel's helpers used here are for programs under a licence compatible with the GPL only. */
char LICENSE[] SECTION("license") = "Dual BSD/GPL";
