//! Short connections alike, as one counted summary.
//!
//! An open is held back for [`HOLD`]. When its close comes within that time the connection is short. The first short
//! connection of each kind (protocol, direction, addresses, service port, program, user, outcome) stays as it is in every
//! window of [`WINDOW`]; further ones are added up and become one [`ConnectionSummary`] at its end. What lives longer
//! stays as it is: its open comes out [`HOLD`] late, with its own time.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use picket_common::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, ConnectionSummary, Direction, EventBody, Origin,
    Protocol, Timestamp,
};

use crate::budget::shaper::Shaped;
use crate::sensor::Observation;

/// How long an open waits for its close.
pub(super) const HOLD: Duration = Duration::from_secs(2);
/// How long short connections alike are added up.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// Most opens held back; further ones stay as they are.
const OPENS_MAX: usize = 4_096;
/// Most kinds in a window; connections of further ones stay as they are.
const KINDS_MAX: usize = 1_024;

/// What short connections alike have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    protocol: Protocol,
    direction: Direction,
    local: IpAddr,
    remote: IpAddr,
    service_port: u16,
    executable: ByteString,
    user_id: Option<u32>,
    outcome: ConnectionOutcome,
}

/// Connections alike, added up.
#[derive(Debug)]
struct Sum {
    time: Timestamp,
    origin: Origin,
    summary: ConnectionSummary,
    /// Opens and closes in it.
    observations: u64,
}

#[derive(Debug, Default)]
pub(super) struct ConnectionAggregator {
    /// By cookie.
    opens: BTreeMap<u64, Observation>,
    /// When they have waited long enough, in order. Some are gone already.
    due: VecDeque<(Instant, u64)>,
    /// `None`: there was one, and it stayed.
    kinds: BTreeMap<Kind, Option<Sum>>,
    window_end: Option<Instant>,
}

impl ConnectionAggregator {
    pub(super) fn is_empty(&self) -> bool {
        self.opens.is_empty() && self.kinds.is_empty()
    }

    /// Takes an open or a close.
    pub(super) fn take(&mut self, observation: Observation, now: Instant, out: &mut Shaped) {
        self.release(now, out);
        match observation.body {
            EventBody::ConnectionOpen(ref connection) => {
                let cookie = connection.cookie;
                if self.opens.len() >= OPENS_MAX || self.due.len() >= 2 * OPENS_MAX {
                    out.kept.push(observation);
                } else if let Some(earlier) = self.opens.insert(cookie, observation) {
                    // Not a name for one connection, it seems.
                    out.kept.push(earlier);
                } else {
                    self.due.push_back((now + HOLD, cookie));
                }
            }
            EventBody::ConnectionClose(close) => {
                let open = self.opens.remove(&close.connection.cookie);
                self.take_close(open, observation.time, observation.origin, close, now, out);
            }
            _ => out.kept.push(observation),
        }
    }

    fn take_close(
        &mut self,
        open: Option<Observation>,
        time: Timestamp,
        origin: Origin,
        close: Box<ConnectionClose>,
        now: Instant,
        out: &mut Shaped,
    ) {
        let is_short = close.duration_ns.is_some_and(|duration| u128::from(duration) <= HOLD.as_nanos());
        let kind = kind_of(&close);
        let known = self.kinds.get_mut(&kind);
        let Some(sum) = known.filter(|_| is_short || open.is_some()) else {
            if is_short && self.kinds.len() < KINDS_MAX {
                self.kinds.entry(kind).or_insert(None);
                self.window_end.get_or_insert(now + WINDOW);
            }
            out.kept.extend(open);
            out.kept.push(Observation { time, origin, body: EventBody::ConnectionClose(close) });
            return;
        };
        let observations = 1 + u64::from(open.is_some());
        match sum {
            Some(sum) => sum.add(time, &close, observations),
            None => {
                *sum = Some(Sum { time, origin, summary: ConnectionSummary { close: *close, count: 1 }, observations })
            }
        }
    }

    /// Gives out what has waited long enough.
    pub(super) fn release(&mut self, now: Instant, out: &mut Shaped) {
        while let Some((due, cookie)) = self.due.front().copied()
            && (due <= now || !self.opens.contains_key(&cookie))
        {
            self.due.pop_front();
            out.kept.extend(self.opens.remove(&cookie));
        }
        if self.window_end.is_some_and(|end| end <= now) {
            self.close_window(out);
        }
    }

    /// Gives out everything.
    pub(super) fn finish(&mut self, out: &mut Shaped) {
        for (_, cookie) in self.due.drain(..) {
            out.kept.extend(self.opens.remove(&cookie));
        }
        self.close_window(out);
    }

    fn close_window(&mut self, out: &mut Shaped) {
        self.window_end = None;
        for sum in std::mem::take(&mut self.kinds).into_values().flatten() {
            out.left_out += sum.observations - 1;
            let Sum { time, origin, summary, .. } = sum;
            let body = if summary.count == 1 {
                EventBody::ConnectionClose(Box::new(summary.close))
            } else {
                EventBody::ConnectionSummary(Box::new(summary))
            };
            out.kept.push(Observation { time, origin, body });
        }
    }
}

impl Sum {
    fn add(&mut self, time: Timestamp, close: &ConnectionClose, observations: u64) {
        let add_64 = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            _ => None,
        };
        let add_32 = |sum: Option<u32>, more: Option<u32>| match (sum, more) {
            (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
            _ => None,
        };
        self.time = time;
        self.observations += observations;
        self.summary.count += 1;
        let total = &mut self.summary.close;
        if total.connection.process != close.connection.process {
            total.connection.process = None;
        }
        total.connection.cookie = close.connection.cookie;
        (total.connection.local, total.connection.remote) = (close.connection.local, close.connection.remote);
        total.bytes_sent = add_64(total.bytes_sent, close.bytes_sent);
        total.bytes_received = add_64(total.bytes_received, close.bytes_received);
        total.segments_sent = add_32(total.segments_sent, close.segments_sent);
        total.segments_received = add_32(total.segments_received, close.segments_received);
        total.duration_ns = add_64(total.duration_ns, close.duration_ns);
    }
}

fn kind_of(close: &ConnectionClose) -> Kind {
    let Connection { protocol, direction, local, remote, ref executable, user_id, .. } = close.connection;
    let service_port = match direction {
        Direction::Outbound => remote.port(),
        Direction::Inbound => local.port(),
        Direction::Unknown => local.port().min(remote.port()),
    };
    Kind {
        protocol,
        direction,
        local: local.ip(),
        remote: remote.ip(),
        service_port,
        executable: executable.clone(),
        user_id,
        outcome: close.outcome,
    }
}
