//! Features of a connection that ended or failed.
//!
//! Few of them say how much: the sizes and paces of a fleet's own traffic are its fingerprint, and models learn those by
//! heart where examples are few. Most say how much against what is usual: for the owner, for the destination, for the host.

use std::net::IpAddr;

use crate::event::{ConnectionClose, ConnectionOutcome, Direction, ProcessId, Protocol};
pub(super) use crate::feature::connection::definitions::DEFINITIONS;
use crate::feature::connection::definitions::Feature;
use crate::feature::context::{Contactor, Context, DestinationEntry, DestinationKey, ProcessEntry};
use crate::feature::limits::{AGE_MAX_MS, NEIGHBOUR_DISTANCE, SEEN_MAX};
use crate::feature::path::{PathClass, file_name, without_deleted_mark};
use crate::feature::program::ProgramKinds;
use crate::feature::row::Row;
use crate::feature::text::{hash, hash_pair};

mod definitions;

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;
/// From here on Linux gives out ports to clients.
const EPHEMERAL_PORT_MIN: u16 = 32_768;
const SYSTEM_PORT_MAX: u16 = 1_023;

/// Takes in the end of a connection and fills its vector.
pub(super) fn extract(context: &mut Context, now: i64, close: &ConnectionClose, row: &mut Row) {
    let path = without_deleted_mark(close.connection.executable.as_bytes());
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
        fill_owner(context, now, process, close, row);
        fill_owner_regularity(context, process, destination, row);
    }
    if let Some(entry) = executable.and_then(|executable| context.executables.peek_mut(&executable)) {
        row.logarithm(Feature::ExecutableConnections10s, entry.connections_10s.sum(now));
    }
    fill_similar_contacts(context, destination, close, row);
    fill_host(context, now, destination.port, row);
    row.logarithm(Feature::DestinationSeenBefore, context.seen.note(destination.hash()).min(SEEN_MAX));
    if let Some(executable) = executable {
        let before = context.seen.note(hash_pair(executable, destination.hash()));
        row.logarithm(Feature::ExecutableDestinationSeenBefore, before.min(SEEN_MAX));
    }
    if let Some(entry) = context.destinations.peek_mut(&destination) {
        let host_sent = context.host.bytes_sent_600s.sum(now);
        fill_destination(entry, now, host_sent, row);
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
            outcome => Some(outcome.is_failure()),
        },
    );
    row.flag(Feature::Udp, close.connection.protocol == Protocol::Udp);
    row.logarithm_if_known(Feature::Duration, close.duration_ns.map(|ns| ns / NANOSECONDS_PER_MILLISECOND));
    row.magnitude_if_known(Feature::BytesSent, close.bytes_sent);
    if let Some((sent, received)) = close.bytes_sent.zip(close.bytes_received) {
        row.fraction(Feature::SentFraction, sent, sent.saturating_add(received));
    }
    if let (Some(bytes), Some(segments @ 1..)) = (close.bytes_sent, close.segments_sent) {
        row.magnitude_of(Feature::BytesPerSegmentSent, bytes as f64 / f64::from(segments));
    }
    if let (Some(bytes), Some(duration @ 1..)) = (close.bytes_sent, close.duration_ns) {
        row.magnitude_of(Feature::SendRate, bytes as f64 / (duration as f64 / 1e9));
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
    let path = without_deleted_mark(close.connection.executable.as_bytes());
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
    if let Some(ProcessEntry { socket_streams, parent_kinds, traits, .. }) = known {
        row.flag(Feature::OwnerIsHidden, traits.hidden);
        row.flag(Feature::OwnerCalledOtherwise, traits.called_otherwise);
        row.flag(Feature::OwnerInlineScript, traits.inline_script);
        row.flag(Feature::OwnerMentionsNetworkAddress, traits.network_address);
        row.flag_if_known(Feature::OwnerHasTerminal, traits.has_terminal);
        row.flag(Feature::OwnerSocketStreams, *socket_streams);
        let of_interest = ProgramKinds::SHELL.union(ProgramKinds::INTERPRETER);
        row.flag_if_known(Feature::OwnerParentIsShell, parent_kinds.map(|kinds| kinds.has(of_interest)));
    }
}

fn fill_owner(context: &mut Context, now: i64, process: ProcessId, close: &ConnectionClose, row: &mut Row) {
    let age = u64::try_from(now.saturating_sub(process.start_time.0)).unwrap_or(0);
    row.logarithm(Feature::OwnerAge, (age / NANOSECONDS_PER_MILLISECOND).min(AGE_MAX_MS));
    let started_shell = context.parents.peek(&process).is_some_and(|entry| entry.child_kinds.has(ProgramKinds::SHELL));
    row.flag(Feature::OwnerStartedShell, started_shell);
    let Some(owner) = context.owners.peek_mut(&process) else { return };
    let recent = owner.connections_60s.sum(now);
    let of_host = context.host.connections_10s.sum(now);
    row.fraction(Feature::OwnerShareOfHost10s, owner.connections_10s.sum(now), of_host);
    row.logarithm(Feature::OwnerConnections1s, owner.connections_1s.sum(now));
    row.logarithm(Feature::OwnerConnections10s, owner.connections_10s.sum(now));
    row.logarithm(Feature::OwnerConnections60s, recent);
    row.logarithm(Feature::OwnerDistinctPorts10s, owner.ports.count(now, 10_000));
    row.logarithm(Feature::OwnerFailedPorts60s, owner.failed_ports.count(now, 60_000));
    row.logarithm(Feature::OwnerDistinctAddresses60s, owner.addresses.count(now, 60_000));
    row.fraction(Feature::OwnerFailures60s, owner.failed_60s.sum(now), recent);
    row.magnitude_if_known(Feature::OwnerBytesSent60s, close.bytes_sent.map(|_| owner.bytes_sent_60s.sum(now)));
}

