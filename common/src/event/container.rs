//! Which container a cgroup belongs to.

/// Length of the ids that container run-times give, hexadecimal.
const ID_CHARACTERS: usize = 64;
/// Longest name of a container that has a name instead (`NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// The id of the container that a cgroup's path is in, of the innermost where one is in another:
///
/// | run-time | part of the path | id |
/// |---|---|---|
/// | docker, containerd, CRI-O, podman, below kubepods or not | `ID`, `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID`, `…:cri-containerd:ID` | 64 hexadecimal digits |
/// | systemd-nspawn | `systemd-nspawn@NAME.service`, `machine-NAME.scope` | the name, escaped as systemd does |
/// | LXC, LXD, Incus | `lxc/NAME`, `lxc.payload/NAME`, `lxc.payload.NAME` | the name |
///
/// `None` outside of these; a virtual machine is no container.
pub fn container_id(cgroup: &[u8]) -> Option<&str> {
    let mut rest = cgroup;
    loop {
        let slash = rest.iter().rposition(|&byte| byte == b'/');
        let part = &rest[slash.map_or(0, |slash| slash + 1)..];
        let above = &rest[..slash.unwrap_or(0)];
        if let Some(id) = hexadecimal_id(part).or_else(|| container_name(above, part)) {
            return std::str::from_utf8(id).ok();
        }
        slash?;
        rest = above;
    }
}

/// An id after a run-time's prefix and before a `.scope`.
fn hexadecimal_id(part: &[u8]) -> Option<&[u8]> {
    let part = part.strip_suffix(b".scope").unwrap_or(part);
    let (prefix, id) = part.split_at(part.len().checked_sub(ID_CHARACTERS)?);
    let is_id = id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && (prefix.is_empty() || prefix.ends_with(b"-") || prefix.ends_with(b":"))).then_some(id)
}

fn container_name<'a>(above: &[u8], part: &'a [u8]) -> Option<&'a [u8]> {
    let between = |prefix: &[u8], suffix: &[u8]| part.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
    let machine = || between(b"machine-", b".scope").filter(|name| !name.starts_with(b"qemu\\x2d"));
    let lxc = || (above.ends_with(b"/lxc") || above.ends_with(b"/lxc.payload")).then_some(part);
    let name = between(b"systemd-nspawn@", b".service")
        .or_else(machine)
        .or_else(|| part.strip_prefix(b"lxc.payload."))
        .or_else(lxc)?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-@:\\".contains(byte);
    ((1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(is_name)).then_some(name)
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
            format!("/kubepods.slice/kubepods-pod1_2.slice/crio-{id}.scope/container"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods/burstable/pod6f1d/{id}"),
            format!("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{id}"),
            format!("/lxc/outer/system.slice/docker-{id}.scope"),
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

    #[test]
    fn containers_with_names_are_found_and_machines_are_none() {
        for (path, name) in [
            ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/x.service", "web"),
            (r"/machine.slice/machine-web\x2d1.scope", r"web\x2d1"),
            ("/lxc/web", "web"),
            ("/lxc.payload/web/system.slice", "web"),
            ("/lxc.payload.web-1/init.scope", "web-1"),
        ] {
            assert_eq!(container_id(path.as_bytes()), Some(name), "{path}");
        }
        let long = format!("/lxc/{}", "x".repeat(NAME_BYTES_MAX + 1));
        for path in [
            r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
            "/lxc.monitor.web",
            "/lxc.payload.",
            "/lxc/a b",
            &long,
        ] {
            assert_eq!(container_id(path.as_bytes()), None, "{path}");
        }
    }
}
