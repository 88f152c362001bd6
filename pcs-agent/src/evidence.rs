//! What tells this endpoint from others: read, never made, and nothing that is secret.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proto::identity::{IdentityEvidence, MAC_ADDRESS, MACHINE_ID, SSH_HOST_KEY, SYSTEM_SERIAL, SYSTEM_UUID};

use crate::host::Host;

/// Network interfaces that are looked at.
const INTERFACES_MAX: usize = 64;

/// The evidence of the endpoint below `root`.
pub fn gather(root: &Path) -> Vec<IdentityEvidence> {
    let host = Host::new(root);
    let mut evidence = Vec::new();
    let mut add = |attribute: &str, path: &str| {
        let text = host.read_text(path).unwrap_or_default();
        evidence.extend(text.lines().next().and_then(|line| IdentityEvidence::new(attribute, line)));
    };
    add(MACHINE_ID, "/etc/machine-id");
    // A container sees the hardware of the machine that it shares with others.
    if !is_container(&host) {
        add(SYSTEM_UUID, "/sys/class/dmi/id/product_uuid");
        add(SYSTEM_SERIAL, "/sys/class/dmi/id/product_serial");
        evidence.extend(mac_addresses(&host));
    }
    evidence.extend(host_keys(&host));
    evidence
}

fn is_container(host: &Host) -> bool {
    ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"].iter().any(|path| host.lstat(path).is_ok())
}

/// Addresses of interfaces that are devices: those of bridges, tunnels and containers come and go.
fn mac_addresses(host: &Host) -> Vec<IdentityEvidence> {
    let Ok(entries) = host.read_dir("/sys/class/net") else { return Vec::new() };
    let interfaces = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut addresses: Vec<IdentityEvidence> = interfaces
        .filter(|interface| interface.join("device").exists())
        .take(INTERFACES_MAX)
        .filter_map(|interface| std::fs::read_to_string(interface.join("address")).ok())
        .filter_map(|address| IdentityEvidence::new(MAC_ADDRESS, &address))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// Fingerprints of the public host keys, as `ssh-keygen -l` shows them.
fn host_keys(host: &Host) -> Vec<IdentityEvidence> {
    let kinds = ["ed25519", "ecdsa", "rsa"];
    let fingerprint = |kind: &&str| {
        let text = host.read_text(&format!("/etc/ssh/ssh_host_{kind}_key.pub")).ok()?;
        let key = STANDARD.decode(text.split_whitespace().nth(1)?).ok()?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &key);
        IdentityEvidence::new(SSH_HOST_KEY, &format!("SHA256:{}", STANDARD_NO_PAD.encode(digest)))
    };
    kinds.iter().filter_map(fingerprint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn names(evidence: &[IdentityEvidence]) -> Vec<&str> {
        evidence.iter().map(|one| one.attribute.as_str()).collect()
    }

    #[test]
    fn what_there_is_is_told_and_what_says_nothing_is_not() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJkYmRiZGJkYmRiZGJkYmRiZGJkYmRiZGJkYmRiZGI= root@here\n";
        let root = root(&[
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("/sys/class/dmi/id/product_uuid", "4C4C4544-0051-3010-8051-B4C04F4B4B32\n"),
            ("/sys/class/dmi/id/product_serial", "To Be Filled By O.E.M.\n"),
            ("/sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
            ("/sys/class/net/eth0/device/uevent", ""),
            ("/sys/class/net/lo/address", "00:00:00:00:00:00\n"),
            ("/sys/class/net/docker0/address", "02:42:ac:11:00:01\n"),
            ("/etc/ssh/ssh_host_ed25519_key.pub", key),
            ("/etc/ssh/ssh_host_rsa_key.pub", "not a key"),
        ]);
        let evidence = gather(root.path());
        assert_eq!(names(&evidence), [MACHINE_ID, SYSTEM_UUID, MAC_ADDRESS, SSH_HOST_KEY]);
        assert!(evidence[3].value.starts_with("SHA256:") && evidence[3].value.len() == 50, "{:?}", evidence[3]);
        assert!(gather(self::root(&[]).path()).is_empty());
    }

    #[test]
    fn a_container_does_not_speak_for_the_hardware_below_it() {
        let root = root(&[
            ("/.dockerenv", ""),
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("/sys/class/dmi/id/product_uuid", "4C4C4544-0051-3010-8051-B4C04F4B4B32\n"),
            ("/sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
            ("/sys/class/net/eth0/device/uevent", ""),
        ]);
        assert_eq!(names(&gather(root.path())), [MACHINE_ID]);
    }
}
