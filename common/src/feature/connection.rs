//! Features of a connection that ended or failed.

use std::net::IpAddr;

use crate::event::{ConnectionClose, ConnectionOutcome, Direction, ProcessId, Protocol};
use crate::feature::context::{Contact, Context, DestinationEntry, DestinationKey, ProcessEntry};
use crate::feature::definition::{features, flag, fraction, logarithm, number};
use crate::feature::path::{PathClass, file_name};
use crate::feature::program::ProgramKinds;
use crate::feature::row::Row;
use crate::feature::text::hash;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
/// Fewer contacts say nothing about regularity.
const CONTACTS_MIN: usize = 3;
/// From here on Linux gives out ports to clients.
const EPHEMERAL_PORT_MIN: u16 = 32_768;
const SYSTEM_PORT_MAX: u16 = 1_023;

features! {
    Outbound = flag(
        "outbound",
        "this host began it; missing when unknown",
        "this host began the connection",
        "the other end began the connection",
    ),
    Failed = flag(
        "failed",
        "it never was established; missing when unknown",
        "it never was established",
        "it was established",
    ),
    Udp = flag("udp", "UDP rather than TCP", "it is UDP", "it is TCP"),
    Duration = logarithm(
        "duration",
        "milliseconds",
        "from first sight to end; missing when unknown",
        "it lasted {}",
    ),
    BytesSent = logarithm("bytes_sent", "bytes", "payload sent; missing when unknown", "{} sent"),
    BytesReceived = logarithm("bytes_received", "bytes", "payload received; missing when unknown", "{} received"),
    SentFraction = fraction(
        "sent_fraction",
        "bytes",
        "payload sent, of all payload; missing when there was none or it is unknown",
        "{} of the bytes were sent",
    ),
    SegmentsSent = logarithm("segments_sent", "segments", "segments sent; missing when unknown", "{} segments sent"),
    SegmentsReceived = logarithm(
        "segments_received",
        "segments",
        "segments received; missing when unknown",
        "{} segments received",
    ),
    BytesPerSegmentSent = logarithm(
        "bytes_per_segment_sent",
        "bytes",
        "payload per segment sent; missing when unknown or none was sent",
        "{} per segment sent",
    ),
    SendRate = logarithm(
        "send_rate",
        "bytes/s",
        "payload sent over the duration; missing when either is unknown or the duration is zero",
        "{} sent per second",
    ),
    RemoteLoopback = flag(
        "remote_loopback",
        "the other end is this host",
        "the other end is this host",
        "the other end is another host",
    ),
    RemotePrivate = flag(
        "remote_private",
        "the other end has a private, unique local or link-local address",
        "the other end is in a private network",
        "the other end is in no private network",
    ),
    RemoteGlobal = flag(
        "remote_global",
        "the other end has a public address",
        "the other end is on the internet",
        "the other end is not on the internet",
    ),
    SystemPort = flag(
        "system_port",
        "the service's port is below 1024",
        "to a system port",
        "not to a system port",
    ),
    EphemeralPort = flag(
        "ephemeral_port",
        "the service's port is one that clients are given (32768 and above)",
        "to a port that services rarely have",
        "to a port that services have",
    ),
    UserIsRoot = flag(
        "user_is_root",
        "the socket belongs to root; missing when unknown",
        "its socket belongs to root",
        "its socket does not belong to root",
    ),
    OwnerKnown = flag(
        "owner_known",
        "the process that owns the socket was found",
        "its process is known",
        "its process is unknown",
    ),
    OwnerInSystemDirectory = flag(
        "owner_in_system_directory",
        "the owner's executable lies where packages install programs; missing when unknown",
        "its program runs from a system directory",
        "its program runs from outside the system directories",
    ),
    OwnerInTemporaryDirectory = flag(
        "owner_in_temporary_directory",
        "the owner's executable lies where everybody may write; missing when unknown",
        "its program runs from a directory where everybody may write",
        "its program does not run from a temporary directory",
    ),
    OwnerIsShell = flag(
        "owner_is_shell",
        "the owner is a shell; missing when unknown",
        "its program is a shell",
        "its program is no shell",
    ),
    OwnerIsInterpreter = flag(
        "owner_is_interpreter",
        "the owner is an interpreter of a scripting language; missing when unknown",
        "its program is a script interpreter",
        "its program is no script interpreter",
    ),
    OwnerIsNetworkTool = flag(
        "owner_is_network_tool",
        "the owner is a network tool or service; missing when unknown",
        "its program is a network tool or service",
        "its program is no network tool or service",
    ),
    OwnerAge = logarithm(
        "owner_age",
        "milliseconds",
        "time since the owner was created; missing when unknown",
        "its process was {} old",
    ),
    OwnerSocketStreams = flag(
        "owner_socket_streams",
        "the owner started with a socket as a standard stream; missing when its start was not seen",
        "its process has a socket as a standard stream",
        "its process has ordinary standard streams",
    ),
    OwnerParentIsShell = flag(
        "owner_parent_is_shell",
        "the owner was started by a shell or interpreter; missing when unknown",
        "its process was started by a shell or interpreter",
        "its process was not started by a shell or interpreter",
    ),
    OwnerStartedShell = flag(
        "owner_started_shell",
        "the owner has started a shell; missing when the owner is unknown",
        "its process started a shell",
        "its process started no shell",
    ),
    OwnerConnections1s = logarithm(
        "owner_connections_1s",
        "connections",
        "connections of the same process within 1 s; missing when the owner is unknown",
        "{} connections of the same process in 1 s",
    ),
    OwnerConnections10s = logarithm(
        "owner_connections_10s",
        "connections",
        "connections of the same process within 10 s; missing when the owner is unknown",
        "{} connections of the same process in 10 s",
    ),
    OwnerConnections60s = logarithm(
        "owner_connections_60s",
        "connections",
        "connections of the same process within 60 s; missing when the owner is unknown",
        "{} connections of the same process in 60 s",
    ),
    OwnerDistinctPorts10s = logarithm(
        "owner_distinct_ports_10s",
        "ports",
        "distinct service ports of the same process within 10 s, at most 64; missing when the owner is unknown",
        "{} distinct ports contacted by the same process in 10 s",
    ),
    OwnerDistinctAddresses60s = logarithm(
        "owner_distinct_addresses_60s",
        "addresses",
        "distinct remote addresses of the same process within 60 s, at most 64; missing when the owner is unknown",
        "{} distinct addresses contacted by the same process in 60 s",
    ),
    OwnerFailures60s = fraction(
        "owner_failures_60s",
        "connections",
        "failed connections of the same process, of all within 60 s; missing when the owner is unknown",
        "{} of the same process's recent connections failed",
    ),
    ExecutableConnections60s = logarithm(
        "executable_connections_60s",
        "connections",
        "connections of the same executable within 60 s; missing when that is unknown",
        "{} connections of the same program in 60 s",
    ),
    ExecutableConnections600s = logarithm(
        "executable_connections_600s",
        "connections",
        "connections of the same executable within 10 min; missing when that is unknown",
        "{} connections of the same program in 10 min",
    ),
    HostConnections1s = logarithm(
        "host_connections_1s",
        "connections",
        "connections of the host within 1 s",
        "{} connections of this host in 1 s",
    ),
    HostConnections60s = logarithm(
        "host_connections_60s",
        "connections",
        "connections of the host within 60 s",
        "{} connections of this host in 60 s",
    ),
    HostDistinctPorts10s = logarithm(
        "host_distinct_ports_10s",
        "ports",
        "distinct service ports of the host's connections within 10 s, at most 256",
        "{} distinct ports contacted on this host in 10 s",
    ),
    HostDistinctPorts60s = logarithm(
        "host_distinct_ports_60s",
        "ports",
        "distinct service ports of the host's connections within 60 s, at most 256",
        "{} distinct ports contacted on this host in 60 s",
    ),
    HostFailures60s = fraction(
        "host_failures_60s",
        "connections",
        "failed connections of the host, of all within 60 s",
        "{} of this host's recent connections failed",
    ),
    HostFailedLogins60s = logarithm(
        "host_failed_logins_60s",
        "logins",
        "failed logins on the host within 60 s; missing when nothing reports logins",
        "{} failed logins on this host in 60 s",
    ),
    DestinationConnections1s = logarithm(
        "destination_connections_1s",
        "connections",
        "connections with the same destination (direction, remote address, service port) within 1 s",
        "{} connections with the same destination in 1 s",
    ),
    DestinationConnections10s = logarithm(
        "destination_connections_10s",
        "connections",
        "connections with the same destination within 10 s",
        "{} connections with the same destination in 10 s",
    ),
    DestinationConnections60s = logarithm(
        "destination_connections_60s",
        "connections",
        "connections with the same destination within 60 s",
        "{} connections with the same destination in 60 s",
    ),
    DestinationConnections600s = logarithm(
        "destination_connections_600s",
        "connections",
        "connections with the same destination within 10 min",
        "{} connections with the same destination in 10 min",
    ),
    DestinationFailures60s = fraction(
        "destination_failures_60s",
        "connections",
        "failed connections with the same destination, of all within 60 s",
        "{} of the recent connections with the same destination failed",
    ),
    DestinationIntervalMean = logarithm(
        "destination_interval_mean",
        "milliseconds",
        "mean time between the latest 16 contacts with the same destination; missing for fewer than 3",
        "contacts with the same destination every {}",
    ),
    DestinationIntervalVariation = number(
        "destination_interval_variation",
        "standard deviations per mean",
        "coefficient of variation of the times between the latest 16 contacts: 0 is clockwork, 1 is chance; missing \
         for fewer than 3",
        "regularity of contacts with the same destination: times vary by {} of their mean",
    ),
    DestinationSizeMean = logarithm(
        "destination_size_mean",
        "bytes",
        "mean payload both ways of the latest 16 contacts with the same destination; missing for fewer than 3",
        "{} on average with the same destination",
    ),
    DestinationSizeVariation = number(
        "destination_size_variation",
        "standard deviations per mean",
        "coefficient of variation of the payload of the latest 16 contacts; missing for fewer than 3",
        "similarity of contacts with the same destination: sizes vary by {} of their mean",
    ),
    DestinationBytesSent60s = logarithm(
        "destination_bytes_sent_60s",
        "bytes",
        "payload sent to the same destination within 60 s",
        "{} sent to the same destination in 60 s",
    ),
    DestinationBytesSent600s = logarithm(
        "destination_bytes_sent_600s",
        "bytes",
        "payload sent to the same destination within 10 min",
        "{} sent to the same destination in 10 min",
    ),
    DestinationSentFraction600s = fraction(
        "destination_sent_fraction_600s",
        "bytes",
        "payload sent, of all payload with the same destination within 10 min; missing when there was none",
        "{} of the recent bytes with the same destination were sent",
    ),
    DestinationSeenBefore = logarithm(
        "destination_seen_before",
        "connections",
        "earlier connections with the same destination in this epoch, roughly",
        "this destination was seen {} times before on this host",
    ),
}

