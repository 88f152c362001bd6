//! Signatures of policies: SSHSIG, as `ssh-keygen -Y sign -n muster-policy` makes them (OpenSSH, PROTOCOL.sshsig), with Ed25519
//! keys. Once a key is believed, nothing is taken as a policy that none of them has signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proto::fault::{Fault, FaultCode};
use proto::limits::shown;
use proto::operator::{PolicySigner, SignerChange};
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use service::audit::{Act, Actor};

use crate::driver::Handle;
use crate::policies::is_name;

/// What signatures are for: one that was made for something else is worth nothing here.
const NAMESPACE: &str = "muster-policy";
const MAGIC: &[u8] = b"SSHSIG";
const KEY_TYPE: &str = "ssh-ed25519";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// Reads the strings that OpenSSH's formats are made of.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }
}

fn put(into: &mut Vec<u8>, string: &[u8]) {
    into.extend(u32::try_from(string.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend(string);
}

/// The key in a line as OpenSSH writes public keys: `ssh-ed25519 AAAA… who`.
fn key_of(line: &str) -> Result<[u8; 32], String> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some(KEY_TYPE), Some(encoded)) => {
            let blob = STANDARD.decode(encoded).map_err(|_| "the key is not base64".to_owned())?;
            key_in(&blob).ok_or_else(|| "the key is not an Ed25519 key".to_owned())
        }
        (Some(other), Some(_)) => {
            Err(format!("`{}` keys are not taken; make one with `ssh-keygen -t ed25519`", shown(other)))
        }
        _ => Err("a public key is a line such as `ssh-ed25519 AAAA… name`".to_owned()),
    }
}

fn key_in(blob: &[u8]) -> Option<[u8; 32]> {
    let mut reader = Reader(blob);
    (reader.string()? == KEY_TYPE.as_bytes()).then_some(())?;
    let key = reader.string()?.try_into().ok()?;
    reader.0.is_empty().then_some(key)
}

/// The key that has signed this, once the signature is checked.
fn signer_in(armored: &str, content: &[u8]) -> Result<[u8; 32], String> {
    let body = armored.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let encoded: String = body
        .ok_or("the signature is not one of `ssh-keygen -Y sign`")?
        .chars()
        .filter(|character| !character.is_ascii_whitespace())
        .collect();
    let blob = STANDARD.decode(encoded).map_err(|_| "the signature is not base64".to_owned())?;
    let parts = || {
        let mut reader = Reader(&blob);
        (reader.take(MAGIC.len())? == MAGIC).then_some(())?;
        let version = reader.number()?;
        let [key, namespace, reserved, hash, signature] = [(); 5].map(|()| reader.string());
        Some((version, key?, namespace?, reserved?, hash?, signature?))
    };
    let (version, key, namespace, reserved, hash, signature) = parts().ok_or("the signature is cut off or damaged")?;
    if version != 1 {
        return Err(format!("the signature has version {version}; 1 is read"));
    }
    if namespace != NAMESPACE.as_bytes() {
        let namespace = shown(&String::from_utf8_lossy(namespace));
        return Err(format!("the signature is for `{namespace}`, not for `{NAMESPACE}` (`ssh-keygen -Y sign -n`)"));
    }
    let algorithm = match hash {
        b"sha512" => &SHA512,
        b"sha256" => &SHA256,
        _ => return Err("the signature's hash is neither sha512 nor sha256".to_owned()),
    };
    let key = key_in(key).ok_or("the signature is not of an Ed25519 key")?;
    let mut reader = Reader(signature);
    let signature = match (reader.string(), reader.string()) {
        (Some(kind), Some(signature)) if kind == KEY_TYPE.as_bytes() => signature,
        _ => return Err("the signature is not one of Ed25519".to_owned()),
    };
    let mut signed = MAGIC.to_vec();
    put(&mut signed, namespace);
    put(&mut signed, reserved);
    put(&mut signed, hash);
    put(&mut signed, digest(algorithm, content).as_ref());
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed, signature)
        .map_err(|_| "the signature is not for this content: one of the two was changed".to_owned())?;
    Ok(key)
}

/// Whose signature this is, by the name of the key; an error where it is nobody's that is believed, or where there is none and
/// somebody is.
fn check(signers: &[PolicySigner], signature: Option<&str>, content: &[u8]) -> Result<Option<String>, String> {
    let Some(signature) = signature else {
        return match signers {
            [] => Ok(None),
            _ => Err(format!(
                "policies have to be signed here: `ssh-keygen -Y sign -n {NAMESPACE} -f KEY FILE`, and keep FILE.sig beside it"
            )),
        };
    };
    let key = signer_in(signature, content)?;
    let known = signers.iter().find(|signer| key_of(&signer.key).is_ok_and(|known| known == key));
    match known {
        Some(signer) => Ok(Some(signer.name.clone())),
        None => Err("the signature is good, and its key is not believed: `muster policy signer add`".to_owned()),
    }
}

