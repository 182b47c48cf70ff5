//! The agent under its unit: a systemd of the test's own installs it, starts it, brings it back, stops it and removes it.
//!
//! eBPF programs need the host's own pid namespace, which this systemd is not in: what is tried is all that the unit
//! restricts otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use picket_tests::process::{self, ManagedProcess};
use picket_tests::wait;
use serde_json::Value;

use crate::support::{executable, is_root, sandbox};

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/systemd/boot.sh");
/// `boot.sh` ends with it where something is missing.
const MISSING: i32 = 77;
/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);
const UNIT: &str = "picket-agent.service";
/// Where `picket-agent install` puts the program.
const INSTALLED: &str = "/usr/local/bin/picket-agent";

/// A systemd with namespaces of its own; ends with this.
struct Host {
    process: ManagedProcess,
    cgroup: PathBuf,
    /// Of its first process, as seen from here.
    pid: u32,
}

impl Host {
    /// Boots it in a folder; the error says what is missing here.
    fn boot(folder: &Path) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = root.and_then(|line| line.split(' ').nth(1)).ok_or("there are no cgroups of version 2")?;
        let cgroup = Path::new(root).join(format!("picket-systemd-{}", std::process::id()));
        fs::create_dir_all(folder).unwrap();
        let mut process =
            ManagedProcess::spawn("systemd", Command::new("sh").arg(BOOT).arg(folder).arg(&cgroup).arg(executable()))
                .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", process.pid());
        let outer = process.pid();
        let pid = wait::until("systemd to run", DEADLINE, || {
            if let Some(status) = process.try_wait().map_err(|error| error.to_string())? {
                return Ok(Err(status.code() == Some(MISSING)));
            }
            let child: u32 = fs::read_to_string(&children)
                .ok()
                .and_then(|children| children.split_whitespace().next()?.parse().ok())
                .ok_or_else(|| format!("{outer} has started nothing"))?;
            let host = format!("/proc/{child}/root/run/systemd/private");
            if Path::new(&host).exists() { Ok(Ok(child)) } else { Err("it does not answer".to_owned()) }
        });
        match pid.unwrap() {
            Ok(pid) => Ok(Self { process, cgroup, pid }),
            Err(is_missing) => {
                fs::remove_dir(&cgroup).ok();
                assert!(is_missing, "systemd ended");
                Err("there is no systemd, no overlay file system or no namespace".to_owned())
            }
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-a", program]);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        process::output(self.command(program).args(arguments)).unwrap()
    }

    /// What a command that must succeed prints.
    fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let log = || process::output(self.command("journalctl").args(["--no-pager", "--unit", UNIT])).unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}\n{:?}", log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// A property of the unit.
    fn property(&self, name: &str) -> String {
        self.succeed("systemctl", &["show", UNIT, "--property", name, "--value"]).trim().to_owned()
    }

    fn status(&self) -> Value {
        // It is degraded: it has no server.
        let output = self.run(INSTALLED, &["status", "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Everything in its pid namespace ends with it.
        self.process.kill().ok();
        let remove = || remove_cgroups(&self.cgroup);
        wait::until_true("the cgroups to be empty", DEADLINE, remove).ok();
    }
}

/// Removes a cgroup and those below it; says whether it is gone.
fn remove_cgroups(cgroup: &Path) -> bool {
    let Ok(below) = fs::read_dir(cgroup) else { return true };
    for entry in below.flatten().filter(|entry| entry.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    fs::remove_dir(cgroup).is_ok()
}

#[test]
fn the_unit_starts_brings_back_and_stops_an_agent_that_has_given_up_its_rights() {
    const NAME: &str = "the_unit_starts_brings_back_and_stops_an_agent_that_has_given_up_its_rights";
    if !is_root(NAME) {
        return;
    }
    let sandbox = sandbox();
    let host = match Host::boot(&sandbox.folder().join("systemd")) {
        Ok(host) => host,
        Err(reason) => return println!("skipped: {NAME}: {reason}"),
    };
    // The one binary of these tests is an agent when it is called so.
    host.succeed("/opt/picket-agent", &["install"]);
    let drop_in = "mkdir -p /etc/systemd/system/picket-agent.service.d && \
                   printf '[Service]\\nRestartSec=100ms\\n' >/etc/systemd/system/picket-agent.service.d/test.conf && \
                   systemctl daemon-reload";
    host.succeed("/bin/sh", &["-c", drop_in]);

    // Ready only when the agent says so.
    host.succeed("systemctl", &["start", UNIT]);
    assert_eq!((host.property("ActiveState"), host.property("User")), ("active".to_owned(), "picket".to_owned()));
    let status = host.status();
    let hardening = &status["hardening"];
    let elsewhere = hardening_without_a_unit();
    assert_eq!(hardening["not_applied"], elsewhere, "what works without the unit works under it: {hardening}");
    let sensors = status["sensors"].as_array().unwrap();
    assert!(sensors.iter().any(|sensor| sensor["name"] == "process" && sensor["running"] == true), "{status}");

    let first = host.property("MainPID");
    host.succeed("/bin/kill", &["-KILL", &first]);
    wait::until_true("another agent", DEADLINE, || {
        let now = host.property("MainPID");
        now != "0" && now != first && host.property("ActiveState") == "active"
    })
    .unwrap();

    host.succeed("systemctl", &["stop", UNIT]);
    assert_eq!((host.property("Result"), host.property("ExecMainStatus")), ("success".to_owned(), "0".to_owned()));
    host.succeed(INSTALLED, &["uninstall"]);
    assert_eq!(host.property("LoadState"), "not-found");
}

/// What an agent cannot give up on this kernel, whoever started it.
fn hardening_without_a_unit() -> Value {
    let sandbox = sandbox();
    let config = format!("{}[hardening]\nmode = \"auto\"\n", crate::support::QUIET);
    let agent = sandbox.agent("agent").config(&config).start().unwrap();
    let not_applied = agent.status().unwrap()["hardening"]["not_applied"].clone();
    agent.stop().unwrap();
    not_applied
}
