//! Facts about the host, for people at the server.

use picket_proto::v1;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What is known of this host.
pub(crate) fn collect() -> v1::HostInventory {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    v1::HostInventory {
        hostname: System::host_name().unwrap_or_default(),
        operating_system: System::long_os_version().unwrap_or_default(),
        kernel_release: System::kernel_version().unwrap_or_default(),
        architecture: System::cpu_arch(),
        logical_cpus: std::thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(0)),
        memory_bytes: system.map_or(0, |system| system.total_memory()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_time_unix_s: System::boot_time().unwrap_or(0),
    }
}
