//! One connection to the server: TCP, TLS 1.3, HTTP/2 with every limit said.

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::identity::SERVER_NAME;
use crate::uplink::channel::pace::{Pace, Paced};
use crate::uplink::channel::witness::{Witness, Witnessed};

pub(crate) mod pace;
mod witness;

/// TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before it counts as dead, where nobody says otherwise.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// What the server may have in flight towards the agent: acknowledgements, desired states, chunks of a model.
const WINDOW_BYTES: u32 = 256 * 1024;
/// Largest header list the agent reads.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not `host:port`.
    #[error("{address:?} is not a server address: expected host:port")]
    Address {
        /// What it was.
        address: String,
    },
    /// TCP, TLS or HTTP/2 failed.
    #[error("{0}")]
    Transport(String),
}

/// How a connection behaves.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// How fast it sends.
    pub(crate) pace: Pace,
    /// How long nothing may come until it ends: its peer may have gone without a word. After two thirds of that the peer is
    /// asked for a sign of life.
    pub(crate) silence_max: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { pace: Pace::default(), silence_max: SILENCE_MAX }
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// For calls.
    pub(crate) channel: Channel,
    /// What became of the handshake.
    pub(crate) witness: Witness,
}

/// Connects to `address` (`host:port`). Whether the server takes this host's certificate shows only later:
/// [`Witness::refusal`].
pub(crate) async fn connect(
    address: &str,
    config: Arc<ClientConfig>,
    terms: Terms,
) -> Result<Connection, ConnectError> {
    let is_address =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let bad_address = || ConnectError::Address { address: address.to_owned() };
    if !is_address {
        return Err(bad_address());
    }
    let Terms { pace, silence_max } = terms;
    let witness = Witness::default();
    let tls = TlsConnector::from(config);
    let connector = Connector { address: address.into(), tls, witness: witness.clone(), pace };
    // The authority that requests carry is the name in the certificate; where to connect is the connector's business.
    let endpoint = Endpoint::from_shared(format!("http://{SERVER_NAME}"))
        .map_err(|_| bad_address())?
        .http2_keep_alive_interval(silence_max * 2 / 3)
        .keep_alive_timeout(silence_max / 3)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX);
    match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(Connection { channel, witness }),
        Ok(Err(error)) => Err(ConnectError::Transport(innermost(&error))),
        Err(_) => Err(ConnectError::Transport(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// The cause of the cause: tonic's own words say only "transport error".
fn innermost(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    tls: TlsConnector,
    witness: Witness,
    pace: Pace,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Witnessed<TlsStream<Paced<TcpStream>>>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls, witness, pace } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            stream.set_nodelay(true)?;
            let stream = Paced::new(stream, pace);
            let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
            Ok(TokioIo::new(Witnessed::new(tls.connect(name, stream).await?, witness)))
        })
    }
}
