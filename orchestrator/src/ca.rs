//! The installation's certificate authorities, and what they sign. There is one, a root of its own or one that the
//! operator brings; while it is being replaced there are two, and both are trusted.
//!
//! A rotation has three steps. The new CA is made, and every component is told to trust it beside the old one. Once all
//! that are there know it, it signs; components get their new certificates when these are due, so that nobody hurries. When
//! no certificate of the old one is left, it is retired. The orchestrator itself shows a certificate of the oldest CA that
//! is trusted, which everybody knows.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bus::certificate::BROKER_UNIT;
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::operator::CaView;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use service::data;
use uuid::Uuid;
use x509_parser::time::ASN1Time;

use crate::core::roster::Validity;

mod authority;

use authority::Authority;

/// Which of the CAs are trusted, and which one signs.
const STATE_FILE: &str = "authorities.json";
/// Every CA that there ever was, for whoever checks what an old one has signed.
const HISTORY_FILE: &str = "history.pem";
/// The directory of the first CA: the one of all of them.
const FIRST: &str = ".";
/// Seconds by which a certificate begins earlier: a component whose clock is a little behind must not find it in the
/// future.
const EARLIER_SECONDS: i64 = 300;
/// Days that the certificate of a broker that is not embedded holds: an operator renews it.
const BROKER_DAYS: i64 = 365;
/// Names in such a certificate.
const BROKER_NAMES_MAX: usize = 32;
/// The name that the server's certificate carries; clients go by CA and type, not by name.
const SERVER_NAME: &str = "orchestrator.muster.internal";

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("the CA in {path} cannot be read or written")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Keys or certificates are damaged.
    #[error("the CA in {path} is damaged: {reason}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key is encrypted, and what opens it is not there.
    #[error("the key of the CA in {path} is encrypted, and {}: give the passphrase's file with --ca-passphrase-file", if *is_wrong { "the passphrase does not open it" } else { "there is no passphrase for it" })]
    Passphrase {
        /// Where.
        path: PathBuf,
        /// Whether there is one, and it is another.
        is_wrong: bool,
    },
    /// What an operator brings is no CA.
    #[error("the CA that was brought cannot be taken: {reason}")]
    Unfit {
        /// What is wrong.
        reason: String,
    },
    /// There is another CA already.
    #[error("this installation has another CA already: `muster ca rotate --certificate FILE --key FILE` replaces it")]
    Another,
    /// A rotation is in the wrong state for it.
    #[error("{0}")]
    Rotation(String),
}

/// A signing request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate signing request is refused: {0}")]
pub struct RequestError(String);

/// Where a CA's keys are, and how they are kept.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// The directory.
    pub directory: PathBuf,
    /// Seconds that components' certificates hold.
    pub component_seconds: i64,
    /// Encrypts the keys at rest.
    pub passphrase: Option<String>,
    /// A CA that the operator brings, for the first start: files with its certificate and key, PEM.
    pub brought: Option<(PathBuf, PathBuf)>,
}

/// What is kept of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Kept {
    /// The directories of those that are trusted, the oldest first.
    trusted: Vec<String>,
    /// The one that signs.
    issuer: String,
}

struct State {
    kept: Kept,
    /// In the order of `kept.trusted`.
    trusted: Vec<Authority>,
}

impl State {
    fn issuer(&self) -> &Authority {
        let at = self.kept.trusted.iter().position(|name| *name == self.kept.issuer).unwrap_or_default();
        &self.trusted[at]
    }
}

/// What the CA says of a key.
struct Subject {
    id: ComponentId,
    unit: &'static str,
    uses: Vec<ExtendedKeyUsagePurpose>,
    names: Vec<SanType>,
    seconds: i64,
}

