//! The write-ahead log of an SQLite database: which pages its committed transactions have changed
//! (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>). It ends at the first frame whose salts or checksum
//! are not those of the log.

use std::collections::BTreeMap;

use super::bytes::{array, be32, size};
use super::reader::Reader;
use crate::probe::ProbeError;

/// Bytes of the log's header.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes before the page of a frame.
const FRAME_BYTES: usize = 24;
const MAGIC_LITTLE: u32 = 0x377f_0682;
const MAGIC_BIG: u32 = 0x377f_0683;
const VERSION: u32 = 3_007_000;

/// A log with transactions in it.
#[derive(Debug)]
pub(super) struct Wal<'host> {
    file: Reader<'host>,
    /// Where the last committed content of a page is.
    positions: BTreeMap<u32, u64>,
    pages: u32,
}

impl<'host> Wal<'host> {
    /// What the log has committed; none where that is nothing.
    pub(super) fn read(file: Reader<'host>, page_size: usize) -> Result<Option<Self>, ProbeError> {
        let mut header = [0; HEADER_BYTES];
        if file.length() < HEADER_BYTES as u64 {
            return Ok(None);
        }
        file.read(0, &mut header)?;
        let number = |at| be32(&header, at).unwrap_or(0);
        let is_big = match number(0) {
            MAGIC_BIG => true,
            MAGIC_LITTLE => false,
            _ => return Ok(None),
        };
        let mut sum = Checksum { is_big, sums: (0, 0) };
        sum.add(header.get(..24).unwrap_or_default());
        // As SQLite does: a log whose header is damaged is none.
        if sum.sums != (number(24), number(28)) {
            return Ok(None);
        }
        if number(4) != VERSION {
            return Err(file.not_covered("its write-ahead log is of a later format"));
        }
        if size(number(8)) != page_size {
            return Err(file.broken("its pages are of another size than those of the database"));
        }
        let salts = (number(16), number(20));
        let mut wal = Self { file, positions: BTreeMap::new(), pages: 0 };
        wal.frames(page_size, salts, sum)?;
        Ok((wal.pages > 0).then_some(wal))
    }

    fn frames(&mut self, page_size: usize, salts: (u32, u32), mut sum: Checksum) -> Result<(), ProbeError> {
        let mut frame = vec![0; FRAME_BYTES + page_size];
        let mut at = HEADER_BYTES as u64;
        // Of the transaction that has not ended.
        let mut open = BTreeMap::new();
        while at + frame.len() as u64 <= self.file.length() {
            self.file.read(at, &mut frame)?;
            let number = |at| be32(&frame, at).unwrap_or(0);
            sum.add(frame.get(..8).unwrap_or_default());
            sum.add(frame.get(FRAME_BYTES..).unwrap_or_default());
            let page = number(0);
            if page == 0 || (number(8), number(12)) != salts || (number(16), number(20)) != sum.sums {
                return Ok(());
            }
            open.insert(page, at + FRAME_BYTES as u64);
            let pages_after = number(4);
            if pages_after > 0 {
                self.positions.append(&mut open);
                self.pages = pages_after;
            }
            at += frame.len() as u64;
        }
        Ok(())
    }

    /// Where in the log a page is, if it is there.
    pub(super) fn position(&self, page: u32) -> Option<u64> {
        self.positions.get(&page).copied()
    }

    /// The log itself.
    pub(super) fn file(&self) -> &Reader<'host> {
        &self.file
    }

    /// Pages of the database after the last transaction.
    pub(super) fn pages(&self) -> u32 {
        self.pages
    }
}

/// The checksum over all that was before.
#[derive(Debug, Clone, Copy)]
struct Checksum {
    is_big: bool,
    sums: (u32, u32),
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8], at| {
            let word = array(bytes, at).unwrap_or_default();
            if self.is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        let (mut first, mut second) = self.sums;
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(pair, 0)).wrapping_add(second);
            second = second.wrapping_add(word(pair, 4)).wrapping_add(first);
        }
        self.sums = (first, second);
    }
}
