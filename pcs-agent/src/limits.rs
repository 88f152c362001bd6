//! What one task may cost the endpoint. A task that is cut off says so, and its verdicts are
//! `unknown`.

use std::time::Duration;

use proto::budget::Budget;

/// What a task may cost, where neither the collector's configuration nor the task says otherwise: five minutes, 1 GiB of
/// files, 256 MiB of memory, and all of the one processor that it uses.
pub const TASK_BUDGET: Budget = Budget {
    cpu_percent: None,
    memory_bytes: Some(256 * 1024 * 1024),
    read_bytes: Some(1024 * 1024 * 1024),
    time_seconds: Some(300),
};
/// How much the collector stands back behind other processes: `nice`(1), 0 to 19.
pub const NICENESS: i32 = 10;
/// The longest pause for the sake of other processes: whoever cancels a task does not wait for long.
pub const PAUSE_MILLISECONDS_MAX: u64 = 250;
/// Directory entries that one task may look at.
pub const TASK_ENTRIES_MAX: u64 = 20_000_000;
/// Bytes of memory for the directories that one task has read; what is over it is read again by each object.
pub const TREE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of the files that one task keeps for the objects that read them too, and of one such file.
pub const CONTENTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one file that is kept.
pub const CONTENT_BYTES_MAX: usize = 512 * 1024;
/// Bytes of one file.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Links that may lead to each other.
pub const LINK_DEPTH_MAX: usize = 40;
/// Directories inside each other.
pub const DIRECTORY_DEPTH_MAX: usize = 256;
/// Seconds for which a task that was done is not done again, if it is asked for again.
pub const DONE_SECONDS: u64 = 60;
/// Tasks that wait at one collector.
pub const TASKS_MAX: usize = 64;
/// Schedules at one collector.
pub const SCHEDULES_MAX: usize = 64;
/// Bytes of an observation's identifier.
pub const IDENTIFIER_BYTES_MAX: usize = 128;
/// Observations at one collector.
pub const OBSERVATIONS_MAX: usize = 16;
/// Seconds from one look of an observation to the next, unless told otherwise.
pub const POLL_SECONDS_DEFAULT: u64 = 30;
/// Bytes of a script.
pub const SCRIPT_BYTES_MAX: usize = 256 * 1024;
/// Bytes that are kept of what a script writes, and of what it writes as errors.
pub const SCRIPT_OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of memory for each process of a script.
pub const SCRIPT_MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Seconds for one script, and of the processor for each of its processes.
pub const SCRIPT_SECONDS_MAX: u64 = 60;
/// Seconds for one question to D-Bus.
pub const DBUS_SECONDS_MAX: u64 = 10;
/// Bytes of one unit file of systemd.
pub const UNIT_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Units of systemd, where they are read from files.
pub const UNITS_MAX: usize = 10_000;
/// How long the answer to the start of an observation waits until it is known whether systemd is listened to.
pub const LISTENING_PATIENCE: Duration = Duration::from_secs(2);
/// Seconds for which file systems that others answer for are asked whether they do, all of them together.
pub const ASKED_SECONDS_MAX: u64 = 5;
/// Threads that ask file systems, and of those that get no answer, in the whole process.
pub const ASKED_AT_ONCE_MAX: usize = 16;
/// Directories that are remembered to be no links, while some mount does not answer.
pub const GUARDED_DIRECTORIES_MAX: usize = 100_000;
/// Seconds without a move after which a task is given up.
pub const SILENT_SECONDS_MAX: u64 = 30;
/// Tasks that were given up and whose threads hang: with so many no other one is begun.
pub const LEFT_BEHIND_MAX: usize = 4;
/// Bytes of a file that are read at once.
pub const PIECE_BYTES_MAX: usize = 1024 * 1024;
/// Mounts that do not answer, named for one object.
pub const MET_MAX: usize = 20;
