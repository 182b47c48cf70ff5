//! The agent with eBPF sensors.

use std::process::Command;

use picket_tests::sandbox::READY_DEADLINE;
use serde_json::Value;

use crate::support::{is_root, sandbox};

fn all_by_ebpf(status: &Value) -> bool {
    let sensors = status["sensors"].as_array().map(Vec::as_slice).unwrap_or_default();
    !sensors.is_empty() && sensors.iter().all(|sensor| sensor["mode"] == "ebpf")
}

#[test]
fn ebpf_programs_are_loaded_by_a_process_that_ends() {
    if !is_root("ebpf_programs_are_loaded_by_a_process_that_ends") {
        return;
    }
    let sandbox = sandbox();
    let mut agent = sandbox.agent("agent").start().unwrap();
    let status = agent.status().unwrap();
    assert!(!status["sensors"].to_string().contains("not permitted"), "root is permitted: {}", status["sensors"]);
    if !all_by_ebpf(&status) {
        return println!("skipped: no eBPF here: {}", status["sensors"]);
    }
    assert!(!agent.log_tail().contains("loads its eBPF programs itself"), "{}", agent.log_tail());
    let pid = agent.process.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_eq!(children, "", "the loader has ended and was waited for");
    // The programs outlive it: what starts from now on is seen.
    let accepted = |status: &Value| status["events_accepted"].as_u64().unwrap_or_default();
    let before = accepted(&agent.status().unwrap());
    for _ in 0..50 {
        Command::new("/bin/true").status().unwrap();
    }
    agent.wait_for("50 starts and ends", READY_DEADLINE, |status| accepted(status) >= before + 100).unwrap();
    agent.stop().unwrap();
}
