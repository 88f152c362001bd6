//! The table `Packages` of an SQLite database (`rpmdb.sqlite`), by the format that
//! <https://www.sqlite.org/fileformat2.html> documents: the b-tree of that one table and its overflow pages, with what
//! its write-ahead log has committed.

use super::bytes::{be16, be32};
use super::limits::BLOB_BYTES_MAX;
use super::reader::{Reader, Seen};
use super::wal::Wal;
use super::{Blobs, Problems};
use crate::host::Host;
use crate::probe::ProbeError;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How a rollback journal begins that was not rolled back yet.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const TABLE_INTERIOR: u8 = 5;
const TABLE_LEAF: u8 = 13;
/// Bytes of a record around its blob, which the reader of a header does not see.
const RECORD_BYTES: usize = 64;

/// A database that is open.
#[derive(Debug)]
pub(super) struct Database<'host> {
    file: Reader<'host>,
    wal: Option<Wal<'host>>,
    page_size: usize,
    /// Bytes of a page that SQLite uses.
    usable: usize,
    pages: u32,
    seen: Seen,
}

impl<'host> Database<'host> {
    /// The one at this path; none where there is no such file.
    pub(super) fn open(host: &'host Host, path: &str) -> Result<Option<Self>, ProbeError> {
        // Before the database: what is moved from the one to the other meanwhile is in both.
        let wal = Reader::open(host, &format!("{path}-wal"))?;
        let Some(file) = Reader::open(host, path)? else { return Ok(None) };
        if let Some(journal) = Reader::open(host, &format!("{path}-journal"))? {
            let mut magic = [0; 8];
            if journal.length() >= 8 && journal.read(0, &mut magic).is_ok() && magic == JOURNAL_MAGIC {
                return Err(file.not_covered("a transaction in it has not ended"));
            }
        }
        let mut header = [0; 100];
        if file.length() < 100 {
            return Err(file.broken("it is too short for an SQLite database"));
        }
        file.read(0, &mut header)?;
        if !header.starts_with(MAGIC) {
            return Err(file.not_covered("it is no SQLite database, or an encrypted one"));
        }
        if header[19] > 2 {
            return Err(file.not_covered("it is of a later format of SQLite"));
        }
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        let usable = page_size.saturating_sub(usize::from(header[20]));
        if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) || usable < 480 {
            return Err(file.broken("its page size cannot be"));
        }
        let wal = wal.map(|wal| Wal::read(wal, page_size)).transpose()?.flatten();
        let pages = match &wal {
            Some(wal) => wal.pages(),
            None => {
                u32::try_from(file.length() / page_size as u64).map_err(|_| file.broken("it has too many pages"))?
            }
        };
        // A log that makes the database longer than any that is read.
        if u64::from(pages) * page_size as u64 > super::limits::DATABASE_BYTES_MAX {
            return Err(file.broken("it has too many pages"));
        }
        Ok(Some(Self { file, wal, page_size, usable, pages, seen: Seen::new(pages) }))
    }

    /// The header of each package.
    pub(super) fn packages(mut self, problems: &mut Problems, visit: &mut Blobs<'_>) -> Result<(), ProbeError> {
        let mut root = None;
        self.rows(1, problems, &mut |_, record| {
            let mut columns = Columns::of(record);
            let kind = columns.next();
            let name = columns.next();
            let page = columns.nth(1);
            if kind == Some(Column::Bytes(b"table")) && name == Some(Column::Bytes(b"Packages")) {
                root = match page {
                    Some(Column::Number(page)) => u32::try_from(page).ok(),
                    _ => None,
                };
            }
            Ok(())
        })?;
        let Some(root) = root else { return Err(self.file.broken("it has no table `Packages` that can be read")) };
        self.rows(root, problems, &mut |number, record| match Columns::of(record).nth(1) {
            Some(Column::Bytes(blob)) => visit(number, blob),
            _ => Err(ProbeError::Broken(format!("package {number}: its record is damaged"))),
        })
    }

    /// The number and the record of each row of a table.
    fn rows(&mut self, root: u32, problems: &mut Problems, visit: &mut Blobs<'_>) -> Result<(), ProbeError> {
        let mut page = vec![0; self.page_size];
        let mut record = Vec::new();
        let mut waiting = vec![root];
        while let Some(number) = waiting.pop() {
            if problems.pass(self.page(number, &mut page))?.is_none() {
                continue;
            }
            let tree = Tree { page: &page, begin: if number == 1 { 100 } else { 0 }, usable: self.usable };
            let read = match page.get(tree.begin) {
                Some(&TABLE_INTERIOR) => tree.children().map(|children| waiting.extend(children.into_iter().rev())),
                Some(&TABLE_LEAF) => {
                    for cell in 0..tree.cells().unwrap_or(0) {
                        let row = match tree.row(cell) {
                            Some(row) => self.payload(&row, &mut record).map(|()| row.number),
                            None => Err(self.file.broken(&format!("page {number} is damaged"))),
                        };
                        let outcome = row.and_then(|number| visit(number, &record));
                        problems.pass(outcome)?;
                    }
                    tree.cells().map(|_| ())
                }
                _ => None,
            };
            if read.is_none() {
                problems.pass(Err::<(), _>(self.file.broken(&format!("page {number} is damaged"))))?;
            }
        }
        Ok(())
    }

    /// The bytes of a page, once.
    fn page(&mut self, number: u32, into: &mut [u8]) -> Result<(), ProbeError> {
        if number == 0 || number > self.pages {
            return Err(self.file.broken(&format!("page {number} is not there")));
        }
        // The first page is the root of the schema, and only that.
        if !self.seen.first(number) {
            return Err(self.file.broken(&format!("page {number} belongs to more than one place")));
        }
        match self.wal.as_ref().and_then(|wal| wal.position(number).map(|position| (wal, position))) {
            Some((wal, position)) => wal.file().read(position, into),
            None => self.file.read(u64::from(number - 1) * self.page_size as u64, into),
        }
    }

    /// The whole payload of a row, from its page and the pages behind it.
    fn payload(&mut self, row: &Row<'_>, into: &mut Vec<u8>) -> Result<(), ProbeError> {
        into.clear();
        if row.length > BLOB_BYTES_MAX + RECORD_BYTES {
            return Err(self.file.broken(&format!("package {}: its header is too large", row.number)));
        }
        into.extend_from_slice(row.local);
        let Some(mut next) = row.overflow else { return Ok(()) };
        let mut page = vec![0; self.page_size];
        while into.len() < row.length {
            self.page(next, &mut page)?;
            let part = page.get(4..self.usable).unwrap_or_default();
            into.extend_from_slice(part.get(..part.len().min(row.length - into.len())).unwrap_or_default());
            next = be32(&page, 0).unwrap_or(0);
        }
        Ok(())
    }
}

