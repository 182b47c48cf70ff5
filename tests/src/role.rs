//! One binary, every part: `picket-demo --role <role> …` is a server, an agent, picketctl or a helper of the range.
//!
//! `cargo run --bin picket-demo` builds only what this package needs, so the demo (and every end-to-end test) starts
//! itself again in each role, as a separate process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use picket_agent::own_program::OwnProgram;

use crate::range::helper;

/// The flag that selects a role. It must be the first argument.
pub const ROLE_FLAG: &str = "--role";

/// Exit code for a role that does not exist: bad input.
const EXIT_BAD_INPUT: u8 = 2;

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `picket-server`.
    Server,
    /// `picket-agent`.
    Agent,
    /// `picketctl`.
    Control,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Server, Self::Agent, Self::Control];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Control => "ctl",
        }
    }

    /// The binary a user would call for it.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Server => "picket-server",
            Self::Agent => "picket-agent",
            Self::Control => "picketctl",
        }
    }

    /// A command that runs `executable` (a `picket-demo`) in this role; add the part's own arguments.
    pub fn command(self, executable: &Path) -> Command {
        let mut command = Command::new(executable);
        command.arg(ROLE_FLAG).arg(self.name());
        command
    }

    fn run(self, arguments: impl Iterator<Item = OsString>) -> ExitCode {
        let arguments = std::iter::once(OsString::from(self.binary())).chain(arguments);
        match self {
            Self::Server => picket_server::cli::main(arguments),
            Self::Agent => {
                let own_program = OwnProgram::with_arguments([ROLE_FLAG, self.name()]);
                picket_agent::cli::main_of(own_program, arguments)
            }
            Self::Control => picket_server::ctl::main(arguments),
        }
    }
}

/// Runs the role this process was started for. `None` when it was started for none: then it is the demo itself.
pub fn dispatch() -> Option<ExitCode> {
    if let Some(plan) = std::env::var_os(helper::PLAN_VARIABLE) {
        return Some(helper::main(&PathBuf::from(plan)));
    }
    let mut arguments = std::env::args_os();
    let called = PathBuf::from(arguments.next()?);
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first.to_str() == Some(ROLE_FLAG)).is_none() {
        // Installed under the name of a part, it is that part.
        let role = Role::ALL.into_iter().find(|role| called.file_name().is_some_and(|name| name == role.binary()));
        return role.map(|role| role.run(arguments));
    }
    let name = arguments.next().unwrap_or_default();
    match Role::ALL.into_iter().find(|role| name == role.name()) {
        Some(role) => Some(role.run(arguments)),
        None => {
            let known: Vec<&str> = Role::ALL.into_iter().map(Role::name).collect();
            eprintln!("error: unknown role {}: one of {}", name.to_string_lossy(), known.join(", "));
            Some(ExitCode::from(EXIT_BAD_INPUT))
        }
    }
}
