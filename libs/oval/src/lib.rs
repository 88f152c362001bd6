//! OVAL's meaning, without XML and without an endpoint: values and operations, truth tables,
//! variables and functions, sets and filters, states against items, and the resolution of a plan's
//! objects.
//!
//! The collector uses it to find what a plan asks for; the evaluator uses it to decide on what was
//! found. Pure functions: no file, no clock. `proto::plan` and `proto::observation` are its nouns.
//!
//! Sections named in comments are those of the OVAL Language Specification 5.11.

pub mod check;
pub mod compare;
pub mod condition;
pub mod evr;
pub mod kinds;
pub mod pattern;
pub mod question;
pub mod resolve;
pub mod set;
pub mod state;
pub mod variable;

/// Limits of this crate; over one of them something is an error that says so, never a guess.
pub mod limits {
    /// Backtracking steps that one match of a pattern may take.
    pub const PATTERN_STEPS_MAX: u32 = 1_000_000;
    /// Bytes of a pattern.
    pub const PATTERN_BYTES_MAX: usize = 32 * 1024;
    /// Values that a variable may have.
    pub const VARIABLE_VALUES_MAX: usize = 50_000;
    /// Compiled patterns that are kept.
    pub const PATTERNS_KEPT_MAX: usize = 512;
    /// How deep objects, sets and variables may refer to each other.
    pub const REFERENCE_DEPTH_MAX: usize = 64;
}
