//! The seal: an Ed25519 signature over the exact bytes of an envelope, by the sender's key.
//!
//! A sealed message is two parts, split at the first newline:
//!
//! ```text
//! BASE64URL(header) ".." BASE64URL(signature) "\n" envelope
//! ```
//!
//! That is a JWS with detached content (RFC 7515 appendix F) and an unencoded payload (RFC 7797), so
//! any JOSE library can check it, and whoever watches the bus can read the envelope. The header
//! carries the sender's certificate (`x5c`), or, for a component that has none yet, its bare key
//! (`jwk`). This module knows signatures; whether a certificate is to be trusted, `bus` decides.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::limits::SEAL_HEADER_BYTES_MAX;

/// The JWS protected header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    b64: bool,
    crit: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x5c: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwk: Option<Jwk>,
}

/// An Ed25519 key as a JWK (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
}

/// Who signed, as the header says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A certificate, DER, and the CA's where the sender sends it along.
    Certificate(Vec<u8>, Option<Vec<u8>>),
    /// A key without a certificate: only a registration may come with it.
    BareKey([u8; 32]),
}

/// Signs envelopes for one component.
pub struct Sealer {
    key: Ed25519KeyPair,
    header: String,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// A private key that is no Ed25519 key in PKCS #8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the private key is not an Ed25519 key in PKCS #8")]
pub struct KeyError;

impl Sealer {
    /// A sealer whose messages carry this chain: the sender's certificate, and the CA's where receivers
    /// may know no more of it than its fingerprint.
    pub fn with_certificate(pkcs8: &[u8], chain: &[&[u8]]) -> Result<Self, KeyError> {
        Self::build(pkcs8, |_| (Some(chain.iter().map(|der| STANDARD.encode(der)).collect()), None))
    }

    /// A sealer for a component that has no certificate yet.
    pub fn with_bare_key(pkcs8: &[u8]) -> Result<Self, KeyError> {
        Self::build(pkcs8, |key| {
            let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
            (None, Some(Jwk { kty: "OKP".into(), crv: "Ed25519".into(), x }))
        })
    }

    fn build(
        pkcs8: &[u8],
        signer: impl FnOnce(&Ed25519KeyPair) -> (Option<Vec<String>>, Option<Jwk>),
    ) -> Result<Self, KeyError> {
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| KeyError)?;
        let (x5c, jwk) = signer(&key);
        let header = Header { alg: "EdDSA".into(), b64: false, crit: vec!["b64".into()], x5c, jwk };
        let json = serde_json::to_vec(&header).expect("the header always serialises");
        Ok(Self { key, header: URL_SAFE_NO_PAD.encode(json) })
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Whether a message was sealed with this key and certificate.
    pub fn has_sealed(&self, sealed: &Sealed<'_>) -> bool {
        self.header == sealed.header
    }

    /// Signs these bytes.
    pub fn seal(&self, envelope: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(&signing_input(&self.header, envelope));
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        let mut sealed = Vec::with_capacity(self.header.len() + signature.len() + envelope.len() + 3);
        sealed.extend_from_slice(self.header.as_bytes());
        sealed.extend_from_slice(b"..");
        sealed.extend_from_slice(signature.as_bytes());
        sealed.push(b'\n');
        sealed.extend_from_slice(envelope);
        sealed
    }
}

fn signing_input(header: &str, envelope: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(header.len() + 1 + envelope.len());
    input.extend_from_slice(header.as_bytes());
    input.push(b'.');
    input.extend_from_slice(envelope);
    input
}

/// A sealed message taken apart; nothing about it has been checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<'bytes> {
    /// The header as sent; equal text means the same signer.
    pub header: &'bytes str,
    /// The envelope's exact bytes.
    pub envelope: &'bytes [u8],
    signature: Vec<u8>,
}

fn malformed(what: &str) -> Fault {
    Fault::new(FaultCode::Malformed, what)
}

