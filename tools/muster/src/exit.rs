//! Exit codes.

/// Done; for an evaluation, everything passed.
pub(crate) const DONE: u8 = 0;
/// It did not work.
pub(crate) const ERROR: u8 = 1;
/// A rule failed, or could not be decided; of `muster measure`, something could not be measured.
pub(crate) const NOT_MET: u8 = 2;
/// Wrong words on the command line (sysexits: EX_USAGE).
pub(crate) const USAGE: u8 = 64;
/// Wrong options, as `oscap` says it.
const SCAP_USAGE: u8 = 100;
/// No command, or an unknown one, as `oscap` says it.
const SCAP_COMMAND: u8 = 101;

/// What wrong words end with.
pub(crate) fn wrong_words(error: &clap::Error) -> u8 {
    use clap::error::ErrorKind;
    // Before it only options may stand.
    if !std::env::args_os().skip(1).take(5).any(|word| word == "scap") {
        return USAGE;
    }
    match error.kind() {
        ErrorKind::InvalidSubcommand
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => SCAP_COMMAND,
        _ => SCAP_USAGE,
    }
}
