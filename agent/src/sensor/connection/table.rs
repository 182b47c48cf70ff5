//! The TCP connections of this host, by socket cookie.
//!
//! Invariants: a cookie is opened at most once and closed at most once, and never opened after it was closed; at most
//! [`ConnectionTable::CAPACITY`] connections, the oldest go first and are counted. No clock, no sockets: what is fed in decides what comes out.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU64;

use picket_common::event::{
    ByteString, Connection, ConnectionClose, ConnectionOutcome, Direction, EventBody, Protocol, Timestamp,
};

use crate::enrich::socket_owner::Owner;
use crate::sensor::connection::listeners::Listeners;
use crate::sensor::connection::owner_search::{OwnerSearch, Search};
use crate::sensor::connection::sock_diag::{DiagSocket, TcpInfo, TcpState};
use crate::sensor::connection::summary::{self, Summary};

/// No user has this id; the kernel uses it for "none".
const UNKNOWN_USER: u32 = u32::MAX;

/// The connections.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    capacity: usize,
    entries: HashMap<u64, Entry>,
    /// Every cookie once, oldest first; also some that are gone.
    order: VecDeque<u64>,
    listeners: Listeners,
    /// Cookies established and not opened yet.
    unopened: Vec<u64>,
    /// Cookies, also of listeners, whose owner is wanted.
    unowned: Vec<u64>,
    evictions: u64,
    look: u64,
    own: OwnConnections,
}

/// What the agent itself is: its own connections are not reported.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnConnections {
    /// The agent's process.
    pub(super) pid: Option<u32>,
    /// Where it connects to: failed attempts there of an unknown process are its own.
    pub(super) remotes: Vec<SocketAddr>,
    /// The only user whose open files it can see; `None`: everybody's.
    pub(super) visible_user: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    network: u32,
    direction: Direction,
    owner: OwnerSearch,
    user_id: u32,
    first_seen: Timestamp,
    /// Seen established.
    established: bool,
    /// Told to have been established.
    was_established: bool,
    opened: bool,
    seen_in_look: u64,
    /// As the last look showed it, where looks are all there is.
    info: Option<TcpInfo>,
    cgroup_id: Option<NonZeroU64>,
    /// How it ended, where that was told.
    outcome: Option<ConnectionOutcome>,
}

/// What is known of a connection from another source than the socket itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Witness {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) direction: Direction,
    pub(super) owner: Option<Owner>,
    /// When it was established, or begun if it never was.
    pub(super) time: Timestamp,
    pub(super) established: bool,
    /// How it ended, where that is told.
    pub(super) outcome: Option<ConnectionOutcome>,
}

impl ConnectionTable {
    /// Most connections known at once.
    pub(super) const CAPACITY: usize = 32_768;

    pub(super) fn new(own: OwnConnections) -> Self {
        Self::with_capacity(Self::CAPACITY, own)
    }

    fn with_capacity(capacity: usize, own: OwnConnections) -> Self {
        Self {
            capacity,
            entries: HashMap::new(),
            order: VecDeque::new(),
            listeners: Listeners::default(),
            unopened: Vec::new(),
            unowned: Vec::new(),
            evictions: 0,
            look: 0,
            own,
        }
    }

    /// Connections forgotten while alive because the table was full.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Whether a connection is known.
    pub(super) fn contains(&self, cookie: u64) -> bool {
        self.entries.contains_key(&cookie)
    }

    /// Begins a look at all sockets.
    pub(super) fn begin_look(&mut self) {
        self.look += 1;
    }

    /// The look that was begun last does not count.
    pub(super) fn take_back_look(&mut self) {
        self.look = self.look.saturating_sub(1);
    }

    /// A look shows a socket: where its connection is known, it has not ended. Others are not taken in: one that was
    /// forgotten would be opened again.
    pub(super) fn mark_alive(&mut self, cookie: u64) {
        if let Some(entry) = self.entries.get_mut(&cookie) {
            entry.seen_in_look = self.look;
        }
    }

