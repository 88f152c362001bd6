//! `muster:certificate`: X.509 certificates of files: `CERTIFICATE` blocks of PEM text, or one as DER. Without a
//! `path` or a `filepath` they are those of the usual directories; of files that are one by links, one counts, and a
//! distribution's bundle does not, as it repeats them. No private key is ever decoded. `serial` and `fingerprint`
//! (SHA-256) are lower-case hexadecimal digits, `not_before` and `not_after` seconds since the epoch, UTC.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oval::resolve::{Query, QueryEntity};
use proto::content::ContentHash;
use proto::observation::{Collected, Item, Status};
use proto::plan::{Check, Datatype, Operation};
use x509_parser::objects::oid_registry;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::entities::{Known, boolean, int, lacking, text};
use super::file::flagged;
use super::files::{self, Found};
use super::{Probe, ProbeError};
use crate::host::{Host, ReadError};

pub(crate) struct Certificate;

const PLACES: [&str; 3] = ["/etc/pki/tls/certs", "/etc/ssl/certs", "/etc/ssl/private"];
/// Every certificate of this one has a file of its own.
const BUNDLE: &str = "ca-certificates.crt";
/// Bytes of a file that is looked into.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const DASHES: &str = "-----";

impl Probe for Certificate {
    const KIND: &'static str = "muster:certificate";

    fn collect(host: &Host, query: &Query) -> Result<Collected, ProbeError> {
        let Candidates { found, is_by_name, is_usual } = candidates(host, query)?;
        let mut files = Vec::new();
        for entry in &found.entries {
            let (filepath, name) = (entry.filepath(), entry.filename.as_deref().unwrap_or_default());
            let is_asked = |name: &str, value: &str| query.entity(name).map_or(Ok(true), |asked| asked.matches(value));
            if is_asked("filepath", &filepath)? && is_asked("path", &entry.path)? && !(is_usual && name == BUNDLE) {
                files.push((is_name_of_hash(name), filepath, entry.path.clone()));
            }
        }
        // Of a file and links to it, the one with a name for people counts.
        files.sort();
        let mut seen = BTreeSet::new();
        let mut items = Vec::new();
        let mut errors = Vec::new();
        for (_, filepath, path) in &files {
            let Ok(metadata) = host.stat(filepath) else { continue };
            if !metadata.is_file() || !seen.insert((metadata.dev(), metadata.ino())) && !is_by_name {
                continue;
            }
            if metadata.size() > FILE_BYTES_MAX {
                let megabytes = FILE_BYTES_MAX / 1024 / 1024;
                errors.push(ProbeError::NotCovered(format!("{filepath}: larger than {megabytes} MiB")));
                continue;
            }
            match host.read(filepath) {
                Ok(content) => {
                    for block in blocks(&content) {
                        let item = block.and_then(|der| item(filepath, path, &der));
                        let item = item.unwrap_or_else(|why| broken(filepath, path, why));
                        if query.matches(&item)? {
                            items.push(item);
                        }
                    }
                }
                Err(ReadError::Absent) => {}
                Err(ReadError::Cut(cut)) => {
                    errors.push(cut.into());
                    break;
                }
                // One says enough.
                Err(ReadError::Denied) if errors.iter().any(|error| matches!(error, ProbeError::Denied(_))) => {}
                Err(ReadError::Denied) => errors.push(ProbeError::Denied(filepath.clone())),
                Err(error) => errors.push(ProbeError::Broken(format!("{filepath}: {error}"))),
            }
        }
        Ok(lacking(flagged(items, found), errors))
    }
}

/// Files that may hold what is asked for.
struct Candidates {
    found: Found,
    /// Each was asked for by its own name.
    is_by_name: bool,
    /// Nobody said where to look.
    is_usual: bool,
}

