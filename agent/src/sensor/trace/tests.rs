#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Instant;

use super::*;
use crate::sensor::test_sink::DEADLINE;

const EXEC: TraceEvent = TraceEvent { name: "sched/sched_process_exec", filter: "" };

/// An instance, where that is permitted.
pub(crate) fn instance(name: &str, events: &[TraceEvent]) -> Option<TraceInstance> {
    match TraceInstance::create(name, events) {
        Ok(instance) => Some(instance),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

#[test]
fn records_of_the_kernel_are_read_and_the_instance_goes_away() {
    let Some(mut instance) = instance("test-read", &[EXEC]) else { return };
    let format = instance.format(EXEC.name).unwrap();
    let (filename, pid) = (format.field("filename", 4).unwrap(), format.field("pid", 4).unwrap());
    let mut child = Command::new("/bin/true").spawn().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut found = None;
    while found.is_none() {
        assert!(Instant::now() < deadline);
        let lost = instance.drain(|record| {
            assert!(format.is_of(record.data));
            if pid.u32(record.data) == Some(child.id()) {
                found = filename.text(record.data).map(<[u8]>::to_vec);
            }
        });
        assert_eq!(lost.unwrap(), 0);
    }
    assert_eq!(found.unwrap(), b"/bin/true");
    let folder = instance.folder.clone();
    assert!(folder.exists());
    drop(instance);
    assert!(!folder.exists());
}

#[test]
fn what_a_killed_agent_left_behind_is_removed() {
    let Some(first) = instance("test-left", &[]) else { return };
    let instances = first.folder.parent().unwrap();
    // No process has this id: it is the largest that there can be, and one more.
    let left_behind = instances.join(format!("{INSTANCE_PREFIX}4194305-test"));
    fs::create_dir(&left_behind).unwrap();
    let _second = instance("test-left-again", &[]).unwrap();
    assert!(!left_behind.exists() && first.folder.exists());
}

#[test]
fn only_names_of_agents_are_understood() {
    assert_eq!(owner_of("picket-123-connection"), Some(123));
    for other in ["picket-x-connection", "picket-123", "other-123-connection", ""] {
        assert_eq!(owner_of(other), None);
    }
}

#[test]
fn an_unknown_event_is_an_error_and_leaves_nothing_behind() {
    let Err(error) = TraceInstance::create("test-error", &[TraceEvent { name: "sched/no_such", filter: "" }]) else {
        panic!("created");
    };
    eprintln!("{error}");
    let Ok(tracefs) = tracefs() else { return };
    let prefix = format!("{INSTANCE_PREFIX}{}-test-error-", std::process::id());
    let mut instances = fs::read_dir(tracefs.join("instances")).unwrap().flatten();
    assert!(!instances.any(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix)));
}