/// The installation's CAs.
pub struct Ca {
    settings: CaSettings,
    state: Mutex<State>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Ca {
    /// The CA in a directory, made on the first start. Components get certificates for `component_seconds`.
    pub fn open(directory: &Path, component_seconds: i64, now: Timestamp) -> Result<Self, CaError> {
        let directory = directory.to_owned();
        Self::open_with(CaSettings { directory, component_seconds, passphrase: None, brought: None }, now)
    }

    /// The same, as the operator wants it.
    pub fn open_with(settings: CaSettings, now: Timestamp) -> Result<Self, CaError> {
        let directory = &settings.directory;
        let failed = |source| CaError::Io { path: directory.clone(), source };
        let passphrase = settings.passphrase.as_deref();
        data::make(directory).map_err(failed)?;
        let is_new = !directory.join(authority::CERTIFICATE_FILE).exists();
        match &settings.brought {
            Some((certificate, key)) if is_new => {
                let (certificate, key) = (read(certificate)?, read(key)?);
                Authority::import(directory, &certificate, &key, passphrase, now)?;
            }
            None if is_new => Authority::create(directory, passphrase, now)?,
            _ => {}
        }
        let kept = match fs::read(directory.join(STATE_FILE)) {
            Ok(json) => serde_json::from_slice(&json)
                .map_err(|error| CaError::Damaged { path: directory.join(STATE_FILE), reason: error.to_string() })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Kept { trusted: vec![FIRST.to_owned()], issuer: FIRST.to_owned() }
            }
            Err(source) => return Err(failed(source)),
        };
        let open = |name: &String| Authority::open(&directory.join(name), passphrase);
        let trusted: Vec<Authority> = kept.trusted.iter().map(open).collect::<Result<_, _>>()?;
        if trusted.is_empty() || !kept.trusted.contains(&kept.issuer) {
            return Err(CaError::Damaged { path: directory.join(STATE_FILE), reason: "nobody signs".to_owned() });
        }
        if let Some((certificate, _)) = &settings.brought {
            let brought = service::identity::certificate_der(&read(certificate)?);
            if !trusted.iter().any(|authority| Some(&authority.der) == brought.as_ref()) {
                return Err(CaError::Another);
            }
        }
        let ca = Self { state: Mutex::new(State { kept, trusted }), settings };
        ca.tidy()?;
        Ok(ca)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the keys of those that are not trusted any more, and lists all that there ever were.
    fn tidy(&self) -> Result<(), CaError> {
        let directory = &self.settings.directory;
        let kept = self.state().kept.clone();
        let mut history = String::new();
        for number in 1.. {
            let name = if number == 1 { FIRST.to_owned() } else { number.to_string() };
            let Ok(pem) = fs::read_to_string(directory.join(&name).join(authority::CERTIFICATE_FILE)) else { break };
            if !kept.trusted.contains(&name) {
                Authority::forget_key(&directory.join(&name))?;
            }
            history.insert_str(0, &pem);
        }
        data::write_private(&directory.join(HISTORY_FILE), history.as_bytes())
            .map_err(|source| CaError::Io { path: directory.clone(), source })
    }

    fn keep(&self, kept: Kept) -> Result<(), CaError> {
        let directory = &self.settings.directory;
        let json = serde_json::to_vec_pretty(&kept).expect("names always serialise");
        data::write_private(&directory.join(STATE_FILE), &json)
            .map_err(|source| CaError::Io { path: directory.clone(), source })?;
        let open = |name: &String| Authority::open(&directory.join(name), self.settings.passphrase.as_deref());
        let trusted: Vec<Authority> = kept.trusted.iter().map(open).collect::<Result<_, _>>()?;
        *self.state() = State { kept, trusted };
        self.tidy()
    }

    /// Begins a rotation: a new CA, of our own or brought by the operator, is trusted from now on and signs later.
    pub fn introduce(&self, brought: Option<(&str, &str)>, now: Timestamp) -> Result<(), CaError> {
        let kept = self.state().kept.clone();
        if kept.trusted.len() > 1 {
            let text = "a rotation is going on: `muster ca show` tells how far it is, `muster ca retire` ends it";
            return Err(CaError::Rotation(text.to_owned()));
        }
        let directory = &self.settings.directory;
        let is_used = |name: &String| directory.join(name).join(authority::CERTIFICATE_FILE).exists();
        let Some(name) = (2..10_000_u32).map(|number| number.to_string()).find(|name| !is_used(name)) else {
            return Err(CaError::Rotation("there were too many rotations".to_owned()));
        };
        let passphrase = self.settings.passphrase.as_deref();
        let of_it = directory.join(&name);
        match brought {
            Some((certificate, key)) => Authority::import(&of_it, certificate, key, passphrase, now)?,
            None => Authority::create(&of_it, passphrase, now)?,
        }
        self.keep(Kept { trusted: [kept.trusted, vec![name]].concat(), issuer: kept.issuer })
    }

    /// The fingerprint of a CA that is trusted and does not sign yet.
    pub fn introduced(&self) -> Option<String> {
        let state = self.state();
        let newest = state.trusted.last()?;
        (state.issuer().fingerprint != newest.fingerprint).then(|| newest.fingerprint.clone())
    }

    /// The newest CA signs from now on.
    pub fn switch(&self) -> Result<(), CaError> {
        let kept = self.state().kept.clone();
        let issuer = kept.trusted.last().cloned().unwrap_or_default();
        self.keep(Kept { issuer, ..kept })
    }

    /// Ends a rotation: only the CA that signs is trusted from now on.
    pub fn retire(&self) -> Result<(), CaError> {
        let kept = self.state().kept.clone();
        if kept.trusted.len() < 2 {
            return Err(CaError::Rotation("there is one CA: `muster ca rotate` makes its successor".to_owned()));
        }
        self.keep(Kept { trusted: vec![kept.issuer.clone()], issuer: kept.issuer })
    }

    /// The CA that everybody knows, PEM.
    pub fn pem(&self) -> String {
        self.state().trusted[0].pem.clone()
    }

    /// The same, DER.
    pub fn der(&self) -> Vec<u8> {
        self.state().trusted[0].der.clone()
    }

    /// All that are trusted, PEM, the oldest first.
    pub fn pems(&self) -> Vec<String> {
        self.state().trusted.iter().map(|authority| authority.pem.clone()).collect()
    }

    /// The same, DER.
    pub fn ders(&self) -> Vec<Vec<u8>> {
        self.state().trusted.iter().map(|authority| authority.der.clone()).collect()
    }

    /// Their fingerprints.
    pub fn fingerprints(&self) -> Vec<String> {
        self.state().trusted.iter().map(|authority| authority.fingerprint.clone()).collect()
    }

    /// Those that are trusted as operators see them; who knows each, the roster says.
    pub fn views(&self) -> Vec<CaView> {
        let state = self.state();
        let view = |authority: &Authority| CaView {
            fingerprint: authority.fingerprint.clone(),
            subject: authority.subject.clone(),
            not_before: authority.not_before,
            not_after: authority.not_after,
            is_issuer: authority.fingerprint == state.issuer().fingerprint,
            known_by: 0,
            certificate_count: 0,
        };
        state.trusted.iter().map(view).collect()
    }

    /// Signs the orchestrator's own certificate, by the CA that everybody knows.
    pub fn issue_own(
        &self,
        request_pem: &str,
        component: ComponentId,
        now: Timestamp,
    ) -> Result<(String, Validity), RequestError> {
        let state = self.state();
        self.sign_for_component(&state.trusted[0], request_pem, component, ComponentType::Orchestrator, now)
    }

    /// Signs a component's certificate.
    pub fn issue(
        &self,
        request_pem: &str,
        component: ComponentId,
        component_type: ComponentType,
        now: Timestamp,
    ) -> Result<(String, Validity), RequestError> {
        let state = self.state();
        self.sign_for_component(state.issuer(), request_pem, component, component_type, now)
    }

    fn sign_for_component(
        &self,
        authority: &Authority,
        request_pem: &str,
        component: ComponentId,
        component_type: ComponentType,
        now: Timestamp,
    ) -> Result<(String, Validity), RequestError> {
        let mut uses = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut name = component.to_string();
        if component_type == ComponentType::Orchestrator {
            uses.push(ExtendedKeyUsagePurpose::ServerAuth);
            SERVER_NAME.clone_into(&mut name);
        }
        let (names, seconds) = (vec![subject_name(&name)?], self.settings.component_seconds);
        let subject = Subject { id: component, unit: component_type.as_str(), uses, names, seconds };
        sign(authority, request_pem, subject, now)
    }

    /// Signs a certificate for a broker that is not embedded, known by these host names and addresses (without any, by
    /// its id). It shows who the server is and makes nobody a component.
    pub fn issue_for_broker(
        &self,
        request_pem: &str,
        broker: ComponentId,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<(String, Validity), RequestError> {
        if hosts.len() > BROKER_NAMES_MAX {
            return Err(RequestError(format!("{} names; at most {BROKER_NAMES_MAX} are signed", hosts.len())));
        }
        // Components refuse a server with another kind of key.
        key_of(request_pem)?;
        let own = [broker.to_string()];
        let hosts = if hosts.is_empty() { &own } else { hosts };
        let names = hosts.iter().map(|host| subject_name(host)).collect::<Result<_, _>>()?;
        let (uses, seconds) = (vec![ExtendedKeyUsagePurpose::ServerAuth], BROKER_DAYS * 86_400);
        // Like the orchestrator's own: components look for a CA that they know in the chain that a server shows.
        let subject = Subject { id: broker, unit: BROKER_UNIT, uses, names, seconds };
        sign(&self.state().trusted[0], request_pem, subject, now)
    }
}

/// Signs a certificate for the key of a request. Nothing else of the request is taken over: name,
/// role and uses are the CA's word.
fn sign(
    authority: &Authority,
    request_pem: &str,
    subject: Subject,
    now: Timestamp,
) -> Result<(String, Validity), RequestError> {
    let refused = |error: rcgen::Error| RequestError(error.to_string());
    let mut request = CertificateSigningRequestParams::from_pem(request_pem).map_err(refused)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.id.to_string());
    params.distinguished_name.push(DnType::OrganizationalUnitName, subject.unit);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = subject.uses;
    params.subject_alt_names = subject.names;
    // Nothing that it signs outlives a CA.
    let seconds = subject.seconds.min(authority.not_after.as_second() - now.as_second());
    if seconds <= 0 {
        return Err(RequestError(format!("the CA's own certificate ended {:.0}", authority.not_after)));
    }
    let (from, until) = validity(&mut params, now, seconds).map_err(RequestError)?;
    request.params = params;
    let pem = request.signed_by(&authority.issuer).map_err(refused)?.pem();
    Ok((pem, Validity { from, until, issuer: Some(authority.fingerprint.clone()) }))
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| CaError::Io { path: path.to_owned(), source })
}

