//! The Berkeley DB hash (`Packages`), versions 8 to 10, in either byte order: its buckets, the pages behind them, and
//! the overflow pages of large values. A database with checksums in its pages or an encrypted one is not read.

use super::bytes::{array, size};
use super::limits::BLOB_BYTES_MAX;
use super::reader::{Reader, Seen};
use super::{Blobs, Problems};
use crate::host::Host;
use crate::probe::ProbeError;

const MAGIC: u32 = 0x0006_1561;
/// Bytes of the first page that say what the database is.
const META_BYTES: usize = 512;
/// Bytes before what is on a page.
const PAGE_HEADER_BYTES: usize = 26;
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH_META: u8 = 8;
const HASH_SORTED: u8 = 13;
/// Kinds of items on a page.
const INLINE: u8 = 1;
const OFF_PAGE: u8 = 3;

/// A database that is open.
#[derive(Debug)]
pub(super) struct Database<'host> {
    file: Reader<'host>,
    is_big: bool,
    page_size: usize,
    last_page: u32,
    last_bucket: u32,
    /// What a bucket's number is short of its page's, for each doubling of the table.
    spares: [u32; 32],
    seen: Seen,
}

/// Where a value is.
enum Place {
    Here(usize, usize),
    Pages { first: u32, length: usize },
}