    /// Takes in a socket as it is now.
    pub(super) fn see(&mut self, socket: &DiagSocket, time: Timestamp, witness: Option<Witness>) {
        if socket.state == TcpState::LISTEN {
            if self.listeners.see(socket, self.look, time) {
                self.unowned.push(socket.cookie);
            }
            return;
        }
        if socket.remote.port() == 0 {
            return;
        }
        let look = self.look;
        let known = self.entries.contains_key(&socket.cookie);
        let entry = self.entries.entry(socket.cookie).or_insert_with(|| Entry {
            local: socket.local,
            remote: socket.remote,
            network: socket.network,
            direction: Direction::Unknown,
            owner: OwnerSearch::default(),
            user_id: socket.user_id,
            first_seen: time,
            established: false,
            was_established: false,
            opened: false,
            seen_in_look: look,
            info: None,
            cgroup_id: socket.cgroup_id,
            outcome: None,
        });
        if let Some(witness) = witness {
            entry.hear(witness);
        }
        // Whose connection a listener accepts is known well enough to save the search.
        let is_accepted =
            entry.direction == Direction::Inbound && self.listeners.owner(socket.local, socket.network).is_some();
        let is_searchable = self.own.visible_user.is_none_or(|user| user == socket.user_id) && !is_accepted;
        entry.seen_in_look = look;
        entry.user_id = socket.user_id;
        entry.info = socket.info.or(entry.info);
        entry.cgroup_id = socket.cgroup_id.or(entry.cgroup_id);
        if entry.owner.learn_inode(socket.inode) && is_searchable {
            self.unowned.push(socket.cookie);
        }
        if socket.state.is_synchronized() && !entry.established {
            entry.established = true;
            // The socket may have been bound or routed only while it connected.
            (entry.local, entry.remote) = (socket.local, socket.remote);
            if !entry.opened {
                self.unopened.push(socket.cookie);
            }
        }
        if !known {
            self.order.push_back(socket.cookie);
            self.evict();
        }
    }

    /// The sockets whose owner is to be looked for now: inode to cookie. Each call counts as a look.
    pub(super) fn wanted_owners(&mut self) -> HashMap<u32, u64> {
        let mut wanted = HashMap::new();
        let mut unowned = std::mem::take(&mut self.unowned);
        unowned.retain(|cookie| {
            let search = self.search_mut(*cookie).map_or(Search::Over, OwnerSearch::next_search);
            if let Search::Now { inode } = search {
                wanted.insert(inode, *cookie);
            }
            search != Search::Over
        });
        self.unowned = unowned;
        wanted
    }

    /// The owner of a socket was found.
    pub(super) fn set_owner(&mut self, cookie: u64, owner: &Owner) {
        if let Some(search) = self.search_mut(cookie) {
            search.set_owner(owner);
        }
    }

    /// Whether [`Self::take_opened`] has something to give.
    pub(super) fn has_opened(&self) -> bool {
        !self.unopened.is_empty()
    }

    /// The connections established since this was last asked, as events with the time of their beginning.
    pub(super) fn take_opened(&mut self) -> Vec<(Timestamp, EventBody)> {
        let mut opened = Vec::new();
        for cookie in std::mem::take(&mut self.unopened) {
            let Some(entry) = self.entries.get(&cookie).filter(|entry| !entry.opened) else { continue };
            let connection = self.connection(cookie, entry);
            let (own, first_seen) = (self.is_own(&connection), entry.first_seen);
            if let Some(entry) = self.entries.get_mut(&cookie) {
                entry.opened = true;
                entry.direction = connection.direction;
            }
            if !own {
                opened.push((first_seen, EventBody::ConnectionOpen(Box::new(connection))));
            }
        }
        opened
    }

    /// Whether there are sockets that listen and were not told of yet.
    pub(super) fn has_listeners_to_tell(&self) -> bool {
        self.listeners.has_new()
    }

    /// The sockets that listen since this was last asked, as events with the time they were first seen. One whose owner
    /// is looked for is told a few calls later at most.
    pub(super) fn take_listening(&mut self) -> Vec<(Timestamp, EventBody)> {
        let listening = self.listeners.take_new();
        let reported = listening.into_iter().filter(|(_, connection)| !self.is_own(connection));
        reported.map(|(time, connection)| (time, EventBody::ConnectionListen(Box::new(connection)))).collect()
    }

    /// A socket was destroyed. Gives the event of its end, unless it was no connection or one of the agent's own.
    pub(super) fn destroy(
        &mut self,
        socket: &DiagSocket,
        time: Timestamp,
        witness: Option<Witness>,
    ) -> Option<ConnectionClose> {
        self.listeners.remove(socket.cookie);
        let known = self.entries.remove(&socket.cookie);
        if known.is_none() && witness.is_none() && socket.remote.ip().is_unspecified() {
            return None;
        }
        let is_reset = socket.remote.port() == 0;
        let mut entry = known.unwrap_or_else(|| self.entry_of_destroyed(socket, time));
        if let Some(witness) = witness {
            entry.hear(witness);
        }
        let connection = self.connection(socket.cookie, &entry);
        if self.is_own(&connection) {
            return None;
        }
        let mut summary = summary::summarize(socket.info.as_ref(), connection.direction, is_reset);
        if entry.established || entry.was_established {
            summary.outcome = ConnectionOutcome::Closed;
        }
        summary.outcome = entry.outcome.unwrap_or(summary.outcome);
        if summary.outcome.is_failure() && self.is_own_attempt(&connection) {
            return None;
        }
        if entry.first_seen < time {
            let since_first_seen = u64::try_from(time.0 - entry.first_seen.0).ok();
            // A look comes late; what the counters say is from the establishment on.
            summary.duration_ns = summary.duration_ns.max(since_first_seen);
        }
        Some(close(connection, &summary))
    }