/// A host name or an address, as a certificate has it.
fn subject_name(host: &str) -> Result<SanType, RequestError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err(RequestError(format!("`{}` is neither a host name nor an address", proto::limits::shown(host))));
    }
    host.try_into().map(SanType::DnsName).map_err(|error: rcgen::Error| RequestError(error.to_string()))
}

fn validity(params: &mut CertificateParams, now: Timestamp, seconds: i64) -> Result<(Timestamp, Timestamp), String> {
    let at = |seconds: i64| {
        ASN1Time::from_timestamp(seconds).map(|time| time.to_datetime()).map_err(|error| error.to_string())
    };
    let (from, until) = (now.as_second(), now.as_second() + seconds);
    params.not_before = at(from - EARLIER_SECONDS.min(seconds / 10))?;
    params.not_after = at(until)?;
    params.serial_number = Some(SerialNumber::from_slice(Uuid::new_v4().as_bytes()));
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
    Ok((time(from)?, time(until)?))
}

/// The Ed25519 public key of a signing request whose own signature holds.
pub fn key_of(request_pem: &str) -> Result<[u8; 32], RequestError> {
    let request =
        CertificateSigningRequestParams::from_pem(request_pem).map_err(|error| RequestError(error.to_string()))?;
    request.public_key.der_bytes().try_into().map_err(|_| RequestError("the key is not an Ed25519 key".to_owned()))
}

