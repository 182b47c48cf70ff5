//! One connection: TLS handshake, HTTP/2, end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::Service as _;

use crate::listener::ListenerConfig;
use crate::pki::PeerIdentity;
use crate::rate::TokenBucket;

/// Largest header list of a request, bytes.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// What a peer may send ahead on one stream before somebody reads it, bytes: one message of the largest size. All
/// streams of a connection together may twice as much.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for a peer without a certificate where peers have one: HTTP/2's own default, enough to enrol.
const ANONYMOUS_WINDOW_BYTES: u32 = 64 * 1024;
/// What is kept for a peer that does not read, per stream, bytes.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// How often a silent peer is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams a peer opened and reset at once that may wait to be looked at (rapid reset).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that may be reset for the peer's errors before the connection is closed.
const ERROR_RESETS_MAX: usize = 128;
/// What is still read of a peer whose handshake failed, bytes, and for how long.
const PARTING_BYTES_MAX: u64 = 64 * 1024;
const PARTING_TIME_MAX: Duration = Duration::from_secs(1);
/// Failed handshakes that are logged, a second and at once.
const HANDSHAKE_FAILURES_LOGGED_PER_SECOND: u64 = 1;
const HANDSHAKE_FAILURES_LOGGED_BURST: u64 = 10;

/// The connection behind a request, as an extension of it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The peer's address.
    pub address: SocketAddr,
    /// The peer, if it showed a host's certificate.
    pub peer: Option<PeerIdentity>,
    /// Cancel it to close this connection at once.
    pub cut: CancellationToken,
    /// Cancelled when streams are to end, because the server stops or the connection has become old.
    pub draining: CancellationToken,
}

/// What all connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Template {
    config: Arc<ListenerConfig>,
    tls: TlsAcceptor,
    routes: Routes,
    tasks: TaskTracker,
    failures_logged: Arc<Mutex<TokenBucket>>,
}

/// What a connection is allowed.
struct Terms {
    age: Option<Duration>,
    window_bytes: u32,
}

/// Runs the streams of one connection where the listener can wait for them, and counts them.
#[derive(Clone)]
struct Executor {
    tasks: TaskTracker,
    running: watch::Sender<usize>,
}

struct Running(watch::Sender<usize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.running.send_modify(|running| *running += 1);
        let running = Running(self.running.clone());
        self.tasks.spawn(async move {
            future.await;
            drop(running);
        });
    }
}

impl Template {
    pub(super) fn new(config: ListenerConfig, tls: Arc<ServerConfig>, routes: Routes, tasks: TaskTracker) -> Self {
        let failures_logged =
            TokenBucket::new(HANDSHAKE_FAILURES_LOGGED_PER_SECOND, HANDSHAKE_FAILURES_LOGGED_BURST, Instant::now());
        Self {
            config: Arc::new(config),
            tls: TlsAcceptor::from(tls),
            routes,
            tasks,
            failures_logged: Arc::new(Mutex::new(failures_logged)),
        }
    }

    /// Takes a connection over. `slot` is given back when it ends; `draining` asks it to.
    pub(super) fn spawn(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        slot: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) {
        let template = self.clone();
        self.tasks.spawn(async move {
            template.run(socket, address, draining).await;
            drop(slot);
        });
    }

