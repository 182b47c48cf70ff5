//! Sockets, TLS and their limits.
//!
//! One accept loop per listener, one task per connection: TLS handshake (with a time limit), then HTTP/2 with every
//! limit set here. tonic's own server is not used: it would leave the accept loop on its own, never asks a connection
//! to end before its maximum age is over, and its connections cannot be closed from outside.
//!
//! * No failed handshake, broken connection or `accept` error ends the loop; running out of file descriptors makes it
//!   wait.
//! * A connection is asked to end (GOAWAY, and [`Connection::draining`] for its streams) when the server stops or the
//!   connection is old, and is cut some time later. Revoking a host cuts its connections at once.
//! * A connection without streams is closed after a while: nobody holds the server's places for nothing.
//! * Requests carry a [`Connection`] as an extension: who the peer is, by its certificate.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

pub use crate::listener::connection::Connection;
pub use crate::listener::hosts::HostConnections;
pub use crate::listener::tls::{TlsError, admin_tls, agent_tls};

mod connection;
mod hosts;
#[cfg(test)]
mod tests;
mod tls;

/// Connections one host may have at a time: the old one may not have been noticed to be dead when a new one comes.
pub const HOST_CONNECTIONS_MAX: usize = 2;
/// How long to wait before the next `accept` when the system is out of file descriptors or memory.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(200);

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// The TLS handshake.
    pub handshake: Duration,
    /// All of its life, if its peer could show a host's certificate and shows none: long enough to enrol.
    pub anonymous: Duration,
    /// Without any stream.
    pub idle: Duration,
    /// To end once it was asked to.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            anonymous: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
        }
    }
}

/// What makes one listener different from another.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// For logs.
    pub name: &'static str,
    /// Connections at a time in all; further ones wait in the system's queue.
    pub connections_max: usize,
    /// Streams at a time in a connection.
    pub streams_max: u32,
    /// How long a connection may live, ± 10 %. `None`: without end.
    pub connection_age: Option<Duration>,
    /// How long a connection may take for what.
    pub timeouts: Timeouts,
    /// Where the connections of each host are counted; `None` where peers have no certificates.
    pub hosts: Option<Arc<HostConnections>>,
}

/// A bound socket that answers once [`Listener::serve`] runs.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    config: ListenerConfig,
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({name}): {source}{}", self.advice())]
pub struct BindError {
    name: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// Whether another process has the port.
    pub fn is_address_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    fn advice(&self) -> &'static str {
        if self.is_address_in_use() { ": another process has this port; stop it or choose another address" } else { "" }
    }
}

/// Where connections come from.
trait Accept {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)>;
}

impl Accept for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

impl Listener {
    /// Binds the address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr, config: ListenerConfig) -> Result<Self, BindError> {
        let error = |source| BindError { name: config.name, address, source };
        let socket = TcpListener::bind(address).await.map_err(error)?;
        let address = socket.local_addr().map_err(error)?;
        Ok(Self { socket, address, config })
    }

    /// The address, with the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until stopped; returns when the socket is closed and every connection and stream has ended.
    pub async fn serve(self, tls: Arc<ServerConfig>, routes: Routes, stop: CancellationToken) {
        tracing::info!(listener = self.config.name, address = %self.address, "listening");
        let tasks = TaskTracker::new();
        let template = connection::Template::new(self.config.clone(), tls, routes.prepare(), tasks.clone());
        accept_loop(self.socket, self.config.connections_max, template, &stop).await;
        tasks.close();
        tasks.wait().await;
    }
}

async fn accept_loop(
    socket: impl Accept,
    connections_max: usize,
    template: connection::Template,
    stop: &CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(connections_max));
    let next = async || -> Result<(), Infallible> {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return std::future::pending().await };
            match socket.accept().await {
                Ok((stream, address)) => template.spawn(stream, address, slot, stop.child_token()),
                Err(error) => {
                    drop(slot);
                    if let Some(pause) = pause_after(&error) {
                        tracing::warn!(%error, "cannot accept connections");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    };
    stop.run_until_cancelled(next()).await;
}

/// How long to wait after a failed `accept`. `None`: that connection was at fault, the next one may be fine.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted => None,
        _ => Some(ACCEPT_BACK_OFF),
    }
}
