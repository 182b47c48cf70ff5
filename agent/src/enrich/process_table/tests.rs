#![allow(clippy::unwrap_used)]

use super::*;

fn process(pid: u32, start_ms: i64) -> ProcessId {
    ProcessId { pid, start_time: Timestamp(start_ms * 1_000_000) }
}

fn found(id: ProcessId, parent_pid: Option<u32>, executable: &str) -> FoundProcess {
    FoundProcess {
        id,
        parent_pid,
        executable: Arc::from(executable.as_bytes()),
        user_id: Some(7),
        group_id: Some(8),
        session_id: Some(9),
        thread_count: 1,
        found: Timestamp(0),
        reported: true,
    }
}

fn execution(pid: u32, executable: &str) -> Execution {
    Execution {
        pid,
        time: Timestamp(5_000_000_000),
        start_time: None,
        parent_pid: None,
        executable: Arc::from(executable.as_bytes()),
        user_id: None,
        group_id: None,
        session_id: None,
    }
}

fn fork(table: &mut ProcessTable, parent_pid: u32, id: ProcessId) {
    table.fork(parent_pid, id, id.start_time);
}

fn ended(exit: TaskExit) -> EndedProcess {
    match exit {
        TaskExit::Ended(ended) => ended,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_knows_its_ancestors_even_when_they_are_gone() {
    let mut table = ProcessTable::default();
    table.find(found(process(1, 0), None, "/sbin/init"));
    fork(&mut table, 1, process(10, 10));
    table.execute(execution(10, "/bin/sh"));
    fork(&mut table, 10, process(11, 20));
    assert!(ended(table.task_exited(10, true, 0)).start_reported);
    let lineage = table.execute(execution(11, "/bin/ls"));
    assert_eq!(lineage.parent, Some(process(10, 10)));
    assert_eq!(lineage.ancestors, [ByteString::from("/bin/sh"), ByteString::from("/sbin/init")]);
    assert_eq!((lineage.user_id, lineage.group_id, lineage.session_id), (Some(7), Some(8), Some(9)));
}

#[test]
fn ancestors_are_bounded() {
    let mut table = ProcessTable::default();
    table.find(found(process(1, 0), None, "/sbin/init"));
    for pid in 2..40 {
        fork(&mut table, pid - 1, process(pid, i64::from(pid)));
        let lineage = table.execute(execution(pid, &format!("/bin/{pid}")));
        assert_eq!(lineage.ancestors.len(), ANCESTORS_MAX.min(pid as usize - 1));
    }
}

#[test]
fn an_identity_is_refined_only_until_somebody_was_told() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 1000));
    let refined = Execution { start_time: Some(Timestamp(990_000_000)), ..execution(10, "/bin/a") };
    assert_eq!(table.execute(refined.clone()).id, process(10, 990));
    let later = Execution { start_time: Some(Timestamp(980_000_000)), ..refined };
    assert_eq!(table.execute(later).id, process(10, 990));
    assert_eq!(ended(table.task_exited(10, true, 0)).id, process(10, 990));

    fork(&mut table, 1, process(20, 1000));
    assert_eq!(table.owner(20).unwrap().0, process(20, 1000));
    let refined = Execution { start_time: Some(Timestamp(990_000_000)), ..execution(20, "/bin/a") };
    assert_eq!(table.execute(refined).id, process(20, 1000));
}

#[test]
fn finding_a_known_process_keeps_its_identity_and_a_reused_pid_is_a_new_process() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 1000));
    table.owner(10).unwrap();
    assert_eq!(table.find(found(process(10, 990), None, "/bin/a")).id, process(10, 1000));
    assert_eq!(table.find(found(process(10, 99_990), None, "/bin/a")).id, process(10, 99_990));
    assert_eq!(table.len(), 1);
}

