//! Time: a clock that is set, certificates that age, and a month without a server.
//!
//! The real binaries run with a wall clock that the test sets (a small library loaded before theirs, `clock/shift.c`,
//! compiled when the test runs). Monotonic clocks go on as they are, so what is shown is what a set clock does, and that
//! no timer depends on it. Times that the kernel gives to events are not shifted: what the sensors do with those is tested
//! beside `picket_agent::sensor::event_clock`.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use picket_agent::pipeline::ledger::{IntakeCounters, Ledger};
use picket_common::event::{
    Authentication, AuthenticationAction, ByteString, Event, EventBody, Origin, Timestamp, json,
};
use picket_common::id::{Epoch, EventKey, Sequence};
use picket_tests::agent_report::AgentReport;
use picket_tests::process;
use picket_tests::recording;
use picket_tests::sandbox::{Agent, RunningAgent, Sandbox, Server, printed, succeed};
use picket_tests::wait;
use serde_json::Value;

use crate::support::{
    DELIVERY_DEADLINE, QUIET, check_accounts, check_chains, control, only_host, record, sandbox, wait_for_events,
    wait_until_stored,
};

const DAY_S: i64 = 86_400;

/// A server's configuration whose own certificate outlives these tests.
const LONG_LIVED_SERVER: &str = "[pki]\nserver_certificate_days = 365\n";

/// Longer than the agent takes to look at its certificate's age again.
const RENEWAL_CHECK_MAX: Duration = Duration::from_secs(20);

const IMPATIENT: &str = "[uplink]\nbackoff_max_ms = 200\n";

/// A wall clock that can be set.
struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    /// `None` where there is no C compiler; says so.
    fn new(sandbox: &Sandbox, test: &str) -> Option<Self> {
        let (library, shift) = (sandbox.folder().join("shift.so"), sandbox.folder().join("shift"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/clock/shift.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let compiled =
            Command::new(compiler).args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output();
        match compiled {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("{}", printed(&output)),
            Err(error) => {
                println!("skipped: {test} needs a C compiler: {error}");
                return None;
            }
        }
        fs::write(&shift, 0_i64.to_ne_bytes()).unwrap();
        Some(Self { library, shift })
    }

    /// Sets it so many days after (before) the right time, for all processes that have it.
    fn set_days(&self, days: i64) {
        let file = fs::File::options().write(true).open(&self.shift).unwrap();
        file.write_all_at(&(days * DAY_S).to_ne_bytes(), 0).unwrap();
    }

    fn of_server(&self, server: Server) -> Server {
        server.variable("LD_PRELOAD", &self.library).variable("CLOCK_SHIFT", &self.shift)
    }

    fn of_agent(&self, agent: Agent) -> Agent {
        agent.variable("LD_PRELOAD", &self.library).variable("CLOCK_SHIFT", &self.shift)
    }
}

fn accepted_batches(status: &Value) -> u64 {
    status["uplink"]["batches_accepted"].as_u64().unwrap_or(0)
}

fn is_connected(status: &Value) -> bool {
    status["uplink"]["phase"] == "connected"
}

/// Waits for five more acknowledgements.
fn wait_for_deliveries(running: &mut RunningAgent) -> Value {
    let before = accepted_batches(&running.status().unwrap());
    running.wait_for("acknowledgements", DELIVERY_DEADLINE, |status| accepted_batches(status) > before + 5).unwrap()
}

/// What the agent has counted. It may be writing: then what is read is half old, half new, and does not count.
fn counters(agent: &Agent) -> IntakeCounters {
    let ledger = agent.state_dir().join("ledger");
    let mut read = None;
    wait::until_true("a readable ledger", DELIVERY_DEADLINE, || {
        read = Ledger::read(&ledger).unwrap();
        read.is_some()
    })
    .unwrap();
    read.unwrap()
}

#[test]
fn a_clock_that_jumps_a_day_forward_and_back_stops_nothing_and_loses_nothing() {
    let sandbox = sandbox();
    let Some(clock) = Clock::new(&sandbox, "a_clock_that_jumps_a_day") else { return };
    let mut home = sandbox.server();
    let mut server = home.start().unwrap();
    let replay = recording::agent_config(&record(&sandbox, 600), 1_000, 0);
    let agent = clock.of_agent(sandbox.agent("agent")).config(&format!("{replay}{IMPATIENT}"));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut server.admin().unwrap());
    let mut running = agent.start().unwrap();
    wait_for_deliveries(&mut running);
    for days in [1, -1, 0] {
        let connections = running.status().unwrap()["uplink"]["connections"].clone();
        clock.set_days(days);
        let status = wait_for_deliveries(&mut running);
        assert_eq!(status["uplink"]["connections"], connections, "the connection is the same: {}", status["uplink"]);
        // Connections can be made at that time too, after pauses that no set clock lengthens.
        server.stop().unwrap();
        running.wait_for("the server to be missed", DELIVERY_DEADLINE, |status| !is_connected(status)).unwrap();
        server = home.start().unwrap();
        running.wait_for("a connection", DELIVERY_DEADLINE, is_connected).unwrap();
        wait_for_deliveries(&mut running);
    }
    // An epoch is later than the one before, whatever the clock says.
    clock.set_days(1);
    running.stop().unwrap();
    let mut last = counters(&agent).epoch;
    for days in [1, -1] {
        clock.set_days(days);
        let mut running = agent.start().unwrap();
        wait_for_deliveries(&mut running);
        running.stop().unwrap();
        let epoch = counters(&agent).epoch;
        assert!(epoch > last, "{epoch:?} after {last:?}");
        last = epoch;
    }
    let mut admin = server.admin().unwrap();
    let stored = check_accounts(&agent.config(&format!("{QUIET}{IMPATIENT}")), &mut admin, &host, &[]);
    assert_eq!(stored.events.len(), 3, "{stored:?}");
    // Events say what the clock said.
    for (which, sign) in [("ahead", ">"), ("behind", "<")] {
        let interval = if sign == ">" { "+ INTERVAL '12 hours'" } else { "- INTERVAL '12 hours'" };
        let found = admin
            .query_number(&format!("SELECT count(*) FROM process_activity WHERE time {sign} now() {interval}"))
            .unwrap();
        assert!(found > 0, "events of a clock that is {which}");
    }
    let (hosts, _) = control(&server, &["host", "list"]);
    assert!(hosts[0]["quarantined"].is_null(), "{hosts}");
    check_chains(&server);
    server.stop().unwrap();
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_without_a_gap() {
    let sandbox = sandbox();
    let Some(clock) = Clock::new(&sandbox, "a_certificate_is_renewed") else { return };
    let mut home = clock.of_server(sandbox.server()).config(LONG_LIVED_SERVER);
    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let replay = recording::agent_config(&record(&sandbox, 600), 500, 0);
    let agent = clock.of_agent(sandbox.agent("agent")).config(&format!("{replay}{IMPATIENT}"));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut admin);
    let mut running = agent.start().unwrap();
    let expires = |status: &Value| status["uplink"]["certificate_expires_unix_s"].as_i64().unwrap();
    let first = wait_for_deliveries(&mut running);
    let events = |status: &Value| AgentReport::from_status(status).events_accepted;
    // 19 of 30 days: too early.
    clock.set_days(19);
    let early = running
        .wait_for("some seconds to pass", DELIVERY_DEADLINE, |status| events(status) > events(&first) + 4_000)
        .unwrap();
    assert_eq!((expires(&early), &early["uplink"]["connections"]), (expires(&first), &1.into()));
    clock.set_days(21);
    let renewed = running
        .wait_for("a new certificate", RENEWAL_CHECK_MAX, |status| {
            is_connected(status) && expires(status) > expires(&first) + 20 * DAY_S
        })
        .unwrap();
    assert_eq!(renewed["uplink"]["connections"], 2, "{}", renewed["uplink"]);
    assert_eq!(renewed["uplink"]["last_error"], "", "it was no failure");
    wait_for_deliveries(&mut running);
    running.stop().unwrap();
    check_accounts(&agent.config(QUIET), &mut admin, &host, &[]);
    check_chains(&server);
    server.stop().unwrap();
}

