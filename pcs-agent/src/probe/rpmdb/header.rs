//! A header as databases of RPM keep it: two counts, an index of tags, and a store of their values, all big-endian.
//! Offsets and counts are checked before anything is read with them.

use std::borrow::Cow;

use super::bytes::{array, be16, be32, be64, size};
use super::limits::{TAGS_MAX, TEXT_BYTES_MAX};
use super::pgp;
use crate::probe::ProbeError;

/// Numbers of tags.
mod tag {
    pub(super) const SIGPGP: u32 = 259;
    pub(super) const SIGGPG: u32 = 262;
    pub(super) const DSAHEADER: u32 = 267;
    pub(super) const RSAHEADER: u32 = 268;
    pub(super) const OPENPGP: u32 = 278;
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const ARCH: u32 = 1022;
    pub(super) const FILESIZES: u32 = 1028;
    pub(super) const FILESTATES: u32 = 1029;
    pub(super) const FILEMODES: u32 = 1030;
    pub(super) const FILERDEVS: u32 = 1033;
    pub(super) const FILEMTIMES: u32 = 1034;
    pub(super) const FILEDIGESTS: u32 = 1035;
    pub(super) const FILELINKTOS: u32 = 1036;
    pub(super) const FILEFLAGS: u32 = 1037;
    pub(super) const FILEUSERNAME: u32 = 1039;
    pub(super) const FILEGROUPNAME: u32 = 1040;
    pub(super) const FILEVERIFYFLAGS: u32 = 1045;
    pub(super) const VERIFYSCRIPT: u32 = 1079;
    pub(super) const VERIFYSCRIPTPROG: u32 = 1091;
    pub(super) const DIRINDEXES: u32 = 1116;
    pub(super) const BASENAMES: u32 = 1117;
    pub(super) const DIRNAMES: u32 = 1118;
    pub(super) const LONGFILESIZES: u32 = 5008;
    pub(super) const FILECAPS: u32 = 5010;
    pub(super) const FILEDIGESTALGO: u32 = 5011;
}

/// Bytes of an entry of the index.
const ENTRY_BYTES: usize = 16;

/// What a header says cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) struct Damaged;

impl From<Damaged> for ProbeError {
    fn from(_: Damaged) -> Self {
        Self::Broken("its header is damaged".to_owned())
    }
}

/// A header, in the bytes that were read.
#[derive(Debug, Clone, Copy)]
pub(in crate::probe) struct Header<'blob> {
    index: &'blob [u8],
    store: &'blob [u8],
}

/// A file of a package, as the package says it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::probe) struct FileRecord<'blob> {
    /// With a slash at its end.
    pub(in crate::probe) directory: &'blob [u8],
    pub(in crate::probe) name: &'blob [u8],
    pub(in crate::probe) state: Option<u8>,
    pub(in crate::probe) flags: u32,
    pub(in crate::probe) verify_flags: u32,
    pub(in crate::probe) mode: u16,
    pub(in crate::probe) rdev: u16,
    pub(in crate::probe) size: u64,
    pub(in crate::probe) mtime: u32,
    /// In hexadecimal; empty where there is no content.
    pub(in crate::probe) digest: &'blob [u8],
    pub(in crate::probe) link: &'blob [u8],
    pub(in crate::probe) user: &'blob [u8],
    pub(in crate::probe) group: &'blob [u8],
    pub(in crate::probe) capabilities: &'blob [u8],
}

impl FileRecord<'_> {
    /// The whole path; none where it is not UTF-8.
    pub(in crate::probe) fn path(&self) -> Option<String> {
        Some([str::from_utf8(self.directory).ok()?, str::from_utf8(self.name).ok()?].concat())
    }
}

/// The value of a tag.
#[derive(Debug, Clone, Copy)]
struct Value<'blob> {
    kind: u32,
    count: usize,
    /// From its beginning to the end of the store.
    bytes: &'blob [u8],
}

impl<'blob> Header<'blob> {
    /// The header that these bytes are, all of them.
    pub(super) fn parse(blob: &'blob [u8]) -> Result<Self, Damaged> {
        let tags = be32(blob, 0).ok_or(Damaged)?;
        let store = size(be32(blob, 4).ok_or(Damaged)?);
        if tags == 0 || tags > TAGS_MAX {
            return Err(Damaged);
        }
        let (index, rest) =
            blob.get(8..).and_then(|rest| rest.split_at_checked(size(tags) * ENTRY_BYTES)).ok_or(Damaged)?;
        if rest.len() == store { Ok(Self { index, store: rest }) } else { Err(Damaged) }
    }

