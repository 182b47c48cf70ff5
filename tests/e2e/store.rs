//! A damaged store on the agent, and full disks on both sides.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use picket_agent::pipeline::ledger::Ledger;
use picket_tests::agent_report::AgentReport;
use picket_tests::recording;
use picket_tests::sandbox::{Agent, Server};
use picket_tests::wait;

use crate::support::{QUIET, check_chains, is_root, only_host, record, sandbox, wait_for_events, wait_until_stored};

#[test]
fn a_damaged_store_is_set_aside_reported_and_the_agent_goes_on() {
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let recording = record(&sandbox, 6_000);
    let agent = sandbox.agent("agent").config(&recording::agent_config(&recording, 0, 1));
    agent.enroll(&server).unwrap();
    let endpoints_kept = server.endpoints;
    server.stop().unwrap();
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, 6_000);
    running.stop().unwrap();
    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();

    // Rubbish over the middle of every file of the store.
    let mut damaged = 0;
    for file in files_below(&agent.state_dir().join("buffer")) {
        let mut bytes = fs::read(&file).unwrap();
        let (from, to) = (bytes.len() / 8, bytes.len() * 7 / 8);
        bytes[from..to].iter_mut().enumerate().for_each(|(index, byte)| *byte = (index * 131) as u8);
        damaged += usize::from(to > from);
        fs::write(&file, bytes).unwrap();
    }
    assert!(damaged > 0);

    let server = home.start().unwrap();
    assert_eq!(server.endpoints, endpoints_kept);
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let again = agent.clone().config(&recording::agent_config(&recording, 0, 1));
    let mut running = again.start().unwrap();
    wait_for_events(&mut running, 6_000);
    let epoch = counters.epoch.0;
    let stored = wait_until_stored(&mut admin, &host, "the damaged epoch's account", |stored| {
        stored.events_of(epoch) + stored.lost_of(epoch) >= counters.accepted
            && stored.events_total() >= stored.events_of(epoch) + 6_000
    });
    assert_eq!(stored.events_of(epoch) + stored.lost_of(epoch), counters.accepted, "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    assert!(stored.lost_total().contains_key("buffer/store_damaged"), "{stored:?}");
    running.stop().unwrap();
    check_chains(&server);
    server.stop().unwrap();
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// A small file system in memory, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a Path, megabytes: u32) -> Self {
        fs::create_dir_all(folder).unwrap();
        let options = format!("size={megabytes}m,mode=0700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "picket-test"]).arg(folder).status();
        assert!(status.unwrap().success(), "mounting a tmpfs");
        Self(folder)
    }

    /// Takes all the room there is.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.filler()).unwrap();
        for chunk in [1 << 20, 4 << 10, 1] {
            let bytes = vec![7; chunk];
            while file.write_all(&bytes).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.0).status().ok();
    }
}

/// Whether file systems can be mounted here: containers often may not.
fn can_mount(test: &str) -> bool {
    if !is_root(test) {
        return false;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "picket-test"]).arg(folder.path()).output();
    let works = mounted.is_ok_and(|output| output.status.success());
    if works {
        Command::new("umount").arg(folder.path()).status().unwrap();
    } else {
        println!("skipped: {test} needs the right to mount a tmpfs");
    }
    works
}

#[test]
fn a_full_disk_of_the_agent_is_survived_and_counted() {
    if !can_mount("a_full_disk_of_the_agent_is_survived_and_counted") {
        return;
    }
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let recording = record(&sandbox, 3_000);
    let place = sandbox.folder().join("small");
    let disk = SmallDisk::mount(&place, 24);
    let agent = Agent::in_folder(sandbox.executable(), &place.join("agent"))
        .config(&recording::agent_config(&recording, 3_000, 0));
    agent.enroll(&server).unwrap();
    server.stop().unwrap();
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, 1_000);
    disk.fill();
    // The status file cannot be written now either: the ledger's page is there already and says that it goes on.
    let before = accepted(&agent);
    wait::until_true("the agent to go on with a full disk", Duration::from_secs(30), || {
        assert!(running.process.is_running(), "{}", running.log_tail());
        accepted(&agent) > before + 10_000
    })
    .unwrap();
    disk.free();
    let status = running
        .wait_for("its losses to be counted", Duration::from_secs(30), |status| {
            let lost = AgentReport::from_status(status).events_lost;
            lost.keys().any(|cause| cause.starts_with("buffer/"))
        })
        .unwrap();
    println!("{:?}", AgentReport::from_status(&status).events_lost);
    running.stop().unwrap();
    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let server = home.start().unwrap();
    let mut admin = server.admin().unwrap();
    let host = only_host(&mut admin);
    let running = agent.clone().config(QUIET).start().unwrap();
    let epoch = counters.epoch.0;
    let stored = wait_until_stored(&mut admin, &host, "the whole account", |stored| {
        stored.events_of(epoch) + stored.lost_of(epoch) >= counters.accepted
    });
    assert_eq!(stored.events_of(epoch) + stored.lost_of(epoch), counters.accepted, "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    running.stop().unwrap();
    server.stop().unwrap();
}

fn accepted(agent: &Agent) -> u64 {
    Ledger::read(&agent.state_dir().join("ledger")).unwrap().map_or(0, |counters| counters.accepted)
}

#[test]
fn a_full_disk_of_the_server_acknowledges_nothing_and_loses_nothing() {
    if !can_mount("a_full_disk_of_the_server_acknowledges_nothing_and_loses_nothing") {
        return;
    }
    let sandbox = sandbox();
    let place = sandbox.folder().join("small");
    let disk = SmallDisk::mount(&place, 64);
    let mut home = Server::in_folder(sandbox.executable(), &place.join("server"));
    let mut server = home.start().unwrap();
    let recording = record(&sandbox, 3_000);
    let agent = sandbox.agent("agent").config(&recording::agent_config(&recording, 2_000, 0));
    agent.enroll(&server).unwrap();
    let host = only_host(&mut server.admin().unwrap());
    let mut running = agent.start().unwrap();
    wait_for_events(&mut running, 2_000);
    disk.fill();
    let full = AgentReport::from_status(&running.status().unwrap());
    let status = running
        .wait_for("the buffer to grow", Duration::from_secs(30), |status| {
            let report = AgentReport::from_status(status);
            report.events_accepted > full.events_accepted + 10_000 && report.buffer_bytes > full.buffer_bytes + 50_000
        })
        .unwrap();
    println!("{} bytes wait", AgentReport::from_status(&status).buffer_bytes);
    assert!(server.process.is_running(), "{}", server.log_tail());
    disk.free();
    running.stop().unwrap();
    let counters = Ledger::read(&agent.state_dir().join("ledger")).unwrap().unwrap();
    let running = agent.clone().config(QUIET).start().unwrap();
    let mut admin = server.admin().unwrap();
    let epoch = counters.epoch.0;
    let stored = wait_until_stored(&mut admin, &host, "everything", |stored| {
        stored.events_of(epoch) + stored.lost_of(epoch) >= counters.accepted
    });
    assert_eq!((stored.events_of(epoch), stored.lost_of(epoch)), (counters.accepted, 0), "{stored:?}");
    assert_eq!(stored.duplicates, 0);
    // The metadata, which met the full disk too, can be written again.
    wait::until("a token to be made", Duration::from_secs(10), || admin.create_token(60, 1)).unwrap();
    running.stop().unwrap();
    server.stop().unwrap();
}
