//! Signatures of policies: SSHSIG, as `ssh-keygen -Y sign -n muster-policy` makes them (OpenSSH, PROTOCOL.sshsig), with Ed25519
//! keys. Once a key is believed, nothing is taken as a policy that none of them has signed.

use jiff::Timestamp;
use proto::fault::{Fault, FaultCode};
use proto::limits::shown;
use proto::operator::{PolicySigner, SignerChange};
use service::audit::{Act, Actor};
use service::signature::{key_of, signer_in};

use crate::driver::Handle;
use crate::policies::is_name;

/// What signatures are for: one that was made for something else is worth nothing here.
const NAMESPACE: &str = "muster-policy";

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
    let key = signer_in(NAMESPACE, signature, content)?;
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
    fn damaged_signatures_are_refused() {
        let both = signers(&[KEY]);
        for cut in (0..SIGNATURE.trim().len()).step_by(7) {
            assert!(check(&both, Some(&SIGNATURE[..cut]), CONTENT).is_err(), "{cut}");
        }
    }
}