    /// What a tag is. Entries behind the package's own region replace those in it.
    fn value(&self, tag: u32) -> Result<Option<Value<'blob>>, Damaged> {
        let Some(entry) = self.index.chunks_exact(ENTRY_BYTES).rfind(|entry| be32(entry, 0) == Some(tag)) else {
            return Ok(None);
        };
        let kind = be32(entry, 4).ok_or(Damaged)?;
        let offset = be32(entry, 8).ok_or(Damaged)?;
        let count = size(be32(entry, 12).ok_or(Damaged)?);
        let bytes = self.store.get(size(offset)..).ok_or(Damaged)?;
        if count == 0 || count > bytes.len() {
            return Err(Damaged);
        }
        Ok(Some(Value { kind, count, bytes }))
    }

    /// The first text of a tag.
    fn text(&self, tag: u32) -> Result<Option<Cow<'blob, str>>, Damaged> {
        let Some(value) = self.value(tag)? else { return Ok(None) };
        let text = value.strings()?.next().ok_or(Damaged)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(Damaged);
        }
        Ok(Some(String::from_utf8_lossy(text)))
    }

    fn number(&self, tag: u32) -> Result<Option<u32>, Damaged> {
        let Some(value) = self.value(tag)? else { return Ok(None) };
        let number = value.numbers()?.next().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or(Damaged)
    }

    pub(super) fn name(&self) -> Result<Option<Cow<'blob, str>>, Damaged> {
        self.text(tag::NAME)
    }

    pub(super) fn version(&self) -> Result<Option<Cow<'blob, str>>, Damaged> {
        self.text(tag::VERSION)
    }

    pub(super) fn release(&self) -> Result<Option<Cow<'blob, str>>, Damaged> {
        self.text(tag::RELEASE)
    }

    pub(super) fn arch(&self) -> Result<Option<Cow<'blob, str>>, Damaged> {
        self.text(tag::ARCH)
    }

    pub(super) fn epoch(&self) -> Result<Option<u32>, Damaged> {
        self.number(tag::EPOCH)
    }

    /// Whether the package brings a script that verifies it.
    pub(super) fn has_verify_script(&self) -> Result<bool, Damaged> {
        Ok(self.value(tag::VERIFYSCRIPT)?.is_some() || self.value(tag::VERIFYSCRIPTPROG)?.is_some())
    }

    /// Which key signed the package, as it says: header and payload together, or the header alone.
    pub(super) fn key_id(&self) -> Result<Option<u64>, Damaged> {
        for tag in [tag::SIGGPG, tag::SIGPGP, tag::RSAHEADER, tag::DSAHEADER] {
            if let Some(value) = self.value(tag)? {
                return Ok(pgp::key_id(value.binary()?));
            }
        }
        let Some(value) = self.value(tag::OPENPGP)? else { return Ok(None) };
        Ok(value.strings()?.find_map(|text| {
            use base64::Engine as _;
            pgp::key_id(&base64::engine::general_purpose::STANDARD.decode(text).ok()?)
        }))
    }

    /// By which algorithm files are hashed: the number that OpenPGP gives it. Where nothing is said, it is MD5.
    pub(in crate::probe) fn digest_algorithm(&self) -> Result<u32, Damaged> {
        Ok(self.number(tag::FILEDIGESTALGO)?.unwrap_or(1))
    }

    /// The files, in the order of the package.
    pub(in crate::probe) fn files(&self) -> Result<Files<'blob>, Damaged> {
        let Some(names) = self.value(tag::BASENAMES)? else { return Ok(Files::default()) };
        let directories = self.value(tag::DIRNAMES)?.ok_or(Damaged)?.strings()?.collect();
        let count = names.count;
        let numbers = |tag| match self.value(tag)? {
            None => Ok(None),
            Some(value) if value.count == count => value.numbers().map(Some),
            Some(_) => Err(Damaged),
        };
        let strings = |tag| match self.value(tag)? {
            None => Ok(None),
            Some(value) if value.count == count => value.strings().map(Some),
            Some(_) => Err(Damaged),
        };
        let sizes = match numbers(tag::LONGFILESIZES)? {
            Some(sizes) => Some(sizes),
            None => numbers(tag::FILESIZES)?,
        };
        Ok(Files {
            directories,
            names: names.strings()?,
            indexes: numbers(tag::DIRINDEXES)?.ok_or(Damaged)?,
            sizes,
            states: numbers(tag::FILESTATES)?,
            flags: numbers(tag::FILEFLAGS)?,
            verify_flags: numbers(tag::FILEVERIFYFLAGS)?,
            modes: numbers(tag::FILEMODES)?,
            rdevs: numbers(tag::FILERDEVS)?,
            mtimes: numbers(tag::FILEMTIMES)?,
            digests: strings(tag::FILEDIGESTS)?,
            links: strings(tag::FILELINKTOS)?,
            users: strings(tag::FILEUSERNAME)?,
            groups: strings(tag::FILEGROUPNAME)?,
            capabilities: strings(tag::FILECAPS)?,
        })
    }
}

