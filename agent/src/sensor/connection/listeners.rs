//! The listening sockets: they tell who began a connection, and who accepts it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

use picket_common::event::{ByteString, Connection, Direction, Protocol, Timestamp};

use crate::enrich::socket_owner::Owner;
use crate::sensor::connection::owner_search::OwnerSearch;
use crate::sensor::connection::sock_diag::DiagSocket;

/// Most listening sockets known at once; those beyond are not known to listen.
const LISTENERS_MAX: usize = 4096;

/// How often the owner of a new one is waited for before it is told of without.
const OWNER_WAITS_MAX: u8 = 3;
/// No user has this id; the kernel uses it for "none".
const UNKNOWN_USER: u32 = u32::MAX;

/// The listening sockets, by cookie and by port.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_cookie: HashMap<u64, Listener>,
    by_port: HashMap<u16, Vec<u64>>,
    /// Those that were not told of yet, and how often their owner was waited for.
    new: Vec<(u64, u8)>,
}

#[derive(Debug)]
struct Listener {
    local: SocketAddr,
    network: u32,
    owner: OwnerSearch,
    seen_in_look: u64,
    first_seen: Timestamp,
    user_id: u32,
    cgroup_id: Option<NonZeroU64>,
}

impl Listeners {
    /// Takes in a listening socket; says whether its owner can be looked for now and could not before.
    pub(super) fn see(&mut self, socket: &DiagSocket, look: u64, time: Timestamp) -> bool {
        if self.by_cookie.len() >= LISTENERS_MAX && !self.by_cookie.contains_key(&socket.cookie) {
            return false;
        }
        let (by_port, new) = (&mut self.by_port, &mut self.new);
        let listener = self.by_cookie.entry(socket.cookie).or_insert_with(|| {
            by_port.entry(socket.local.port()).or_default().push(socket.cookie);
            new.push((socket.cookie, 0));
            let DiagSocket { local, network, user_id, cgroup_id, .. } = *socket;
            let owner = OwnerSearch::default();
            Listener { local, network, owner, seen_in_look: look, first_seen: time, user_id, cgroup_id }
        });
        listener.seen_in_look = look;
        listener.owner.learn_inode(socket.inode)
    }

    /// Those that were not told of yet: as soon as their owner is known, or was waited for often enough.
    pub(super) fn take_new(&mut self) -> Vec<(Timestamp, Connection)> {
        let (by_cookie, mut told) = (&self.by_cookie, Vec::new());
        self.new.retain_mut(|(cookie, waits)| {
            let Some(listener) = by_cookie.get(cookie) else { return false };
            *waits += 1;
            let is_ready = listener.owner.owner().is_some() || *waits >= OWNER_WAITS_MAX;
            if is_ready {
                told.push((listener.first_seen, listener.connection(*cookie)));
            }
            !is_ready
        });
        told
    }

    /// Whether there are some that were not told of yet.
    pub(super) fn has_new(&self) -> bool {
        !self.new.is_empty()
    }

    /// Forgets a socket.
    pub(super) fn remove(&mut self, cookie: u64) {
        let Some(listener) = self.by_cookie.remove(&cookie) else { return };
        let port = listener.local.port();
        if let Some(cookies) = self.by_port.get_mut(&port) {
            cookies.retain(|&other| other != cookie);
            if cookies.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }

    /// Forgets the sockets that were not seen in a look or later.
    pub(super) fn retain_seen(&mut self, look: u64) {
        let gone = self.by_cookie.iter().filter(|(_, listener)| listener.seen_in_look < look);
        for cookie in gone.map(|(&cookie, _)| cookie).collect::<Vec<_>>() {
            self.remove(cookie);
        }
    }

    /// Whether connections to an address are accepted here.
    pub(super) fn accept(&self, local: SocketAddr, network: u32) -> bool {
        self.find(local, network).is_some()
    }

    /// Who accepts connections to an address, as far as known.
    pub(super) fn owner(&self, local: SocketAddr, network: u32) -> Option<&Owner> {
        self.find(local, network)?.owner.owner()
    }

    /// The search for the owner of a socket.
    pub(super) fn search_mut(&mut self, cookie: u64) -> Option<&mut OwnerSearch> {
        self.by_cookie.get_mut(&cookie).map(|listener| &mut listener.owner)
    }

    fn find(&self, local: SocketAddr, network: u32) -> Option<&Listener> {
        let listeners = self.by_port.get(&local.port())?.iter().filter_map(|cookie| self.by_cookie.get(cookie));
        let mut accepting = listeners.filter(|listener| {
            let address = listener.local.ip();
            listener.network == network && (address.is_unspecified() || address == local.ip())
        });
        let first = accepting.next()?;
        // Of several on one port (`SO_REUSEPORT`), one whose owner is known.
        if first.owner.owner().is_some() {
            return Some(first);
        }
        Some(accepting.find(|listener| listener.owner.owner().is_some()).unwrap_or(first))
    }
}

impl Listener {
    /// As what it is waiting for: its other end is nobody yet.
    fn connection(&self, cookie: u64) -> Connection {
        let nobody: IpAddr = match self.local.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let owner = self.owner.owner();
        Connection {
            cookie,
            protocol: Protocol::Tcp,
            direction: Direction::Inbound,
            local: self.local,
            remote: SocketAddr::new(nobody, 0),
            process: owner.map(|owner| owner.process),
            executable: owner.map(|owner| ByteString::from(&owner.executable[..])).unwrap_or_default(),
            user_id: (self.user_id != UNKNOWN_USER).then_some(self.user_id),
            cgroup_id: self.cgroup_id,
        }
    }
}
