//! Join tokens in Swarm's format: `SWMTKN-1-<digest>-<secret>`.
//!
//! The digest is the SHA-256 of the cluster's root certificate (DER) in 50 base-36 digits: a joiner
//! checks it before it trusts anything the manager says. The secret is 16 random bytes in 25 digits.

use crate::id::base36;
use rand::Rng;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "SWMTKN";
const FORMAT: &str = "1";
const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: String,
    secret: String,
}

/// `invalid join token` is Swarm's text; scripts match it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid join token: expected SWMTKN-1-<50 characters>-<25 characters>, as `skep swarm join-token worker` prints it on a manager"
)]
pub struct TokenError;

impl JoinToken {
    /// A new token for the cluster whose root certificate is `root_der`.
    pub fn generate(root_der: &[u8]) -> Self {
        let mut secret = [0u8; 16];
        rand::rng().fill_bytes(&mut secret);
        Self { digest: digest(root_der), secret: base36(&secret, SECRET_DIGITS) }
    }

    /// Whether the token was made for the root certificate `root_der`.
    pub fn pins(&self, root_der: &[u8]) -> bool {
        self.digest == digest(root_der)
    }
}

fn digest(root_der: &[u8]) -> String {
    base36(&Sha256::digest(root_der), DIGEST_DIGITS)
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [PREFIX, FORMAT, digest, secret] = parts[..] else { return Err(TokenError) };
        let base36 = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase())
        };
        if !base36(digest, DIGEST_DIGITS) || !base36(secret, SECRET_DIGITS) {
            return Err(TokenError);
        }
        Ok(Self { digest: digest.to_owned(), secret: secret.to_owned() })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{FORMAT}-{}-{}", self.digest, self.secret)
    }
}

/// A token is a password: its secret stays out of logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{FORMAT}-{}-…", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_print_and_parse_and_pins_its_root_only() {
        let token = JoinToken::generate(b"root certificate");
        let parsed: JoinToken = token.to_string().parse().unwrap();
        assert_eq!(parsed, token);
        assert!(parsed.pins(b"root certificate"));
        assert!(!parsed.pins(b"another certificate"));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let good = JoinToken::generate(b"x").to_string();
        let truncated = &good[..good.len() - 1];
        for bad in [
            "",
            "SWMTKN-1",
            truncated,
            &good.to_uppercase(),
            &format!("{good}-x"),
            &good.replace("-1-", "-2-"),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(TokenError), "{bad}");
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = JoinToken::generate(b"x");
        assert!(!format!("{token:?}").contains(&token.secret));
    }
}
