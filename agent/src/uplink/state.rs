//! What is known of the way to the server, for the status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::uplink::UplinkError;

/// Shared between the uplink and the status.
#[derive(Debug, Default)]
pub struct UplinkState {
    view: Mutex<View>,
    counters: UplinkCounters,
    attempts: AtomicU64,
}

/// Where the uplink is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UplinkPhase {
    /// No attempt yet.
    #[default]
    Starting,
    /// The host has no identity.
    NotEnrolled,
    /// TCP and TLS.
    Connecting,
    /// The server takes batches.
    Connected,
    /// Waiting for the next attempt.
    BackingOff,
}

impl UplinkPhase {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::NotEnrolled => "not enrolled",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::BackingOff => "not connected, waiting for the next attempt",
        }
    }
}

#[derive(Clone, Debug, Default)]
struct View {
    phase: UplinkPhase,
    server: String,
    host_id: String,
    certificate_expires_unix_s: i64,
    since_unix_s: u64,
    retry_unix_s: u64,
    last_error: String,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct UplinkCounters {
    pub(crate) connections: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) duplicate: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) in_flight: AtomicU64,
}

impl UplinkCounters {
    /// Batches the server has answered for good.
    pub fn batches_acknowledged(&self) -> u64 {
        [&self.accepted, &self.duplicate, &self.rejected].iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

/// The uplink in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Where it is.
    pub phase: UplinkPhase,
    /// The server's address; empty when not enrolled.
    pub server: String,
    /// This host; empty when not enrolled.
    pub host_id: String,
    /// When the certificate expires, seconds since 1970.
    pub certificate_expires_unix_s: i64,
    /// Since when it has been in this phase, seconds since 1970.
    pub since_unix_s: u64,
    /// When the next attempt is due, seconds since 1970; 0: none is.
    pub retry_unix_s: u64,
    /// Why the last connection ended; empty when none did, or since a new one stands.
    pub last_error: String,
    /// Connections made.
    pub connections: u64,
    /// Batches sent, repetitions included.
    pub batches_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Batches acknowledged as new.
    pub batches_accepted: u64,
    /// Batches the server had already.
    pub batches_duplicate: u64,
    /// Batches the server refused for good.
    pub batches_rejected: u64,
    /// Batches sent and not answered yet.
    pub batches_unacknowledged: u64,
}

impl UplinkState {
    pub(crate) fn counters(&self) -> &UplinkCounters {
        &self.counters
    }

    /// The number of the connection that begins, from 1.
    pub(crate) fn next_connection(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn not_enrolled(&self) {
        self.enter(UplinkPhase::NotEnrolled, |_| {});
    }

    pub(crate) fn connecting(&self, identity: &Identity) {
        self.enter(UplinkPhase::Connecting, |view| {
            view.server.clone_from(&identity.server);
            view.host_id = identity.host_id.to_string();
            view.certificate_expires_unix_s = identity.expires_unix_s();
        });
    }

    pub(crate) fn connected(&self) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.enter(UplinkPhase::Connected, |view| view.last_error.clear());
    }

    pub(crate) fn backing_off(&self, error: &UplinkError, pause: Duration) {
        let text = error.chain();
        self.enter(UplinkPhase::BackingOff, |view| {
            if view.last_error == text {
                tracing::debug!(error = text, pause_ms = pause.as_millis(), "the connection to the server failed");
            } else {
                tracing::warn!(error = text, pause_ms = pause.as_millis(), "the connection to the server failed");
            }
            view.last_error = text;
            view.retry_unix_s = unix_seconds() + pause.as_secs();
        });
        self.counters.in_flight.store(0, Ordering::Relaxed);
    }

    pub(crate) fn note_error(&self, error: &UplinkError) {
        self.view.lock().last_error = error.chain();
    }

    fn enter(&self, phase: UplinkPhase, change: impl FnOnce(&mut View)) {
        let mut view = self.view.lock();
        if view.phase != phase {
            view.phase = phase;
            view.since_unix_s = unix_seconds();
        }
        view.retry_unix_s = 0;
        change(&mut view);
    }

    /// For the status.
    pub fn status(&self) -> UplinkStatus {
        let view = self.view.lock().clone();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UplinkStatus {
            phase: view.phase,
            server: view.server,
            host_id: view.host_id,
            certificate_expires_unix_s: view.certificate_expires_unix_s,
            since_unix_s: view.since_unix_s,
            retry_unix_s: view.retry_unix_s,
            last_error: view.last_error,
            connections: count(&self.counters.connections),
            batches_sent: count(&self.counters.sent),
            bytes_sent: count(&self.counters.sent_bytes),
            batches_accepted: count(&self.counters.accepted),
            batches_duplicate: count(&self.counters.duplicate),
            batches_rejected: count(&self.counters.rejected),
            batches_unacknowledged: count(&self.counters.in_flight),
        }
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
