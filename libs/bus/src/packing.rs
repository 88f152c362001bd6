//! What is long and alike travels packed: as a gzip member (RFC 1952) around the sealed message. The seal is over what is
//! inside, so a message says the same packed and plain, and is kept by its hash.
//!
//! Unpacking comes before anything about a message has been checked. So what it may take is bounded twice: by the largest
//! message there is, and by so many times what the sender has sent.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use proto::fault::{Fault, FaultCode};
use proto::limits::{PACKED_TIMES_MAX, SERVICE_PAYLOAD_BYTES_MAX};

use crate::limits::PACK_BYTES_MIN;

/// How a gzip member begins. A sealed message begins with base64url.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Bytes of the header of a member that names nothing, and of what follows its content.
const HEADER_BYTES: usize = 10;
const TRAILER_BYTES: usize = 8;

/// A sealed message as it goes out: packed where that is worth it and whoever receives it takes it.
pub(crate) fn pack(sealed: Vec<u8>) -> Vec<u8> {
    if sealed.len() < PACK_BYTES_MIN {
        return sealed;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(sealed.len() / 4), Compression::default());
    let packed = encoder.write_all(&sealed).and_then(|()| encoder.finish());
    let packed = packed.expect("memory takes what is written to it");
    let is_worth_it = packed.len() < sealed.len() && sealed.len() <= packed.len().saturating_mul(PACKED_TIMES_MAX);
    if is_worth_it { packed } else { sealed }
}

pub(crate) fn is_packed(payload: &[u8]) -> bool {
    payload.starts_with(&MAGIC)
}

/// The sealed message in a payload.
pub(crate) fn unpack(payload: &[u8]) -> Result<Cow<'_, [u8]>, Fault> {
    if !is_packed(payload) {
        return Ok(Cow::Borrowed(payload));
    }
    let most = payload.len().saturating_mul(PACKED_TIMES_MAX).min(SERVICE_PAYLOAD_BYTES_MAX);
    let mut decoder = flate2::bufread::GzDecoder::new(payload);
    let mut sealed = Vec::with_capacity(most.min(payload.len().saturating_mul(8)));
    decoder
        .by_ref()
        .take(most as u64 + 1)
        .read_to_end(&mut sealed)
        .map_err(|error| Fault::new(FaultCode::Malformed, format!("the packed message is damaged: {error}")))?;
    if sealed.len() > most {
        let text = format!("the packed message is larger than {most} bytes; more is not unpacked");
        return Err(Fault::new(FaultCode::TooLarge, text));
    }
    if !decoder.into_inner().is_empty() {
        return Err(Fault::new(FaultCode::Malformed, "something follows the packed message"));
    }
    Ok(Cow::Owned(sealed))
}

/// The compressed content of a payload that [`unpack`] has taken (RFC 1951), where nothing but that is in it.
pub(crate) fn content(payload: &[u8]) -> Option<&[u8]> {
    let is_plain_header = is_packed(payload) && payload.get(3) == Some(&0);
    is_plain_header.then(|| payload.get(HEADER_BYTES..payload.len().checked_sub(TRAILER_BYTES)?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn refusal(payload: &[u8]) -> Fault {
        unpack(payload).unwrap_err()
    }

    /// Something that is like what components report: alike, and not the same again and again.
    fn message() -> Vec<u8> {
        (0..2_000).flat_map(|line| format!("eyJ line {line} of {}\n", line * 7_919 % 1_000).into_bytes()).collect()
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was_and_is_smaller() {
        let packed = pack(message());
        assert!(is_packed(&packed) && packed.len() * 3 < message().len());
        assert_eq!(unpack(&packed).unwrap(), message());
        let mut inside = Vec::new();
        flate2::read::DeflateDecoder::new(content(&packed).unwrap()).read_to_end(&mut inside).unwrap();
        assert_eq!(inside, message());
    }

    #[test]
    fn what_is_short_or_would_not_be_unpacked_goes_plain() {
        let short = b"eyJ short".to_vec();
        assert_eq!(pack(short.clone()), short);
        assert_eq!(unpack(&short).unwrap(), short);
        let same = vec![b'e'; 500_000];
        assert_eq!(pack(same.clone()), same);
    }

    #[test]
    fn a_bomb_is_refused_by_what_was_sent_for_it_and_by_the_largest_message() {
        let bomb = member(&vec![0; SERVICE_PAYLOAD_BYTES_MAX]);
        assert!(bomb.len() * PACKED_TIMES_MAX < SERVICE_PAYLOAD_BYTES_MAX);
        assert_eq!(refusal(&bomb).code, FaultCode::TooLarge);
        let large: Vec<u8> = std::iter::repeat_with(message).flatten().take(SERVICE_PAYLOAD_BYTES_MAX + 1).collect();
        assert_eq!(refusal(&member(&large)).code, FaultCode::TooLarge);
        assert_eq!(unpack(&member(&large[..SERVICE_PAYLOAD_BYTES_MAX])).unwrap().len(), SERVICE_PAYLOAD_BYTES_MAX);
    }

    #[test]
    fn what_is_damaged_cut_or_has_something_behind_it_is_refused() {
        let packed = pack(message());
        for end in [2, 9, 30, packed.len() - 1] {
            assert_eq!(refusal(&packed[..end]).code, FaultCode::Malformed, "{end}");
        }
        for at in [2, packed.len() / 2, packed.len() - 6] {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x55;
            assert!(unpack(&damaged).is_err(), "{at}");
        }
        assert_eq!(refusal(&[packed.clone(), packed.clone()].concat()).code, FaultCode::Malformed);
        assert_eq!(refusal(&[packed.as_slice(), b"x"].concat()).code, FaultCode::Malformed);
    }

    #[test]
    fn a_member_with_a_name_is_unpacked_and_its_content_is_not_taken_out() {
        let mut encoder = flate2::GzBuilder::new().filename("report").write(Vec::new(), Compression::default());
        encoder.write_all(&message()).unwrap();
        let named = encoder.finish().unwrap();
        assert_eq!(unpack(&named).unwrap(), message());
        assert_eq!(content(&named), None);
        assert_eq!(content(&message()), None);
    }
}
