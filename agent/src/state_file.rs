//! Files of the state folder: private, and replaced as a whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a folder (and those above it) for this user only. One that exists and is open to others is closed to them.
///
/// # Errors
/// The system's.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Gives a file of the state folder to the folder's owner, where this user may.
///
/// # Errors
/// The system's.
pub(crate) fn give_to_owner_of(folder: &Path, path: &Path) -> io::Result<()> {
    let (owner, found) = (fs::metadata(folder)?, fs::metadata(path)?);
    if (owner.uid(), owner.gid()) == (found.uid(), found.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Replaces a file's content, readable by this user only: after a crash at any moment it holds the old or the new
/// content. `durable`: also after a power failure, and from the moment this returns.
///
/// # Errors
/// The system's; the file is as it was then.
pub(crate) fn replace(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written = write_new(&temporary, content, durable).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Best effort: the next write truncates what is left of it.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    if durable {
        sync_folder_of(path)?;
    }
    Ok(())
}

fn write_new(path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // A leftover of another mode keeps it otherwise.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    if durable {
        file.sync_all()?;
    }
    Ok(())
}

/// Makes a rename or removal in the file's folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Reads a file of at most `bytes_max`; `None` when there is none.
///
/// # Errors
/// The system's, or that the file is larger.
pub(crate) fn read_limited(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes")));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        make_private_folder(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        make_private_folder(&folder).unwrap();
        let path = folder.join("file");
        fs::write(folder.join("file.new"), "left over").unwrap();
        replace(&path, b"one", true).unwrap();
        replace(&path, b"two", false).unwrap();
        assert_eq!(read_limited(&path, 3).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(read_limited(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_limited(&folder.join("none"), 2).unwrap(), None);
        for (path, wanted) in [(&folder, 0o700), (&path, 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, wanted);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"old", true).unwrap();
        fs::create_dir(dir.path().join("file.new")).unwrap();
        replace(&path, b"new", true).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
