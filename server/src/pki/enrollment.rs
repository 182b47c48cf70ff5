//! Letting hosts in and renewing their certificates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use picket_common::id::{Digest, HostId};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::fleet::HostInventory;
use crate::metastore::{
    EnrollError, HostStore as _, JoinTokenStore as _, Metastore, MetastoreError, NewHost, NewJoinToken,
};
use crate::pki::{Authorities, HostKey, JoinToken, PkiError, RequestError};
use crate::rate::TokenBucket;
use crate::secret::{self, SecretError};

/// Enrolments a second in all; what guessing tokens is held to.
pub const ENROLMENTS_PER_SECOND: u64 = 20;
/// Longest life of a join token.
pub const JOIN_TOKEN_LIFE_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Life of a join token that does not say.
pub const JOIN_TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(3_600);
/// Most hosts one join token lets in.
pub const JOIN_TOKEN_USES_MAX: u32 = 100_000;

/// What enrolment depends on.
#[derive(Clone, Debug)]
pub struct EnrollmentConfig {
    /// How long a host's certificate is valid.
    pub host_certificate_life: Duration,
    /// Ed25519 public keys that may sign models, told to each host.
    pub model_verifying_keys: Vec<[u8; 32]>,
}

/// Issues join tokens, and certificates to hosts.
pub struct Enrollment {
    authorities: Arc<Authorities>,
    metastore: Metastore,
    config: EnrollmentConfig,
    rate: Mutex<TokenBucket>,
}

/// A join token for somebody to carry to hosts.
#[derive(Debug)]
pub struct IssuedJoinToken {
    /// `<id>.<secret>.<pin>`; shown once.
    pub text: Zeroizing<String>,
    /// From when on it is refused.
    pub expires: UnixSeconds,
}

/// What a host gets.
#[derive(Clone, Debug)]
pub struct IssuedIdentity {
    /// Its identity.
    pub host: HostId,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
    /// What it may trust to have issued the server's certificate.
    pub trust_bundle: Vec<CertificateDer<'static>>,
    /// What it may trust to have signed a model.
    pub model_verifying_keys: Vec<[u8; 32]>,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentError {
    /// Unknown, expired, used up, revoked or malformed: whoever guesses learns nothing from the answer.
    #[error("the join token is not valid")]
    TokenRefused,
    /// The certificate signing request cannot be used.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Too many enrolments at once.
    #[error("too many enrolments at once, more than {ENROLMENTS_PER_SECOND} a second")]
    Rate,
    /// A join token cannot live that long or let that many in.
    #[error("a join token lives 1 second to 30 days and lets in 1 to {JOIN_TOKEN_USES_MAX} hosts")]
    TokenLimits,
    /// The metastore failed; nothing was changed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// No certificate could be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// No random numbers.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Enrollment {
    /// With this authority over this metastore.
    pub fn new(authorities: Arc<Authorities>, metastore: Metastore, config: EnrollmentConfig) -> Self {
        let rate = TokenBucket::new(ENROLMENTS_PER_SECOND, ENROLMENTS_PER_SECOND, Instant::now());
        Self { authorities, metastore, config, rate: Mutex::new(rate) }
    }

    /// What agents pin.
    pub fn authority_digest(&self) -> Digest {
        self.authorities.pair().current.digest()
    }

    /// Makes a join token for up to `max_uses` hosts.
    pub async fn create_token(
        &self,
        author: &str,
        life: Duration,
        max_uses: u32,
        now: UnixSeconds,
    ) -> Result<IssuedJoinToken, EnrollmentError> {
        if life.as_secs() == 0 || life > JOIN_TOKEN_LIFE_MAX || max_uses == 0 || max_uses > JOIN_TOKEN_USES_MAX {
            return Err(EnrollmentError::TokenLimits);
        }
        let token = JoinToken::generate()?;
        let expires = now.after(life);
        self.metastore
            .create_join_token(&NewJoinToken {
                token_id: token.id().to_owned(),
                secret_sha256: token.secret_sha256(),
                author: author.to_owned(),
                created: now,
                expires,
                max_uses,
            })
            .await?;
        let text = Zeroizing::new(format!("{}.{}", *token.reveal(), self.authority_digest()));
        Ok(IssuedJoinToken { text, expires })
    }

    /// Lets a new host in: `token` is `<id>.<secret>`, `request` a PKCS#10 request in DER.
    pub async fn enroll(
        &self,
        token: &str,
        request: &[u8],
        inventory: HostInventory,
        now: UnixSeconds,
    ) -> Result<IssuedIdentity, EnrollmentError> {
        if !self.rate.lock().try_take(1, Instant::now()) {
            return Err(EnrollmentError::Rate);
        }
        let token: JoinToken = token.parse().map_err(|_| EnrollmentError::TokenRefused)?;
        let record = self.metastore.join_token(token.id()).await?.ok_or(EnrollmentError::TokenRefused)?;
        if !secret::equal(&record.secret_sha256, &token.secret_sha256()) || !record.is_usable(now) {
            return Err(EnrollmentError::TokenRefused);
        }
        let key = HostKey::from_request(request)?;
        let host = HostId::from_random(secret::random()?);
        let issued =
            self.authorities.pair().issuing().issue_host(host, &key, now, self.config.host_certificate_life)?;
        let new = NewHost { host, join_token_id: record.token_id, inventory, certificate: issued.record };
        // The token is used up here and not before; a certificate that loses the race for the last use is dropped.
        self.metastore.enroll(&new, now).await.map_err(|error| match error {
            EnrollError::TokenRefused => EnrollmentError::TokenRefused,
            EnrollError::Metastore(error) => error.into(),
        })?;
        tracing::info!(%host, join_token = new.join_token_id, "enrolled a host");
        Ok(self.identity(host, issued.der))
    }

    /// Issues a certificate for a new key to a host that has proved who it is.
    pub async fn renew(
        &self,
        host: HostId,
        request: &[u8],
        now: UnixSeconds,
    ) -> Result<IssuedIdentity, EnrollmentError> {
        let key = HostKey::from_request(request)?;
        let issued =
            self.authorities.pair().issuing().issue_host(host, &key, now, self.config.host_certificate_life)?;
        self.metastore.record_certificate(host, &issued.record).await?;
        tracing::info!(%host, "renewed a host's certificate");
        Ok(self.identity(host, issued.der))
    }

    fn identity(&self, host: HostId, certificate: CertificateDer<'static>) -> IssuedIdentity {
        IssuedIdentity {
            host,
            certificate,
            trust_bundle: self.authorities.pair().trust_bundle(),
            model_verifying_keys: self.config.model_verifying_keys.clone(),
        }
    }
}
