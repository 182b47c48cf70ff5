//! `run/endpoints.json`: the addresses that answer, for whoever started the server with port 0. There while the server
//! is ready, and only then.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::secret::{self, SecretError};

/// Addresses that answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// For agents.
    pub agent: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

/// The file, as long as this exists.
#[derive(Debug)]
pub(super) struct EndpointsFile(PathBuf);

impl EndpointsFile {
    /// Removes what a server that was killed left behind.
    pub(super) fn clear(path: PathBuf) -> Result<Self, SecretError> {
        let error = |source| SecretError::Write { path: path.clone(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(error)?;
        }
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(source)),
            _ => Ok(Self(path)),
        }
    }

    pub(super) fn write(&self, endpoints: &Endpoints) -> Result<(), SecretError> {
        let json = serde_json::json!({ "agent": endpoints.agent, "admin": endpoints.admin });
        secret::write_public(&self.0, format!("{json}\n").as_bytes())
    }
}

impl Drop for EndpointsFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the list of endpoints");
        }
    }
}
