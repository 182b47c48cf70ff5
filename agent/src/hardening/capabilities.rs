//! What is kept of the capabilities that the agent was started with. They belong to threads.

use std::os::unix::fs::MetadataExt as _;

use caps::{CapSet, Capability, CapsHashSet};
use picket_common::event::Origin;

use super::Needs;

/// Kernels from here on let a process use the eBPF maps it has descriptors of without further rights, also where
/// `kernel.unprivileged_bpf_disabled` is set.
const BPF_MAPS_FREE_SINCE: (u32, u32) = (5, 19);

/// What a sensor needs once it has opened what it reads from.
///
/// | capability | for |
/// |---|---|
/// | `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH` | `/proc/PID/{exe,cwd,fd}` of other users' processes: the processes that run already, owners of sockets |
/// | `CAP_SYS_NICE` | to run as soon as something happens |
/// | `CAP_NET_ADMIN` | to end its subscription of process events (netlink) |
/// | `CAP_BPF` | to read loss counters, before Linux 5.19 |
///
/// Loading eBPF programs (`CAP_BPF`, `CAP_PERFMON`), subscribing to netlink groups (`CAP_NET_ADMIN`), mounting tracefs and
/// watching files with fanotify (`CAP_SYS_ADMIN`) are done at the start and not kept.
pub(super) fn of_sensor(_sensor: &str, origin: Origin) -> Vec<Capability> {
    let mut kept = vec![Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH, Capability::CAP_SYS_NICE];
    match origin {
        Origin::AgentEbpf if !bpf_maps_are_free() => kept.push(Capability::CAP_BPF),
        Origin::AgentNetlink => kept.push(Capability::CAP_NET_ADMIN),
        Origin::Replay => kept.clear(),
        _ => {}
    }
    kept
}

/// What all other threads need: nothing, unless root runs the agent on a folder that belongs to somebody else.
pub(super) fn of_agent(needs: &Needs) -> Vec<Capability> {
    let user = rustix::process::geteuid().as_raw();
    let is_own = |path| std::fs::metadata(path).is_ok_and(|metadata| metadata.uid() == user);
    if needs.write.iter().all(is_own) { Vec::new() } else { vec![Capability::CAP_DAC_OVERRIDE] }
}

/// Keeps those of these that the calling thread has, for good.
pub(super) fn keep(wanted: &[Capability]) -> Result<String, String> {
    let error = |error: caps::errors::CapsError| error.to_string();
    let permitted = caps::read(None, CapSet::Permitted).map_err(error)?;
    let kept: CapsHashSet = wanted.iter().copied().filter(|capability| permitted.contains(capability)).collect();
    // Kernels before 4.3 have no ambient set.
    if let Err(error) = caps::clear(None, CapSet::Ambient) {
        tracing::debug!(%error, "no ambient capabilities");
    }
    caps::clear(None, CapSet::Inheritable).map_err(error)?;
    caps::set(None, CapSet::Effective, &kept).map_err(error)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(error)?;
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(if names.is_empty() { "none".to_owned() } else { names.join(" ") })
}

fn bpf_maps_are_free() -> bool {
    let uname = rustix::system::uname();
    version(&uname.release().to_string_lossy()).is_some_and(|version| version >= BPF_MAPS_FREE_SINCE)
}

/// Major and minor version of a kernel's release, such as `6.18.44-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|separator: char| !separator.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert_eq!(version("five"), None);
    }

    #[test]
    fn what_is_loaded_at_the_start_is_not_kept() {
        for origin in [Origin::AgentEbpf, Origin::AgentNetlink, Origin::AgentPolling] {
            let kept = of_sensor("process", origin);
            assert!(!kept.contains(&Capability::CAP_SYS_ADMIN) && !kept.contains(&Capability::CAP_PERFMON), "{kept:?}");
        }
        assert!(of_sensor("replay", Origin::Replay).is_empty());
    }
}
