//! What the counters of a destroyed socket say about its connection.
//!
//! The kernel counts SYN and FIN as a byte each. Whether a FIN was received is said by eBPF programs only. Elsewhere an
//! orderly close (the own FIN was acknowledged) nearly always has one, so then one byte is taken off: a connection whose
//! other end took longer to close than this one could wait for is thus reported with one byte received too few.

use picket_common::event::{ConnectionOutcome, Direction};

use crate::sensor::connection::sock_diag::TcpInfo;

/// What is known of a connection at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) bytes_sent: Option<u64>,
    pub(super) bytes_received: Option<u64>,
    pub(super) segments_sent: Option<u32>,
    pub(super) segments_received: Option<u32>,
    /// From establishment to end, where the counters tell.
    pub(super) duration_ns: Option<u64>,
    pub(super) outcome: ConnectionOutcome,
}

const NANOSECONDS_PER_MILLISECOND: u64 = 1_000_000;

/// Whether the two ends ever met.
pub(super) fn was_established(info: &TcpInfo) -> Option<bool> {
    if info.bytes_acknowledged.is_some_and(|bytes| bytes > 0) || info.bytes_received.is_some_and(|bytes| bytes > 0) {
        return Some(true);
    }
    info.round_trip_min_us.map(|round_trip| round_trip != u32::MAX)
}

/// Who began a connection, by the acknowledged SYN. `None` where the counters do not decide.
pub(super) fn direction(info: &TcpInfo) -> Option<Direction> {
    let acknowledged = info.bytes_acknowledged?;
    match acknowledged.checked_sub(payload_sent(info)?)? {
        // Something was received, but no SYN of this end acknowledged: the other end's was.
        0 if acknowledged > 0 || info.bytes_received.is_some_and(|bytes| bytes > 0) => Some(Direction::Inbound),
        // SYN and FIN.
        2 => Some(Direction::Outbound),
        _ => None,
    }
}

/// Reads the counters of a connection that ended. `is_reset` says that the socket was reset before it was destroyed,
/// which clears them.
pub(super) fn summarize(info: Option<&TcpInfo>, direction: Direction, is_reset: bool) -> Summary {
    let established = info.and_then(was_established);
    let mut summary = Summary {
        bytes_sent: None,
        bytes_received: None,
        segments_sent: None,
        segments_received: None,
        duration_ns: None,
        outcome: match established {
            Some(true) => ConnectionOutcome::Closed,
            // A socket of the accepting end exists only once the ends have met.
            Some(false) if direction == Direction::Inbound => ConnectionOutcome::Closed,
            Some(false) => ConnectionOutcome::Failed,
            None => ConnectionOutcome::Unknown,
        },
    };
    let Some(info) = info else { return summary };
    if summary.outcome == ConnectionOutcome::Failed {
        (summary.bytes_sent, summary.bytes_received) = (Some(0), Some(0));
    }
    if is_reset {
        return summary;
    }
    let syn = u64::from(direction == Direction::Outbound && established == Some(true));
    let acknowledged = info.bytes_acknowledged.map(|bytes| bytes.saturating_sub(syn));
    let fin_acknowledged = acknowledged.zip(payload_sent(info)).map(|(acknowledged, sent)| acknowledged > sent);
    summary.bytes_sent = match (acknowledged, payload_sent(info)) {
        (Some(acknowledged), Some(sent)) => Some(acknowledged.min(sent)),
        (acknowledged, _) => acknowledged,
    };
    summary.bytes_received = match (info.bytes_received, info.data_segments_received) {
        (Some(_), Some(0)) => Some(0),
        (Some(bytes), _) => {
            let has_fin = info.fin_received.unwrap_or(fin_acknowledged == Some(true));
            Some(bytes.saturating_sub(u64::from(has_fin)))
        }
        (None, _) => None,
    };
    summary.segments_sent = info.segments_sent;
    summary.segments_received = info.segments_received;
    if established == Some(true) {
        summary.duration_ns = duration_ns(info);
    }
    summary
}

/// Payload bytes sent, each once.
fn payload_sent(info: &TcpInfo) -> Option<u64> {
    info.bytes_sent?.checked_sub(info.bytes_retransmitted?)
}

