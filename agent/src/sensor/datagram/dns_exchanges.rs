//! Which response is to which query.
//!
//! Bounded: the oldest queries are forgotten first, and any after [`ANSWER_TIME_MAX_NS`]. A response to a forgotten one
//! is told all the same, without process and duration.

use std::collections::{HashMap, VecDeque};

use picket_common::event::ByteString;

use crate::enrich::socket_owner::Owner;
use crate::sensor::datagram::dns_message::DnsMessage;
use crate::sensor::datagram::ebpf_record::Ends;

/// Most queries without a response.
const QUERIES_MAX: usize = 4096;
/// How long a response is waited for.
const ANSWER_TIME_MAX_NS: u64 = 30_000_000_000;

/// The queries that wait for a response.
#[derive(Debug, Default)]
pub(super) struct DnsExchanges {
    queries: HashMap<QueryKey, Query>,
    /// In the order they came; also some that are answered.
    order: VecDeque<(u64, QueryKey)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct QueryKey {
    ends: Ends,
    transaction_id: u16,
    query_type: u16,
    name: ByteString,
}

/// A query that was answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    /// When it was sent first, `CLOCK_MONOTONIC`.
    pub(super) monotonic_ns: u64,
    pub(super) owner: Option<Owner>,
}

impl DnsExchanges {
    /// A query was sent. One that is sent again keeps its time.
    pub(super) fn sent(&mut self, ends: Ends, message: &DnsMessage, monotonic_ns: u64, owner: Option<Owner>) {
        self.forget(monotonic_ns);
        let key = key(ends, message);
        if self.queries.contains_key(&key) {
            return;
        }
        self.queries.insert(key.clone(), Query { monotonic_ns, owner });
        self.order.push_back((monotonic_ns, key));
    }

    /// A response came: to this query.
    pub(super) fn answered(&mut self, ends: Ends, message: &DnsMessage) -> Option<Query> {
        self.queries.remove(&key(ends, message))
    }

    fn forget(&mut self, now: u64) {
        while let Some((sent, _)) = self.order.front() {
            let is_old = now.saturating_sub(*sent) > ANSWER_TIME_MAX_NS;
            if !is_old && self.order.len() < QUERIES_MAX {
                break;
            }
            let Some((sent, key)) = self.order.pop_front() else { break };
            // The same may have been asked again after it was answered.
            if self.queries.get(&key).is_some_and(|query| query.monotonic_ns == sent) {
                self.queries.remove(&key);
            }
        }
    }
}

/// Names are compared without case: resolvers may change it on the way.
fn key(ends: Ends, message: &DnsMessage) -> QueryKey {
    QueryKey {
        ends,
        transaction_id: message.transaction_id,
        query_type: message.query_type,
        name: ByteString::truncated(&message.name.as_bytes().to_ascii_lowercase()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use picket_common::event::Protocol;

    use super::*;

    fn ends(port: u16) -> Ends {
        let local = ([127, 0, 0, 1], port).into();
        Ends { local, remote: ([127, 0, 0, 1], 53).into(), protocol: Protocol::Udp, cookie: port.into() }
    }

    fn message(name: &str) -> DnsMessage {
        DnsMessage {
            transaction_id: 7,
            is_response: false,
            response_code: 0,
            name: name.into(),
            query_type: 1,
            answers: Vec::new(),
            answers_truncated: false,
        }
    }

    #[test]
    fn a_response_finds_its_query_once_whatever_the_case() {
        let mut exchanges = DnsExchanges::default();
        exchanges.sent(ends(1), &message("example.com"), 10, None);
        exchanges.sent(ends(1), &message("example.com"), 20, None);
        assert_eq!(exchanges.answered(ends(2), &message("example.com")), None);
        assert_eq!(exchanges.answered(ends(1), &message("example.org")), None);
        assert_eq!(exchanges.answered(ends(1), &message("eXample.COM")).unwrap().monotonic_ns, 10);
        assert_eq!(exchanges.answered(ends(1), &message("example.com")), None);
    }

    #[test]
    fn queries_are_forgotten_by_age_and_number() {
        let mut exchanges = DnsExchanges::default();
        exchanges.sent(ends(1), &message("old.example"), 0, None);
        exchanges.sent(ends(1), &message("new.example"), ANSWER_TIME_MAX_NS + 1, None);
        assert_eq!(exchanges.answered(ends(1), &message("old.example")), None);
        assert!(exchanges.answered(ends(1), &message("new.example")).is_some());
        for number in 0..3 * QUERIES_MAX {
            exchanges.sent(ends(1), &message(&format!("{number}.example")), ANSWER_TIME_MAX_NS + 2, None);
        }
        assert!(exchanges.queries.len() <= QUERIES_MAX && exchanges.order.len() <= QUERIES_MAX);
    }

    #[test]
    fn what_is_answered_at_once_does_not_pile_up() {
        let mut exchanges = DnsExchanges::default();
        for number in 0..3 * QUERIES_MAX as u64 {
            exchanges.sent(ends(1), &message("a.example"), number, None);
            assert_eq!(exchanges.answered(ends(1), &message("a.example")).unwrap().monotonic_ns, number);
        }
        assert!(exchanges.order.len() <= QUERIES_MAX);
    }
}