#[cfg(test)]
mod tests {
    use bus::certificate::Certificate;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use service::identity;

    use super::*;

    #[test]
    fn a_certificate_says_what_the_ca_says_and_not_what_the_request_asks_for() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ca = Ca::open(directory.path(), 3_600, now).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut wish = CertificateParams::default();
        wish.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wish.distinguished_name.push(DnType::CommonName, "somebody else");
        let request = wish.serialize_request(&key).unwrap().pem().unwrap();
        let component = ComponentId(Uuid::new_v4());
        let (pem, _) = ca.issue(&request, component, ComponentType::PostureCollectionService, now).unwrap();
        let der = identity::certificate_der(&pem).unwrap();
        let certificate = Certificate::verify(&der, &ca.der(), now).unwrap();
        assert_eq!(
            (certificate.component, certificate.component_type),
            (component, ComponentType::PostureCollectionService)
        );
        assert_eq!(key_of(&request).unwrap(), certificate.public_key);
    }

    #[test]
    fn the_ca_is_the_same_after_a_restart_and_another_ones_certificates_are_refused() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = Timestamp::now();
        let ca = Ca::open(directory.path(), 3_600, now).unwrap();
        assert_eq!(ca.der(), Ca::open(directory.path(), 3_600, now).unwrap().der());
        let stranger = Ca::open(other.path(), 3_600, now).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let request = identity::signing_request(&key).unwrap();
        let (pem, _) = stranger.issue(&request, ComponentId(Uuid::new_v4()), ComponentType::Orchestrator, now).unwrap();
        assert!(Certificate::verify(&identity::certificate_der(&pem).unwrap(), &ca.der(), now).is_err());
    }

    fn settings(directory: &Path) -> CaSettings {
        CaSettings { directory: directory.to_owned(), component_seconds: 3_600, passphrase: None, brought: None }
    }

    fn request() -> String {
        identity::signing_request(&KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap()
    }

    /// An enterprise's CA on P-256, below its root, that holds so many days.
    fn brought(directory: &Path, days: i64, is_ca: IsCa) -> (PathBuf, PathBuf) {
        let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "Example Root");
        let root = rcgen::CertifiedIssuer::self_signed(root, root_key).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Example Muster Intermediate");
        params.is_ca = is_ca;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        validity(&mut params, Timestamp::now(), days * 86_400).unwrap();
        let certificate = params.signed_by(&key, &root).unwrap();
        let name = Uuid::new_v4();
        let files = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        fs::write(&files.0, certificate.pem() + &root.pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn an_intermediate_that_the_operator_brings_signs_and_is_trusted_by_itself() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = Timestamp::now();
        let constrained = || IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let files = brought(elsewhere.path(), 10, constrained());
        let of_ours =
            CaSettings { brought: Some(files.clone()), component_seconds: 30 * 86_400, ..settings(directory.path()) };
        let ca = Ca::open_with(of_ours.clone(), now).unwrap();
        let id = ComponentId(Uuid::new_v4());
        let (pem, validity) = ca.issue(&request(), id, ComponentType::PostureCollectionService, now).unwrap();
        let der = identity::certificate_der(&pem).unwrap();
        assert_eq!(Certificate::verify(&der, &ca.der(), now).unwrap().component, id);
        // Nothing outlives it.
        assert!(validity.until.as_second() <= ca.views()[0].not_after.as_second());
        assert_eq!(ca.ders(), Ca::open_with(of_ours, now).unwrap().ders());
        // Another one is not taken in its place by a changed configuration.
        let other = brought(tempfile::tempdir().unwrap().keep().as_path(), 10, constrained());
        let another = Ca::open_with(CaSettings { brought: Some(other), ..settings(directory.path()) }, now);
        assert!(matches!(another, Err(CaError::Another)));
        // What cannot sign, or not now, or has another's key, is refused before anything is written.
        for (wrong, word) in [
            (brought(elsewhere.path(), 10, IsCa::ExplicitNoCa), "not one of a CA"),
            (brought(elsewhere.path(), -1, constrained()), "does not hold now"),
        ] {
            let fresh = tempfile::tempdir().unwrap();
            let error = Ca::open_with(CaSettings { brought: Some(wrong), ..settings(fresh.path()) }, now).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(!fresh.path().join("ca.pem").exists() && !fresh.path().join("key.pem").exists());
        }
        let (certificate, key) = brought(elsewhere.path(), 10, constrained());
        fs::write(&key, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()).unwrap();
        let fresh = tempfile::tempdir().unwrap();
        let mixed = CaSettings { brought: Some((certificate, key)), ..settings(fresh.path()) };
        assert!(Ca::open_with(mixed, now).unwrap_err().to_string().contains("does not belong"));
    }

    #[test]
    fn the_key_is_encrypted_at_rest_once_there_is_a_passphrase_and_opens_with_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let with = |passphrase: Option<&str>| {
            let passphrase = passphrase.map(str::to_owned);
            Ca::open_with(CaSettings { passphrase, ..settings(directory.path()) }, now)
        };
        let key = || fs::read_to_string(directory.path().join("key.pem")).unwrap();
        let der = with(None).unwrap().der();
        assert!(key().contains("BEGIN PRIVATE KEY"));
        let ca = with(Some("correct horse")).unwrap();
        assert_eq!(ca.der(), der);
        assert!(key().contains("BEGIN ENCRYPTED PRIVATE KEY"), "{}", key());
        assert!(matches!(with(None), Err(CaError::Passphrase { is_wrong: false, .. })));
        assert!(matches!(with(Some("battery staple")), Err(CaError::Passphrase { is_wrong: true, .. })));
        // Its successor's too, and the one that goes leaves no key behind.
        ca.introduce(None, now).unwrap();
        ca.switch().unwrap();
        let of_new = || fs::read_to_string(directory.path().join("2/key.pem")).unwrap();
        assert!(of_new().contains("BEGIN ENCRYPTED PRIVATE KEY"));
        ca.retire().unwrap();
        assert!(!directory.path().join("key.pem").exists());
        let again = with(Some("correct horse")).unwrap();
        assert_eq!((again.ders().len(), again.fingerprints()), (1, ca.fingerprints()));
        let request = request();
        assert!(again.issue(&request, ComponentId(Uuid::new_v4()), ComponentType::RepositoryInterface, now).is_ok());
    }

    #[test]
    fn a_rotation_is_kept_at_every_step() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let open = || Ca::open(directory.path(), 3_600, now).unwrap();
        let signer = |ca: &Ca| {
            let issued = ca.issue(&request(), ComponentId(Uuid::new_v4()), ComponentType::RepositoryInterface, now);
            issued.unwrap().1.issuer.unwrap()
        };
        let old = open().fingerprints().remove(0);
        open().introduce(None, now).unwrap();
        let new = open().introduced().unwrap();
        assert_eq!((open().fingerprints(), signer(&open())), (vec![old.clone(), new.clone()], old.clone()));
        assert!(matches!(open().introduce(None, now), Err(CaError::Rotation(_))));
        open().switch().unwrap();
        assert_eq!((open().introduced(), signer(&open())), (None, new.clone()));
        // The orchestrator shows what everybody knows.
        let own = open().issue_own(&request(), ComponentId(Uuid::new_v4()), now).unwrap();
        assert_eq!(own.1.issuer, Some(old));
        open().retire().unwrap();
        assert_eq!((open().fingerprints(), signer(&open())), (vec![new.clone()], new));
        assert!(matches!(open().retire(), Err(CaError::Rotation(_))));
        open().introduce(None, now).unwrap();
        assert_eq!(open().fingerprints().len(), 2);
    }

    #[test]
    fn a_broker_gets_a_certificate_that_names_it_and_makes_it_no_component() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ca = Ca::open(directory.path(), 3_600, now).unwrap();
        let request = identity::signing_request(&KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap();
        let broker = ComponentId(Uuid::new_v4());
        let hosts = ["mqtt.example", "192.0.2.7", "2001:db8::7"].map(str::to_owned);
        let (pem, validity) = ca.issue_for_broker(&request, broker, &hosts, now).unwrap();
        assert_eq!(validity.until.as_second() - validity.from.as_second(), BROKER_DAYS * 86_400);
        let der = identity::certificate_der(&pem).unwrap();
        assert!(bus::certificate::is_broker(&der) && Certificate::read(&der).is_err());
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let uses = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(uses.server_auth && !uses.client_auth && !parsed.is_ca());
        let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value.general_names);
        assert!(names.contains("mqtt.example") && names.contains("IPAddress([192, 0, 2, 7])"), "{names}");
        // Without a name it has its id.
        let (pem, _) = ca.issue_for_broker(&request, broker, &[], now).unwrap();
        let der = identity::certificate_der(&pem).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value.general_names);
        assert!(names.contains(&broker.to_string()), "{names}");
    }

    #[test]
    fn names_that_are_no_hosts_and_keys_that_components_do_not_take_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ca = Ca::open(directory.path(), 3_600, now).unwrap();
        let request = identity::signing_request(&KeyPair::generate_for(&PKCS_ED25519).unwrap()).unwrap();
        let broker = ComponentId(Uuid::new_v4());
        let ask = |request: &str, hosts: &[String]| ca.issue_for_broker(request, broker, hosts, now).map(|_| ());
        for host in ["", "a b", "a..b", "-a", "mqtt.example:8883", "*", "é", &"a".repeat(64)] {
            let error = ask(&request, &[host.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("neither a host name nor an address"), "{host}: {error}");
        }
        assert!(ask(&request, &vec!["a".to_owned(); BROKER_NAMES_MAX + 1]).is_err());
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        assert!(ask(&identity::signing_request(&other).unwrap(), &[]).is_err());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert!(key_of("junk").is_err());
    }
}