impl Handle {
    /// Whose signature this is.
    pub(crate) async fn signer_of(&self, signature: Option<&str>, content: &[u8]) -> Result<Option<String>, Fault> {
        let signers = self.inner.store.signers().await?;
        check(&signers, signature, content).map_err(|text| Fault::new(FaultCode::NotAuthorized, text))
    }

    /// Believes a key, or no longer.
    pub(crate) async fn change_signer(&self, actor: Actor, change: SignerChange) -> Result<String, Fault> {
        match change {
            SignerChange::Add { name, key } => {
                if !is_name(&name) {
                    let text = "a signer's name is up to 64 letters, digits, dots, dashes and underscores";
                    return Err(Fault::new(FaultCode::Malformed, text));
                }
                key_of(&key).map_err(|text| Fault::new(FaultCode::Malformed, text))?;
                let line: Vec<&str> = key.split_whitespace().take(2).collect();
                let signer = PolicySigner { name: name.clone(), key: line.join(" "), added: Timestamp::now() };
                let act = Act::new(actor, "add-policy-signer", &name).because(&signer.key);
                self.inner.store.put_signer(&signer, &act).await?;
                Ok(format!("policies that `{name}` has signed are taken, and no others but those of other signers"))
            }
            SignerChange::Remove { name } => {
                let known = self.inner.store.signers().await?;
                if !known.iter().any(|signer| signer.name == name) {
                    let text = format!("no signer is called `{}`; `muster policy signer list`", shown(&name));
                    return Err(Fault::new(FaultCode::UnknownIdentifier, text));
                }
                let act = Act::new(actor, "remove-policy-signer", &name);
                self.inner.store.remove_signer(&name, &act).await?;
                Ok(match known.len() {
                    1 => format!("`{name}` is not believed any more; nobody is, and policies need no signature"),
                    _ => format!("`{name}` is not believed any more; what it has signed before stays"),
                })
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const CONTENT: &[u8] = include_bytes!("../tests/signatures/policy.txt");
    const SIGNATURE: &str = include_str!("../tests/signatures/policy.txt.sig");
    const ELSEWHERE: &str = include_str!("../tests/signatures/elsewhere.sig");
    const KEY: &str = include_str!("../tests/signatures/key.pub");
    const OTHER: &str = include_str!("../tests/signatures/other.pub");

    fn signers(keys: &[&str]) -> Vec<PolicySigner> {
        let signer = |(at, key): (usize, &&str)| PolicySigner {
            name: format!("s{at}"),
            key: (*key).to_owned(),
            added: Timestamp::UNIX_EPOCH,
        };
        keys.iter().enumerate().map(signer).collect()
    }

    #[test]
    fn what_openssh_has_signed_is_taken_from_whom_it_is_believed() {
        let both = signers(&[OTHER, KEY]);
        assert_eq!(check(&both, Some(SIGNATURE), CONTENT), Ok(Some("s1".to_owned())));
        assert!(check(&both, Some(SIGNATURE), b"something else").unwrap_err().contains("changed"));
        assert!(check(&signers(&[OTHER]), Some(SIGNATURE), CONTENT).unwrap_err().contains("not believed"));
        assert!(check(&both, None, CONTENT).unwrap_err().contains("ssh-keygen"));
        assert_eq!(check(&[], None, CONTENT), Ok(None));
        // Nobody is believed: a signature says nothing, and is not passed over either.
        assert!(check(&[], Some(SIGNATURE), CONTENT).is_err());
        assert!(check(&both, Some(ELSEWHERE), CONTENT).unwrap_err().contains("for `file`"));
    }

    #[test]
    fn damaged_signatures_and_keys_are_refused_in_words() {
        let both = signers(&[KEY]);
        for cut in (0..SIGNATURE.trim().len()).step_by(7) {
            assert!(check(&both, Some(&SIGNATURE[..cut]), CONTENT).is_err(), "{cut}");
        }
        let blob =
            STANDARD.decode(SIGNATURE.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            let armored = format!("{BEGIN}\n{}\n{END}", STANDARD.encode(&damaged));
            assert!(check(&both, Some(&armored), CONTENT).is_err(), "{at}");
        }
        for wrong in ["", "ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 ????", "ssh-ed25519 AAAA"] {
            assert!(key_of(wrong).is_err(), "{wrong}");
        }
    }
}
