//! The listening sockets: they tell who began a connection, and who accepts it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::enrich::socket_owner::Owner;
use crate::sensor::connection::owner_search::OwnerSearch;
use crate::sensor::connection::sock_diag::DiagSocket;

/// Most listening sockets known at once; those beyond are not known to listen.
const LISTENERS_MAX: usize = 4096;

/// The listening sockets, by cookie and by port.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    by_cookie: HashMap<u64, Listener>,
    by_port: HashMap<u16, Vec<u64>>,
}

#[derive(Debug)]
struct Listener {
    local: SocketAddr,
    network: u32,
    owner: OwnerSearch,
    seen_in_look: u64,
}

impl Listeners {
    /// Takes in a listening socket; says whether its owner can be looked for now and could not before.
    pub(super) fn see(&mut self, socket: &DiagSocket, look: u64) -> bool {
        if self.by_cookie.len() >= LISTENERS_MAX && !self.by_cookie.contains_key(&socket.cookie) {
            return false;
        }
        let by_port = &mut self.by_port;
        let listener = self.by_cookie.entry(socket.cookie).or_insert_with(|| {
            by_port.entry(socket.local.port()).or_default().push(socket.cookie);
            let DiagSocket { local, network, .. } = *socket;
            Listener { local, network, owner: OwnerSearch::default(), seen_in_look: look }
        });
        listener.seen_in_look = look;
        listener.owner.learn_inode(socket.inode)
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
