//! Signatures of policies, as `ssh-keygen` makes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::content::ContentHash;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

fn put(into: &mut Vec<u8>, string: &[u8]) {
    into.extend(u32::try_from(string.len()).expect("it is short").to_be_bytes());
    into.extend(string);
}

fn blob(key: &KeyPair) -> Vec<u8> {
    let mut blob = Vec::new();
    put(&mut blob, b"ssh-ed25519");
    put(&mut blob, key.der_bytes());
    blob
}

/// What `ssh-keygen -Y sign -n muster-policy -O hashalg=sha256` writes.
pub fn signed(key: &KeyPair, content: &str) -> String {
    let digest = ContentHash::of(content.as_bytes()).as_str().to_owned();
    let digest: Vec<u8> = (0..digest.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digest[at..at + 2], 16).expect("two digits"))
        .collect();
    let mut message = b"SSHSIG".to_vec();
    for part in [&b"muster-policy"[..], b"", b"sha256", &digest] {
        put(&mut message, part);
    }
    let mut signature = Vec::new();
    put(&mut signature, b"ssh-ed25519");
    put(&mut signature, &key.sign(&message).expect("an Ed25519 key signs"));
    let mut whole = b"SSHSIG\0\0\0\x01".to_vec();
    for part in [&blob(key)[..], b"muster-policy", b"", b"sha256", &signature] {
        put(&mut whole, part);
    }
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", STANDARD.encode(whole))
}

/// The public key, as OpenSSH writes it.
pub fn public(key: &KeyPair) -> String {
    format!("ssh-ed25519 {} somebody", STANDARD.encode(blob(key)))
}
