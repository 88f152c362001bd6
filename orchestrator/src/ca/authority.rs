//! One certificate authority: its certificate, its key, and how the key is kept.
//!
//! This is the only place that reads or writes a CA's key. A key that lives in a PKCS #11 token or a key service would be
//! another `rcgen::SigningKey` in the place of [`KeyPair`], made in [`Authority::open`]; nothing else would change.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use pkcs8::der::Decode as _;
use pkcs8::der::pem::{LineEnding, PemLabel as _};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _,
};
use service::{data, identity};
use uuid::Uuid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CaError, validity};

/// Days that a root of our own holds.
const ROOT_DAYS: i64 = 3_650;
/// The files of an authority in its directory.
const KEY_FILE: &str = "key.pem";
pub(super) const CERTIFICATE_FILE: &str = "ca.pem";

/// A certificate authority that can sign.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
    pub(super) fingerprint: String,
    pub(super) subject: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

fn damaged(directory: &Path, reason: impl ToString) -> CaError {
    CaError::Damaged { path: directory.to_owned(), reason: reason.to_string() }
}

impl Authority {
    /// Makes a root of our own in a directory.
    pub(super) fn create(directory: &Path, passphrase: Option<&str>, now: Timestamp) -> Result<(), CaError> {
        let damaged = |error: rcgen::Error| damaged(directory, error);
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(damaged)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Muster CA {}", Uuid::new_v4()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params, now, ROOT_DAYS * 86_400).map_err(|reason| self::damaged(directory, reason))?;
        let certificate = params.self_signed(&key).map_err(damaged)?;
        store(directory, &certificate.pem(), &key, passphrase)
    }

    /// Takes over a CA that the operator brings, such as an intermediate of the enterprise's own. It is the anchor of this
    /// installation's trust by itself: what others its root has signed is not trusted here.
    pub(super) fn import(
        directory: &Path,
        certificate_pem: &str,
        key_pem: &str,
        passphrase: Option<&str>,
        now: Timestamp,
    ) -> Result<(), CaError> {
        let key = read_key(directory, key_pem, passphrase)?;
        let unfit = |reason: String| CaError::Unfit { reason };
        let der = identity::certificate_der(certificate_pem)
            .ok_or_else(|| unfit("its file holds no certificate in PEM".to_owned()))?;
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|_| unfit("its certificate cannot be parsed".to_owned()))?;
        let signs = parsed.key_usage().ok().flatten().is_none_or(|usage| usage.value.key_cert_sign());
        if !parsed.is_ca() || !signs {
            return Err(unfit("its certificate is not one of a CA that may sign certificates".to_owned()));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(unfit("its key does not belong to its certificate".to_owned()));
        }
        let time = parsed.validity();
        if now.as_second() < time.not_before.timestamp() || now.as_second() >= time.not_after.timestamp() {
            return Err(unfit(format!(
                "its certificate does not hold now, but from {} to {}",
                time.not_before, time.not_after
            )));
        }
        // The first certificate of the file is the CA; what is above it is not sent to anybody.
        let pem = first_pem(&der);
        store(directory, &pem, &key, passphrase)
    }

    /// Reads an authority. A key that is there in the clear is encrypted once there is a passphrase for it.
    pub(super) fn open(directory: &Path, passphrase: Option<&str>) -> Result<Self, CaError> {
        let failed = |source| CaError::Io { path: directory.to_owned(), source };
        let pem = fs::read_to_string(directory.join(CERTIFICATE_FILE)).map_err(failed)?;
        let key_pem = fs::read_to_string(directory.join(KEY_FILE)).map_err(failed)?;
        let key = read_key(directory, &key_pem, passphrase)?;
        if let Some(passphrase) = passphrase
            && !is_encrypted(&key_pem)
        {
            write_key(directory, &key, Some(passphrase))?;
            tracing::info!(directory = %directory.display(), "the CA's key is encrypted from now on");
        }
        let der = identity::certificate_der(&pem).ok_or_else(|| damaged(directory, CERTIFICATE_FILE))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| damaged(directory, error))?;
        let time = |seconds: i64| Timestamp::from_second(seconds).map_err(|error| damaged(directory, error));
        let (not_before, not_after) =
            (time(parsed.validity().not_before.timestamp())?, time(parsed.validity().not_after.timestamp())?);
        let subject = parsed.subject().to_string();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| damaged(directory, error))?;
        let fingerprint = bus::tls::fingerprint(&der);
        Ok(Self { issuer, pem, der, fingerprint, subject, not_before, not_after })
    }

    /// Forgets the key: nothing more is signed with it. The certificate stays, for what it has signed.
    pub(super) fn forget_key(directory: &Path) -> Result<(), CaError> {
        match fs::remove_file(directory.join(KEY_FILE)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(CaError::Io { path: directory.to_owned(), source })
            }
            _ => Ok(()),
        }
    }
}

