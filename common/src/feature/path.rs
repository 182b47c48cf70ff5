//! What an executable's path says.

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathClass {
    /// Where packages and administrators install programs.
    System,
    /// Below somebody's home.
    Home,
    /// Where everybody may write.
    Temporary,
    /// Where everybody may write and nothing reaches a disk; also memory files without a name.
    SharedMemory,
    /// Anywhere else.
    Other,
}

/// Published so that a reader of an alert can look up what "system directory" means; the first match counts.
const PREFIXES: [(&[u8], PathClass); 22] = [
    (b"/dev/shm/", PathClass::SharedMemory),
    (b"/run/shm/", PathClass::SharedMemory),
    (b"/memfd:", PathClass::SharedMemory),
    (b"memfd:", PathClass::SharedMemory),
    (b"/tmp/", PathClass::Temporary),
    (b"/var/tmp/", PathClass::Temporary),
    (b"/run/user/", PathClass::Temporary),
    (b"/run/lock/", PathClass::Temporary),
    (b"/var/crash/", PathClass::Temporary),
    (b"/private/tmp/", PathClass::Temporary),
    (b"/usr/", PathClass::System),
    (b"/bin/", PathClass::System),
    (b"/sbin/", PathClass::System),
    (b"/lib/", PathClass::System),
    (b"/lib64/", PathClass::System),
    (b"/opt/", PathClass::System),
    (b"/snap/", PathClass::System),
    (b"/nix/store/", PathClass::System),
    (b"/gnu/store/", PathClass::System),
    (b"/home/", PathClass::Home),
    (b"/root/", PathClass::Home),
    (b"/Users/", PathClass::Home),
];

impl PathClass {
    /// Of an absolute path. A directory named `tmp` anywhere counts: containers and build trees have their own.
    pub(super) fn of(path: &[u8]) -> Self {
        const TEMPORARY: &[u8] = b"/tmp/";
        // The second byte tells most prefixes apart without a call.
        let second = path.get(1);
        let listed = PREFIXES
            .iter()
            .find(|(prefix, _)| prefix.get(1) == second && path.starts_with(prefix))
            .map(|(_, class)| *class);
        match listed {
            None | Some(Self::Home) if path.windows(TEMPORARY.len()).any(|window| window == TEMPORARY) => {
                Self::Temporary
            }
            listed => listed.unwrap_or(Self::Other),
        }
    }

    /// Whether everybody may write there.
    pub(super) fn is_world_writable(self) -> bool {
        matches!(self, Self::Temporary | Self::SharedMemory)
    }
}

/// A path as the kernel shows it, without what it appends to the name of a file that is gone.
pub(super) fn without_deleted_mark(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// The part after the last slash.
pub(super) fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// How many names a path consists of.
pub(super) fn depth(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

/// Whether a name in it begins with a dot (other than `.` and `..`).
pub(super) fn has_hidden_component(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| name.starts_with(b".") && name != b"." && name != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        for (path, class) in [
            ("/usr/bin/ls", PathClass::System),
            ("/usr/local/bin/x", PathClass::System),
            ("/home/u/x", PathClass::Home),
            ("/home/u/build/tmp/x", PathClass::Temporary),
            ("/var/lib/containers/7/tmp/x", PathClass::Temporary),
            ("/tmp/x", PathClass::Temporary),
            ("/tmpx/x", PathClass::Other),
            ("/srv/tmp", PathClass::Other),
            ("/dev/shm/x", PathClass::SharedMemory),
            ("/memfd:x", PathClass::SharedMemory),
            ("", PathClass::Other),
        ] {
            assert_eq!(PathClass::of(path.as_bytes()), class, "{path}");
        }
    }

    #[test]
    fn names_and_depths_are_counted_without_empty_parts() {
        assert_eq!((file_name(b"/a/b"), file_name(b"b"), file_name(b"/a/")), (&b"b"[..], &b"b"[..], &b""[..]));
        assert_eq!((depth(b"/a//b/"), depth(b"/"), depth(b"")), (2, 0, 0));
        assert!(has_hidden_component(b"/a/.b/c") && !has_hidden_component(b"/a/../c/./d"));
        assert_eq!(without_deleted_mark(b"/tmp/x (deleted)"), b"/tmp/x");
    }
}