/// A page of a table's b-tree.
#[derive(Clone, Copy)]
struct Tree<'page> {
    page: &'page [u8],
    /// Where its header begins: behind the database's own on the first page.
    begin: usize,
    usable: usize,
}

/// A cell of a leaf.
struct Row<'page> {
    number: u64,
    /// Of the whole payload.
    length: usize,
    /// What is on this page.
    local: &'page [u8],
    /// The page where it goes on.
    overflow: Option<u32>,
}

impl<'page> Tree<'page> {
    fn cells(self) -> Option<usize> {
        // More do not go on a page.
        be16(self.page, self.begin + 3).map(usize::from).filter(|cells| 2 * cells < self.usable)
    }

    fn children(self) -> Option<Vec<u32>> {
        let mut children = Vec::new();
        for cell in 0..self.cells()? {
            let at = usize::from(be16(self.page, self.begin + 12 + 2 * cell)?);
            children.push(be32(self.page, at)?);
        }
        children.push(be32(self.page, self.begin + 8)?);
        Some(children)
    }

    fn row(self, cell: usize) -> Option<Row<'page>> {
        let at = usize::from(be16(self.page, self.begin + 8 + 2 * cell)?);
        let cell = self.page.get(..self.usable)?.get(at..)?;
        let (length, rest) = varint(cell)?;
        let (number, rest) = varint(rest)?;
        let length = usize::try_from(length).ok()?;
        let most = self.usable - 35;
        if length <= most {
            return Some(Row { number, length, local: rest.get(..length)?, overflow: None });
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wanted = least + (length - least) % (self.usable - 4);
        let local = if wanted <= most { wanted } else { least };
        Some(Row { number, length, local: rest.get(..local)?, overflow: Some(be32(rest, local)?) })
    }
}

/// A number of up to nine bytes, seven bits each, the ninth whole.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Some((number << 8 | u64::from(*byte), bytes.get(9..)?));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(at + 1..)?));
        }
    }
    None
}

/// A value of a record.
#[derive(Debug, PartialEq, Eq)]
enum Column<'record> {
    Number(i64),
    /// Text or a blob.
    Bytes(&'record [u8]),
    Other,
}

/// The values of a record, as far as they can be read.
struct Columns<'record> {
    kinds: &'record [u8],
    values: &'record [u8],
}

impl<'record> Columns<'record> {
    fn of(record: &'record [u8]) -> Self {
        let split = || {
            let (length, rest) = varint(record)?;
            let behind = record.get(usize::try_from(length).ok()?..)?;
            let kinds = rest.get(..rest.len().checked_sub(behind.len())?)?;
            Some(Self { kinds, values: behind })
        };
        split().unwrap_or(Self { kinds: &[], values: &[] })
    }
}

impl<'record> Iterator for Columns<'record> {
    type Item = Column<'record>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, kinds) = varint(self.kinds)?;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => usize::try_from((kind - 12) / 2).ok()?,
        };
        let (value, values) = self.values.split_at_checked(length)?;
        (self.kinds, self.values) = (kinds, values);
        Some(match kind {
            1..=6 => {
                let sign = if value.first()? & 0x80 == 0 { 0 } else { -1 };
                Column::Number(value.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
            }
            8 => Column::Number(0),
            9 => Column::Number(1),
            12.. => Column::Bytes(value),
            _ => Column::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_up_to_nine_bytes() {
        let check = |bytes: &[u8], expect: Option<u64>| {
            assert_eq!(varint(bytes).map(|(number, _)| number), expect, "{bytes:x?}");
        };
        check(&[0], Some(0));
        check(&[0x7f, 0xff], Some(0x7f));
        check(&[0x81, 0], Some(0x80));
        check(&[0xff; 9], Some(u64::MAX));
        check(&[0xff; 8], None);
        check(&[], None);
    }

    #[test]
    fn a_record_has_the_values_that_its_header_says() {
        let record = [&[6, 0, 1, 2, 15, 9][..], &[0xff, 1, 0], b"x"].concat();
        let columns: Vec<Column<'_>> = Columns::of(&record).collect();
        let expect = [Column::Other, Column::Number(-1), Column::Number(256), Column::Bytes(b"x"), Column::Number(1)];
        assert_eq!(columns, expect);
        assert_eq!(Columns::of(&[9, 1]).count(), 0);
        assert_eq!(Columns::of(&[2, 10]).count(), 0);
        assert_eq!(Columns::of(&[0]).count(), 0);
    }
}