#[test]
fn a_certificate_that_expired_while_offline_says_so_and_the_way_back_loses_nothing() {
    const EVENTS: u64 = 1_500;
    let sandbox = sandbox();
    let Some(clock) = Clock::new(&sandbox, "a_certificate_that_expired") else { return };
    let mut home = clock.of_server(sandbox.server()).config(LONG_LIVED_SERVER);
    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let config = format!("{}{IMPATIENT}", recording::agent_config(&record(&sandbox, 1_500), 0, 1));
    let agent = clock.of_agent(sandbox.agent("agent")).config(&config);
    agent.enroll(&server).unwrap();
    let old_host = only_host(&mut admin);
    let behind = sandbox.agent("behind").config(&config);
    behind.enroll(&server).unwrap();
    clock.set_days(31);

    let last_error = |status: &Value| status["uplink"]["last_error"].as_str().unwrap_or_default().to_owned();
    let told = |running: &mut RunningAgent, words: &str| {
        let status = running.wait_for(words, DELIVERY_DEADLINE, |status| last_error(status).contains(words)).unwrap();
        assert!(last_error(&status).contains("picket-agent enroll --force"), "{status}");
        println!("{}", last_error(&status));
    };
    let mut running = agent.start().unwrap();
    told(&mut running, "certificate has expired");
    let doctor = process::output(&mut agent.command("doctor")).unwrap();
    assert!(!doctor.status.success() && printed(&doctor).contains("expired"), "{}", printed(&doctor));
    let report = wait_for_events(&mut running, EVENTS);
    assert!(report.buffer_bytes > 0 && report.events_lost.is_empty(), "{report:?}");
    // One whose clock is behind finds out from the server.
    let mut refused = behind.start().unwrap();
    told(&mut refused, "not take this host's certificate");
    refused.stop().unwrap();

    // The way back, while it runs.
    let token = admin.create_token(600, 1).unwrap();
    let address = server.endpoints.agent.to_string();
    succeed(agent.command("enroll").args(["--force", "--server", &address, "--token", &token])).unwrap();
    running.wait_for("a connection", DELIVERY_DEADLINE, is_connected).unwrap();
    let old: Vec<String> = [&old_host, behind_host(&behind).as_str()].map(String::from).into();
    let new = admin.hosts().unwrap().into_iter().find(|host| !old.contains(&host.host_id)).unwrap().host_id;
    let stored = wait_until_stored(&mut admin, &new, "everything", |stored| stored.events_total() >= EVENTS);
    assert_eq!((stored.events_total(), stored.duplicates, stored.lost.len()), (EVENTS, 0, 0), "{stored:?}");
    running.stop().unwrap();
    server.stop().unwrap();
}