/// The time since data was last sent (or received) runs from the establishment as long as none was.
fn duration_ns(info: &TcpInfo) -> Option<u64> {
    let since_established = if info.data_segments_received == Some(0) {
        info.last_data_received_ms
    } else if info.data_segments_sent == Some(0) {
        info.last_data_sent_ms
    } else {
        None
    };
    since_established.map(|milliseconds| u64::from(milliseconds) * NANOSECONDS_PER_MILLISECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sent 1000, received 77, closed in good order; as recorded.
    fn client() -> TcpInfo {
        TcpInfo {
            last_data_sent_ms: Some(44),
            last_data_received_ms: Some(44),
            bytes_acknowledged: Some(1002),
            bytes_received: Some(78),
            segments_sent: Some(5),
            segments_received: Some(4),
            round_trip_min_us: Some(20),
            data_segments_received: Some(1),
            data_segments_sent: Some(1),
            bytes_sent: Some(1000),
            bytes_retransmitted: Some(0),
            fin_received: None,
        }
    }

    fn server() -> TcpInfo {
        TcpInfo { bytes_acknowledged: Some(78), bytes_received: Some(1001), bytes_sent: Some(77), ..client() }
    }

    fn refused() -> TcpInfo {
        TcpInfo {
            last_data_sent_ms: Some(2_022_460),
            last_data_received_ms: Some(2_022_460),
            bytes_acknowledged: Some(0),
            bytes_received: Some(0),
            segments_sent: Some(1),
            segments_received: Some(1),
            round_trip_min_us: Some(u32::MAX),
            data_segments_received: Some(0),
            data_segments_sent: Some(0),
            bytes_sent: Some(0),
            bytes_retransmitted: Some(0),
            fin_received: None,
        }
    }

    fn bytes(summary: &Summary) -> (Option<u64>, Option<u64>) {
        (summary.bytes_sent, summary.bytes_received)
    }

    #[test]
    fn both_ends_of_an_orderly_close_count_the_payload() {
        let summary = summarize(Some(&client()), Direction::Outbound, false);
        assert_eq!((bytes(&summary), summary.outcome), ((Some(1000), Some(77)), ConnectionOutcome::Closed));
        assert_eq!(summary.duration_ns, None, "data went both ways: nothing tells when it began");
        let summary = summarize(Some(&server()), Direction::Inbound, false);
        assert_eq!(bytes(&summary), (Some(77), Some(1000)));
        assert_eq!(direction(&client()), Some(Direction::Outbound));
        assert_eq!(direction(&server()), None);
    }

    #[test]
    fn a_fin_that_is_told_of_decides() {
        let half_closed = TcpInfo { fin_received: Some(false), ..client() };
        assert_eq!(bytes(&summarize(Some(&half_closed), Direction::Outbound, false)), (Some(1000), Some(78)));
        let closed = TcpInfo { fin_received: Some(true), bytes_acknowledged: Some(1001), ..client() };
        assert_eq!(bytes(&summarize(Some(&closed), Direction::Outbound, false)), (Some(1000), Some(77)));
    }

    #[test]
    fn an_abort_has_no_fin() {
        // The client sent 1000 bytes; the server closed without reading them.
        let client = TcpInfo { bytes_acknowledged: Some(1001), bytes_received: Some(0), ..client() };
        assert_eq!(summarize(Some(&client), Direction::Outbound, false).bytes_sent, Some(1000));
        let server = TcpInfo {
            bytes_acknowledged: Some(0),
            bytes_received: Some(1000),
            bytes_sent: Some(0),
            data_segments_sent: Some(0),
            ..server()
        };
        let summary = summarize(Some(&server), Direction::Inbound, false);
        assert_eq!((bytes(&summary), summary.duration_ns), ((Some(0), Some(1000)), Some(44_000_000)));
        assert_eq!(direction(&server), Some(Direction::Inbound));
    }

    #[test]
    fn only_what_was_acknowledged_was_sent() {
        let half = TcpInfo { bytes_acknowledged: Some(501), ..client() };
        assert_eq!(summarize(Some(&half), Direction::Outbound, false).bytes_sent, Some(500));
        let resent = TcpInfo { bytes_sent: Some(1500), bytes_retransmitted: Some(500), ..client() };
        assert_eq!(summarize(Some(&resent), Direction::Outbound, false).bytes_sent, Some(1000));
    }

    #[test]
    fn a_refused_attempt_failed_also_when_its_socket_was_reset() {
        let summary = summarize(Some(&refused()), Direction::Outbound, false);
        assert_eq!((summary.outcome, summary.duration_ns), (ConnectionOutcome::Failed, None));
        assert_eq!((bytes(&summary), summary.segments_sent), ((Some(0), Some(0)), Some(1)));
        let summary = summarize(Some(&refused()), Direction::Outbound, true);
        assert_eq!((summary.outcome, summary.segments_sent), (ConnectionOutcome::Failed, None));
    }

    #[test]
    fn a_reset_socket_that_was_established_did_not_fail_and_its_bytes_are_unknown() {
        let reset = TcpInfo { round_trip_min_us: Some(23), ..refused() };
        let summary = summarize(Some(&reset), Direction::Outbound, true);
        assert_eq!((summary.outcome, bytes(&summary)), (ConnectionOutcome::Closed, (None, None)));
    }

    #[test]
    fn what_a_kernel_does_not_say_stays_unknown() {
        let summary = summarize(None, Direction::Outbound, false);
        assert_eq!((summary.outcome, bytes(&summary)), (ConnectionOutcome::Unknown, (None, None)));
        let old = TcpInfo { last_data_sent_ms: Some(1), ..TcpInfo::default() };
        let summary = summarize(Some(&old), Direction::Outbound, false);
        assert_eq!((summary.outcome, bytes(&summary)), (ConnectionOutcome::Unknown, (None, None)));
        let middle = TcpInfo { bytes_sent: None, ..client() };
        assert_eq!(bytes(&summarize(Some(&middle), Direction::Outbound, false)), (Some(1001), Some(78)));
    }
}
