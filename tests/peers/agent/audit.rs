//! auditd 3: with its own log (raw records), and with `laurel` as plugin that writes joined JSON records instead.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use picket_tests::process::{self, ManagedProcess};
use picket_tests::wait;

use crate::collector::{Collector, Load, Seen, count_lines, prepared, said_version, with_libraries};
use crate::control_group::ControlGroup;

/// The key of this comparison's rules. The script that runs it removes every rule with this key, too.
const RULE_KEY: &str = "picket-peers";

/// Messages that may wait in the kernel: enough that none of the load is lost.
const BACKLOG_MESSAGES: &str = "32768";

/// How long the daemon may take to begin or to end.
const DEADLINE: Duration = Duration::from_secs(20);

/// auditd, and what was changed for it.
pub(crate) struct Audit {
    work: PathBuf,
    name: &'static str,
    with_laurel: bool,
    daemon: Option<ManagedProcess>,
    /// The kernel's state before.
    before: Option<State>,
}

/// The kernel's side of auditing.
#[derive(Clone, Debug)]
struct State {
    enabled: String,
    daemon_pid: String,
    backlog_limit: String,
}

impl Audit {
    pub(crate) fn raw(work: &Path) -> Self {
        Self { work: work.to_owned(), name: "auditd", with_laurel: false, daemon: None, before: None }
    }

    pub(crate) fn laurel(work: &Path) -> Self {
        Self { work: work.to_owned(), name: "auditd+laurel", with_laurel: true, daemon: None, before: None }
    }

    fn control(&self, arguments: &[&str]) -> Result<String, String> {
        let program = self.work.join("root/sbin/auditctl");
        let output = process::output(with_libraries(Command::new(&program)).args(arguments))
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("auditctl {}: {said}", arguments.join(" ")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn state(&self) -> Result<State, String> {
        let text = self.control(&["-s"])?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("auditctl -s does not say {key}"))
        };
        Ok(State { enabled: value("enabled ")?, daemon_pid: value("pid ")?, backlog_limit: value("backlog_limit ")? })
    }

    /// Files of the daemon's own, its log among them.
    fn configure(&self, folder: &Path) -> io::Result<PathBuf> {
        let (config, plugins) = (folder.join("audit"), folder.join("audit/plugins.d"));
        fs::create_dir_all(&plugins)?;
        let written = |path: PathBuf, text: String| {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640))
        };
        let logs = if self.with_laurel { "no" } else { "yes" };
        let text = format!(
            "local_events = yes\nwrite_logs = {logs}\nlog_file = {}\nlog_group = root\nlog_format = RAW\n\
             flush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 1000\nnum_logs = 2\nmax_log_file_action = ROTATE\n\
             priority_boost = 4\nname_format = NONE\nspace_left = 75\nspace_left_action = IGNORE\n\
             admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\n\
             disk_error_action = IGNORE\nq_depth = 20000\noverflow_action = IGNORE\nplugin_dir = {}\n",
            folder.join("audit.log").display(),
            plugins.display()
        );
        written(config.join("auditd.conf"), text)?;
        if self.with_laurel {
            let settings = config.join("laurel.toml");
            let text = format!(
                "directory = \"{}\"\nuser = \"root\"\n[auditlog]\nfile = \"audit.json\"\nsize = 1000000000\ngenerations = 1\n",
                folder.join("laurel").display()
            );
            written(settings.clone(), text)?;
            let text = format!(
                "active = yes\ndirection = out\npath = {}\ntype = always\nargs = --config {}\nformat = string\n",
                self.work.join("laurel/bin/laurel").display(),
                settings.display()
            );
            written(plugins.join("laurel.conf"), text)?;
        }
        Ok(config)
    }
}

impl Collector for Audit {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        let daemon = said_version(&self.work.join("root/sbin/auditctl"), "-v").replace("auditctl version", "auditd");
        if !self.with_laurel {
            return daemon;
        }
        format!("{daemon}, laurel {}", said_version(&self.work.join("laurel/bin/laurel"), "--version"))
    }

    fn start(&mut self, group: &ControlGroup, folder: &Path) -> Result<(), String> {
        prepared(&self.work, "auditd")?;
        if self.with_laurel {
            prepared(&self.work, "laurel")?;
        }
        let before = self.state()?;
        if before.daemon_pid != "0" {
            return Err(format!("another audit daemon is running (process {}); there can be one", before.daemon_pid));
        }
        let config = self.configure(folder).map_err(|error| error.to_string())?;
        // The script puts this back when this program is killed.
        let state = format!("{} {}\n", before.enabled, before.backlog_limit);
        fs::write(self.work.join("audit-state"), state).map_err(|error| error.to_string())?;
        self.before = Some(before);

        let mut command = group.command(&self.work.join("root/sbin/auditd"));
        command.arg("-n").arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = self.daemon.insert(ManagedProcess::spawn("auditd", &mut command).map_err(|e| e.to_string())?);
        let pid = daemon.pid().to_string();
        wait::until("auditd to be the kernel's audit daemon", DEADLINE, || match self.state() {
            Ok(state) if state.daemon_pid == pid => Ok(()),
            Ok(state) => Err(format!("{state:?}")),
            Err(error) => Err(error),
        })
        .map_err(|error| error.to_string())?;
        if self.with_laurel {
            wait::until_true("laurel to be started", DEADLINE, || group.processes().len() > 1)
                .map_err(|error| error.to_string())?;
        }
        self.control(&["-b", BACKLOG_MESSAGES])?;
        let rule = ["-a", "always,exit", "-F", "arch=b64", "-S", "execve", "-S", "connect", "-k", RULE_KEY];
        self.control(&rule).map(drop)
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let rules = self.control(&["-D", "-k", RULE_KEY]);
        // The daemon first writes what still waits in the kernel.
        let ended = self.daemon.take().map(|mut daemon| daemon.terminate(DEADLINE)).transpose();
        let enabled = self.control(&["-e", &before.enabled]);
        let backlog = self.control(&["-b", &before.backlog_limit]);
        rules.and(enabled).and(backlog)?;
        ended.map_err(|error| error.to_string())?;
        fs::remove_file(self.work.join("audit-state")).map_err(|error| error.to_string())
    }

    fn seen(&mut self, load: &Load<'_>, folder: &Path) -> Result<Seen, String> {
        let port = load.port;
        if self.with_laurel {
            let file = folder.join("laurel/audit.json");
            let executable = format!("\"exe\":\"{}\"", load.program.display());
            let [high, low] = port.to_be_bytes();
            let address = [2, 0, high, low, 127, 0, 0, 1];
            return Ok(Seen {
                starts: Some(count_lines(&file, |line| line.contains(&executable))),
                connections: Some(count_lines(&file, |line| socket_address(line).starts_with(&address))),
            });
        }
        let file = folder.join("audit.log");
        let executable = format!("exe=\"{}\"", load.program.display());
        // AF_INET, the port and the address, in hexadecimal.
        let address = format!("saddr=0200{port:04X}7F000001");
        Ok(Seen {
            starts: Some(count_lines(&file, |line| line.contains(&executable))),
            connections: Some(count_lines(&file, |line| line.contains(&address))),
        })
    }
}

/// The bytes of the socket address in a line of laurel, which escapes some of them as `%xx`.
fn socket_address(line: &str) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let text = value.pointer("/SOCKADDR/0/saddr").and_then(serde_json::Value::as_str).unwrap_or_default();
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = if *first == b'%' { behind.get(..2) } else { None };
        match escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.stop().ok();
    }
}
