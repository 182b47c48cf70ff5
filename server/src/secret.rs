//! Random secrets, their hashes, and the files only the server's user may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Permissions of a file with a secret.
const PRIVATE_MODE: u32 = 0o600;

/// Why a secret could not be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The system has no random numbers to give.
    #[error("the system gives no random numbers")]
    Random,
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others can read a secret.
    #[error("{path} holds a secret and its mode is {mode:03o}: make it readable by its owner only (chmod 600 {path})")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SecretError::Random)?;
    Ok(bytes)
}

/// SHA-256. Enough for secrets of 128 random bits and more, which nobody can guess from their hash.
pub fn sha256(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Whether two hashes are equal, in a time that does not depend on where they differ.
pub fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

/// Writes a file that only its owner may read: all of it or none, on the disk when this returns.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), SecretError> {
    write_atomically(path, content, PRIVATE_MODE)
}

/// Writes a file that everybody may read, in the same way.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), SecretError> {
    write_atomically(path, content, 0o644)
}

/// Reads a file with a secret; refuses one that others can read.
pub fn read_private(path: &Path) -> Result<Vec<u8>, SecretError> {
    let error = |source| SecretError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    fs::read(path).map_err(error)
}

fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), SecretError> {
    let write = || -> io::Result<()> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        name.push(".new");
        let temporary = folder.join(name);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| SecretError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_for_its_owner_only() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("key");
        fs::write(folder.path().join("key.new"), "left by a crash").unwrap();
        write_private(&path, b"secret").unwrap();
        write_private(&path, b"another").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_private(&path).unwrap(), b"another");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(error.to_string().contains("its mode is 640"), "{error}");
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
        assert!(equal(&sha256(b"a"), &sha256(b"a")));
        assert!(!equal(&sha256(b"a"), &sha256(b"b")));
    }
}