fn candidates(host: &Host, query: &Query) -> Result<Candidates, ProbeError> {
    let find = |entities: Vec<QueryEntity>| {
        files::find(host, &Query { kind: query.kind.clone(), entities, behaviors: query.behaviors.clone() })
    };
    let said = |name: &str| query.entity(name).filter(|entity| says_where(entity)).cloned();
    if let Some(filepath) = said("filepath") {
        let is_by_name = filepath.exact().is_some();
        return Ok(Candidates { found: find(vec![filepath])?, is_by_name, is_usual: false });
    }
    let path = said("path");
    let is_usual = path.is_none();
    let places = || entity("path", Operation::Equals, &PLACES);
    let found = find(vec![path.unwrap_or_else(places), entity("filename", Operation::PatternMatch, &[".*"])])?;
    Ok(Candidates { found, is_by_name: false, is_usual })
}

/// Whether an entity names a place: to look for certificates in every file of an endpoint would be too much.
fn says_where(entity: &QueryEntity) -> bool {
    let begins = |pattern: &String| {
        let first = pattern.strip_prefix("^/").and_then(|rest| rest.chars().next());
        first.is_some_and(|first| first.is_ascii_alphanumeric())
    };
    entity.exact().is_some()
        || !entity.is_nil
            && entity.operation == Operation::PatternMatch
            && !entity.values.is_empty()
            && entity.values.iter().all(begins)
}

fn entity(name: &str, operation: Operation, values: &[&str]) -> QueryEntity {
    QueryEntity {
        name: name.to_owned(),
        operation,
        datatype: Datatype::String,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        var_check: Check::AtLeastOne,
        is_nil: false,
    }
}

/// `002c0b4f.0`, as OpenSSL looks for certificates.
fn is_name_of_hash(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, count)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && count.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The certificates of a file as DER, and why one is none.
fn blocks(content: &[u8]) -> Vec<Result<Cow<'_, [u8]>, &'static str>> {
    let text = String::from_utf8_lossy(content);
    let mut blocks = Vec::new();
    let mut rest: &str = &text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, tail) = after.split_at(after.find(DASHES).unwrap_or(after.len()));
        blocks.push(if tail.starts_with(END) {
            let digits: String = body.split_whitespace().collect();
            STANDARD.decode(digits).map(Cow::Owned).map_err(|_| "a certificate is not in Base64")
        } else {
            Err("a certificate has no end")
        });
        rest = tail;
    }
    let is_der = blocks.is_empty() && X509Certificate::from_der(content).is_ok_and(|(rest, _)| rest.is_empty());
    if is_der {
        blocks.push(Ok(Cow::Borrowed(content)));
    }
    blocks
}

fn item(filepath: &str, path: &str, der: &[u8]) -> Result<Item, &'static str> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| "a certificate cannot be parsed")?;
    if !rest.is_empty() {
        return Err("bytes follow a certificate");
    }
    let (key_type, key_bits) = key(certificate.public_key());
    let constraints = certificate.basic_constraints().map_err(|_| Status::Error);
    let serial = certificate.raw_serial();
    let validity = certificate.validity();
    let entities = vec![
        text("filepath", Ok(filepath)),
        text("path", Ok(path)),
        text("subject", name(certificate.subject())),
        text("issuer", name(certificate.issuer())),
        // A positive number may begin with a byte for its sign.
        text("serial", Ok(hexadecimal(serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial)))),
        int("not_before", Ok(validity.not_before.timestamp())),
        int("not_after", Ok(validity.not_after.timestamp())),
        text("key_type", key_type),
        int("key_bits", key_bits),
        boolean("is_ca", constraints.map(|constraints| constraints.is_some_and(|constraints| constraints.value.ca))),
        // This hash is one of SHA-256.
        text("fingerprint", Ok(ContentHash::of(der).as_str())),
    ];
    Ok(Item::new(Certificate::KIND, entities))
}

fn broken(filepath: &str, path: &str, why: &str) -> Item {
    let mut item = Item::new(Certificate::KIND, vec![text("filepath", Ok(filepath)), text("path", Ok(path))]);
    item.status = Status::Error;
    item.message = Some(format!("{filepath}: {why}"));
    item
}

