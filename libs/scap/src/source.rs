//! Plain bytes of what an operator gave: plain, gzip or xz, within the size limit.

use std::io::Read;

use crate::limits::{SOURCE_BYTES_MAX, XZ_DICTIONARY_KIB_MAX};

/// Why a source cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Longer than the limit, once uncompressed.
    #[error("the data stream is larger than {} MiB uncompressed", SOURCE_BYTES_MAX / 1024 / 1024)]
    TooLarge,
    /// The compression is broken.
    #[error("the {format} compression is damaged or cut off: {reason}")]
    Damaged {
        /// Which compression.
        format: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// A compression that is not read here.
    #[error("{0} is not read here; give the data stream plain, or as .xz or .gz")]
    Unsupported(&'static str),
}

/// Uncompresses what is compressed.
pub fn plain(bytes: Vec<u8>) -> Result<Vec<u8>, SourceError> {
    if bytes.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        read_all("xz", lzma_rust2::XzReader::new_mem_limit(bytes.as_slice(), true, XZ_DICTIONARY_KIB_MAX))
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        read_all("gzip", flate2::read::MultiGzDecoder::new(bytes.as_slice()))
    } else if bytes.starts_with(b"BZh") {
        Err(SourceError::Unsupported("bzip2"))
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Err(SourceError::Unsupported("zstd"))
    } else if bytes.starts_with(b"PK\x03\x04") {
        Err(SourceError::Unsupported("zip"))
    } else if bytes.len() as u64 > SOURCE_BYTES_MAX {
        Err(SourceError::TooLarge)
    } else {
        Ok(as_utf8(bytes))
    }
}

/// UTF-16 with a byte order mark, which every XML processor reads (XML 1.0 §4.3.3), and Latin 1 where the document
/// says so, as UTF-8.
fn as_utf8(bytes: Vec<u8>) -> Vec<u8> {
    let units = |of: fn([u8; 2]) -> u16| -> Vec<u16> {
        bytes[2..].chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect()
    };
    match bytes.as_slice() {
        [0xff, 0xfe, ..] => String::from_utf16_lossy(&units(u16::from_le_bytes)).into_bytes(),
        [0xfe, 0xff, ..] => String::from_utf16_lossy(&units(u16::from_be_bytes)).into_bytes(),
        _ => {
            let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).to_lowercase();
            let declaration = head.split_once("?>").map_or("", |(declaration, _)| declaration);
            let quoted = declaration.split_once("encoding").and_then(|(_, rest)| rest.split(['"', '\'']).nth(1));
            let is_latin = matches!(quoted, Some("iso-8859-1" | "latin1" | "us-ascii"));
            if is_latin { bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes() } else { bytes }
        }
    }
}

fn read_all(format: &'static str, reader: impl Read) -> Result<Vec<u8>, SourceError> {
    let mut plain = Vec::new();
    reader
        .take(SOURCE_BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|error| SourceError::Damaged { format, reason: error.to_string() })?;
    if plain.len() as u64 > SOURCE_BYTES_MAX { Err(SourceError::TooLarge) } else { Ok(as_utf8(plain)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_and_plain_give_the_same_bytes() {
        assert_eq!(plain(gzip(b"<a/>")).unwrap(), plain(b"<a/>".to_vec()).unwrap());
    }

    #[test]
    fn encodings_that_xml_has_become_utf_8() {
        let text = "<?xml version='1.0' encoding='UTF-16'?><a>\u{e9}</a>";
        let little: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        assert_eq!(plain(little).unwrap(), text.as_bytes());
        assert_eq!(plain(big).unwrap(), text.as_bytes());
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>".to_vec();
        assert!(String::from_utf8(plain(latin).unwrap()).unwrap().ends_with("<a>\u{e9}</a>"));
    }

    #[test]
    fn a_bomb_is_refused_by_its_size() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let block = vec![0_u8; 1024 * 1024];
        for _ in 0..=SOURCE_BYTES_MAX / 1024 / 1024 {
            encoder.write_all(&block).unwrap();
        }
        assert!(matches!(plain(encoder.finish().unwrap()), Err(SourceError::TooLarge)));
    }

    #[test]
    fn a_cut_file_says_so() {
        let mut cut = gzip(&[7; 5000]);
        cut.truncate(cut.len() - 9);
        assert!(plain(cut).unwrap_err().to_string().contains("gzip"));
        assert!(plain(vec![0xfd, b'7', b'z', b'X', b'Z', 0, 1, 2]).unwrap_err().to_string().contains("xz"));
    }
}