fn first_pem(der: &[u8]) -> String {
    pkcs8::der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).expect("a certificate is short enough for PEM")
}

fn store(directory: &Path, certificate_pem: &str, key: &KeyPair, passphrase: Option<&str>) -> Result<(), CaError> {
    let failed = |source| CaError::Io { path: directory.to_owned(), source };
    data::make(directory).map_err(failed)?;
    write_key(directory, key, passphrase)?;
    // The certificate comes last: it says that all is there.
    data::write_private(&directory.join(CERTIFICATE_FILE), certificate_pem.as_bytes()).map_err(failed)
}

fn write_key(directory: &Path, key: &KeyPair, passphrase: Option<&str>) -> Result<(), CaError> {
    let failed = |source| CaError::Io { path: directory.to_owned(), source };
    let Some(passphrase) = passphrase else {
        return data::write_private(&directory.join(KEY_FILE), key.serialize_pem().as_bytes()).map_err(failed);
    };
    // RFC 5958 with PBES2 (RFC 8018): scrypt and AES-256, which `openssl pkcs8` reads.
    let encrypted = PrivateKeyInfoRef::from_der(key.serialized_der())
        .map_err(|error| damaged(directory, error))
        .and_then(|info| info.encrypt(passphrase).map_err(|error| damaged(directory, error)))?;
    let pem = encrypted
        .to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
        .map_err(|error| damaged(directory, error))?;
    data::write_private(&directory.join(KEY_FILE), pem.as_bytes()).map_err(failed)
}

fn is_encrypted(pem: &str) -> bool {
    pem.contains("BEGIN ENCRYPTED PRIVATE KEY")
}

fn read_key(directory: &Path, pem: &str, passphrase: Option<&str>) -> Result<KeyPair, CaError> {
    let plain = |error: rcgen::Error| {
        let reason = format!(
            "{error}: a key is wanted in PKCS #8, Ed25519 or ECDSA over P-256; `openssl pkcs8 -topk8` converts others"
        );
        damaged(directory, reason)
    };
    let key = if is_encrypted(pem) {
        let passphrase =
            passphrase.ok_or_else(|| CaError::Passphrase { path: directory.to_owned(), is_wrong: false })?;
        let (_, document) = SecretDocument::from_pem(pem).map_err(|error| damaged(directory, error))?;
        let info =
            EncryptedPrivateKeyInfoRef::from_der(document.as_bytes()).map_err(|error| damaged(directory, error))?;
        let decrypted =
            info.decrypt(passphrase).map_err(|_| CaError::Passphrase { path: directory.to_owned(), is_wrong: true })?;
        KeyPair::try_from(decrypted.as_bytes()).map_err(plain)?
    } else {
        KeyPair::from_pem(pem).map_err(plain)?
    };
    if key.algorithm() != &PKCS_ED25519 && key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(plain(rcgen::Error::UnsupportedSignatureAlgorithm));
    }
    Ok(key)
}