/// Takes in the end of a connection and fills its vector.
pub(super) fn extract(context: &mut Context, now: i64, close: &ConnectionClose, row: &mut Row) {
    let path = close.connection.executable.as_bytes();
    let owner = close.connection.process;
    let executable = if path.is_empty() {
        owner.and_then(|process| context.processes.peek(&process)).and_then(|entry| entry.executable)
    } else {
        Some(hash(path))
    };
    let destination = context.note_close(now, close, executable);
    fill_transfer(close, row);
    fill_endpoint(close, destination, row);
    row.flag(Feature::OwnerKnown, owner.is_some());
    fill_program(context, close, row);
    if let Some(process) = owner {
        fill_owner(context, now, process, row);
    }
    if let Some(entry) = executable.and_then(|executable| context.executables.peek_mut(&executable)) {
        row.logarithm(Feature::ExecutableConnections60s, entry.connections_60s.sum(now));
        row.logarithm(Feature::ExecutableConnections600s, entry.connections_600s.sum(now));
    }
    fill_host(context, now, row);
    row.logarithm(Feature::DestinationSeenBefore, context.seen.note(destination.hash()));
    if let Some(entry) = context.destinations.peek_mut(&destination) {
        fill_destination(entry, now, close, row);
        fill_regularity(entry, row);
    }
}