fn behind_host(agent: &Agent) -> String {
    let identity = fs::read(agent.state_dir().join("identity/identity.json")).unwrap();
    serde_json::from_slice::<Value>(&identity).unwrap()["host_id"].as_str().unwrap().to_owned()
}

/// Writes a recording of `events` events of which the first is a failed login.
fn record_with_login(sandbox: &Sandbox, events: u32) -> PathBuf {
    let path = record(sandbox, events - 1);
    let login = Event {
        key: EventKey { epoch: Epoch(0), sequence: Sequence(0) },
        time: Timestamp(1_760_000_000_000_000_000),
        origin: Origin::Replay,
        body: EventBody::Authentication(Box::new(Authentication {
            action: AuthenticationAction::Logon,
            user_name: ByteString::from("mallory"),
            user_id: None,
            user_exists: Some(false),
            success: false,
            service: ByteString::from("sshd"),
            method: ByteString::from("password"),
            acting_user_name: ByteString::default(),
            terminal: ByteString::default(),
            command: ByteString::default(),
            source: None,
            source_port: None,
            process: None,
        })),
    };
    let rest = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{}\n{rest}", json::to_json(&login))).unwrap();
    path
}

#[test]
fn a_month_without_a_server_fills_the_buffer_to_its_ceiling_and_is_caught_up_with() {
    const DAYS: i64 = 30;
    const BUFFER_BYTES_MAX: u64 = 1 << 20;
    /// Events of a day, at least: together three times what the buffer holds.
    const EVENTS_PER_DAY: u64 = 6_000;
    const EVENTS_PER_LOGIN: u32 = 20_000;
    let sandbox = sandbox();
    let Some(clock) = Clock::new(&sandbox, "a_month_without_a_server") else { return };
    let mut home = sandbox.server().config("[pki]\nserver_certificate_days = 365\nhost_certificate_days = 90\n");
    let server = home.start().unwrap();
    let recording = record_with_login(&sandbox, EVENTS_PER_LOGIN);
    let replay = recording::agent_config(&recording, 20_000, 0);
    let buffer = format!("[buffer]\nbytes_max = {BUFFER_BYTES_MAX}\n");
    let agent = clock.of_agent(sandbox.agent("agent")).config(&format!("{replay}{buffer}{IMPATIENT}"));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut server.admin().unwrap());
    server.stop().unwrap();

    let mut running = agent.start().unwrap();
    let begun = counters(&agent).accepted;
    for day in 1..=DAYS {
        clock.set_days(day);
        let accepted = counters(&agent).accepted;
        wait::until_true("the events of a day", DELIVERY_DEADLINE, || {
            assert!(running.process.is_running(), "{}", running.log_tail());
            counters(&agent).accepted > accepted + EVENTS_PER_DAY
        })
        .unwrap();
        let report = AgentReport::from_status(&running.status().unwrap());
        assert!(report.buffer_bytes <= BUFFER_BYTES_MAX, "day {day}: {report:?}");
    }
    assert!(counters(&agent).accepted > begun + DAYS.unsigned_abs() * EVENTS_PER_DAY);
    let status = running
        .wait_for("losses", DELIVERY_DEADLINE, |status| {
            AgentReport::from_status(status).events_lost.contains_key("buffer/buffer_full")
        })
        .unwrap();
    let report = AgentReport::from_status(&status);
    println!("{} bytes wait, lost {:?}", report.buffer_bytes, report.events_lost);
    println!("resident {} bytes, peak {}", report.resident_bytes, report.resident_bytes_peak);
    running.stop().unwrap();
    let generated = counters(&agent).accepted;

    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let quiet = agent.config(&format!("{QUIET}{buffer}{IMPATIENT}"));
    let stored = check_accounts(&quiet, &mut admin, &host, &["buffer/buffer_full"]);
    assert_eq!(stored.events_total() + stored.lost_total()["buffer/buffer_full"], generated, "{stored:?}");
    // Logins are kept before everything else.
    let logins = admin.query_number("SELECT count(*) FROM authentication").unwrap();
    assert_eq!(logins.unsigned_abs(), generated.div_ceil(EVENTS_PER_LOGIN.into()), "of {generated} events");
    check_chains(&server);
    server.stop().unwrap();
}
