//! Alerts that repeat others: the first ones of a minute are written, the rest are counted.
//!
//! Two alerts are alike when subject, program, and for connections direction and remote address and the class of the
//! remote port are the same. The table is bounded; when it is full the one that has been quiet longest goes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use picket_common::event::{Connection, Direction, Event, EventBody, Timestamp};
use picket_common::feature::Subject;
use picket_common::id::{EventKey, HostId};
use serde_json::{Value, json};

use crate::detector::alert::rfc3339;

/// How long alike alerts are counted together, nanoseconds.
const WINDOW_NS: i64 = 60_000_000_000;
/// How often it is looked whose minute has passed, nanoseconds.
const SWEEP_NS: i64 = 1_000_000_000;
/// Most looks that are told apart.
const LOOKS_MAX: usize = 1_024;

/// What makes two alerts alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    subject: Subject,
    program: Vec<u8>,
    remote: Option<(Direction, IpAddr, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Timestamp,
    written: u32,
    suppressed: u64,
    last: EventKey,
    last_time: Timestamp,
}

/// What to do with an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Write,
    Suppress,
}

/// How many alike alerts were not written.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    look: Look,
    seen: Seen,
}

pub(crate) struct Repeats {
    written_max: u32,
    looks: BTreeMap<Look, Seen>,
    /// Looks that had to go before their minute was over.
    over: Vec<Summary>,
    swept: Timestamp,
}

impl Repeats {
    /// Writes `written_max` of each look and minute; 0: all.
    pub(crate) fn new(written_max: u32) -> Self {
        Self { written_max, looks: BTreeMap::new(), over: Vec::new(), swept: Timestamp(0) }
    }

    /// Another limit from the next alert on.
    pub(crate) fn set_written_max(&mut self, written_max: u32) {
        self.written_max = written_max;
    }

    pub(crate) fn decide(&mut self, subject: Subject, event: &Event, time: Timestamp) -> Decision {
        if self.written_max == 0 {
            return Decision::Write;
        }
        let look = look_of(subject, event);
        if !self.looks.contains_key(&look) {
            self.make_room();
        }
        let new = Seen { since: time, written: 0, suppressed: 0, last: event.key, last_time: time };
        let seen = self.looks.entry(look.clone()).or_insert(new);
        if time.0.saturating_sub(seen.since.0) > WINDOW_NS {
            let ended = std::mem::replace(seen, new);
            if ended.suppressed > 0 {
                self.over.push(Summary { look, seen: ended });
            }
        }
        (seen.last, seen.last_time) = (event.key, time);
        if seen.written < self.written_max {
            seen.written += 1;
            return Decision::Write;
        }
        seen.suppressed += 1;
        Decision::Suppress
    }

    /// What is over: looks whose minute has passed at `now`, or all of them at the end.
    pub(crate) fn take_over(&mut self, now: Timestamp, is_end: bool) -> Vec<Summary> {
        let mut over = std::mem::take(&mut self.over);
        if !is_end && now.0.saturating_sub(self.swept.0).abs() < SWEEP_NS {
            return over;
        }
        self.swept = now;
        self.looks.retain(|look, seen| {
            let keep = !is_end && now.0.saturating_sub(seen.since.0) <= WINDOW_NS;
            if !keep && seen.suppressed > 0 {
                over.push(Summary { look: look.clone(), seen: *seen });
            }
            keep
        });
        over
    }

    fn make_room(&mut self) {
        if self.looks.len() < LOOKS_MAX {
            return;
        }
        let quietest = self.looks.iter().min_by_key(|(_, seen)| seen.last_time).map(|(look, _)| look.clone());
        if let Some(look) = quietest
            && let Some(seen) = self.looks.remove(&look)
            && seen.suppressed > 0
        {
            self.over.push(Summary { look, seen });
        }
    }
}

fn look_of(subject: Subject, event: &Event) -> Look {
    let (program, remote) = match &event.body {
        EventBody::ProcessStart(start) => (start.executable.as_bytes().to_vec(), None),
        EventBody::ConnectionOpen(connection) => look_of_connection(connection),
        EventBody::ConnectionClose(close) => look_of_connection(&close.connection),
        _ => (Vec::new(), None),
    };
    Look { subject, program, remote }
}

fn look_of_connection(connection: &Connection) -> (Vec<u8>, Option<(Direction, IpAddr, bool)>) {
    let is_well_known = connection.remote.port() < 1_024;
    let remote = (connection.direction, connection.remote.ip(), is_well_known);
    (connection.executable.as_bytes().to_vec(), Some(remote))
}

impl Summary {
    /// One line of the alert file: how many alerts like those before it were not written, and the last of them.
    pub(crate) fn to_json(&self, host: Option<HostId>) -> Value {
        json!({
            "kind": "repeats",
            "time": rfc3339(self.seen.last_time),
            "time_unix_ns": self.seen.last_time.0,
            "host_id": host.map(|host| host.to_string()),
            "epoch": self.seen.last.epoch.0,
            "sequence": self.seen.last.sequence.0,
            "subject": self.look.subject.name(),
            "executable": picket_common::event::ByteString::truncated(&self.look.program).to_string(),
            "remote_address": self.look.remote.map(|(_, address, _)| address.to_string()),
            "suppressed": self.seen.suppressed,
            "since_unix_ns": self.seen.since.0,
        })
    }
}
