//! What the proofs of a log and of a chain have in common: they hold, or say where they do not.

/// Something that is not as it was written, or does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Broken {
    /// Where, and what is wrong there.
    pub what: String,
}

pub(crate) fn broken<T>(what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { what: what.into() })
}