fn fill_transfer(close: &ConnectionClose, row: &mut Row) {
    row.flag_if_known(
        Feature::Outbound,
        match close.connection.direction {
            Direction::Unknown => None,
            direction => Some(direction == Direction::Outbound),
        },
    );
    row.flag_if_known(
        Feature::Failed,
        match close.outcome {
            ConnectionOutcome::Unknown => None,
            outcome => Some(outcome == ConnectionOutcome::Failed),
        },
    );
    row.flag(Feature::Udp, close.connection.protocol == Protocol::Udp);
    row.logarithm_if_known(Feature::Duration, close.duration_ns.map(|ns| ns / NANOSECONDS_PER_MILLISECOND));
    row.logarithm_if_known(Feature::BytesSent, close.bytes_sent);
    row.logarithm_if_known(Feature::BytesReceived, close.bytes_received);
    if let Some((sent, received)) = close.bytes_sent.zip(close.bytes_received) {
        row.fraction(Feature::SentFraction, sent, sent.saturating_add(received));
    }
    row.logarithm_if_known(Feature::SegmentsSent, close.segments_sent.map(u64::from));
    row.logarithm_if_known(Feature::SegmentsReceived, close.segments_received.map(u64::from));
    if let (Some(bytes), Some(segments @ 1..)) = (close.bytes_sent, close.segments_sent) {
        row.logarithm_of(Feature::BytesPerSegmentSent, bytes as f64 / f64::from(segments));
    }
    if let (Some(bytes), Some(duration @ 1..)) = (close.bytes_sent, close.duration_ns) {
        row.logarithm_of(Feature::SendRate, bytes as f64 / (duration as f64 / 1e9));
    }
}

