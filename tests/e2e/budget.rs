//! Over its budget the agent does less, rung by rung, and more again afterwards; every event is stored or counted.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::agent_report::AgentReport;
use picket_tests::wait;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{QUIET, is_root, only_host, sandbox, wait_until_stored};

/// How long the ladder may take, either way. The agent shares the machine with what loads it.
const LADDER_DEADLINE: Duration = Duration::from_secs(60);

/// How long it may take until it does everything again by itself. It sees what other tests and programs do meanwhile, too:
/// while these keep it above the ceiling, it rightly stays where it is.
const CLIMB_DEADLINE: Duration = Duration::from_secs(60);

/// How long it may take below a ceiling that nothing passes: each rung at most 16 times `recovery_ms`.
const RAISED_DEADLINE: Duration = Duration::from_secs(120);

/// A ceiling that real work passes at once and an idle agent stays well below.
const BUDGET: &str = "[budget]\ncpu_percent_max = 3\nwindow_ms = 1000\nrecovery_ms = 1000\nexec_sample_one_in = 50\n";

/// A ceiling that nothing passes.
const ROOMY: &str = "[budget]\ncpu_percent_max = 0\nwindow_ms = 1000\nrecovery_ms = 1000\nexec_sample_one_in = 50\n";

fn rung(status: &Value) -> &str {
    status["budget"]["rung"].as_str().unwrap_or_default()
}

#[test]
fn over_its_budget_the_agent_does_less_and_then_more_again_and_counts_what_it_left_out() {
    if !is_root("a storm of programs is seen only with the kernel's events, which") {
        return;
    }
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let mut admin = server.admin().unwrap();
    let agent = sandbox.agent("agent").config(BUDGET);
    agent.enroll(&server).unwrap();
    let mut running = agent.start().unwrap();

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut program = Command::new("/bin/true");
                    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
                }
            });
        }
        let down = running.wait_for("the storm to pass the ceiling", LADDER_DEADLINE, |status| {
            matches!(rung(status), "sample_execs" | "heartbeats_only")
        });
        let told = wait::until_true("the server to be told", LADDER_DEADLINE, || {
            let status = admin.hosts().unwrap().remove(0).status.unwrap_or_default();
            !matches!(status.budget_rung.as_str(), "" | "normal")
        });
        is_over.store(true, Ordering::Relaxed);
        let status = down.unwrap();
        assert_eq!(status["budget"]["cause"], "cpu", "{}", status["budget"]);
        assert!(status["degraded"].to_string().contains("over its budget"), "{}", status["degraded"]);
        told.unwrap();
    });
    let is_normal = |status: &Value| rung(status) == "normal";
    let status =
        running.wait_for("the ladder to be climbed again", CLIMB_DEADLINE, is_normal).unwrap_or_else(|error| {
            println!("the machine stays busy, the ceiling is raised: {error}");
            std::fs::write(agent.state_dir().with_extension("toml"), ROOMY).unwrap();
            running.process.signal(Signal::HUP);
            running.wait_for("the ladder to be climbed below a higher ceiling", RAISED_DEADLINE, is_normal).unwrap()
        });
    println!("{}", status["budget"]);
    assert!(status["budget"]["left_out_total"].as_u64().unwrap() > 0, "{}", status["budget"]);
    running.stop().unwrap();

    let host = only_host(&mut admin);
    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let (epoch, generated) = (counters.epoch.0, counters.accepted + counters.reported.total());
    let rest = agent.clone().config(QUIET).start().unwrap();
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| {
        stored.events_of(epoch) + stored.lost_of(epoch) >= generated
    });
    assert_eq!(stored.events_of(epoch) + stored.lost_of(epoch), generated, "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    let report = AgentReport::from_status(&agent.status().unwrap());
    let left_out = status["budget"]["left_out_total"].as_u64().unwrap();
    let counted = stored.lost.get(&epoch).and_then(|lost| lost.get("pipeline/degraded")).copied().unwrap_or(0);
    assert!(counted >= left_out, "{counted} of {left_out} counted; {:?}", report.epochs);

    // Each step is an event, and they lead from the top rung down and back to it.
    let sql = "SELECT \"before\", \"after\", reason FROM agent_activity WHERE activity = 'change' AND subject = 'budget' \
               ORDER BY sequence";
    let steps = admin.query(sql).unwrap();
    let text = |row: &serde_json::Map<String, Value>, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(text(&steps[0], "before"), "normal", "{steps:?}");
    assert!(text(&steps[0], "reason").starts_with("cpu above its ceiling of 30 ms/s"), "{steps:?}");
    for pair in steps.windows(2) {
        assert_eq!(text(&pair[0], "after"), text(&pair[1], "before"), "{steps:?}");
    }
    // Other work may have pushed it down once more since it was back.
    assert!(steps.iter().any(|step| text(step, "after") == "normal"), "{steps:?}");
    rest.stop().unwrap();
    server.stop().unwrap();
}
