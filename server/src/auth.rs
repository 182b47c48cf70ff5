//! Operators: who may call what.
//!
//! An operator is an API token: 256 random bits with a name and a [`Role`]. The server keeps its SHA-256 only. The
//! first start makes one with role admin and writes it to `<state>/admin.token`, readable by the server's user alone.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::clock::UnixSeconds;
use crate::metastore::{ApiTokenStore as _, Metastore, MetastoreError, NewApiToken};
use crate::secret::{self, SecretError};

#[cfg(test)]
mod tests;

/// What every API token begins with, so that one is recognised where it does not belong.
pub const TOKEN_PREFIX: &str = "picket_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Name of the token the first start makes.
const FIRST_TOKEN_NAME: &str = "admin";
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What an operator may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Labels.
    Analyst,
    /// Builds data sets, trains, ships models.
    Engineer,
    /// Lets hosts and operators in.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Analyst, Self::Engineer, Self::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Engineer => "engineer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| ParseRoleError(text.to_owned()))
    }
}

/// Not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no role {0:?}: expected viewer, analyst, engineer or admin")]
pub struct ParseRoleError(String);

/// Somebody who may call something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The token's name; the author of what is done.
    pub name: String,
    /// What the token may do.
    pub role: Role,
}

/// Why a call was refused or a token not made.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// There was no token.
    #[error("no API token: send `authorization: Bearer <token>`")]
    Missing,
    /// The token is none of this server's, or was revoked.
    #[error("the API token is not valid")]
    Invalid,
    /// The token may not do this.
    #[error("this needs the role {needed}, the API token `{name}` has {has}")]
    Forbidden {
        /// The role it needs.
        needed: Role,
        /// The role the token has.
        has: Role,
        /// The token's name.
        name: String,
    },
    /// A token cannot have this name.
    #[error("the name of an API token has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
    Name,
    /// The metastore failed.
    #[error(transparent)]
    Metastore(#[from] MetastoreError),
    /// A token could not be made, written or read.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Decides who an API token is and what it may do.
#[derive(Clone, Debug)]
pub struct Auth {
    metastore: Metastore,
}

impl Auth {
    /// Over the tokens of this metastore.
    pub fn new(metastore: Metastore) -> Self {
        Self { metastore }
    }

    /// The operator this token stands for, if it may do what `needed` may.
    pub async fn authorize(&self, token: Option<&str>, needed: Role) -> Result<Operator, AuthError> {
        let secret = parse_token(token.ok_or(AuthError::Missing)?).ok_or(AuthError::Invalid)?;
        let record = self
            .metastore
            .api_token_by_secret(&secret::sha256(secret.as_slice()))
            .await?
            .filter(|record| record.revoked.is_none())
            .ok_or(AuthError::Invalid)?;
        if record.role < needed {
            return Err(AuthError::Forbidden { needed, has: record.role, name: record.name });
        }
        Ok(Operator { name: record.name, role: record.role })
    }

    /// Makes a token. Its text is known only to the caller from now on.
    pub async fn create_token(&self, name: &str, role: Role, now: UnixSeconds) -> Result<Zeroizing<String>, AuthError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(AuthError::Name);
        }
        let secret = Zeroizing::new(secret::random::<TOKEN_BYTES>()?);
        self.keep(name, role, &secret, now).await?;
        Ok(token_text(&secret))
    }

    /// Makes sure that there is a way in: when no administrator's token is valid, the one in the file `path` becomes
    /// valid, and is made first when there is no such file.
    pub async fn ensure_admin(&self, path: &Path, now: UnixSeconds) -> Result<(), AuthError> {
        let tokens = self.metastore.api_tokens().await?;
        if tokens.iter().any(|token| token.role == Role::Admin && token.revoked.is_none()) {
            return Ok(());
        }
        // The file first: a crash between the two steps then leaves a token that the next start makes valid.
        let secret = match read_token(path)? {
            Some(secret) if !self.is_known(&secret).await? => secret,
            _ => {
                let secret = Zeroizing::new(secret::random::<TOKEN_BYTES>()?);
                secret::write_private(path, token_text(&secret).as_bytes())?;
                secret
            }
        };
        self.keep(FIRST_TOKEN_NAME, Role::Admin, &secret, now).await?;
        tracing::info!(path = %path.display(), "made an administrator's API token");
        Ok(())
    }

    async fn is_known(&self, secret: &[u8; TOKEN_BYTES]) -> Result<bool, AuthError> {
        Ok(self.metastore.api_token_by_secret(&secret::sha256(secret)).await?.is_some())
    }

    async fn keep(
        &self,
        name: &str,
        role: Role,
        secret: &[u8; TOKEN_BYTES],
        now: UnixSeconds,
    ) -> Result<(), AuthError> {
        let token = NewApiToken { name: name.to_owned(), role, secret_sha256: secret::sha256(secret), created: now };
        self.metastore.create_api_token(&token).await?;
        Ok(())
    }
}

fn token_text(secret: &[u8; TOKEN_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(format!("{TOKEN_PREFIX}{}", HEXLOWER.encode(secret)))
}

fn parse_token(text: &str) -> Option<Zeroizing<[u8; TOKEN_BYTES]>> {
    let digits = text.strip_prefix(TOKEN_PREFIX)?.as_bytes();
    if digits.len() != 2 * TOKEN_BYTES {
        return None;
    }
    let mut secret = Zeroizing::new([0; TOKEN_BYTES]);
    HEXLOWER.decode_mut(digits, secret.as_mut_slice()).ok()?;
    Some(secret)
}

fn read_token(path: &Path) -> Result<Option<Zeroizing<[u8; TOKEN_BYTES]>>, AuthError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = Zeroizing::new(secret::read_private(path)?);
    Ok(std::str::from_utf8(&text).ok().and_then(|text| parse_token(text.trim())))
}
