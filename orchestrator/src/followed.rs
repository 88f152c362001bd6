//! Which workflows somebody follows: verdicts that come by are shown to whoever does, and to nobody else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::id::TransactionId;

/// The workflows, and how many follow each.
#[derive(Debug, Default)]
pub(crate) struct Followed(Mutex<BTreeMap<TransactionId, usize>>);

/// Somebody follows a workflow, as long as this lives.
#[derive(Debug)]
pub(crate) struct Following<'followed> {
    followed: &'followed Followed,
    id: TransactionId,
}

impl Followed {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<TransactionId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn follow(&self, id: TransactionId) -> Following<'_> {
        *self.counts().entry(id).or_default() += 1;
        Following { followed: self, id }
    }

    pub(crate) fn is_followed(&self, id: TransactionId) -> bool {
        self.counts().contains_key(&id)
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        let mut counts = self.followed.counts();
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_workflow_is_followed_until_nobody_does_any_more() {
        let (followed, id) = (Followed::default(), TransactionId(Uuid::now_v7()));
        let first = followed.follow(id);
        let second = followed.follow(id);
        drop(first);
        assert!(followed.is_followed(id) && !followed.is_followed(TransactionId(Uuid::now_v7())));
        drop(second);
        assert!(!followed.is_followed(id));
    }
}
