//! What a task has read of files, for the objects that read the same ones: text is read once for all patterns.
//!
//! Bounded: over the limit all of it is let go of, and what is asked for is read again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::host::{Host, ReadError};
use crate::limits::{CONTENT_BYTES_MAX, CONTENTS_BYTES_MAX};

/// Files that are kept.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    kept: RefCell<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_path: HashMap<String, Rc<[u8]>>,
    bytes: usize,
}

impl Host {
    /// The whole content of a regular file, links followed: read once a task, unless it is large.
    pub(crate) fn content(&self, path: &str) -> Result<Rc<[u8]>, ReadError> {
        if let Some(known) = self.contents.kept.borrow().by_path.get(path) {
            return Ok(Rc::clone(known));
        }
        let content: Rc<[u8]> = self.read(path)?.into();
        let most = self.share_of_memory(CONTENTS_BYTES_MAX);
        if content.len() <= CONTENT_BYTES_MAX.min(most) {
            let mut kept = self.contents.kept.borrow_mut();
            if kept.bytes + content.len() > most {
                *kept = Kept::default();
            }
            kept.bytes += content.len();
            kept.by_path.insert(path.to_owned(), Rc::clone(&content));
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_a_task_unless_it_is_large() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| std::fs::write(root.path().join(name), vec![b'x'; bytes]).unwrap();
        write("small", 10);
        write("large", CONTENT_BYTES_MAX + 1);
        let host = Host::new(root.path());
        let lengths = || ["/small", "/large"].map(|path| host.content(path).unwrap().len());
        assert_eq!(lengths(), [10, CONTENT_BYTES_MAX + 1]);
        write("small", 20);
        write("large", 20);
        assert_eq!(lengths(), [10, 20]);
        assert!(matches!(host.content("/none"), Err(ReadError::Absent)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        for name in 0..20 {
            std::fs::write(root.path().join(name.to_string()), vec![b'x'; CONTENT_BYTES_MAX]).unwrap();
        }
        let host = Host::new(root.path());
        for name in 0..20 {
            host.content(&format!("/{name}")).unwrap();
            assert!(host.contents.kept.borrow().bytes <= CONTENTS_BYTES_MAX);
        }
        assert!(!host.contents.kept.borrow().by_path.is_empty());
    }
}
