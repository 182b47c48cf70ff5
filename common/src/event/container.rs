//! Which container a cgroup belongs to.

/// Length of the ids that container run-times give, hexadecimal.
const ID_CHARACTERS: usize = 64;

/// The id of the container that a cgroup's path is in: the last part of the path that is, after a run-time's prefix
/// (`docker-`, `cri-containerd-`, `libpod-` …) and before a `.scope`, 64 hexadecimal digits. `None` outside containers
/// of these run-times.
pub fn container_id(cgroup: &[u8]) -> Option<&str> {
    let part = |part| {
        let part: &[u8] = part;
        let part = part.strip_suffix(b".scope").unwrap_or(part);
        let start = part.len().checked_sub(ID_CHARACTERS)?;
        let (prefix, id) = part.split_at(start);
        let is_id = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_id && (prefix.is_empty() || prefix.ends_with(b"-"))).then(|| std::str::from_utf8(id).ok())?
    };
    cgroup.rsplit(|byte| *byte == b'/').find_map(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_in_the_paths_of_known_run_times() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods/burstable/pod6f1d/{id}"),
        ] {
            assert_eq!(container_id(path.as_bytes()), Some(id.as_str()), "{path}");
        }
        for path in ["", "/", "/user.slice/user-1000.slice/session-3.scope", "/system.slice/cron.service"] {
            assert_eq!(container_id(path.as_bytes()), None, "{path}");
        }
        assert_eq!(container_id(format!("/docker/x{id}").as_bytes()), None);
        assert_eq!(container_id(format!("/docker/{}", id.to_uppercase()).as_bytes()), None);
        assert_eq!(container_id(&[0xff; 80]), None);
    }
}