fn name(name: &X509Name<'_>) -> Known<String> {
    name.to_string_with_registry(oid_registry()).map_err(|_| Status::Error)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        // Writing to text cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// The algorithm, with the number of its object identifier where there is no word for it, and the key's size.
fn key(info: &SubjectPublicKeyInfo<'_>) -> (Known<String>, Known<usize>) {
    let known = |word: &str, bits: Known<usize>| (Ok(word.to_owned()), bits);
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => known("rsa", Ok(bits_of(key.modulus))),
        // The curve of 521 bits has points of whole bytes.
        Ok(PublicKey::EC(point)) => known("ec", Ok(if point.key_size() == 528 { 521 } else { point.key_size() })),
        Ok(PublicKey::DSA(_)) => known("dsa", Err(Status::DoesNotExist)),
        Ok(_) => match info.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => known("ed25519", Ok(256)),
            "1.3.101.113" => known("ed448", Ok(456)),
            "1.2.840.113549.1.1.10" => known("rsa-pss", Err(Status::DoesNotExist)),
            other => known(other, Err(Status::DoesNotExist)),
        },
        Err(_) => (Err(Status::Error), Err(Status::Error)),
    }
}

/// How long a number is without zeros before it.
fn bits_of(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let rest = number.get(zeros..).unwrap_or_default();
    let unused = rest.first().map_or(0, |first| first.leading_zeros());
    rest.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::entities::fixture::{asked, query, tree, values};
    use super::*;
    use proto::observation::Flag;
    use std::os::unix::fs::symlink;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBqzCCAVKgAwIBAgIDAIobMAoGCCqGSM49BAMCMDQxCzAJBgNVBAYTAlhYMRAw\n\
        DgYDVQQKDAdFeGFtcGxlMRMwEQYDVQQDDApFeGFtcGxlIENBMB4XDTI2MTEyNjEx\n\
        NDYzMloXDTM2MTEyMzExNDYzMlowNDELMAkGA1UEBhMCWFgxEDAOBgNVBAoMB0V4\n\
        YW1wbGUxEzARBgNVBAMMCkV4YW1wbGUgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMB\n\
        BwNCAATLPJI5cEQT5o95cuUw6dKVhPVJmS2oye1GCAnoVNOBqyH+I+cIM+6PcJ5s\n\
        eqi1+jVvjU5TwvjLaqLvR7KveqvDo1MwUTAdBgNVHQ4EFgQUegZFqBoZ5VgzfiH8\n\
        zBj9zHLxB/8wHwYDVR0jBBgwFoAUegZFqBoZ5VgzfiH8zBj9zHLxB/8wDwYDVR0T\n\
        AQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAsTJKoFNlBoISoXZWy7X+zb+5p\n\
        nBr3YXp0tO8dKU9LzQIgCafNdSJw+McfZAldl/qVtECPhuezpbVYk6XT74Alob4=\n\
        -----END CERTIFICATE-----\n";

    fn der() -> Vec<u8> {
        blocks(PEM.as_bytes()).remove(0).unwrap().into_owned()
    }

    fn collect(host: &Host, entities: Vec<QueryEntity>) -> Collected {
        Certificate::collect(host, &query(Certificate::KIND, entities)).unwrap()
    }

    fn equals(name: &str, value: &str) -> QueryEntity {
        asked(name, Operation::Equals, value)
    }

    fn pattern(name: &str, value: &str) -> QueryEntity {
        asked(name, Operation::PatternMatch, value)
    }

    #[test]
    fn a_certificate_is_told_by_what_it_says() {
        let (_root, host) = tree(&[("etc/pki/tls/certs/a.pem", PEM)]);
        let collected = collect(&host, vec![pattern("filepath", ".*"), pattern("path", ".*")]);
        assert_eq!(collected.flag, Flag::Complete);
        let item = &collected.items[0];
        for (name, expect) in [
            ("filepath", "/etc/pki/tls/certs/a.pem"),
            ("path", "/etc/pki/tls/certs"),
            ("subject", "C=XX, O=Example, CN=Example CA"),
            ("issuer", "C=XX, O=Example, CN=Example CA"),
            ("serial", "8a1b"),
            ("not_before", "1795693592"),
            ("not_after", "2111053592"),
            ("key_type", "ec"),
            ("key_bits", "256"),
            ("is_ca", "true"),
            ("fingerprint", "a625ece4bf1e209a2dfd35db1ee75ce3bdd8f072c1695ef6483ef05b91c91c20"),
        ] {
            assert_eq!(item.value(name), Some(expect), "{name}");
        }
    }

    #[test]
    fn each_file_counts_once_and_the_bundle_does_not() {
        let (root, host) = tree(&[
            ("usr/share/ca-certificates/x/a.crt", PEM),
            ("etc/ssl/certs/ca-certificates.crt", PEM),
            ("etc/ssl/private/b.pem", PEM),
        ]);
        let at = |path: &str| root.path().join(path);
        symlink("/usr/share/ca-certificates/x/a.crt", at("etc/ssl/certs/a.pem")).unwrap();
        symlink("a.pem", at("etc/ssl/certs/002c0b4f.0")).unwrap();
        symlink("/nowhere", at("etc/ssl/certs/gone.pem")).unwrap();
        let paths = |entities| {
            let items = collect(&host, entities).items;
            values(&items, "filepath").into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(paths(Vec::new()), ["/etc/ssl/certs/a.pem", "/etc/ssl/private/b.pem"]);
        assert_eq!(paths(vec![pattern("filepath", r"\.0$")]), ["/etc/ssl/certs/002c0b4f.0"]);
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        assert_eq!(paths(vec![equals("filepath", bundle), pattern("path", ".*")]), [bundle]);
    }

    #[test]
    fn other_places_are_looked_at_where_they_are_named() {
        let (_root, host) = tree(&[("opt/tls/a.crt", PEM), ("opt/tls/deep/b.crt", PEM), ("opt/tls/c.txt", "text")]);
        let count = |entities: Vec<QueryEntity>| collect(&host, entities).items.len();
        assert_eq!(count(Vec::new()), 0);
        assert_eq!(count(vec![pattern("filepath", ".*"), equals("path", "/opt/tls")]), 1);
        assert_eq!(count(vec![pattern("filepath", "^/opt/tls/")]), 2);
        assert_eq!(count(vec![pattern("filepath", "^/opt/tls/"), equals("path", "/opt/tls/deep")]), 1);
        assert_eq!(count(vec![pattern("filepath", "crt$")]), 0); // not a place
    }

    #[test]
    fn certificates_are_found_among_keys_and_each_that_is_broken_says_so() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let check = |content: &str, expect: &[Status]| {
            let (_root, host) = tree(&[("x", content)]);
            let items = collect(&host, vec![equals("filepath", "/x")]).items;
            assert_eq!(items.iter().map(|item| item.status).collect::<Vec<_>>(), expect, "{content}");
        };
        use Status::{Error, Exists};
        check(key, &[]);
        check(&format!("{key}{PEM}text\n{PEM}"), &[Exists, Exists]);
        check(&format!("{BEGIN}\n{PEM}"), &[Error, Exists]);
        check(&format!("{PEM}{BEGIN}\nAAA"), &[Exists, Error]);
        check(&format!("{BEGIN}\n%%\n{END}\n{PEM}"), &[Error, Exists]);
        check(&format!("{BEGIN}\nMAA=\n{END}\n"), &[Error]);
    }

    #[test]
    fn one_in_der_is_a_certificate_too() {
        let (root, host) = tree(&[("etc/ssl/certs/a.pem", PEM)]);
        std::fs::write(root.path().join("a.cer"), der()).unwrap();
        assert_eq!(collect(&host, vec![equals("filepath", "/a.cer")]).items[0].value("serial"), Some("8a1b"));
    }

    #[test]
    fn damaged_certificates_do_no_harm() {
        let whole = der();
        assert!(item("/x", "/", &whole).is_ok());
        for end in 0..whole.len() {
            assert!(item("/x", "/", &whole[..end]).is_err(), "{end}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                let _ = item("/x", "/", &damaged);
            }
        }
    }

    #[test]
    fn bits_of_a_key_are_those_of_its_number() {
        assert_eq!(bits_of(&[0, 0x80, 0]), 16);
        assert_eq!(bits_of(&[1, 0]), 9);
        assert_eq!(bits_of(&[0]), 0);
        assert_eq!(bits_of(&[]), 0);
    }
}
