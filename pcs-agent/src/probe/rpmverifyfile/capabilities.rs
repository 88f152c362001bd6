//! Capabilities of files: as text (`cap_from_text(3)`), and as the kernel keeps them (`security.capability`,
//! `linux/capability.h`).

/// Names by number, from 0.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const EVERY: u64 = (1 << NAMES.len()) - 1;

/// Three sets, a bit for each capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Capabilities {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

impl Capabilities {
    /// What the text says; none where it cannot be read.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let mut capabilities = Self::default();
        for clause in text.split_ascii_whitespace() {
            let operators = clause.find(['=', '+', '-'])?;
            let (names, mut actions) = clause.split_at_checked(operators)?;
            let named = match names {
                "" if actions.starts_with('=') => EVERY,
                "" => return None,
                names => names.split(',').try_fold(0, |named, name| Some(named | number(name)?))?,
            };
            while let Some(operator) = actions.chars().next() {
                let rest = actions.get(1..)?;
                let end = rest.find(['=', '+', '-']).unwrap_or(rest.len());
                let (flags, behind) = rest.split_at_checked(end)?;
                if operator == '=' {
                    capabilities.set("eip", named, false)?;
                }
                capabilities.set(flags, named, operator != '-')?;
                actions = behind;
            }
        }
        Some(capabilities)
    }

    fn set(&mut self, flags: &str, named: u64, is_raised: bool) -> Option<()> {
        for flag in flags.chars() {
            let set = match flag {
                'e' => &mut self.effective,
                'i' => &mut self.inheritable,
                'p' => &mut self.permitted,
                _ => return None,
            };
            *set = if is_raised { *set | named } else { *set & !named };
        }
        Some(())
    }

    /// What the extended attribute says; none where it cannot be read.
    pub(super) fn of_attribute(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
        let head = word(0)?;
        let (permitted, inheritable) = match (head >> 24, bytes.len()) {
            (1, 12) => (word(4)?, word(8)?),
            (2, 20) | (3, 24) => (word(4)? | word(12)? << 32, word(8)? | word(16)? << 32),
            _ => return None,
        };
        let effective = if head & 1 == 0 { 0 } else { permitted | inheritable };
        Some(Self { effective, permitted, inheritable })
    }
}

/// The bit of a capability, or of all of them.
fn number(name: &str) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    if name == "all" {
        return Some(EVERY);
    }
    let position = match name.strip_prefix("cap_") {
        Some(name) => NAMES.iter().position(|known| *known == name)?,
        None => name.parse().ok().filter(|number| *number < 64)?,
    };
    Some(1 << position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_and_an_attribute_say_the_same() {
        let check = |text: &str, attribute: &[u8]| {
            assert_eq!(Capabilities::of_text(text), Capabilities::of_attribute(attribute), "{text}");
        };
        let raw = |revision: u8, effective: u8| [effective, 0, 0, revision, 0, 0x20, 0, 0, 0, 0, 0, 0];
        check("cap_net_raw=p", &raw(1, 0));
        check("cap_net_raw+ep", &raw(1, 1));
        check("= cap_net_raw+ep", &[&raw(2, 1)[..], &[0; 8]].concat());
        check("CAP_NET_RAW=pe", &[&raw(3, 1)[..], &[0; 12]].concat());
        check("13=ep", &[&raw(2, 1)[..], &[0; 8]].concat());
        check("cap_net_raw,cap_chown=ep cap_chown-ep", &raw(1, 1));
        check("cap_syslog=i", &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(Capabilities::of_text(""), Some(Capabilities::default()));
        assert_ne!(Capabilities::of_text("cap_net_raw=p"), Capabilities::of_text("cap_net_raw=ep"));
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for text in ["cap_net_raw", "cap_nothing=p", "cap_net_raw=x", "+p", "64=p", "=é"] {
            assert_eq!(Capabilities::of_text(text), None, "{text}");
        }
        let whole = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for length in 0..whole.len() {
            assert_eq!(Capabilities::of_attribute(&whole[..length]), None);
        }
        assert!(Capabilities::of_attribute(&whole).is_some());
    }
}