impl<'host> Database<'host> {
    /// The one at this path; none where there is no such file.
    pub(super) fn open(host: &'host Host, path: &str) -> Result<Option<Self>, ProbeError> {
        let Some(file) = Reader::open(host, path)? else { return Ok(None) };
        let unknown = || file.not_covered("it is no Berkeley DB hash");
        if file.length() < META_BYTES as u64 {
            return Err(unknown());
        }
        let mut meta = [0; META_BYTES];
        file.read(0, &mut meta)?;
        let bytes = |at| array(&meta, at).unwrap_or_default();
        let is_big = match bytes(12) {
            magic if u32::from_be_bytes(magic) == MAGIC => true,
            magic if u32::from_le_bytes(magic) == MAGIC => false,
            _ => return Err(unknown()),
        };
        let number = |at| if is_big { u32::from_be_bytes(bytes(at)) } else { u32::from_le_bytes(bytes(at)) };
        if !(8..=10).contains(&number(16)) || meta[25] != HASH_META {
            return Err(unknown());
        }
        if meta[24] != 0 || meta[26] != 0 {
            return Err(file.not_covered("it is encrypted, in parts, or has checksums"));
        }
        let page_size = size(number(20));
        let (last_page, last_bucket) = (number(32), number(72));
        if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
            return Err(file.broken("its page size cannot be"));
        }
        if (u64::from(last_page) + 1) * page_size as u64 > file.length() || last_bucket > last_page {
            return Err(file.broken("it has fewer pages than it says"));
        }
        let mut spares = [0; 32];
        for (at, spare) in spares.iter_mut().enumerate() {
            *spare = number(96 + 4 * at);
        }
        Ok(Some(Self { file, is_big, page_size, last_page, last_bucket, spares, seen: Seen::new(last_page + 1) }))
    }

    /// The header of each package.
    pub(super) fn packages(mut self, problems: &mut Problems, visit: &mut Blobs<'_>) -> Result<(), ProbeError> {
        let mut page = vec![0; self.page_size];
        let mut value = Vec::new();
        for bucket in 0..=self.last_bucket {
            let Some(mut next) = self.page_of(bucket) else {
                problems.pass(Err::<(), _>(self.file.broken("its buckets cannot be")))?;
                continue;
            };
            while next != 0 {
                if problems.pass(self.page(next, &[HASH_SORTED, HASH_UNSORTED], &mut page))?.is_none() {
                    break;
                }
                let mut pairs = usize::from(self.number16(&page, 20)) / 2;
                // More do not go on a page.
                pairs = pairs.min(self.page_size / 4);
                for pair in 0..pairs {
                    let outcome = self.pair(&page, pair, &mut value).and_then(|package| match package {
                        Some(package) => visit(package.into(), &value),
                        None => Ok(()),
                    });
                    problems.pass(outcome)?;
                }
                next = self.number32(&page, 16);
            }
        }
        Ok(())
    }

    /// The first page of a bucket.
    fn page_of(&self, bucket: u32) -> Option<u32> {
        let doublings = size(u32::BITS - bucket.leading_zeros());
        // The last bucket of a doubling counts with it.
        let spare = self.spares.get(doublings)?;
        bucket.checked_add(*spare)
    }

    /// The bytes of a page, once.
    fn page(&mut self, number: u32, kinds: &[u8], into: &mut [u8]) -> Result<(), ProbeError> {
        if number == 0 || number > self.last_page {
            return Err(self.file.broken(&format!("page {number} is not there")));
        }
        if !self.seen.first(number) {
            return Err(self.file.broken(&format!("page {number} belongs to more than one place")));
        }
        self.file.read(u64::from(number) * self.page_size as u64, into)?;
        let is_kind = into.get(25).is_some_and(|kind| kinds.contains(kind));
        if self.number32(into, 8) == number && is_kind {
            Ok(())
        } else {
            Err(self.file.broken(&format!("page {number} is damaged")))
        }
    }

    /// The package of a pair of key and value and, in `into`, the value; none where it is something else.
    fn pair(&mut self, page: &[u8], pair: usize, into: &mut Vec<u8>) -> Result<Option<u32>, ProbeError> {
        into.clear();
        let damaged = |what: &Self| what.file.broken("a page is damaged");
        let key = match self.item(page, 2 * pair).ok_or_else(|| damaged(self))? {
            Place::Here(at, 4) => self.number32(page, at),
            _ => return Err(damaged(self)),
        };
        // Under 0 is the number of the next package.
        if key == 0 {
            return Ok(None);
        }
        match self.item(page, 2 * pair + 1).ok_or_else(|| damaged(self))? {
            Place::Here(at, length) => {
                let end = at.saturating_add(length);
                into.extend_from_slice(page.get(at..end).ok_or_else(|| damaged(self))?);
            }
            Place::Pages { first, length } => self.overflow(key, first, length, into)?,
        }
        Ok(Some(key))
    }

    /// Where an item of a page is: items grow from the end of the page, in order.
    fn item(&self, page: &[u8], item: usize) -> Option<Place> {
        let offset = |item: usize| usize::from(self.number16(page, PAGE_HEADER_BYTES + 2 * item));
        let begin = offset(item);
        let end = if item == 0 { self.page_size } else { offset(item - 1) };
        if begin < PAGE_HEADER_BYTES || begin >= end || end > page.len() {
            return None;
        }
        match *page.get(begin)? {
            INLINE => Some(Place::Here(begin + 1, end - begin - 1)),
            OFF_PAGE if end - begin == 12 => Some(Place::Pages {
                first: self.number32(page, begin + 4),
                length: size(self.number32(page, begin + 8)),
            }),
            _ => None,
        }
    }

    fn overflow(&mut self, package: u32, first: u32, length: usize, into: &mut Vec<u8>) -> Result<(), ProbeError> {
        let damaged = |what: &Self| what.file.broken(&format!("package {package}: its value is damaged"));
        if length > BLOB_BYTES_MAX {
            return Err(damaged(self));
        }
        let mut page = vec![0; self.page_size];
        let mut next = first;
        while into.len() < length {
            self.page(next, &[OVERFLOW], &mut page)?;
            let here = usize::from(self.number16(&page, 22));
            let part = page.get(PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + here).ok_or_else(|| damaged(self))?;
            into.extend_from_slice(part);
            next = self.number32(&page, 16);
        }
        if into.len() == length && next == 0 { Ok(()) } else { Err(damaged(self)) }
    }

    fn number16(&self, page: &[u8], at: usize) -> u16 {
        let bytes = array(page, at).unwrap_or_default();
        if self.is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn number32(&self, page: &[u8], at: usize) -> u32 {
        let bytes = array(page, at).unwrap_or_default();
        if self.is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}