    /// The connections of the agent's own network namespace that the last `looks` looks did not show, where nothing else
    /// has told of their ends.
    pub(super) fn take_missing(&mut self, looks: u64, time: Timestamp) -> Vec<ConnectionClose> {
        let seen_at_least_in = self.look.saturating_sub(looks.saturating_sub(1));
        let is_missing = |entry: &Entry| entry.seen_in_look < seen_at_least_in && entry.network == 0;
        let missing: Vec<_> = self.entries.extract_if(|_, entry| is_missing(entry)).collect();
        let mut ended = Vec::new();
        for (cookie, entry) in missing {
            let connection = self.connection(cookie, &entry);
            if self.is_own(&connection) {
                continue;
            }
            let mut summary = summary::summarize(entry.info.as_ref(), connection.direction, false);
            summary.outcome = if entry.established { ConnectionOutcome::Closed } else { ConnectionOutcome::Unknown };
            summary.duration_ns = u64::try_from(time.0.saturating_sub(entry.first_seen.0)).ok();
            ended.push(close(connection, &summary));
        }
        ended
    }

    /// Forgets the listeners that the last look did not show.
    pub(super) fn forget_missing_listeners(&mut self) {
        self.listeners.retain_seen(self.look);
    }

    /// Forgets what the last look did not show, after messages about ends were lost.
    pub(super) fn forget_lost(&mut self) {
        self.forget_missing_listeners();
        self.entries.retain(|_, entry| entry.seen_in_look >= self.look);
    }

    fn entry_of_destroyed(&self, socket: &DiagSocket, time: Timestamp) -> Entry {
        Entry {
            local: socket.local,
            remote: socket.remote,
            network: socket.network,
            direction: socket.info.as_ref().and_then(summary::direction).unwrap_or(Direction::Unknown),
            owner: OwnerSearch::default(),
            user_id: UNKNOWN_USER,
            first_seen: time,
            established: false,
            was_established: false,
            opened: false,
            seen_in_look: self.look,
            info: None,
            cgroup_id: socket.cgroup_id,
            outcome: None,
        }
    }

    fn connection(&self, cookie: u64, entry: &Entry) -> Connection {
        let direction = match entry.direction {
            Direction::Unknown if self.listeners.accept(entry.local, entry.network) => Direction::Inbound,
            Direction::Unknown => Direction::Outbound,
            known => known,
        };
        // Who listens is who accepts, as long as nothing better is known.
        let accepting = || self.listeners.owner(entry.local, entry.network).filter(|_| direction == Direction::Inbound);
        let owner = entry.owner.owner().or_else(accepting);
        Connection {
            cookie,
            protocol: Protocol::Tcp,
            direction,
            local: entry.local,
            remote: entry.remote,
            process: owner.map(|owner| owner.process),
            executable: owner.map(|owner| ByteString::from(&owner.executable[..])).unwrap_or_default(),
            user_id: (entry.user_id != UNKNOWN_USER).then_some(entry.user_id),
            cgroup_id: entry.cgroup_id,
        }
    }

    fn is_own(&self, connection: &Connection) -> bool {
        connection.process.is_some_and(|process| Some(process.pid) == self.own.pid)
    }

    fn is_own_attempt(&self, connection: &Connection) -> bool {
        connection.process.is_none() && self.own.remotes.contains(&connection.remote)
    }

    fn search_mut(&mut self, cookie: u64) -> Option<&mut OwnerSearch> {
        match self.entries.get_mut(&cookie) {
            Some(entry) => Some(&mut entry.owner),
            None => self.listeners.search_mut(cookie),
        }
    }

    fn evict(&mut self) {
        while self.entries.len() > self.capacity {
            let Some(oldest) = self.order.pop_front() else { break };
            self.evictions += u64::from(self.entries.remove(&oldest).is_some());
        }
        if self.order.len() > 2 * self.capacity.max(1024) {
            let entries = &self.entries;
            self.order.retain(|cookie| entries.contains_key(cookie));
        }
    }
}

impl Entry {
    /// Takes over what a witness knows better, as far as it was not reported otherwise already.
    fn hear(&mut self, witness: Witness) {
        if self.owner.owner().is_none()
            && let Some(owner) = &witness.owner
        {
            self.owner.set_owner(owner);
        }
        if !self.opened {
            (self.local, self.remote) = (witness.local, witness.remote);
            self.direction = witness.direction;
            self.first_seen = self.first_seen.min(witness.time);
        }
        self.was_established |= witness.established;
        self.outcome = witness.outcome.or(self.outcome);
    }
}

fn close(connection: Connection, summary: &Summary) -> ConnectionClose {
    ConnectionClose {
        connection,
        bytes_sent: summary.bytes_sent,
        bytes_received: summary.bytes_received,
        segments_sent: summary.segments_sent,
        segments_received: summary.segments_received,
        duration_ns: summary.duration_ns,
        outcome: summary.outcome,
    }
}

#[cfg(test)]
mod tests;
