//! The connection to the admin API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use picket_proto::v1::admin_service_client::AdminServiceClient;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use crate::ctl::arguments::Arguments;
use crate::ctl::error::CtlError;

/// The name in every server certificate.
const SERVER_NAME: &str = "picket-server";
/// Port of the admin API when the address has none.
const DEFAULT_PORT: u16 = 8445;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer: a model file of 12 MiB fits.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Largest file of an API token.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// The admin API.
pub(crate) type Client = AdminServiceClient<InterceptedService<Channel, BearerToken>>;

/// Puts the API token on every call.
#[derive(Clone)]
pub(crate) struct BearerToken(MetadataValue<Ascii>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects as the arguments say.
pub(crate) async fn connect(arguments: &Arguments) -> Result<Client, CtlError> {
    let unset = |what, flag, variable| CtlError::Unset { what, flag, variable };
    let address =
        arguments.server.as_deref().ok_or_else(|| unset("the server's address", "--server", "PICKET_SERVER"))?;
    let ca = arguments.ca.as_deref().ok_or_else(|| unset("the server's CA", "--ca", "PICKET_CA"))?;
    let token_file =
        arguments.token_file.as_deref().ok_or_else(|| unset("the API token", "--token-file", "PICKET_TOKEN_FILE"))?;
    let tls = tls_connector(ca)?;
    let bearer = read_token(token_file)?;
    let target = with_port(address);

    // Done by hand first: tonic's connector would fold every reason into "transport error".
    let attempt = tokio::time::timeout(CONNECT_TIMEOUT, open(target.clone(), tls.clone())).await;
    let stream = attempt.map_err(|_| CtlError::Unreachable {
        address: address.to_owned(),
        reason: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
    })??;
    let endpoint = Endpoint::from_shared(format!("http://{target}"))
        .map_err(|error| CtlError::Address { address: address.to_owned(), reason: error.to_string() })?;
    let first = Arc::new(parking_lot::Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let (first, tls, target) = (first.clone(), tls.clone(), target.clone());
        async move {
            let ready = first.lock().take();
            match ready {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => {
                    open(target, tls).await.map(TokioIo::new).map_err(|error| std::io::Error::other(error.to_string()))
                }
            }
        }
    });
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| CtlError::Unreachable { address: address.to_owned(), reason: error.to_string() })?;
    Ok(AdminServiceClient::with_interceptor(channel, bearer).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

fn with_port(address: &str) -> String {
    let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'))
    });
    if has_port { address.to_owned() } else { format!("{address}:{DEFAULT_PORT}") }
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

async fn open(target: String, tls: tokio_rustls::TlsConnector) -> Result<TlsStream, CtlError> {
    let unreachable =
        |error: std::io::Error| CtlError::Unreachable { address: target.clone(), reason: error.to_string() };
    let stream = TcpStream::connect(&target).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidInput => CtlError::Address { address: target.clone(), reason: error.to_string() },
        _ => unreachable(error),
    })?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let name = ServerName::try_from(SERVER_NAME)
        .map_err(|error| CtlError::Address { address: target.clone(), reason: error.to_string() })?;
    tls.connect(name, stream).await.map_err(|error| {
        let is_tls = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
        if is_tls {
            CtlError::Identity { address: target.clone(), reason: error.to_string() }
        } else {
            unreachable(error)
        }
    })
}

fn tls_connector(ca: &Path) -> Result<tokio_rustls::TlsConnector, CtlError> {
    let unusable = |reason: String| CtlError::Configuration { path: ca.to_owned(), reason };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

fn read_token(path: &Path) -> Result<BearerToken, CtlError> {
    let unusable = |reason: &str| CtlError::Configuration { path: path.to_owned(), reason: reason.to_owned() };
    let length = std::fs::metadata(path).map_err(|error| unusable(&error.to_string()))?.len();
    if length > TOKEN_FILE_BYTES_MAX {
        return Err(unusable("it is too long for an API token"));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| unusable(&error.to_string()))?);
    if text.trim().is_empty() {
        return Err(unusable("it is empty"));
    }
    let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
    let mut value: MetadataValue<Ascii> =
        bearer.parse().map_err(|_| unusable("there is no API token in it: it has characters that none has"))?;
    value.set_sensitive(true);
    Ok(BearerToken(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (given, expected) in [
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("localhost", "localhost:8445"),
            ("[::1]:9000", "[::1]:9000"),
            ("[::1]", "[::1]:8445"),
        ] {
            assert_eq!(with_port(given), expected);
        }
    }

    #[test]
    fn files_that_are_no_token_or_certificate_are_named() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        for content in ["", "  \n", "two\nlines", &"x".repeat(5000)] {
            std::fs::write(&path, content).unwrap();
            let error = read_token(&path).err().unwrap();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains("file"), "{error}");
            assert!(tls_connector(&path).is_err());
        }
        std::fs::write(&path, "picket_00\n").unwrap();
        assert!(read_token(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_token(&path).err().unwrap().exit_code(), 3);
    }
}
