//! The connections of each host: counted, limited, and closed when the host is revoked.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use picket_common::id::HostId;
use tokio_util::sync::CancellationToken;

use crate::listener::HOST_CONNECTIONS_MAX;

/// Open connections by host.
#[derive(Debug, Default)]
pub struct HostConnections {
    hosts: Mutex<HashMap<HostId, Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    cut: CancellationToken,
}

/// A connection's place among those of its host; leaves it when dropped.
#[derive(Debug)]
pub(super) struct HostSlot {
    connections: Arc<HostConnections>,
    host: HostId,
    number: u64,
    cut: CancellationToken,
}

impl HostConnections {
    /// Admits one more connection of this host, if it has fewer than [`HOST_CONNECTIONS_MAX`].
    pub(super) fn enter(self: &Arc<Self>, host: HostId) -> Option<HostSlot> {
        let mut hosts = self.hosts.lock();
        let entries = hosts.entry(host).or_default();
        if entries.len() >= HOST_CONNECTIONS_MAX {
            return None;
        }
        let number = entries.last().map_or(0, |last| last.number.wrapping_add(1));
        let cut = CancellationToken::new();
        entries.push(Entry { number, cut: cut.clone() });
        Some(HostSlot { connections: Arc::clone(self), host, number, cut })
    }

    /// Cuts every connection of this host at once.
    pub fn cut(&self, host: HostId) {
        for entry in self.hosts.lock().get(&host).into_iter().flatten() {
            entry.cut.cancel();
        }
    }

    /// How many hosts are connected.
    pub fn hosts_connected(&self) -> usize {
        self.hosts.lock().len()
    }
}

impl HostSlot {
    /// Cancelled when the connection is to be cut.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Drop for HostSlot {
    fn drop(&mut self) {
        let mut hosts = self.connections.hosts.lock();
        if let Some(entries) = hosts.get_mut(&self.host) {
            entries.retain(|entry| entry.number != self.number);
            if entries.is_empty() {
                hosts.remove(&self.host);
            }
        }
    }
}
