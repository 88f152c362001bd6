//! YAML as `independent:yamlfilecontent` asks about it: documents as a bounded tree, the paths of `yaml-filter` that lead into
//! it, and the records that an item has of what they lead to. Types are those of YAML 1.2's core schema.

mod path;
mod record;
mod scalar;
mod tree;

pub(super) use path::{Path, PathError};
pub(super) use record::{Record, records};
pub(super) use tree::Stream;

mod limits {
    /// Bytes of a file.
    pub(super) const STREAM_BYTES_MAX: usize = 16 * 1024 * 1024;
    /// Sequences and maps inside each other, aliases followed.
    pub(super) const DEPTH_MAX: usize = 64;
    /// Scalars, sequences and maps of a file, each alias counted as all that it stands for.
    pub(super) const NODES_MAX: usize = 100_000;
    /// Bytes of a path.
    pub(super) const PATH_BYTES_MAX: usize = 8 * 1024;
    /// Keys or numbers between two brackets, as in `yaml-filter`.
    pub(super) const CHOICES_MAX: usize = 256;
}
