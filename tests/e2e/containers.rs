//! What happens inside a container's namespaces and cgroup is seen from outside, with the container it happened in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{is_root, rows, sandbox};

const SENSORS: &str =
    "[sensor.datagram]\nmode = \"off\"\n[sensor.authentication]\nmode = \"off\"\n[sensor.file]\nmode = \"off\"\n";

/// A cgroup such as docker makes for a container, removed at the end.
struct ContainerCgroup {
    folder: PathBuf,
    path: String,
    id: String,
}

impl ContainerCgroup {
    fn make() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = root.and_then(|line| line.split(' ').nth(1)).ok_or("no cgroup2 hierarchy")?;
        let id = format!("{:064x}", std::process::id());
        let path = format!("/picket-test-{}.slice/docker-{id}.scope", std::process::id());
        let folder = Path::new(root).join(&path[1..]);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { folder, path, id })
    }
}

impl Drop for ContainerCgroup {
    fn drop(&mut self) {
        for folder in [Some(self.folder.as_path()), self.folder.parent()].into_iter().flatten() {
            // What still runs in it keeps it; the test has failed then.
            fs::remove_dir(folder).ok();
        }
    }
}

#[test]
fn a_program_and_a_connection_inside_a_container_are_seen_with_its_id() {
    const NAME: &str = "a_program_and_a_connection_inside_a_container_are_seen_with_its_id";
    if !is_root(NAME) {
        return;
    }
    let cgroup = match ContainerCgroup::make() {
        Ok(cgroup) => cgroup,
        Err(reason) => return println!("skipped: {NAME}: {reason}"),
    };
    if let Some(missing) =
        ["bash", "ip", "unshare"].into_iter().find(|tool| Command::new(tool).arg("--version").output().is_err())
    {
        return println!("skipped: {NAME}: there is no {missing}");
    }
    let sandbox = sandbox();
    let server = sandbox.server().start().unwrap();
    let agent = sandbox.agent("agent").config(SENSORS);
    agent.enroll(&server).unwrap();
    let running = agent.start().unwrap();
    let mode = running.status().unwrap()["sensors"].to_string();
    if !mode.contains("\"ebpf\"") {
        return println!("skipped: {NAME}: no eBPF: {mode}");
    }

    // Process 1 of its own; nobody listens in the new network.
    let inside = "ip link set lo up; [ $$ = 1 ] && : 2>/dev/null </dev/tcp/127.0.0.1/4711; exec true";
    let enter = "echo $$ > \"$0/cgroup.procs\" && exec unshare --net --pid --fork bash -c \"$1\"";
    let status = Command::new("bash").args(["-c", enter]).arg(&cgroup.folder).arg(inside).status().unwrap();
    assert!(status.success(), "{status}");

    let mut admin = server.admin().unwrap();
    let programs = format!(
        "SELECT executable, cgroup_id, container_id, pid FROM process_activity \
         WHERE activity = 'start' AND cgroup = '{}' ORDER BY time, sequence",
        cgroup.path
    );
    // unshare, bash, ip and true.
    let programs = rows(&mut admin, &programs, 4);
    for (row, name) in programs.iter().zip(["unshare", "bash", "ip", "true"]) {
        assert!(row["executable"].as_str().unwrap().ends_with(name), "{row:?}");
        assert_eq!(row["container_id"], cgroup.id.as_str());
        assert_eq!(row["cgroup_id"], programs[0]["cgroup_id"]);
    }
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&cgroup.folder).unwrap());
    assert_eq!(programs[0]["cgroup_id"].as_u64(), Some(inode));
    // Its pid is the host's, not 1.
    assert_ne!(programs[1]["pid"], Value::from(1));
    // Refused, since nobody listens: an end without a beginning.
    let connections = "SELECT pid, cgroup_id, outcome, remote_address FROM network_activity WHERE remote_port = 4711";
    let row = rows(&mut admin, connections, 1).remove(0);
    assert_eq!((&row["outcome"], &row["remote_address"]), (&"refused".into(), &"127.0.0.1".into()));
    assert_eq!((&row["pid"], &row["cgroup_id"]), (&programs[1]["pid"], &programs[0]["cgroup_id"]));
    running.stop().unwrap();
    server.stop().unwrap();
}
