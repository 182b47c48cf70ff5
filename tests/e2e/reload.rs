//! SIGHUP: a good configuration is taken up as far as it can be, a bad one changes nothing.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{QUIET, sandbox};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_bad_file_keeps_the_old_configuration_and_a_good_one_says_what_needs_a_restart() {
    let sandbox = sandbox();
    let agent = sandbox.agent("agent").config(QUIET);
    let mut running = agent.start().unwrap();
    let file = agent.state_dir().with_extension("toml");

    for (bad, reason) in [
        (format!("{QUIET}[budget]\ncpu_percent = 1\n"), "budget.cpu_percent_max"),
        (QUIET.replace("[sensor.process]\n", "[sensor.process]\nredact_patterns = ['(']\n"), "redact_patterns"),
        (format!("{QUIET}[log]\nfilter = 'a=b=c'\n"), "log.filter"),
    ] {
        fs::write(&file, bad).unwrap();
        running.process.signal(Signal::HUP);
        let status = running
            .wait_for("the bad configuration to be refused", DEADLINE, |status| {
                status["config"]["last_error"].as_str().is_some_and(|error| error.contains(reason))
            })
            .unwrap();
        assert_eq!(status["config"]["reloads_total"], 0);
        assert_eq!(status["budget"]["cpu_milliseconds_per_second_max"], 1_000, "the one before stays in force");
        assert!(status["degraded"].to_string().contains("refused"), "{}", status["degraded"]);
    }
    assert!(running.log_tail().contains("the one before stays in force"), "{}", running.log_tail());

    fs::write(&file, format!("{QUIET}[budget]\ncpu_percent_max = 50\n[buffer]\nbytes_max = 2000000\n")).unwrap();
    running.process.signal(Signal::HUP);
    let status = running
        .wait_for("the good configuration to be in force", DEADLINE, |status| status["config"]["reloads_total"] == 1)
        .unwrap();
    assert_eq!(status["config"]["last_error"], "");
    assert_eq!(status["config"]["needs_restart"], serde_json::json!(["buffer.bytes_max"]));
    assert_ne!(status["buffer_bytes_max"], 2_000_000, "not before a restart");
    let status = running
        .wait_for("the ceiling", DEADLINE, |status| status["budget"]["cpu_milliseconds_per_second_max"] == 500)
        .unwrap();
    assert!(!status["degraded"].to_string().contains("refused"), "{}", status["degraded"]);
    running.stop().unwrap();
}