impl<'blob> Value<'blob> {
    fn strings(self) -> Result<Strings<'blob>, Damaged> {
        let count = match self.kind {
            6 => 1,
            8 | 9 => self.count,
            _ => return Err(Damaged),
        };
        let strings = Strings { rest: self.bytes, left: count };
        // So many have an end: nobody has to look again.
        if strings.clone().count() == count { Ok(strings) } else { Err(Damaged) }
    }

    fn numbers(self) -> Result<Numbers<'blob>, Damaged> {
        let width = match self.kind {
            1 | 2 => 1,
            3 => 2,
            4 => 4,
            5 => 8,
            _ => return Err(Damaged),
        };
        let length = self.count.checked_mul(width).ok_or(Damaged)?;
        Ok(Numbers { bytes: self.bytes.get(..length).ok_or(Damaged)?, width })
    }

    fn binary(self) -> Result<&'blob [u8], Damaged> {
        if self.kind == 7 { self.bytes.get(..self.count).ok_or(Damaged) } else { Err(Damaged) }
    }
}

/// Texts that end with a NUL, one behind the other.
#[derive(Debug, Clone, Default)]
struct Strings<'blob> {
    rest: &'blob [u8],
    left: usize,
}

impl<'blob> Iterator for Strings<'blob> {
    type Item = &'blob [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let text = self.rest.get(..end)?;
        self.rest = self.rest.get(end + 1..)?;
        Some(text)
    }
}

/// Numbers of one width.
#[derive(Debug, Clone, Default)]
struct Numbers<'blob> {
    bytes: &'blob [u8],
    width: usize,
}

impl Iterator for Numbers<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.bytes.split_at_checked(self.width)?;
        self.bytes = rest;
        match self.width {
            1 => array(first, 0).map(|[byte]| u64::from(byte)),
            2 => be16(first, 0).map(u64::from),
            4 => be32(first, 0).map(u64::from),
            8 => be64(first, 0),
            _ => None,
        }
    }
}

/// The files of a package. Columns that it does not have are empty or 0.
#[derive(Debug, Clone, Default)]
pub(in crate::probe) struct Files<'blob> {
    directories: Vec<&'blob [u8]>,
    names: Strings<'blob>,
    indexes: Numbers<'blob>,
    sizes: Option<Numbers<'blob>>,
    states: Option<Numbers<'blob>>,
    flags: Option<Numbers<'blob>>,
    verify_flags: Option<Numbers<'blob>>,
    modes: Option<Numbers<'blob>>,
    rdevs: Option<Numbers<'blob>>,
    mtimes: Option<Numbers<'blob>>,
    digests: Option<Strings<'blob>>,
    links: Option<Strings<'blob>>,
    users: Option<Strings<'blob>>,
    groups: Option<Strings<'blob>>,
    capabilities: Option<Strings<'blob>>,
}

impl<'blob> Iterator for Files<'blob> {
    type Item = Result<FileRecord<'blob>, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.names.next()?;
        Some(self.record(name).ok_or(Damaged))
    }
}

impl<'blob> Files<'blob> {
    fn record(&mut self, name: &'blob [u8]) -> Option<FileRecord<'blob>> {
        let directory = *self.directories.get(usize::try_from(self.indexes.next()?).ok()?)?;
        // Longer, it is no path of any file (`PATH_MAX`).
        if directory.len() + name.len() > TEXT_BYTES_MAX {
            return None;
        }
        Some(FileRecord {
            directory,
            name,
            state: match &mut self.states {
                Some(states) => Some(u8::try_from(states.next()?).ok()?),
                None => None,
            },
            flags: number(&mut self.flags)?,
            verify_flags: match &mut self.verify_flags {
                Some(flags) => u32::try_from(flags.next()?).ok()?,
                None => u32::MAX,
            },
            mode: number(&mut self.modes)?,
            rdev: number(&mut self.rdevs)?,
            size: number(&mut self.sizes)?,
            mtime: number(&mut self.mtimes)?,
            digest: text(&mut self.digests)?,
            link: text(&mut self.links)?,
            user: text(&mut self.users)?,
            group: text(&mut self.groups)?,
            capabilities: text(&mut self.capabilities)?,
        })
    }
}

fn number<N: TryFrom<u64> + Default>(column: &mut Option<Numbers<'_>>) -> Option<N> {
    match column {
        Some(numbers) => N::try_from(numbers.next()?).ok(),
        None => Some(N::default()),
    }
}

fn text<'blob>(column: &mut Option<Strings<'blob>>) -> Option<&'blob [u8]> {
    match column {
        Some(strings) => strings.next().filter(|text| text.len() <= TEXT_BYTES_MAX),
        None => Some(&[]),
    }
}