#[test]
fn a_process_ends_with_its_last_thread() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 10));
    table.execute(execution(10, "/bin/a"));
    table.thread_started(110, 10);
    table.thread_started(111, 10);
    assert!(table.leaderless().is_empty());
    assert_eq!(table.task_exited(10, true, 0), TaskExit::Continues);
    assert_eq!(table.task_exited(10, false, 0), TaskExit::Continues);
    assert_eq!(table.leaderless(), [10]);
    assert_eq!(ended(table.task_exited(10, false, 256)).status, Some(256));
    assert!(table.leaderless().is_empty());
    assert_eq!(table.task_exited(10, false, 0), TaskExit::Unknown);
}

#[test]
fn an_exec_leaves_one_thread() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 10));
    table.thread_started(110, 10);
    // The old leader's end can come before the exec, that of another thread after it.
    assert_eq!(table.task_exited(10, true, 0), TaskExit::Continues);
    table.execute(execution(10, "/bin/a"));
    assert_eq!(table.task_exited(10, false, 0), TaskExit::Continues);
    assert_eq!(&*ended(table.task_exited(10, true, 0)).executable, b"/bin/a");
}

#[test]
fn a_fork_alone_is_not_a_reported_start() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 10));
    assert!(!ended(table.task_exited(10, true, 0)).start_reported);
}

#[test]
fn an_exec_without_a_fork_makes_an_entry() {
    let mut table = ProcessTable::default();
    table.find(found(process(1, 0), None, "/sbin/init"));
    let lineage = table.execute(Execution { parent_pid: Some(1), ..execution(10, "/bin/a") });
    assert_eq!(lineage.id, process(10, 5000));
    assert_eq!(lineage.parent, Some(process(1, 0)));
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let mut table = ProcessTable::with_capacity(100);
    for pid in 1..=10_000 {
        fork(&mut table, pid - 1, process(pid, i64::from(pid)));
    }
    assert_eq!((table.len(), table.evictions()), (100, 9900));
    assert!(table.contains(10_000) && !table.contains(9_900));
    assert_eq!(table.newest().take(3).collect::<Vec<_>>(), [10_000, 9_999, 9_998]);
    // Processes that end make room and leave nothing behind.
    for pid in 10_001..=60_000 {
        fork(&mut table, pid - 1, process(pid, i64::from(pid)));
        table.task_exited(pid, true, 0);
    }
    assert!(table.order.len() <= 2 * 1024 + 1, "{}", table.order.len());
}

#[test]
fn a_process_is_remembered_for_a_while_after_its_end() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 1000));
    table.execute(execution(10, "/bin/a"));
    table.task_exited(10, true, 0);
    fork(&mut table, 1, process(10, 5000));
    let at = |table: &mut ProcessTable, ms: i64| table.owner_at(10, Timestamp(ms * 1_000_000)).map(|(id, _)| id);
    assert_eq!(at(&mut table, 2000), Some(process(10, 1000)));
    assert_eq!(at(&mut table, 6000), Some(process(10, 5000)));
    assert_eq!(at(&mut table, 500), None);
    for pid in 11..=3000 {
        fork(&mut table, 1, process(pid, 6000));
        table.task_exited(pid, true, 0);
    }
    assert_eq!((at(&mut table, 2000), table.ended.len()), (None, ENDED_MAX));
}

#[test]
fn a_thread_stands_for_its_process() {
    let mut table = ProcessTable::default();
    fork(&mut table, 1, process(10, 1000));
    table.thread_started(11, 10);
    table.task_exited(10, false, 0);
    let at = |table: &mut ProcessTable, task| table.owner_at(task, Timestamp(2_000_000_000)).map(|(id, _)| id);
    assert_eq!(at(&mut table, 11), Some(process(10, 1000)));
    fork(&mut table, 1, process(11, 1500));
    assert_eq!(at(&mut table, 11), Some(process(11, 1500)));
    for thread in 100..100_000 {
        table.thread_started(thread, 10);
    }
    assert_eq!((table.process_of_thread.len(), table.threads.len()), (THREADS_MAX, THREADS_MAX));
}