impl<'bytes> Sealed<'bytes> {
    /// Takes a message apart.
    pub fn split(bytes: &'bytes [u8]) -> Result<Self, Fault> {
        let newline = bytes
            .iter()
            .take(SEAL_HEADER_BYTES_MAX)
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| malformed("the message has no signature line"))?;
        let line = std::str::from_utf8(&bytes[..newline]).map_err(|_| malformed("the signature line is not text"))?;
        let (header, signature) =
            line.split_once("..").ok_or_else(|| malformed("the signature line is not a detached JWS"))?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed("the signature is not base64url"))?;
        Ok(Self { header, envelope: &bytes[newline + 1..], signature })
    }

    /// Who the header says has signed.
    pub fn signer(&self) -> Result<Signer, Fault> {
        let json = URL_SAFE_NO_PAD.decode(self.header).map_err(|_| malformed("the header is not base64url"))?;
        let header: Header = serde_json::from_slice(&json).map_err(|_| malformed("the header is not ours"))?;
        if header.alg != "EdDSA" || header.b64 || header.crit != ["b64"] {
            return Err(malformed("the header's algorithm is not EdDSA over an unencoded payload"));
        }
        match (header.x5c.as_deref(), header.jwk) {
            (Some([certificate, issuers @ ..]), None) if issuers.len() <= 1 => {
                let decode = |text: &String| STANDARD.decode(text).map_err(|_| malformed("x5c is not base64"));
                Ok(Signer::Certificate(decode(certificate)?, issuers.first().map(decode).transpose()?))
            }
            (None, Some(jwk)) if jwk.kty == "OKP" && jwk.crv == "Ed25519" => {
                let key = URL_SAFE_NO_PAD.decode(jwk.x).map_err(|_| malformed("the key is not base64url"))?;
                let key = key.try_into().map_err(|_| malformed("an Ed25519 key has 32 bytes"))?;
                Ok(Signer::BareKey(key))
            }
            _ => Err(malformed("the header names no signer, or several")),
        }
    }

    /// Checks the signature by this key.
    pub fn verify(&self, public_key: &[u8]) -> Result<(), Fault> {
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(&signing_input(self.header, self.envelope), &self.signature)
            .map_err(|_| Fault::new(FaultCode::NotAuthorized, "the signature does not match"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8410's structure around a fixed seed, so that vectors stay the same.
    fn key() -> Vec<u8> {
        let mut pkcs8 =
            vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        pkcs8.extend_from_slice(&[7; 32]);
        pkcs8
    }

    #[test]
    fn a_sealed_message_comes_apart_and_verifies() {
        let sealer = Sealer::with_bare_key(&key()).unwrap();
        let bytes = sealer.seal(b"{\"v\":1}");
        let sealed = Sealed::split(&bytes).unwrap();
        assert_eq!(sealed.envelope, b"{\"v\":1}");
        assert_eq!(sealed.signer().unwrap(), Signer::BareKey(sealer.public_key()));
        sealed.verify(&sealer.public_key()).unwrap();
    }

    #[test]
    fn the_certificate_rides_in_the_header() {
        let sealer = Sealer::with_certificate(&key(), &[b"DER"]).unwrap();
        let bytes = sealer.seal(b"x");
        assert_eq!(Sealed::split(&bytes).unwrap().signer().unwrap(), Signer::Certificate(b"DER".to_vec(), None));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(at in 0usize..400, to in any::<u8>()) {
            let sealer = Sealer::with_bare_key(&key()).unwrap();
            let mut bytes = sealer.seal(b"{\"v\":1,\"body\":{\"a\":\"some text\"}}");
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let accepted = Sealed::split(&bytes)
                .and_then(|sealed| sealed.signer().and_then(|_| sealed.verify(&sealer.public_key())))
                .is_ok();
            prop_assert!(!accepted);
        }

        #[test]
        fn junk_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(sealed) = Sealed::split(&bytes) {
                let _ = sealed.signer();
                let _ = sealed.verify(&[0; 32]);
            }
        }
    }
}
