//! The ndb format (`Packages.db`): pages of slots, each of which says where a blob is, in blocks of 16 bytes. A blob
//! has a head and a tail, and the tail a checksum of it (Adler-32, RFC 1950).

use super::bytes::{le32, size};
use super::limits::BLOB_BYTES_MAX;
use super::reader::Reader;
use super::{Blobs, Problems};
use crate::host::Host;
use crate::probe::ProbeError;

const MAGIC: &[u8; 4] = b"RpmP";
const SLOT_MAGIC: &[u8; 4] = b"Slot";
const HEAD_MAGIC: &[u8; 4] = b"BlbS";
const TAIL_MAGIC: &[u8; 4] = b"BlbE";
const PAGE_BYTES: usize = 4096;
const SLOT_BYTES: usize = 16;
/// The database's header stands where the first slots would.
const HEADER_BYTES: usize = 32;
const BLOCK_BYTES: u64 = 16;
const HEAD_BYTES: usize = 16;
const TAIL_BYTES: usize = 12;

/// A database that is open.
#[derive(Debug)]
pub(super) struct Database<'host> {
    file: Reader<'host>,
    slot_pages: u32,
}

impl<'host> Database<'host> {
    /// The one at this path; none where there is no such file.
    pub(super) fn open(host: &'host Host, path: &str) -> Result<Option<Self>, ProbeError> {
        let Some(file) = Reader::open(host, path)? else { return Ok(None) };
        if file.length() < PAGE_BYTES as u64 {
            return Err(file.broken("it is too short for an ndb database"));
        }
        let mut header = [0; HEADER_BYTES];
        file.read(0, &mut header)?;
        if !header.starts_with(MAGIC) {
            return Err(file.not_covered("it is no ndb database"));
        }
        if le32(&header, 4) != Some(0) {
            return Err(file.not_covered("it is of a later version of ndb"));
        }
        let slot_pages = le32(&header, 12).unwrap_or(0);
        if slot_pages == 0 || u64::from(slot_pages) * PAGE_BYTES as u64 > file.length() {
            return Err(file.broken("it has fewer pages than it says"));
        }
        Ok(Some(Self { file, slot_pages }))
    }

    /// The header of each package.
    pub(super) fn packages(self, problems: &mut Problems, visit: &mut Blobs<'_>) -> Result<(), ProbeError> {
        let mut page = vec![0; PAGE_BYTES];
        let mut blob = Vec::new();
        // Blobs do not overlap: together they are not longer than the file.
        let mut left = self.file.length();
        for number in 0..self.slot_pages {
            if problems.pass(self.file.read(u64::from(number) * PAGE_BYTES as u64, &mut page))?.is_none() {
                continue;
            }
            let skipped = if number == 0 { HEADER_BYTES / SLOT_BYTES } else { 0 };
            for slot in page.chunks_exact(SLOT_BYTES).skip(skipped) {
                let outcome = self.slot(slot, &mut left, &mut blob);
                let outcome = outcome.and_then(|package| match package {
                    Some(package) => visit(package.into(), &blob),
                    None => Ok(()),
                });
                problems.pass(outcome)?;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The package of a slot and, in `into`, its blob; none where the slot is free.
    fn slot(&self, slot: &[u8], left: &mut u64, into: &mut Vec<u8>) -> Result<Option<u32>, ProbeError> {
        let number = |at| le32(slot, at).unwrap_or(0);
        let (package, block, blocks) = (number(4), number(8), number(12));
        if !slot.starts_with(SLOT_MAGIC) {
            return Err(self.file.broken("a slot is damaged"));
        }
        if block == 0 {
            return Ok(None);
        }
        let length = u64::from(blocks) * BLOCK_BYTES;
        let damaged = || self.file.broken(&format!("package {package}: its blob is damaged"));
        if length > (BLOB_BYTES_MAX + HEAD_BYTES + TAIL_BYTES) as u64 + BLOCK_BYTES {
            return Err(damaged());
        }
        *left = left.saturating_sub(length);
        if *left == 0 {
            return Err(self.file.broken("its slots overlap"));
        }
        into.resize(usize::try_from(length).map_err(|_| damaged())?, 0);
        self.file.read(u64::from(block) * BLOCK_BYTES, into)?;
        let length = blob(package, into).ok_or_else(damaged)?;
        into.truncate(HEAD_BYTES + length);
        into.drain(..HEAD_BYTES);
        Ok(Some(package))
    }
}

/// The length of the blob behind the head, if head and tail are as they should be.
fn blob(package: u32, bytes: &[u8]) -> Option<usize> {
    let (summed, tail) = bytes.split_at_checked(bytes.len().checked_sub(TAIL_BYTES)?)?;
    let length = le32(summed, 12)?;
    let blocks = (size(length).checked_add(HEAD_BYTES + TAIL_BYTES)?).div_ceil(SLOT_BYTES);
    let is_whole = package != 0
        && summed.starts_with(HEAD_MAGIC)
        && le32(summed, 4) == Some(package)
        && blocks * SLOT_BYTES == bytes.len()
        && le32(tail, 0) == Some(adler32(summed))
        && le32(tail, 4) == Some(length)
        && tail.ends_with(TAIL_MAGIC);
    is_whole.then(|| size(length))
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    // So many bytes do not overflow the sums.
    const RUN: usize = 5_552;
    let (mut first, mut second) = (1_u32, 0_u32);
    for run in bytes.chunks(RUN) {
        for byte in run {
            first += u32::from(*byte);
            second += first;
        }
        first %= MODULUS;
        second %= MODULUS;
    }
    second << 16 | first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1950() {
        assert_eq!(adler32(b""), 1);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler32(&vec![0xff; 20_000]) & 0xffff, (1 + 20_000 * 255) % 65_521);
    }
}
