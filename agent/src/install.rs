//! Puts the agent on a host: binary, systemd unit, system user, configuration, state folder; and takes it away again.
//!
//! Doing it twice changes nothing; what an administrator has changed (the configuration) stays. Everything is below a
//! root folder, so that an image can be made on another machine. What needs a running system there is left out and told.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::state_file;

#[cfg(test)]
mod tests;

/// The unit, as packages install it.
const UNIT: &str = include_str!("../systemd/picket-agent.service");
/// The configuration, every key with its default.
const CONFIG: &str = include_str!("../config/agent.toml");
/// The user that the unit runs as.
const USER: &str = "picket";
/// Makes that user, for `systemd-sysusers`.
const SYSUSERS: &str = "u picket - \"Picket agent\" /var/lib/picket /usr/sbin/nologin\n";
/// Where packages put the program, in [`UNIT`].
const PACKAGED_BINARY: &str = "/usr/bin/picket-agent";

const BINARY: &str = "usr/local/bin/picket-agent";
const UNIT_FILE: &str = "etc/systemd/system/picket-agent.service";
const WANTED: &str = "etc/systemd/system/multi-user.target.wants/picket-agent.service";
const SYSUSERS_FILE: &str = "etc/sysusers.d/picket-agent.conf";
const CONFIG_FILE: &str = "etc/picket/agent.toml";
const STATE_DIR: &str = "var/lib/picket";
/// Exists where systemd runs.
const SYSTEMD_RUNS: &str = "run/systemd/system";
/// Largest user database that is read.
const PASSWD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Something that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This program.
    #[error("cannot read this program, to install it")]
    Program(#[source] io::Error),
}

/// What was done, one line each, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is different now.
    pub done: Vec<String>,
    /// What was so already.
    pub unchanged: Vec<String>,
    /// What could not be done here, and what to do instead.
    pub left: Vec<String>,
}

/// Installs below `root`, enabled at the next start of the system.
///
/// # Errors
/// [`InstallError`]; what was done until then stays, and another attempt goes on from there.
pub fn install(root: &Path) -> Result<Report, InstallError> {
    let mut report = Report::default();
    let program = read_program().map_err(InstallError::Program)?;
    let unit = UNIT.replace(PACKAGED_BINARY, &format!("/{BINARY}"));
    report.file(root, BINARY, &program, 0o755)?;
    report.file(root, UNIT_FILE, unit.as_bytes(), 0o644)?;
    report.file(root, SYSUSERS_FILE, SYSUSERS.as_bytes(), 0o644)?;
    if root.join(CONFIG_FILE).exists() {
        report.unchanged.push(format!("{} (yours stays)", shown(root, CONFIG_FILE)));
    } else {
        report.file(root, CONFIG_FILE, commented(CONFIG).as_bytes(), 0o644)?;
    }
    report.user(root);
    report.state_dir(root)?;
    report.link(root)?;
    if systemd_runs(root) {
        report.command("systemctl", &["daemon-reload"]);
    } else {
        report
            .left
            .push(format!("systemd does not run here: {UNIT_FILE} is in force after the next start of the system"));
    }
    Ok(report)
}

/// Takes away what [`install`] did below `root`. Configuration, identity and events stay unless `purge`.
///
/// # Errors
/// [`InstallError`]; another attempt goes on from there.
pub fn uninstall(root: &Path, purge: bool) -> Result<Report, InstallError> {
    let mut report = Report::default();
    if systemd_runs(root) && root.join(UNIT_FILE).exists() {
        report.command("systemctl", &["disable", "--now", "picket-agent.service"]);
    }
    for path in [WANTED, UNIT_FILE, SYSUSERS_FILE, BINARY] {
        report.remove(root, path, |path| fs::remove_file(path))?;
    }
    if purge {
        report.remove(root, STATE_DIR, |path| fs::remove_dir_all(path))?;
        report.remove(root, "etc/picket", |path| fs::remove_dir_all(path))?;
    } else {
        for kept in ["etc/picket", STATE_DIR].into_iter().filter(|path| root.join(path).exists()) {
            report.left.push(format!("{} stays: --purge removes it", shown(root, kept)));
        }
    }
    if systemd_runs(root) {
        report.command("systemctl", &["daemon-reload"]);
    }
    if user_id(root).is_some() {
        report.left.push(format!("the system user {USER} stays, so that nobody else gets its number"));
    }
    Ok(report)
}

