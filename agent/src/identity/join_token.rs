//! What somebody carries from the server to a host: `<id>.<secret>.<SHA-256 of the CA certificate, hex>`.

use std::fmt;
use std::str::FromStr;

use picket_common::id::Digest;
use zeroize::Zeroizing;

/// Longest token that is read.
const TOKEN_BYTES_MAX: usize = 512;

/// A join token. Its secret half is not shown.
#[derive(Clone)]
pub struct JoinToken {
    id: String,
    /// `<id>.<secret>`: what the server gets.
    credential: Zeroizing<String>,
    authority: Digest,
}

/// Not a join token. What it was is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: expected <id>.<secret>.<SHA-256 of the CA certificate>, as `picketctl token create` prints it"
)]
pub struct JoinTokenError;

impl JoinToken {
    /// What the server gets: `<id>.<secret>`.
    pub(crate) fn credential(&self) -> &str {
        &self.credential
    }

    /// The pin: SHA-256 of the CA certificate.
    pub(crate) fn authority(&self) -> Digest {
        self.authority
    }

    /// Its public half.
    pub fn id(&self) -> &str {
        &self.id
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
        let text = text.trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(JoinTokenError);
        }
        let (credential, authority) = text.rsplit_once('.').ok_or(JoinTokenError)?;
        let (id, secret) = credential.split_once('.').ok_or(JoinTokenError)?;
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_part(id) || !is_part(secret) {
            return Err(JoinTokenError);
        }
        Ok(Self {
            id: id.to_owned(),
            credential: Zeroizing::new(credential.to_owned()),
            authority: authority.parse().map_err(|_| JoinTokenError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_apart_and_keeps_its_secret() {
        let authority = Digest::of(b"certificate");
        let token: JoinToken = format!(" a1.b2.{authority}\n").parse().unwrap();
        assert_eq!((token.id(), token.credential(), token.authority()), ("a1", "a1.b2", authority));
        assert!(!format!("{token:?}").contains("b2"));
    }

    #[test]
    fn anything_else_is_refused() {
        let digest = Digest::of(b"certificate").to_string();
        for text in ["", "a.b", "a.b.c", &format!("a..{digest}"), &digest, &format!("a.b c.{digest}")] {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), JoinTokenError, "{text}");
        }
    }
}