fn fill_endpoint(close: &ConnectionClose, destination: DestinationKey, row: &mut Row) {
    let remote = destination.address.to_canonical();
    let private = is_private(remote);
    row.flag(Feature::RemoteLoopback, remote.is_loopback());
    row.flag(Feature::RemotePrivate, private);
    row.flag(
        Feature::RemoteGlobal,
        !(private || remote.is_loopback() || remote.is_unspecified() || remote.is_multicast()),
    );
    row.flag(Feature::SystemPort, destination.port <= SYSTEM_PORT_MAX);
    row.flag(Feature::EphemeralPort, destination.port >= EPHEMERAL_PORT_MIN);
    row.flag_if_known(Feature::UserIsRoot, close.connection.user_id.map(|user| user == 0));
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// What the owner's executable says; from the event, or else from the owner's own start.
fn fill_program(context: &Context, close: &ConnectionClose, row: &mut Row) {
    let path = close.connection.executable.as_bytes();
    let known = close.connection.process.and_then(|process| context.processes.peek(&process));
    let path_class = if path.is_empty() { known.and_then(|entry| entry.path_class) } else { Some(PathClass::of(path)) };
    if let Some(class) = path_class {
        row.flag(Feature::OwnerInSystemDirectory, class == PathClass::System);
        row.flag(Feature::OwnerInTemporaryDirectory, class.is_world_writable());
    }
    let kinds = known
        .filter(|entry| entry.executable.is_some())
        .map(|entry| entry.kinds)
        .or_else(|| (!path.is_empty()).then(|| ProgramKinds::of(file_name(path))));
    if let Some(kinds) = kinds {
        row.flag(Feature::OwnerIsShell, kinds.has(ProgramKinds::SHELL));
        row.flag(Feature::OwnerIsInterpreter, kinds.has(ProgramKinds::INTERPRETER));
        row.flag(Feature::OwnerIsNetworkTool, kinds.has(ProgramKinds::NETWORK.union(ProgramKinds::SERVICE)));
    }
    if let Some(ProcessEntry { socket_streams, parent_kinds, .. }) = known {
        row.flag(Feature::OwnerSocketStreams, *socket_streams);
        let of_interest = ProgramKinds::SHELL.union(ProgramKinds::INTERPRETER);
        row.flag_if_known(Feature::OwnerParentIsShell, parent_kinds.map(|kinds| kinds.has(of_interest)));
    }
}

fn fill_owner(context: &mut Context, now: i64, process: ProcessId, row: &mut Row) {
    let age = u64::try_from(now.saturating_sub(process.start_time.0)).unwrap_or(0);
    row.logarithm(Feature::OwnerAge, age / NANOSECONDS_PER_MILLISECOND);
    let started_shell = context.parents.peek(&process).is_some_and(|entry| entry.child_kinds.has(ProgramKinds::SHELL));
    row.flag(Feature::OwnerStartedShell, started_shell);
    let Some(owner) = context.owners.peek_mut(&process) else { return };
    let recent = owner.connections_60s.sum(now);
    row.logarithm(Feature::OwnerConnections1s, owner.connections_1s.sum(now));
    row.logarithm(Feature::OwnerConnections10s, owner.connections_10s.sum(now));
    row.logarithm(Feature::OwnerConnections60s, recent);
    row.logarithm(Feature::OwnerDistinctPorts10s, owner.ports.count(now, 10_000));
    row.logarithm(Feature::OwnerDistinctAddresses60s, owner.addresses.count(now, 60_000));
    row.fraction(Feature::OwnerFailures60s, owner.failed_60s.sum(now), recent);
}

fn fill_host(context: &mut Context, now: i64, row: &mut Row) {
    let host = &mut context.host;
    let recent = host.connections_60s.sum(now);
    row.logarithm(Feature::HostConnections1s, host.connections_1s.sum(now));
    row.logarithm(Feature::HostConnections60s, recent);
    row.logarithm(Feature::HostDistinctPorts10s, host.ports.count(now, 10_000));
    row.logarithm(Feature::HostDistinctPorts60s, host.ports.count(now, 60_000));
    row.fraction(Feature::HostFailures60s, host.failed_60s.sum(now), recent);
    if host.sees_logins {
        row.logarithm(Feature::HostFailedLogins60s, host.failed_logins_60s.sum(now));
    }
}

fn fill_destination(entry: &mut DestinationEntry, now: i64, close: &ConnectionClose, row: &mut Row) {
    let recent = entry.connections_60s.sum(now);
    row.logarithm(Feature::DestinationConnections1s, entry.connections_1s.sum(now));
    row.logarithm(Feature::DestinationConnections10s, entry.connections_10s.sum(now));
    row.logarithm(Feature::DestinationConnections60s, recent);
    row.logarithm(Feature::DestinationConnections600s, entry.connections_600s.sum(now));
    row.fraction(Feature::DestinationFailures60s, entry.failed_60s.sum(now), recent);
    // Sums over connections of unknown size are unknown too.
    if close.bytes_sent.is_some() {
        let sent = entry.bytes_sent_600s.sum(now);
        row.logarithm(Feature::DestinationBytesSent60s, entry.bytes_sent_60s.sum(now));
        row.logarithm(Feature::DestinationBytesSent600s, sent);
        if close.bytes_received.is_some() {
            let all = sent.saturating_add(entry.bytes_received_600s.sum(now));
            row.fraction(Feature::DestinationSentFraction600s, sent, all);
        }
    }
}

fn fill_regularity(entry: &DestinationEntry, row: &mut Row) {
    let mut intervals = Spread::default();
    let mut sizes = Spread::default();
    let mut previous: Option<Contact> = None;
    for contact in entry.contacts() {
        if let Some(previous) = previous {
            intervals.add(contact.time.saturating_sub(previous.time) as f64 / 1e6);
        }
        if let Some(bytes) = contact.bytes {
            sizes.add(bytes as f64);
        }
        previous = Some(contact);
    }
    if intervals.count + 1 >= CONTACTS_MIN {
        row.logarithm_of(Feature::DestinationIntervalMean, intervals.mean);
        row.number(Feature::DestinationIntervalVariation, intervals.variation());
    }
    if sizes.count >= CONTACTS_MIN {
        row.logarithm_of(Feature::DestinationSizeMean, sizes.mean);
        row.number(Feature::DestinationSizeVariation, sizes.variation());
    }
}

/// Mean and deviation in one pass (Welford).
#[derive(Default)]
struct Spread {
    count: usize,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
    }

    /// Standard deviation / mean; 0 where the mean is.
    fn variation(&self) -> f64 {
        if self.mean <= 0.0 {
            return 0.0;
        }
        // The square root is exactly rounded on every machine.
        (self.squares / self.count as f64).sqrt() / self.mean
    }
}
