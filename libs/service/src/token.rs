//! Join tokens: where the orchestrator is, how to know it, and a secret that lets a component in.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::message::JoinProof;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// What a token's text begins with.
const PREFIX: &str = "muster1.";

/// A join token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// `host:port` of the broker.
    #[serde(rename = "a")]
    pub address: String,
    /// SHA-256 of the CA certificate.
    #[serde(rename = "f")]
    pub ca_fingerprint: String,
    /// The token's id; not secret.
    #[serde(rename = "i")]
    pub id: String,
    /// The secret, base64url.
    #[serde(rename = "s")]
    pub secret: String,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(formatter, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

/// Text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token: it begins with `muster1.`; `muster token create` makes one")]
pub struct TokenError;

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(TokenError)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError)?;
        serde_json::from_slice(&json).map_err(|_| TokenError)
    }
}

impl JoinToken {
    /// Shows that this token is held, without showing its secret.
    pub fn proof(&self, signing_request: &str) -> JoinProof {
        JoinProof { token_id: self.id.clone(), mac: mac(&self.secret, signing_request) }
    }
}

/// Host and port of `HOST:PORT`.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

fn mac(secret: &str, signing_request: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, signing_request.as_bytes()))
}

/// Whether a proof was made with this secret; takes the same time whatever the answer.
pub fn is_proof_of(secret: &str, signing_request: &str, proof: &JoinProof) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    URL_SAFE_NO_PAD.decode(&proof.mac).is_ok_and(|mac| hmac::verify(&key, signing_request.as_bytes(), &mac).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken { address: "127.0.0.1:8883".into(), ca_fingerprint: "ab".into(), id: "t1".into(), secret: "s".into() }
    }

    #[test]
    fn a_token_prints_and_parses_to_itself_and_does_not_show_its_secret_in_logs() {
        assert_eq!(token().to_string().parse::<JoinToken>().unwrap(), token());
        assert!(!format!("{:?}", token()).contains("secret"));
        assert!("muster1.%%%".parse::<JoinToken>().is_err());
    }

    #[test]
    fn a_proof_holds_for_its_request_and_secret_only() {
        let proof = token().proof("csr");
        assert!(is_proof_of("s", "csr", &proof));
        assert!(!is_proof_of("s", "other", &proof));
        assert!(!is_proof_of("t", "csr", &proof));
    }
}
