//! Content by its hash: pulled in chunks over the bus, kept in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bus::{Bus, Context};
use proto::content::{ContentHash, ContentRef};
use proto::fault::{Fault, FaultCode};
use proto::limits::{CONTENT_BYTES_MAX, CONTENT_CHUNK_BYTES};
use proto::message::{ContentRequest, ContentResponse};
use proto::plan::{CollectionPlan, PLAN_VERSION};
use proto::topic::Topic;

/// How long to wait for a chunk, and how often to ask.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For an answer.
    pub answer: Duration,
    /// How often.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), tries: 3 }
    }
}

/// Content kept in memory.
const KEPT_MAX: usize = 8;

/// Where content is kept.
#[derive(Debug)]
pub struct ContentStore {
    directory: Option<PathBuf>,
    kept: Mutex<BTreeMap<ContentHash, Arc<Vec<u8>>>>,
}

impl ContentStore {
    /// In this directory, or in memory alone.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, kept: Mutex::default() }
    }

    /// The content, if it is here and whole.
    pub fn find(&self, hash: &ContentHash) -> Option<Arc<Vec<u8>>> {
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(hash) {
            return Some(Arc::clone(kept));
        }
        let bytes = fs::read(self.directory.as_ref()?.join(hash.as_str())).ok()?;
        (ContentHash::of(&bytes) == *hash).then(|| self.remember(hash, bytes))
    }

    fn remember(&self, hash: &ContentHash, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let bytes = Arc::new(bytes);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.pop_first();
        }
        kept.insert(hash.clone(), Arc::clone(&bytes));
        bytes
    }

    /// Keeps content; what cannot be written stays in memory, and can be fetched again.
    pub fn keep(&self, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let hash = ContentHash::of(&bytes);
        if let Some(directory) = &self.directory {
            let written = crate::data::make(directory)
                .and_then(|()| crate::data::write_private(&directory.join(hash.as_str()), &bytes));
            if let Err(error) = written {
                tracing::warn!(%error, "content could not be kept on disk");
            }
        }
        self.remember(&hash, bytes)
    }

    /// The content from here or, chunk by chunk, from whoever answers on `ask`.
    pub async fn fetch(
        &self,
        bus: &Bus,
        ask: &Topic,
        wanted: &ContentRef,
        context: Context,
    ) -> Result<Arc<Vec<u8>>, Fault> {
        self.fetch_within(bus, ask, wanted, context, Patience::default()).await
    }

    /// The same, with so much patience.
    pub async fn fetch_within(
        &self,
        bus: &Bus,
        ask: &Topic,
        wanted: &ContentRef,
        context: Context,
        patience: Patience,
    ) -> Result<Arc<Vec<u8>>, Fault> {
        if let Some(found) = self.find(&wanted.sha256) {
            return Ok(found);
        }
        if wanted.size_bytes > CONTENT_BYTES_MAX {
            return Err(Fault::new(FaultCode::TooLarge, format!("content of {} bytes", wanted.size_bytes)));
        }
        let mut bytes: Vec<u8> = Vec::new();
        while (bytes.len() as u64) < wanted.size_bytes {
            let question = ContentRequest { sha256: wanted.sha256.clone(), offset: bytes.len() as u64 };
            let chunk = ask_for_chunk(bus, ask, &question, context, patience).await?;
            if chunk.offset != question.offset || chunk.size_bytes != wanted.size_bytes {
                return Err(Fault::new(FaultCode::ContentInvalid, "a chunk that was not asked for"));
            }
            let chunk = STANDARD
                .decode(&chunk.chunk)
                .map_err(|_| Fault::new(FaultCode::ContentInvalid, "a chunk that is not base64"))?;
            if chunk.is_empty() || chunk.len() > CONTENT_CHUNK_BYTES {
                return Err(Fault::new(FaultCode::ContentInvalid, "a chunk of the wrong size"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if ContentHash::of(&bytes) != wanted.sha256 {
            return Err(Fault::new(FaultCode::ContentInvalid, "the content does not have the hash that was asked for"));
        }
        Ok(self.keep(bytes))
    }
}

async fn ask_for_chunk(
    bus: &Bus,
    ask: &Topic,
    question: &ContentRequest,
    context: Context,
    patience: Patience,
) -> Result<ContentResponse, Fault> {
    let mut last = Fault::new(FaultCode::ContentUnavailable, "nobody was asked");
    for _ in 0..patience.tries {
        match bus.request(ask, question, context, patience.answer).await {
            Ok(chunk) => return Ok(chunk),
            Err(bus::RequestError::Fault(fault)) => return Err(fault),
            Err(error) => last = Fault::new(FaultCode::ContentUnavailable, error.to_string()),
        }
    }
    Err(last)
}

/// The answer to a request for a chunk.
pub fn chunk_of(bytes: &[u8], request: &ContentRequest) -> ContentResponse {
    let start = usize::try_from(request.offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = (start + CONTENT_CHUNK_BYTES).min(bytes.len());
    ContentResponse {
        sha256: request.sha256.clone(),
        offset: start as u64,
        size_bytes: bytes.len() as u64,
        chunk: STANDARD.encode(&bytes[start..end]),
    }
}
/// Bytes, compressed (RFC 1951).
pub fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes what is written to it")
}

/// Compressed bytes as they were, if that is at most so much.
pub fn unpack(bytes: &[u8], bytes_max: u64) -> Result<Vec<u8>, Fault> {
    let mut plain = Vec::new();
    flate2::read::DeflateDecoder::new(bytes)
        .take(bytes_max + 1)
        .read_to_end(&mut plain)
        .map_err(|error| Fault::new(FaultCode::ContentInvalid, format!("the content is damaged: {error}")))?;
    if plain.len() as u64 > bytes_max {
        return Err(Fault::new(FaultCode::TooLarge, format!("the content is larger than {bytes_max} bytes")));
    }
    Ok(plain)
}

/// A plan from compressed bytes, within limits.
pub fn plan_of(bytes: &[u8]) -> Result<CollectionPlan, Fault> {
    let invalid = |text: String| Fault::new(FaultCode::ContentInvalid, text);
    let plain = unpack(bytes, PLAN_BYTES_MAX)?;
    let plan: CollectionPlan =
        serde_json::from_slice(&plain).map_err(|error| invalid(format!("the plan cannot be read: {error}")))?;
    if plan.version != PLAN_VERSION {
        return Err(Fault::new(
            FaultCode::UnsupportedVersion,
            format!("plan version {} is not spoken here", plan.version),
        ));
    }
    Ok(plan)
}

/// Bytes of a plan after decompression.
const PLAN_BYTES_MAX: u64 = 64 * 1024 * 1024;
