//! A small endpoint of a test's own: a root directory with what a few rules of the baseline look at.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The end of the id of the rule that looks at the mode of `/etc/shadow`.
pub const SHADOW_RULE: &str = "_rule_shadow_file_permissions";

/// One whose `/etc/shadow` is as it should be.
pub fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(root.path().join("etc")).expect("a directory");
    std::fs::write(root.path().join("etc/shadow"), "root:*:19000:0:99999:7:::\n").expect("a file");
    std::fs::write(root.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").expect("a file");
    set_mode(root.path(), 0o640);
    root
}

/// Sets the mode of its `/etc/shadow`.
pub fn set_mode(root: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(root.join("etc/shadow"), permissions).expect("the file is there");
}
