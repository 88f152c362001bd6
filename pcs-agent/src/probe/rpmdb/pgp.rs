//! Whose signature it is: the key's identifier in an OpenPGP signature packet (RFC 4880 §4.2, §5.2; RFC 9580 §5.2.3).
//! Nothing is verified.

use super::bytes::{be16, be32, be64, size};

const SIGNATURE: u8 = 2;
const ISSUER: u8 = 16;
const ISSUER_FINGERPRINT: u8 = 33;

/// The identifier of the key that made the first signature.
pub(super) fn key_id(packets: &[u8]) -> Option<u64> {
    let mut rest = packets;
    while let Some((tag, body, behind)) = packet(rest) {
        if tag == SIGNATURE {
            return of_signature(body);
        }
        rest = behind;
    }
    None
}

/// The first packet: its tag, its body, and what is behind it.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        return None;
    }
    let (tag, length, rest) = if first & 0x40 == 0 {
        let tag = first >> 2 & 0x0f;
        match first & 3 {
            0 => (tag, usize::from(*rest.first()?), rest.get(1..)?),
            1 => (tag, usize::from(be16(rest, 0)?), rest.get(2..)?),
            2 => (tag, size(be32(rest, 0)?), rest.get(4..)?),
            _ => (tag, rest.len(), rest),
        }
    } else {
        let (length, rest) = length(rest)?;
        (first & 0x3f, length, rest)
    };
    let (body, behind) = rest.split_at_checked(length)?;
    Some((tag, body, behind))
}

/// A length of one, two or five bytes; of packets in parts there are no signatures.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    match first {
        0..192 => Some((usize::from(first), rest)),
        192..224 => {
            let (&second, rest) = rest.split_first()?;
            Some(((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest))
        }
        255 => Some((size(be32(rest, 0)?), rest.get(4..)?)),
        _ => None,
    }
}

fn of_signature(body: &[u8]) -> Option<u64> {
    match body.first()? {
        2 | 3 => be64(body, 7),
        4 => {
            let hashed_length = usize::from(be16(body, 4)?);
            let (hashed, rest) = body.get(6..)?.split_at_checked(hashed_length)?;
            let unhashed = rest.get(2..)?.get(..usize::from(be16(rest, 0)?))?;
            of_subpackets(hashed, unhashed)
        }
        6 => {
            let hashed_length = size(be32(body, 4)?);
            let (hashed, rest) = body.get(8..)?.split_at_checked(hashed_length)?;
            let unhashed = rest.get(4..)?.get(..size(be32(rest, 0)?))?;
            of_subpackets(hashed, unhashed)
        }
        _ => None,
    }
}

fn of_subpackets(hashed: &[u8], unhashed: &[u8]) -> Option<u64> {
    let all = || subpackets(hashed).chain(subpackets(unhashed));
    let issuer = all().find_map(|(kind, body)| if kind == ISSUER { be64(body, 0) } else { None });
    issuer.or_else(|| {
        all().find_map(|(kind, body)| match body {
            // Of version 4 the last eight bytes are the identifier, of later ones the first.
            [4, fingerprint @ ..] if kind == ISSUER_FINGERPRINT => be64(fingerprint, 12),
            [_, fingerprint @ ..] if kind == ISSUER_FINGERPRINT => be64(fingerprint, 0),
            _ => None,
        })
    })
}

/// Types and bodies, as far as they can be read.
fn subpackets(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, behind) = length_of_subpacket(rest)?;
        let (subpacket, behind) = behind.split_at_checked(length)?;
        let (&kind, body) = subpacket.split_first()?;
        rest = behind;
        Some((kind & 0x7f, body))
    })
}

/// As of a packet, but that two bytes go further (RFC 4880 §5.2.3.1).
fn length_of_subpacket(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [first @ 224..=254, second, rest @ ..] => {
            Some(((usize::from(*first) - 192) * 256 + usize::from(*second) + 192, rest))
        }
        _ => length(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(packets: &[u8], expect: Option<u64>) {
        assert_eq!(key_id(packets), expect, "{packets:02x?}");
        for length in 0..packets.len() {
            // Cut short, it is nothing, and no reason to panic.
            let _ = key_id(&packets[..length]);
        }
    }

    const ID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    const AS_NUMBER: u64 = 0x0102_0304_0506_0708;

    fn signature(version_4: &[u8], hashed: &[u8], unhashed: &[u8]) -> Vec<u8> {
        let length = |part: &[u8]| u16::try_from(part.len()).unwrap().to_be_bytes();
        [version_4, &length(hashed), hashed, &length(unhashed), unhashed, &[0xab, 0xcd]].concat()
    }

    fn new_format(body: &[u8]) -> Vec<u8> {
        [&[0xc2, u8::try_from(body.len()).unwrap()], body].concat()
    }

    #[test]
    fn the_key_is_named_by_its_identifier_or_its_fingerprint() {
        let old = [&[0x88, 19, 3, 5, 0, 0, 0, 0, 0][..], &ID, &[1, 8, 0xab, 0xcd]].concat();
        check(&old, Some(AS_NUMBER));
        let issuer = [&[9, ISSUER][..], &ID].concat();
        check(&new_format(&signature(&[4, 0, 1, 8], &[5, 2, 0, 0, 0, 0], &issuer)), Some(AS_NUMBER));
        let fingerprint = [&[22, ISSUER_FINGERPRINT, 4][..], &[0xff; 12], &ID].concat();
        check(&new_format(&signature(&[4, 0, 22, 8], &fingerprint, &[])), Some(AS_NUMBER));
        check(&new_format(&signature(&[4, 0, 22, 8], &[], &[])), None);
        check(&[], None);
        check(b"-----BEGIN", None);
    }

    #[test]
    fn packets_before_the_signature_are_passed_over() {
        let issuer = [&[9, ISSUER][..], &ID].concat();
        let packets = [vec![0xca, 3, b'P', b'G', b'P'], new_format(&signature(&[4, 0, 1, 8], &issuer, &[]))].concat();
        check(&packets, Some(AS_NUMBER));
    }
}
