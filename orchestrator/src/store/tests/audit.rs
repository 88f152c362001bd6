//! The log of acts: what nobody can do to it unseen.

use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use service::audit::{Act, Actor, Checkpoint, Line, verify};
use service::identity;
use uuid::Uuid;

use crate::ca::Ca;
use crate::core::Action;
use crate::store::Store;

/// A log of eight acts, signed after the fifth and after the last, and witnessed after the third.
fn log() -> (Vec<Line>, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(build(directory.path()))
}

async fn build(directory: &Path) -> (Vec<Line>, Vec<Vec<u8>>) {
    let now = Timestamp::now();
    let ca = Ca::open(&directory.join("ca"), 3_600, now).unwrap();
    let identity = crate::driver::own_certificate(&ca, &directory.join("identity"), None, now).unwrap();
    let sealer = identity::Identity::sealer(&identity).unwrap();
    let store = Store::open(&directory.join("store.db")).await.unwrap();
    let mut witness = None;
    for number in 1..=8 {
        let act = Act::new(Actor::Operator(0), "evict", number).because("of the test");
        store.apply(Uuid::new_v4(), &[&Action::Record(Box::new(act))], &[]).await.unwrap();
        if number == 3 {
            witness = store.unsigned().await.unwrap();
        }
        if number == 5 || number == 8 {
            let audit_checkpoint = store.unsigned().await.unwrap().unwrap();
            let checkpoint = Checkpoint { audit_checkpoint, at: now };
            store.put_checkpoint(number, &checkpoint.seal(&sealer)).await.unwrap();
        }
    }
    assert_eq!(store.unsigned().await.unwrap(), None);
    let (mut lines, last) = store.audit_lines(0, 5).await.unwrap();
    assert_eq!((lines.len(), last), (6, 5));
    lines.extend(store.audit_lines(last, 5).await.unwrap().0);
    lines.push(Line::Witness(witness.unwrap()));
    (lines, ca.ders())
}

#[test]
fn a_log_that_nobody_touched_holds() {
    let (lines, cas) = log();
    let verified = verify(&lines, &cas).unwrap();
    assert_eq!((verified.entry_count, verified.checkpoint_count, verified.witness_count), (8, 2, 1));
    let (_, stranger) = log();
    assert!(verify(&lines, &stranger).unwrap_err().to_string().contains("cannot be believed"));
}

#[test]
fn a_log_that_was_cut_off_is_told_by_what_was_signed_and_by_what_others_remember() {
    let (lines, cas) = log();
    let without_end = |kept: usize, is_signed: bool| -> Vec<Line> {
        let entries = lines.iter().filter(|line| matches!(line, Line::Entry(_))).take(kept);
        let others = lines.iter().filter(|line| match line {
            Line::Entry(_) => false,
            Line::Checkpoint(_) => is_signed,
            Line::Witness(_) => true,
        });
        entries.chain(others).cloned().collect()
    };
    assert!(verify(&without_end(7, true), &cas).unwrap_err().to_string().contains("cut off"));
    // Whoever deletes the signatures too is found out by the repository, or leaves entries that nobody signed.
    assert!(verify(&without_end(2, false), &cas).unwrap_err().to_string().contains("cut off"));
    assert!(verify(&without_end(7, false), &cas).unwrap_err().to_string().contains("not signed"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_entry_is_changed_moved_removed_or_invented(at in 0_usize..8, other in 0_usize..8, kind in 0_u8..4) {
        let (lines, cas) = log();
        let is_entry = |line: &Line| matches!(line, Line::Entry(_));
        let (mut entries, others): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(is_entry);
        match kind {
            0 => {
                if let Line::Entry(text) = &mut entries[at] {
                    *text = text.replace("evict", "approve");
                }
            }
            1 => drop(entries.remove(at)),
            2 => entries.insert(at, entries[other].clone()),
            _ if at != other => entries.swap(at, other),
            _ => return Ok(()),
        }
        entries.extend(others);
        prop_assert!(verify(&entries, &cas).is_err());
    }
}
