//! Signatures of files: SSHSIG, as `ssh-keygen -Y sign` makes them (OpenSSH, PROTOCOL.sshsig), with Ed25519 keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::limits::shown;
use ring::digest::{SHA256, SHA512, digest};
use ring::signature::{ED25519, UnparsedPublicKey};

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

/// The key in a line as OpenSSH writes public keys: `ssh-ed25519 AAAA… who`; an error in words where it is none.
pub fn key_of(line: &str) -> Result<[u8; 32], String> {
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

/// The key that has signed this, once the signature is checked; an error in words where it is none, or one for another
/// namespace: a signature that was made for something else is worth nothing.
pub fn signer_in(namespace: &str, armored: &str, content: &[u8]) -> Result<[u8; 32], String> {
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
    let (version, key, given, reserved, hash, signature) = parts().ok_or("the signature is cut off or damaged")?;
    if version != 1 {
        return Err(format!("the signature has version {version}; 1 is read"));
    }
    if given != namespace.as_bytes() {
        let given = shown(&String::from_utf8_lossy(given));
        return Err(format!("the signature is for `{given}`, not for `{namespace}` (`ssh-keygen -Y sign -n`)"));
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
    put(&mut signed, given);
    put(&mut signed, reserved);
    put(&mut signed, hash);
    put(&mut signed, digest(algorithm, content).as_ref());
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&signed, signature)
        .map_err(|_| "the signature is not for this content: one of the two was changed".to_owned())?;
    Ok(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const CONTENT: &[u8] = include_bytes!("../../../orchestrator/tests/signatures/policy.txt");
    const SIGNATURE: &str = include_str!("../../../orchestrator/tests/signatures/policy.txt.sig");
    const KEY: &str = include_str!("../../../orchestrator/tests/signatures/key.pub");

    #[test]
    fn a_signature_is_for_its_content_and_its_namespace() {
        assert_eq!(signer_in("muster-policy", SIGNATURE, CONTENT), key_of(KEY));
        assert!(signer_in("muster-scripts", SIGNATURE, CONTENT).unwrap_err().contains("for `muster-policy`"));
        assert!(signer_in("muster-policy", SIGNATURE, b"other").unwrap_err().contains("changed"));
    }

    #[test]
    fn damaged_signatures_and_keys_are_refused_in_words() {
        let blob =
            STANDARD.decode(SIGNATURE.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            let armored = format!("{BEGIN}\n{}\n{END}", STANDARD.encode(&damaged));
            // A key that was changed is another key, and its signature is not for this.
            assert!(signer_in("muster-policy", &armored, CONTENT).is_err(), "{at}");
        }
        for wrong in ["", "ssh-ed25519", "ssh-rsa AAAA", "ssh-ed25519 ????", "ssh-ed25519 AAAA"] {
            assert!(key_of(wrong).is_err(), "{wrong}");
        }
    }
}
