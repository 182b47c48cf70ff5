//! `picket-agent enroll`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use zeroize::Zeroizing;

use crate::cli::{StateDirArgument, complain, exit};
use crate::identity::{self, EnrollError, IdentityStore, IdentityStoreError, JoinToken, JoinTokenError};
use crate::state_file;

/// Largest token file.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, clap::Args)]
pub(super) struct EnrollArguments {
    #[command(flatten)]
    state: StateDirArgument,
    /// The server, host:port.
    #[arg(long, value_name = "ADDRESS")]
    server: String,
    #[command(flatten)]
    token: TokenArguments,
    /// Replace the identity this host has.
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct TokenArguments {
    /// File with the join token, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The join token itself. Other users of this host can see it in the list of processes: rather use a file.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

/// The token is a secret.
impl std::fmt::Debug for TokenArguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArguments").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

/// Why a host was not enrolled.
#[derive(Debug, thiserror::Error)]
enum EnrollCommandError {
    #[error("cannot read the join token from {}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    #[error("this host is enrolled already as {host}: use --force to give it a new identity")]
    Enrolled { host: String },
    #[error("cannot use the state folder {}", path.display())]
    StateDir { path: PathBuf, source: io::Error },
    #[error("cannot start the threads of the agent")]
    Threads(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] IdentityStoreError),
    #[error(transparent)]
    Enroll(#[from] EnrollError),
}

pub(super) fn enroll(arguments: EnrollArguments) -> ExitCode {
    match try_enroll(arguments) {
        Ok(host) => {
            println!("enrolled as {host}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(match &error {
                EnrollCommandError::TokenFile { .. } => exit::BAD_INPUT,
                EnrollCommandError::Token(_) | EnrollCommandError::Enrolled { .. } => exit::IDENTITY,
                EnrollCommandError::StateDir { .. } | EnrollCommandError::Store(_) => exit::CONFIGURATION,
                EnrollCommandError::Threads(_) => exit::INTERNAL,
                EnrollCommandError::Enroll(error) => exit::enroll(error),
            })
        }
    }
}

fn try_enroll(arguments: EnrollArguments) -> Result<String, EnrollCommandError> {
    let token = read_token(arguments.token)?;
    let state_dir = &arguments.state.state_dir;
    state_file::make_private_folder(state_dir)
        .map_err(|source| EnrollCommandError::StateDir { path: state_dir.clone(), source })?;
    let store = IdentityStore::in_state_dir(state_dir);
    if !arguments.force && store.exists() {
        let host = store.load()?.map(|identity| identity.host_id.to_string()).unwrap_or_default();
        return Err(EnrollCommandError::Enrolled { host });
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(EnrollCommandError::Threads)?;
    let identity = runtime.block_on(identity::enroll(&arguments.server, &token))?;
    store.save(&identity)?;
    // Enrolled by root, run by another user: what is below the state folder belongs to whom that belongs.
    let identity_dir = store.path().parent().unwrap_or(state_dir);
    for path in [identity_dir, store.path()] {
        state_file::give_to_owner_of(state_dir, path)
            .map_err(|source| EnrollCommandError::StateDir { path: path.to_owned(), source })?;
    }
    Ok(identity.host_id.to_string())
}

fn read_token(arguments: TokenArguments) -> Result<JoinToken, EnrollCommandError> {
    let text = match (arguments.token, arguments.token_file) {
        (Some(token), _) => Zeroizing::new(token),
        (None, Some(path)) => read_token_file(path)?,
        // The command line requires one of them.
        (None, None) => Zeroizing::new(String::new()),
    };
    Ok(text.parse()?)
}

fn read_token_file(path: PathBuf) -> Result<Zeroizing<String>, EnrollCommandError> {
    use std::io::Read as _;
    let read = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text).map(|_| text)
    } else {
        state_file::read_limited(&path, TOKEN_FILE_BYTES_MAX)
            .and_then(|content| content.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .and_then(|content| String::from_utf8(content).map_err(|_| io::Error::other("not text")))
    };
    read.map(Zeroizing::new).map_err(|source| EnrollCommandError::TokenFile { path, source })
}
