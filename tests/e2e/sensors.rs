//! Logins and changes of files, from the log and the folder to the operator's SQL, with the agent restricted as usual.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{is_root, rows, sandbox};

fn append(log: &Path, user: &str) {
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    writeln!(log, "Nov 23 04:21:03 web1 sshd[640]: Failed password for {user} from 198.51.100.23 port 22 ssh2")
        .unwrap();
}

#[test]
fn logins_and_changes_of_files_are_stored_across_a_restart() {
    if !is_root("logins_and_changes_of_files_are_stored_across_a_restart") {
        return;
    }
    let sandbox = sandbox();
    let mut home = sandbox.server();
    let server = home.start().unwrap();
    let (log, folder) = (sandbox.folder().join("auth.log"), sandbox.folder().join("cron.d"));
    fs::create_dir(&folder).unwrap();
    let agent = sandbox.agent("agent").config(&format!(
        "[sensor.process]\nmode = \"off\"\n[sensor.connection]\nmode = \"off\"\n[sensor.datagram]\nmode = \"off\"\n[sensor.kernel]\nmode = \"off\"\n\
         [sensor.authentication]\nlog_paths = [{log:?}]\njournal_folders = []\nwtmp_path = \"/nonexistent\"\nbtmp_path = \"/nonexistent\"\n[sensor.file]\npaths = [{folder:?}]\nprogram_folders = []\n"
    ));
    agent.enroll(&server).unwrap();
    let mut admin = server.admin().unwrap();

    let running = agent.start().unwrap();
    append(&log, "ada");
    let job = folder.join("job");
    assert!(Command::new("/bin/sh").arg("-c").arg(format!("echo x > {}", job.display())).status().unwrap().success());
    let logins = "SELECT user_name, success, source_address, origin FROM authentication ORDER BY time, sequence";
    let row = rows(&mut admin, logins, 1).remove(0);
    assert_eq!((&row["user_name"], &row["success"]), (&"ada".into(), &false.into()));
    assert_eq!((&row["source_address"], &row["origin"]), (&"198.51.100.23".into(), &"agent_log".into()));
    running.stop().unwrap();

    append(&log, "while_stopped");
    let running = agent.start().unwrap();
    append(&log, "again");
    let users: Vec<Value> = rows(&mut admin, logins, 3).iter().map(|row| row["user_name"].clone()).collect();
    assert_eq!(users, ["ada", "while_stopped", "again"]);

    let modes = "SELECT sensor_origins, sensor_reasons FROM agent_activity WHERE activity = 'start' ORDER BY epoch";
    let modes = rows(&mut admin, modes, 2);
    if modes[0]["sensor_origins"].to_string().contains("agent_fanotify") {
        let changes = format!("SELECT activity, mode, pid FROM file_activity WHERE path = '{}'", job.display());
        let changes = rows(&mut admin, &format!("{changes} ORDER BY sequence"), 2);
        let activities: Vec<&Value> = changes.iter().map(|row| &row["activity"]).collect();
        assert_eq!(activities, ["create", "update"]);
        // A new folder is watched by the restricted thread, too.
        let script = format!("mkdir {0}/later; echo x > {0}/later/x", folder.display());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
        let later = format!("SELECT DISTINCT path FROM file_activity WHERE path = '{}/later/x'", folder.display());
        rows(&mut admin, &format!("{later} AND activity = 'create'"), 1);
    } else {
        println!("skipped: file changes: {modes:?}");
    }
    running.stop().unwrap();
}