/// A shell loop starts a new process for each contact: then its children together show what it does.
fn fill_owner_regularity(context: &Context, process: ProcessId, destination: DestinationKey, row: &mut Row) {
    let series = |process| context.series.peek(&(Contactor::Process(process), destination));
    let parent = || context.processes.peek(&process).and_then(|entry| entry.parent).and_then(series);
    let own = series(process);
    let Some(series) = own.filter(|series| series.says_something()).or_else(parent).or(own) else { return };
    row.logarithm(Feature::OwnerContacts, series.len());
    if let Some(destination) = context.destinations.peek(&destination) {
        row.fraction(Feature::OwnerShareOfDestination, series.part_of(&destination.series), destination.series.len());
    }
    if let Some(rhythm) = series.rhythm() {
        row.number(Feature::OwnerIntervalDeviation, rhythm.deviation);
        row.number(Feature::OwnerIntervalSkew, rhythm.skew);
    }
    if let Some(ratio) = series.size_over_median() {
        row.number(Feature::SizeOverOwnerMedian, ratio);
    }
    let regularity = series.regularity();
    if let Some((mean, variation)) = regularity.interval {
        row.logarithm_of(Feature::OwnerIntervalMean, mean);
        row.number(Feature::OwnerIntervalVariation, variation);
    }
    if let Some((_, variation)) = regularity.size {
        row.number(Feature::OwnerSizeVariation, variation);
    }
    if let Some(alike) = series.alike() {
        row.logarithm(Feature::OwnerAlikeContacts, alike.contacts);
        if let Some(jitter) = alike.jitter {
            row.number(Feature::OwnerAlikeJitter, jitter);
        }
    }
}

/// Contacts alike: a beacon among other traffic with the same destination.
fn fill_similar_contacts(context: &Context, destination: DestinationKey, close: &ConnectionClose, row: &mut Row) {
    let Some((sent, received)) = close.bytes_sent.zip(close.bytes_received) else { return };
    let Some(series) = context.series.peek(&(Contactor::of_size(sent, received), destination)) else { return };
    row.logarithm(Feature::SimilarContacts, series.len());
    if let Some((mean, variation)) = series.regularity().interval {
        row.logarithm_of(Feature::SimilarIntervalMean, mean);
        row.number(Feature::SimilarIntervalVariation, variation);
    }
}

fn fill_host(context: &mut Context, now: i64, port: u16, row: &mut Row) {
    let host = &mut context.host;
    let recent = host.connections_10s.sum(now);
    row.logarithm(Feature::HostConnections1s, host.connections_1s.sum(now));
    row.logarithm(Feature::HostConnections10s, recent);
    row.logarithm(Feature::HostDistinctPorts10s, host.ports.count(now, 10_000));
    row.logarithm(Feature::HostFailedPorts10s, host.failed_ports.count(now, 10_000));
    row.fraction(Feature::HostFailures10s, host.failed_10s.sum(now), recent);
    let port = u64::from(port);
    let neighbour = |other: u64| other != port && other.abs_diff(port) <= NEIGHBOUR_DISTANCE;
    row.logarithm(Feature::NeighbouringPorts60s, host.ports.count_if(now, 60_000, neighbour));
    if host.sees_logins {
        row.logarithm(Feature::HostFailedLogins60s, host.failed_logins_60s.sum(now));
    }
}

fn fill_destination(entry: &mut DestinationEntry, now: i64, host_sent: u64, row: &mut Row) {
    let recent = entry.connections_60s.sum(now);
    row.logarithm(Feature::DestinationConnections1s, entry.connections_1s.sum(now));
    row.logarithm(Feature::DestinationConnections10s, entry.connections_10s.sum(now));
    row.logarithm(Feature::DestinationConnections60s, recent);
    row.fraction(Feature::DestinationFailures60s, entry.failed_60s.sum(now), recent);
    row.fraction(Feature::DestinationShareOfHostSent600s, entry.bytes_sent_600s.sum(now), host_sent);
    if let Some(ratio) = entry.series.size_over_median() {
        row.number(Feature::SizeOverDestinationMedian, ratio);
    }
    let regularity = entry.series.regularity();
    if let Some((_, variation)) = regularity.interval {
        row.number(Feature::DestinationIntervalVariation, variation);
    }
    if let Some((_, variation)) = regularity.size {
        row.number(Feature::DestinationSizeVariation, variation);
    }
}