impl Report {
    /// Makes a file as wanted, whole or not at all.
    fn file(&mut self, root: &Path, path: &str, content: &[u8], mode: u32) -> Result<(), InstallError> {
        let target = root.join(path);
        let error = |source| InstallError::Write { path: target.clone(), source };
        let is_so = fs::metadata(&target).is_ok_and(|found| found.permissions().mode() & 0o7777 == mode)
            && fs::read(&target).is_ok_and(|found| found == content);
        if is_so {
            self.unchanged.push(shown(root, path));
            return Ok(());
        }
        if let Some(folder) = target.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(error)?;
        }
        state_file::replace(&target, content, true)
            .and_then(|()| fs::set_permissions(&target, fs::Permissions::from_mode(mode)))
            .map_err(error)?;
        self.done.push(shown(root, path));
        Ok(())
    }

    /// Makes the system user.
    fn user(&mut self, root: &Path) {
        if user_id(root).is_some() {
            self.unchanged.push(format!("system user {USER}"));
            return;
        }
        let made = Command::new("systemd-sysusers").arg("--root").arg(root).arg("picket-agent.conf").output();
        match made {
            Ok(output) if output.status.success() && user_id(root).is_some() => {
                self.done.push(format!("system user {USER}"));
            }
            _ => self.left.push(format!(
                "no system user {USER} yet: systemd-sysusers makes it, or `useradd --system --no-create-home {USER}`"
            )),
        }
    }

    /// Makes the state folder, for the user only.
    fn state_dir(&mut self, root: &Path) -> Result<(), InstallError> {
        let path = root.join(STATE_DIR);
        let error = |source| InstallError::Write { path: path.clone(), source };
        let is_there = path.is_dir();
        state_file::make_private_folder(&path).map_err(error)?;
        if let Some((user, group)) = user_id(root) {
            chown(&path, Some(user), Some(group)).map_err(error)?;
        }
        let list = if is_there { &mut self.unchanged } else { &mut self.done };
        list.push(shown(root, STATE_DIR));
        Ok(())
    }

    /// Enables the unit, as `systemctl enable` does.
    fn link(&mut self, root: &Path) -> Result<(), InstallError> {
        let path = root.join(WANTED);
        let error = |source| InstallError::Write { path: path.clone(), source };
        if fs::symlink_metadata(&path).is_ok() {
            self.unchanged.push(shown(root, WANTED));
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(error)?;
        }
        std::os::unix::fs::symlink("../picket-agent.service", &path).map_err(error)?;
        self.done.push(shown(root, WANTED));
        Ok(())
    }

    fn remove(
        &mut self,
        root: &Path,
        path: &str,
        remove: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), InstallError> {
        let target = root.join(path);
        match remove(&target) {
            Ok(()) => self.done.push(format!("{} removed", shown(root, path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.unchanged.push(format!("{} is not there", shown(root, path)));
            }
            Err(source) => return Err(InstallError::Write { path: target, source }),
        }
        Ok(())
    }

    fn command(&mut self, program: &str, arguments: &[&str]) {
        let line = format!("{program} {}", arguments.join(" "));
        match Command::new(program).args(arguments).output() {
            Ok(output) if output.status.success() => self.done.push(line),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                self.left.push(format!("`{line}` failed: {}", said.trim()));
            }
            Err(error) => self.left.push(format!("`{line}` could not be run: {error}")),
        }
    }
}

fn shown(root: &Path, path: &str) -> String {
    root.join(path).display().to_string()
}

fn systemd_runs(root: &Path) -> bool {
    root == Path::new("/") && Path::new("/").join(SYSTEMD_RUNS).is_dir()
}

fn read_program() -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open("/proc/self/exe")?.read_to_end(&mut content)?;
    Ok(content)
}

/// User and group number of [`USER`] in the user database below `root`.
fn user_id(root: &Path) -> Option<(u32, u32)> {
    let content = state_file::read_limited(&root.join("etc/passwd"), PASSWD_BYTES_MAX).ok()??;
    let text = String::from_utf8_lossy(&content);
    let mut fields = text.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'))?.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The configuration with every key commented out: a default that changes with a later version then does so here, too.
fn commented(config: &str) -> String {
    // Values may have several lines; only names of sections stay.
    let stays = |line: &str| line.is_empty() || line.starts_with(['#', '[']);
    let line = |line: &str| if stays(line) { format!("{line}\n") } else { format!("#{line}\n") };
    config.lines().map(line).collect()
}