    async fn run(self, socket: TcpStream, address: SocketAddr, draining: CancellationToken) {
        let listener = self.config.name;
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(listener, %address, %error, "cannot set TCP_NODELAY");
        }
        let accept = self.tls.accept(socket).into_fallible();
        let handshake = tokio::time::timeout(self.config.timeouts.handshake, accept);
        let tls = match draining.run_until_cancelled(handshake).await {
            Some(Ok(Ok(tls))) => tls,
            Some(Ok(Err((error, socket)))) => {
                self.log_failure(address, &error);
                draining.run_until_cancelled(part(socket)).await;
                return;
            }
            Some(Err(late)) => return self.log_failure(address, &late),
            None => return,
        };
        let peer = peer_identity(&tls);
        let slot = match (&self.config.hosts, &peer) {
            (Some(hosts), Some(peer)) => match hosts.enter(peer.host) {
                Some(slot) => Some(slot),
                None => return self.log_surplus(peer),
            },
            _ => None,
        };
        let cut = slot.as_ref().map_or_else(CancellationToken::new, |slot| slot.cut().clone());
        let terms = match (&self.config.hosts, &peer) {
            (Some(_), None) => {
                Terms { age: Some(self.config.timeouts.anonymous), window_bytes: ANONYMOUS_WINDOW_BYTES }
            }
            _ => Terms { age: self.config.connection_age.map(with_jitter), window_bytes: STREAM_WINDOW_BYTES },
        };
        let connection = Connection { address, peer, cut: cut.clone(), draining };
        cut.run_until_cancelled(self.serve(tls, connection, terms)).await;
    }

    /// Anybody can make handshakes fail, so not each of them is logged.
    fn log_failure(&self, address: SocketAddr, error: &dyn std::error::Error) {
        if self.failures_logged.lock().try_take(1, Instant::now()) {
            tracing::info!(listener = self.config.name, %address, %error, "TLS handshake failed");
        }
    }

    fn log_surplus(&self, peer: &PeerIdentity) {
        if self.failures_logged.lock().try_take(1, Instant::now()) {
            tracing::warn!(listener = self.config.name, host = %peer.host, "the host has too many connections");
        }
    }

    async fn serve(&self, tls: TlsStream<TcpStream>, connection: Connection, terms: Terms) {
        let draining = connection.draining.clone();
        let routes = self.routes.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(connection.clone());
            routes.clone().call(request)
        });
        let running = watch::Sender::new(0);
        let idle = idle(running.subscribe(), self.config.timeouts.idle);
        let executor = Executor { tasks: self.tasks.clone(), running };
        let http = http(executor, self.config.streams_max, terms.window_bytes);
        let mut serving = pin!(http.serve_connection(TokioIo::new(tls), service));
        let old = async {
            match terms.age {
                Some(age) => tokio::time::sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = serving.as_mut() => return report(ended),
            () = old => draining.cancel(),
            () = idle => {}
            () = draining.cancelled() => {}
        }
        serving.as_mut().graceful_shutdown();
        match tokio::time::timeout(self.config.timeouts.drain, serving).await {
            Ok(ended) => report(ended),
            Err(_) => tracing::debug!("a connection was cut: it did not end in time"),
        }
    }
}

fn http(executor: Executor, streams_max: u32, window_bytes: u32) -> http2::Builder<Executor> {
    let mut http = http2::Builder::new(executor);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(2 * window_bytes)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEP_ALIVE_PERIOD)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX);
    http
}

/// Ends a connection whose handshake failed so that the peer can read why: closed with bytes unread, it would be reset, and
/// the alert with it.
async fn part(mut socket: TcpStream) {
    let until_the_peer_ends = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut (&mut socket).take(PARTING_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // Late or broken: the peer does not want to know.
    tokio::time::timeout(PARTING_TIME_MAX, until_the_peer_ends).await.ok();
}

/// Ends when no stream has run for this long.
async fn idle(mut running: watch::Receiver<usize>, limit: Duration) {
    loop {
        // Fails only when the connection has ended, and this with it.
        if running.wait_for(|running| *running == 0).await.is_err() {
            return std::future::pending().await;
        }
        if tokio::time::timeout(limit, running.wait_for(|running| *running > 0)).await.is_err() {
            return;
        }
    }
}

fn peer_identity(tls: &TlsStream<TcpStream>) -> Option<PeerIdentity> {
    let (_, session) = tls.get_ref();
    let leaf = session.peer_certificates()?.first()?;
    let identity = PeerIdentity::from_certificate(leaf);
    if identity.is_none() {
        tracing::warn!("a client certificate of this server's authority names no host");
    }
    identity
}

fn report(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// ± 10 %, so that the agents of a fleet that came together do not come again together.
fn with_jitter(age: Duration) -> Duration {
    age.mul_f64(rand::random_range(0.9..=1.1))
}
