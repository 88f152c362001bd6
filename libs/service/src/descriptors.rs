//! How many files and connections a process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of connections.
const OTHERS: u64 = 256;

/// A connection takes a file descriptor, and most systems give a process 1,024 unless it asks for more: asks for so many
/// connections, and says so where they are not to be had.
pub fn raise(connections: u64) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections.saturating_add(OTHERS);
    let most = limit.maximum.unwrap_or(wanted).min(wanted);
    if limit.current.is_some_and(|current| current < most) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    if most < wanted {
        tracing::warn!(most, wanted, "the limit of open files (ulimit -n) allows fewer connections than there may be");
    }
}
