//! The certificate authority is rotated without a gap, renewal too, and who misses it is told what to do.

use std::time::Duration;

use picket_tests::agent_report::AgentReport;
use picket_tests::process;
use picket_tests::recording;
use picket_tests::sandbox::{Agent, RunningAgent, RunningServer, Sandbox, printed, succeed};
use picket_tests::wait;
use serde_json::Value;

use crate::support::{
    DELIVERY_DEADLINE, QUIET, check_chains, control, executable, only_host, record, sandbox, wait_for_events,
    wait_until_stored,
};

/// Events of an agent that plays its recording once.
const EVENTS: u64 = 1_500;

fn agent(sandbox: &Sandbox, name: &str, events_per_second: u32, loops: u64) -> Agent {
    let replay = recording::agent_config(&record(sandbox, 1_500), events_per_second, loops);
    sandbox.agent(name).config(&format!("{replay}[uplink]\nbackoff_max_ms = 200\n"))
}

/// Waits until so many hosts trust the authority with this digest and use its certificates.
fn wait_until_ready(server: &RunningServer, sha256: &str, hosts: u64) -> Value {
    wait::until(format!("{hosts} hosts to be ready"), DELIVERY_DEADLINE, || {
        let (authorities, _) = control(server, &["ca", "list"]);
        let row = authorities.as_array().and_then(|rows| rows.iter().find(|row| row["sha256"] == sha256)).cloned();
        let row = row.ok_or_else(|| authorities.to_string())?;
        let is_ready = row["hosts_trusting"] == hosts && row["hosts_certified"] == hosts;
        if is_ready { Ok(row) } else { Err(authorities.to_string()) }
    })
    .unwrap()
}

fn wait_until_connected(running: &mut RunningAgent) {
    running.wait_for("a connection", DELIVERY_DEADLINE, |status| status["uplink"]["phase"] == "connected").unwrap();
}

#[test]
fn an_authority_is_rotated_with_one_agent_running_and_one_offline_and_no_event_is_lost() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let present = agent(&sandbox, "present", 500, 0);
    present.enroll(&server).unwrap();
    let present_host = only_host(&mut admin);
    let absent = agent(&sandbox, "absent", 0, 1);
    absent.enroll(&server).unwrap();
    let hosts = admin.hosts().unwrap();
    let absent_host = hosts.iter().find(|host| host.host_id != present_host).unwrap().host_id.clone();
    let mut running = present.start().unwrap();
    wait_until_connected(&mut running);

    let (rotated, exit) = control(&server, &["ca", "rotate"]);
    assert_eq!(exit, Some(0), "{rotated}");
    let next = rotated["sha256"].as_str().unwrap().to_owned();
    let row = wait_until_ready(&server, &next, 1);
    assert_eq!((&row["role"], &row["issuing"], &row["hosts"]), (&"next".into(), &true.into(), &2.into()));
    // The one that was offline all the time is not forgotten.
    let refused = process::output(server.control(executable()).args(["ca", "retire"])).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(printed(&refused).contains(&absent_host), "{}", printed(&refused));

    // It comes with the old authority's certificate, and what it collected meanwhile.
    let mut late = absent.start().unwrap();
    wait_for_events(&mut late, EVENTS);
    wait_until_ready(&server, &next, 2);
    let (_, exit) = control(&server, &["ca", "retire"]);
    assert_eq!(exit, Some(0));
    // From now on there is only the new one, after a restart of the server too.
    server.stop().unwrap();
    let server = home.start().unwrap();
    let (authorities, _) = control(&server, &["ca", "list"]);
    assert_eq!((authorities.as_array().unwrap().len(), &authorities[0]["sha256"]), (1, &Value::from(next)));
    let mut admin = server.admin().unwrap();
    for agent in [&mut running, &mut late] {
        wait_until_connected(agent);
    }
    let stored = wait_until_stored(&mut admin, &absent_host, "the absent one's events", |stored| {
        stored.events_total() >= EVENTS
    });
    assert_eq!((stored.events_total(), stored.duplicates, stored.lost.len()), (EVENTS, 0, 0), "{stored:?}");
    let before = wait_until_stored(&mut admin, &present_host, "an account", |_| true).events_total();
    wait_until_stored(&mut admin, &present_host, "more of the present one", |stored| stored.events_total() > before);
    running.stop().unwrap();
    let quiet = present.clone().config(QUIET).start().unwrap();
    let report = AgentReport::from_status(&present.status().unwrap());
    let stored = wait_until_stored(&mut admin, &present_host, "all of the present one", |stored| {
        report.epochs.iter().all(|epoch| stored.events_of(epoch.epoch) >= epoch.generated)
    });
    assert_eq!((stored.duplicates, stored.lost.len()), (0, 0), "{stored:?}");
    check_chains(&server);
    // Who is new learns of the new one only.
    let newcomer = agent(&sandbox, "newcomer", 0, 1);
    newcomer.enroll(&server).unwrap();
    let mut newcomer = newcomer.start().unwrap();
    wait_until_connected(&mut newcomer);
    for agent in [late, quiet, newcomer] {
        agent.stop().unwrap();
    }
    server.stop().unwrap();
}

#[test]
fn who_misses_a_forced_rotation_is_told_to_enrol_again() {
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let absent = agent(&sandbox, "absent", 0, 1);
    absent.enroll(&server).unwrap();
    control(&server, &["ca", "rotate"]);
    let (_, exit) = control(&server, &["ca", "retire", "--force"]);
    assert_eq!(exit, Some(0));
    let mut running = absent.start().unwrap();
    let status = running
        .wait_for("the refusal", Duration::from_secs(150), |status| {
            !status["uplink"]["last_error"].as_str().unwrap_or_default().is_empty()
        })
        .unwrap();
    println!("{}", status["uplink"]["last_error"]);
    // Nothing is lost, and nothing needs a restart.
    let report = wait_for_events(&mut running, EVENTS);
    assert!(report.events_lost.is_empty(), "{report:?}");
    let token = server.admin().unwrap().create_token(600, 1).unwrap();
    let address = server.endpoints.agent.to_string();
    succeed(absent.command("enroll").args(["--force", "--server", &address, "--token", &token])).unwrap();
    wait_until_connected(&mut running);
    running.stop().unwrap();
    server.stop().unwrap();
}
