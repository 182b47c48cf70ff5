//! Names of user ids, from `/etc/passwd`.
//!
//! Accounts that only a directory service knows have no name here. The file is read again when it changed, which is
//! looked at no more often than every [`CHECK_INTERVAL`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use picket_common::event::ByteString;

/// How often a changed file is looked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Most accounts kept; those further down in the file have no name.
const ACCOUNTS_MAX: usize = 4096;
/// Longest file read, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name kept, bytes (Linux `LOGIN_NAME_MAX`).
const NAME_BYTES_MAX: usize = 256;

/// A cache of user names.
#[derive(Debug)]
pub struct UserNames {
    path: PathBuf,
    names: HashMap<u32, ByteString>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

impl Default for UserNames {
    fn default() -> Self {
        Self::from_file("/etc/passwd")
    }
}

impl UserNames {
    /// Names from a file in the format of passwd(5).
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), names: HashMap::new(), modified: None, checked: None }
    }

    /// The name of a user; empty when unknown.
    pub fn name(&mut self, user_id: u32) -> ByteString {
        if self.checked.is_none_or(|checked| checked.elapsed() >= CHECK_INTERVAL) {
            self.refresh();
        }
        self.names.get(&user_id).cloned().unwrap_or_default()
    }

    fn refresh(&mut self) {
        self.checked = Some(Instant::now());
        let Ok(metadata) = std::fs::metadata(&self.path) else { return };
        let modified = metadata.modified().ok();
        if modified.is_some() && modified == self.modified || metadata.len() > FILE_BYTES_MAX {
            return;
        }
        let Ok(text) = std::fs::read(&self.path) else { return };
        self.modified = modified;
        self.names.clear();
        for (user_id, name) in text.split(|&byte| byte == b'\n').filter_map(parse_line) {
            if self.names.len() == ACCOUNTS_MAX {
                break;
            }
            // The first of several accounts with one id is the one that getpwuid(3) gives.
            self.names.entry(user_id).or_insert_with(|| ByteString::from(name));
        }
    }
}

fn parse_line(line: &[u8]) -> Option<(u32, &[u8])> {
    let mut fields = line.split(|&byte| byte == b':');
    let name = fields.next().filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX && name[0] != b'#')?;
    let user_id = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    Some((user_id, name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_file_and_unknown_ids_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(
            &path,
            "# c\nroot:x:0:0::/root:/bin/sh\ntoor:x:0:0:::\n\nbroken\nalice:x:1000:1000:::\n:x:5:::\n",
        )
        .unwrap();
        let mut names = UserNames::from_file(&path);
        assert_eq!(names.name(0), ByteString::from("root"));
        assert_eq!(names.name(1000), ByteString::from("alice"));
        assert!(names.name(5).is_empty());
        assert!(names.name(4242).is_empty());
    }

    #[test]
    fn a_missing_or_hostile_file_gives_no_names() {
        assert!(UserNames::from_file("/nonexistent").name(0).is_empty());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        let mut text = Vec::new();
        for user_id in 0..ACCOUNTS_MAX + 10 {
            text.extend_from_slice(format!("u{user_id}:x:{user_id}:\n").as_bytes());
        }
        text.extend_from_slice(&[0xff, 0, b':', b':']);
        std::fs::write(&path, text).unwrap();
        let mut names = UserNames::from_file(&path);
        assert_eq!(names.name(1), ByteString::from("u1"));
        assert_eq!(names.names.len(), ACCOUNTS_MAX);
    }
}
