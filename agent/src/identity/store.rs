//! The identity's file.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::identity::{Identity, IdentityError, IdentityParts, folder_in};
use crate::state_file;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Where an agent's identity is kept.
#[derive(Clone, Debug)]
pub struct IdentityStore {
    path: PathBuf,
}

/// Why the identity could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum IdentityStoreError {
    /// The file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what this agent writes.
    #[error("{} cannot be used: {reason}: enrol this host again with a new join token (`picket-agent enroll --force`)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// As it lies in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    host_id: String,
    server: String,
    certificate: String,
    key: String,
    trust_bundle: Vec<String>,
    model_verifying_keys: Vec<String>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

const VERSION: u32 = 1;

impl IdentityStore {
    /// The store in a state folder.
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self { path: folder_in(state_dir).join("identity.json") }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is one, whatever its state.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Reads the identity; `None` when the host is not enrolled.
    ///
    /// # Errors
    /// [`IdentityStoreError`].
    pub fn load(&self) -> Result<Option<Identity>, IdentityStoreError> {
        let content = state_file::read_limited(&self.path, FILE_BYTES_MAX)
            .map_err(|source| IdentityStoreError::File { path: self.path.clone(), source })?
            .map(Zeroizing::new);
        content.map(|content| self.parse(&content)).transpose()
    }

    /// Keeps the identity, durably and in place of the one before.
    ///
    /// # Errors
    /// [`IdentityStoreError::File`].
    pub fn save(&self, identity: &Identity) -> Result<(), IdentityStoreError> {
        let error = |source| IdentityStoreError::File { path: self.path.clone(), source };
        let stored = Stored {
            version: VERSION,
            host_id: identity.host_id.to_string(),
            server: identity.server.clone(),
            certificate: BASE64.encode(&identity.certificate),
            key: BASE64.encode(&identity.key),
            trust_bundle: identity.trust_bundle.iter().map(|anchor| BASE64.encode(anchor)).collect(),
            model_verifying_keys: identity
                .model_verifying_keys
                .iter()
                .map(|key| BASE64.encode(key.as_bytes()))
                .collect(),
        };
        let content = serde_json::to_vec_pretty(&stored).map(Zeroizing::new).map_err(|source| error(source.into()))?;
        if let Some(folder) = self.path.parent() {
            state_file::make_private_folder(folder).map_err(error)?;
        }
        state_file::replace(&self.path, &content, true).map_err(error)
    }

    /// Keeps another trust bundle, with everything else as it is.
    ///
    /// # Errors
    /// [`IdentityStoreError`]; nothing has changed then.
    pub(crate) fn replace_trust_bundle(&self, bundle: Vec<CertificateDer<'static>>) -> Result<(), IdentityStoreError> {
        let damaged = |reason: &str| IdentityStoreError::Damaged { path: self.path.clone(), reason: reason.to_owned() };
        let mut identity = self.load()?.ok_or_else(|| damaged("it is gone"))?;
        identity.replace_trust_bundle(bundle).map_err(|error| damaged(&error.what))?;
        self.save(&identity)
    }

    fn parse(&self, content: &[u8]) -> Result<Identity, IdentityStoreError> {
        let damaged = |reason: String| IdentityStoreError::Damaged { path: self.path.clone(), reason };
        // serde's own words could repeat a part of the key.
        let mut stored: Stored = serde_json::from_slice(content)
            .map_err(|error| damaged(format!("not an identity (line {}, column {})", error.line(), error.column())))?;
        if stored.version != VERSION {
            return Err(damaged(format!("version {} is not known", stored.version)));
        }
        let decode = |text: &String| {
            BASE64.decode(text.as_bytes()).map_err(|_| damaged("a value in it is not Base64".to_owned()))
        };
        let parts = IdentityParts {
            host_id: std::mem::take(&mut stored.host_id),
            server: std::mem::take(&mut stored.server),
            certificate: decode(&stored.certificate)?,
            key: Zeroizing::new(decode(&stored.key)?),
            trust_bundle: stored.trust_bundle.iter().map(decode).collect::<Result<_, _>>()?,
            model_verifying_keys: stored.model_verifying_keys.iter().map(decode).collect::<Result<_, _>>()?,
        };
        Identity::from_parts(parts).map_err(|error: IdentityError| damaged(error.what))
    }
}
