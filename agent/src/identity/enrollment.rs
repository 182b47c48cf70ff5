//! Getting an identity, and getting the next one.

use std::time::Duration;

use picket_common::id::HostId;
use picket_proto::v1;
use picket_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityError, IdentityParts, JoinToken, key, tls};
use crate::uplink::channel::{self, ConnectError, Terms};
use crate::uplink::inventory;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer: a certificate, a few trust anchors and keys.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why the host has no (new) identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The server is not the one the join token was made for.
    #[error(
        "the server at {address} is not the one this join token was made for (its CA certificate has another \
         SHA-256): check the address, or ask for a new token"
    )]
    OtherServer {
        /// The address.
        address: String,
    },
    /// The server does not know the token, or not any more.
    #[error("the server refused the join token: it is unknown, expired, used up or revoked; ask for a new one")]
    TokenRefused,
    /// The server does not let this host renew.
    #[error("the server refused to renew this host's certificate ({reason}): enrol it again with a new join token")]
    RenewalRefused {
        /// What it said.
        reason: String,
    },
    /// The server could not be reached.
    #[error("cannot reach the server at {address}: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server answered with something else.
    #[error("the server could not do it: {reason}")]
    Server {
        /// What it said.
        reason: String,
    },
    /// The key could not be made, or what came back does not fit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Makes a key, shows the token to the server at `address` (`host:port`), and returns the identity it gave. Nothing is
/// stored.
///
/// # Errors
/// [`EnrollError`].
pub async fn enroll(address: &str, token: &JoinToken) -> Result<Identity, EnrollError> {
    let (config, mismatch) = tls::pinned(token.authority())?;
    let channel = match channel::connect(address, config, Terms::default()).await {
        Ok(connection) => connection.channel,
        Err(_) if *mismatch.lock() => return Err(EnrollError::OtherServer { address: address.to_owned() }),
        Err(error) => return Err(unreachable(address, &error)),
    };
    let new = key::generate()?;
    let request = v1::EnrollRequest {
        join_token: token.credential().to_owned(),
        certificate_signing_request_der: new.request,
        inventory: Some(inventory::collect()),
    };
    let answer = within(address, client(channel).enroll(request)).await?.map_err(|status| match status.code() {
        Code::Unauthenticated => EnrollError::TokenRefused,
        _ => refused(address, &status),
    })?;
    identity(answer.into_inner().identity, address.to_owned(), new.key, None)
}

/// Gets a certificate for a new key, over a connection that uses the present one. Nothing is stored.
///
/// # Errors
/// [`EnrollError`].
pub async fn renew(present: &Identity, channel: Channel) -> Result<Identity, EnrollError> {
    let new = key::generate()?;
    let request = v1::RenewRequest { certificate_signing_request_der: new.request };
    let answer =
        within(&present.server, client(channel).renew(request)).await?.map_err(|status| match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                EnrollError::RenewalRefused { reason: status.message().to_owned() }
            }
            _ => refused(&present.server, &status),
        })?;
    identity(answer.into_inner().identity, present.server.clone(), new.key, Some(present.host_id))
}

fn client(channel: Channel) -> EnrollmentServiceClient<Channel> {
    EnrollmentServiceClient::new(channel)
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX)
}

async fn within<T>(address: &str, call: impl Future<Output = T>) -> Result<T, EnrollError> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(|_| EnrollError::Unreachable {
        address: address.to_owned(),
        reason: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
    })
}

fn identity(
    answer: Option<v1::Identity>,
    server: String,
    key: Zeroizing<Vec<u8>>,
    expected: Option<HostId>,
) -> Result<Identity, EnrollError> {
    let answer = answer.ok_or_else(|| IdentityError::new("the server sent none"))?;
    let identity = Identity::from_parts(IdentityParts {
        host_id: answer.host_id,
        server,
        certificate: answer.certificate_der,
        key,
        trust_bundle: answer.trust_bundle_der,
        model_verifying_keys: answer.model_verifying_keys,
    })?;
    if expected.is_some_and(|host| host != identity.host_id) {
        return Err(IdentityError::new("the server sent another host's certificate").into());
    }
    // It must be usable for TLS before it replaces one that is.
    tls::mutual(&identity)?;
    Ok(identity)
}

fn refused(address: &str, status: &tonic::Status) -> EnrollError {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => {
            EnrollError::Unreachable { address: address.to_owned(), reason: status.message().to_owned() }
        }
        _ => EnrollError::Server { reason: format!("{:?}: {}", status.code(), status.message()) },
    }
}

fn unreachable(address: &str, error: &ConnectError) -> EnrollError {
    EnrollError::Unreachable { address: address.to_owned(), reason: error.to_string() }
}
