//! SCAP: source data streams in, plans and verdicts out. Pure functions over bytes and observations.
//!
//! - [`source`] makes plain bytes of what was given (xz, gzip), within limits.
//! - [`xml`] is the only XML parser: no DTD, no entities, limits on depth, attributes, text and size.
//! - [`datastream`] reads a data stream into a [`policy::Policy`]: XCCDF, OVAL and CPE models that
//!   serialise, so that XML is read once, where the policy is imported.
//! - [`compile`](mod@compile) makes the collection plan (what agents get) and the evaluation plan.
//! - [`evaluate`](mod@evaluate) decides on stored observations, with the evidence in words.
//!
//! Invariant: no I/O, no clock, no process; a broken part of a policy costs the rules that use it and
//! no others.

pub mod arf;
pub mod characteristics;
pub mod compile;
pub mod compose;
pub mod coverage;
pub mod cpe;
pub mod datastream;
pub mod dependencies;
pub mod documents;
pub mod evaluate;
pub mod explain;
pub mod fix;
pub mod html;
pub mod memo;
pub mod oval;
mod oval_reader;
pub mod oval_results;
pub mod partial;
pub mod policy;
pub mod score;
pub mod script;
pub mod source;
pub mod standing;
pub mod tailored;
pub mod tailoring;
pub mod test_result;
pub mod validity;
pub mod versions;
pub mod xccdf;
mod xccdf_reader;
pub mod xml;
pub mod xml_out;
pub mod xml_slice;

/// Limits of this crate.
pub mod limits {
    /// Bytes of a data stream, uncompressed.
    pub const SOURCE_BYTES_MAX: u64 = 256 * 1024 * 1024;
    /// Elements inside each other.
    pub const XML_DEPTH_MAX: usize = 128;
    /// Attributes of one element.
    pub const XML_ATTRIBUTES_MAX: usize = 64;
    /// Bytes of text in one element.
    pub const XML_TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Elements in a document.
    pub const XML_ELEMENTS_MAX: u64 = 4_000_000;
    /// Dictionary of an xz stream, KiB.
    pub const XZ_DICTIONARY_KIB_MAX: u32 = 96 * 1024;
    /// Bytes of a script (SCE).
    pub const SCRIPT_BYTES_MAX: usize = 256 * 1024;
    /// Criteria inside each other.
    pub const CRITERIA_DEPTH_MAX: usize = 20;
    /// Bytes of rules that extend others, with what they inherit.
    pub const EXTENDED_BYTES_MAX: usize = 64 * 1024 * 1024;
    /// Profiles that extend each other, definitions that extend each other.
    pub const REFERENCE_DEPTH_MAX: usize = 64;
}
