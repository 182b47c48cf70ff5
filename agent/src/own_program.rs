//! The program of this process, to be started again as another part of the agent.

use std::ffi::OsString;
use std::process::Command;

/// Names this process's program, whatever became of the file it was started from.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// How this program is started again as `picket-agent SUBCOMMAND`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnProgram {
    leading: Vec<OsString>,
}

impl OwnProgram {
    /// A program that is the agent only when it is started with these arguments before the agent's own.
    pub fn with_arguments(leading: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { leading: leading.into_iter().map(Into::into).collect() }
    }

    /// A command that runs this subcommand; add its arguments. It gets nothing of the environment.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(OWN_EXECUTABLE);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut command, "picket-agent");
        command.args(&self.leading).arg(subcommand).env_clear();
        command
    }
}
