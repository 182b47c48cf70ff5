//! Child processes that never outlive their owner.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait;

/// How long a process may take to end after SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A child process, leader of its own process group; the whole group is killed when this is dropped.
#[derive(Debug)]
pub struct ManagedProcess {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl ManagedProcess {
    /// Starts `command`. `name` is for messages.
    ///
    /// # Errors
    /// The command could not be started.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> io::Result<Self> {
        let name = name.into();
        // Started and noted in one step, so that `end_all` misses none.
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        if living.ended {
            return Err(io::Error::new(io::ErrorKind::Interrupted, format!("{name} is not started any more")));
        }
        let child = command
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot start {name}: {error}")))?;
        living.leaders.insert(child.id());
        Ok(Self { name, child, status: None })
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, when it has ended.
    ///
    /// # Errors
    /// It could not be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            // While it is noted its id must stay its own: waiting gives the id free.
            let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                living.leaders.remove(&self.child.id());
            }
        }
        Ok(self.status)
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It did not within `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> io::Result<ExitStatus> {
        let what = format!("{} (process {}) to end", self.name, self.pid());
        wait::until(what, deadline, || match self.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(String::new()),
            Err(error) => Err(error.to_string()),
        })
        .map_err(|error| io::Error::new(io::ErrorKind::TimedOut, error))
    }

    /// Sends a signal to the process itself. Does nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(pid) = as_pid(self.child.id())
        {
            // It may end between the look and the signal; then there is nobody to tell.
            rustix::process::kill_process(pid, signal).ok();
        }
    }

    /// Asks it to stop (SIGTERM) and waits.
    ///
    /// # Errors
    /// It did not end within `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(deadline)
    }

    /// Kills it and its group (SIGKILL) and waits.
    ///
    /// # Errors
    /// It could not be waited for.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.kill_group();
        self.wait(KILL_DEADLINE)
    }

    fn kill_group(&mut self) {
        // The group's id stays taken while any member lives, even when the leader has been waited for.
        if let Some(pid) = as_pid(self.child.id()) {
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

impl Drop for ManagedProcess {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill_group();
            self.wait(KILL_DEADLINE).ok();
        }
    }
}

/// The processes of this program that have not been waited for.
static LIVING: Mutex<Living> = Mutex::new(Living { leaders: BTreeSet::new(), ended: false });

struct Living {
    leaders: BTreeSet<u32>,
    /// Nothing is started any more.
    ended: bool,
}

/// Kills every process that was started here, with its group, and lets no further one be started: for a program that
/// is about to end early.
pub fn end_all() {
    let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
    living.ended = true;
    for pid in living.leaders.iter().filter_map(|pid| as_pid(*pid)) {
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
    }
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// How a process ended, for people: `exit code 3` or `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".to_owned(),
    }
}

/// Runs `command` to its end with its output captured.
///
/// # Errors
/// It could not be started.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command.stdin(std::process::Stdio::null()).output()
}
