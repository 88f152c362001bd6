//! Exit codes.

/// Done; for an evaluation, everything passed.
pub(crate) const DONE: u8 = 0;
/// It did not work.
pub(crate) const ERROR: u8 = 1;
/// A rule failed, or could not be decided.
pub(crate) const NOT_MET: u8 = 2;
/// Wrong words on the command line (sysexits: EX_USAGE).
pub(crate) const USAGE: u8 = 64;
