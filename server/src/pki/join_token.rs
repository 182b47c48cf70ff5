//! Join tokens as text: `<id>.<secret>.<SHA-256 of the authority's certificate, hex>`.
//!
//! The last part is for the agent, which pins the server by it and does not send it.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::secret::{self, SecretError};

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 16;

/// What an agent shows to be let in, without the pin: `<id>.<secret>`.
#[derive(Clone)]
pub struct JoinToken {
    id: String,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// Not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: expected <id>.<secret>")]
pub struct JoinTokenError;

impl JoinToken {
    /// A new token.
    pub fn generate() -> Result<Self, SecretError> {
        let id = HEXLOWER.encode(&secret::random::<ID_BYTES>()?);
        Ok(Self { id, secret: Zeroizing::new(secret::random()?) })
    }

    /// Its public half.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is kept of its secret half.
    pub fn secret_sha256(&self) -> [u8; 32] {
        secret::sha256(self.secret.as_slice())
    }

    /// The whole of it, secret included.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}", self.id, HEXLOWER.encode(self.secret.as_slice())))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let (id, digits) = text.split_once('.').ok_or(JoinTokenError)?;
        let is_id = id.len() == 2 * ID_BYTES && HEXLOWER.decode(id.as_bytes()).is_ok();
        if !is_id || digits.len() != 2 * SECRET_BYTES {
            return Err(JoinTokenError);
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        HEXLOWER.decode_mut(digits.as_bytes(), secret.as_mut_slice()).map_err(|_| JoinTokenError)?;
        Ok(Self { id: id.to_owned(), secret })
    }
}
