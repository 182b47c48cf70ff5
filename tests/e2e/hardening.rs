//! What the running agent has given up: read from the kernel, thread by thread.

use std::fs;

use picket_tests::process;

use crate::support::{is_root, sandbox};

/// A field of a `/proc/PID/task/TID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

#[test]
fn every_thread_of_the_agent_has_given_up_what_it_does_not_need() {
    if !is_root("every_thread_of_the_agent_has_given_up_what_it_does_not_need") {
        return;
    }
    let sandbox = sandbox();
    let agent = sandbox.agent("agent").config("[hardening]\nmode = \"auto\"\n").start().unwrap();
    let report = agent.status().unwrap()["hardening"].clone();
    println!("{report}");
    let without_seccomp = report["not_applied"].to_string().contains("seccomp");
    if without_seccomp {
        return println!("skipped: this kernel has no seccomp: {report}");
    }
    let mut sensors = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.process.pid())).unwrap() {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let name = field(&status, "Name");
        let capabilities = u64::from_str_radix(field(&status, "CapPrm"), 16).unwrap();
        assert_eq!(field(&status, "Seccomp"), "2", "{name}");
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{name}");
        if name.starts_with("sensor-") {
            sensors += 1;
            // CAP_SYS_ADMIN, CAP_SYS_MODULE, CAP_PERFMON.
            assert_eq!(capabilities & (1 << 21 | 1 << 16 | 1 << 38), 0, "{name}: {capabilities:x}");
        } else {
            assert_eq!(capabilities, 0, "{name}");
        }
    }
    assert!(sensors >= 2, "{sensors} sensors");
    agent.stop().unwrap();
}

#[test]
fn hardening_can_be_required_and_switched_off() {
    let sandbox = sandbox();
    let quiet = crate::support::QUIET;
    let agent = sandbox.agent("off").config(&format!("{quiet}[hardening]\nmode = \"off\"\n")).start().unwrap();
    let task = format!("/proc/{}/status", agent.process.pid());
    assert_eq!(field(&fs::read_to_string(task).unwrap(), "Seccomp"), "0");
    assert!(agent.status().unwrap()["hardening"]["not_applied"].to_string().contains("switched off"));
    agent.stop().unwrap();

    let required = sandbox.agent("required").config(&format!("{quiet}[hardening]\nmode = \"require\"\n"));
    match required.start() {
        Ok(agent) => {
            assert_eq!(agent.status().unwrap()["hardening"]["not_applied"], serde_json::json!([]));
            agent.stop().unwrap();
        }
        Err(error) => {
            // A kernel that lacks something: then it says what, and does not run.
            let output = process::output(&mut required.run_command().unwrap()).unwrap();
            assert_eq!(output.status.code(), Some(3), "{error}");
        }
    }
}
