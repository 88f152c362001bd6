//! From what was found to messages of a size that travels.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::limits::{OBJECT_ITEMS_MAX, RESULT_PART_BYTES};
use proto::message::CollectedPart;
use proto::observation::{Collected, Flag, Item};
use proto::plan::ObjectKey;

use crate::host::CUT_OFF;

/// What one object found, and when.
pub type Found = (ObjectKey, Collected, Timestamp);

/// Items and objects of one part.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Part {
    /// Items; `objects` refers to them by position.
    pub items: Vec<Item>,
    /// What each object found.
    pub objects: Vec<CollectedPart>,
}

/// Cuts what was found into parts. Identical items stand once in a part. An object that finds more
/// than travels is cut, and says so.
pub fn parts(found: Vec<Found>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut part = Part::default();
    let mut positions: BTreeMap<Item, u32> = BTreeMap::new();
    let mut bytes = 0;
    for (object, mut collected, when) in found {
        cut(&mut collected);
        let size: usize = collected.items.iter().map(size_of_item).sum::<usize>() + 200;
        if bytes + size > RESULT_PART_BYTES && !part.objects.is_empty() {
            parts.push(std::mem::take(&mut part));
            positions.clear();
            bytes = 0;
        }
        bytes += size;
        let mut items = Vec::with_capacity(collected.items.len());
        for item in collected.items {
            let next = u32::try_from(part.items.len()).unwrap_or(u32::MAX);
            let position = *positions.entry(item.clone()).or_insert(next);
            if position == next {
                part.items.push(item);
            }
            items.push(position);
        }
        part.objects.push(CollectedPart {
            object,
            flag: collected.flag,
            collected: when,
            items,
            messages: collected.messages,
        });
    }
    if !part.objects.is_empty() || parts.is_empty() {
        parts.push(part);
    }
    parts
}

/// Bytes as they travel: escapes make control characters six times as long.
pub(crate) fn size_of_item(item: &Item) -> usize {
    serde_json::to_vec(item).map_or(usize::MAX, |bytes| bytes.len())
}

fn cut(collected: &mut Collected) {
    let mut bytes: usize = 0;
    let mut kept = 0;
    for item in collected.items.iter().take(OBJECT_ITEMS_MAX) {
        bytes = bytes.saturating_add(size_of_item(item));
        if bytes > 2 * RESULT_PART_BYTES {
            break;
        }
        kept += 1;
    }
    if kept < collected.items.len() {
        collected.messages.push(format!("{CUT_OFF}{} of {} items are reported", kept, collected.items.len()));
        collected.items.truncate(kept);
        if matches!(collected.flag, Flag::Complete | Flag::DoesNotExist) {
            collected.flag = Flag::Incomplete;
        }
    }
    // The first and the last say what there is to say.
    if collected.messages.len() > MESSAGES_MAX {
        let last = collected.messages.pop();
        collected.messages.truncate(MESSAGES_MAX - 1);
        collected.messages.extend(last);
    }
    for message in &mut collected.messages {
        *message = proto::limits::shown(message);
    }
}

/// Messages of one object that are reported.
const MESSAGES_MAX: usize = 8;

/// How many objects were cut off and why, where any were.
pub(crate) fn cut_off(found: &[Found]) -> Option<String> {
    let reason = |(_, collected, _): &Found| {
        let said = collected.messages.iter().find(|message| message.starts_with(CUT_OFF));
        said.filter(|_| collected.flag == Flag::Incomplete).cloned()
    };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for reason in found.iter().filter_map(reason) {
        *reasons.entry(reason).or_default() += 1;
    }
    if reasons.is_empty() {
        return None;
    }
    let words: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} objects {reason}")).collect();
    Some(format!("of {} objects {}", found.len(), words.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::observation::ItemEntity;

    fn found(object: &str, values: impl IntoIterator<Item = String>) -> (ObjectKey, Collected, Timestamp) {
        let items = values.into_iter().map(|value| Item::new("x", vec![ItemEntity::text("v", value)])).collect();
        (ObjectKey(object.into()), Collected::from_items(items), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn identical_items_stand_once() {
        let parts = parts(vec![found("a", ["1".into(), "2".into()]), found("b", ["2".into()])]);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].items.len(), &parts[0].objects[1].items), (2, &vec![1]));
    }

    #[test]
    fn every_object_is_in_exactly_one_part() {
        let big = || (0..200).map(|at| format!("{at:0>1000}"));
        let parts = parts((0..5).map(|at| found(&at.to_string(), big())).collect());
        assert!(parts.len() > 1);
        assert_eq!(parts.iter().map(|part| part.objects.len()).sum::<usize>(), 5);
    }

    #[test]
    fn an_object_with_too_many_items_is_cut_and_says_so() {
        let parts = parts(vec![found("a", (0..=OBJECT_ITEMS_MAX).map(|at| at.to_string()))]);
        assert_eq!(parts[0].objects[0].flag, Flag::Incomplete);
        assert!(parts[0].objects[0].messages[0].contains("cut off"));
    }

    #[test]
    fn what_travels_fits_however_it_has_to_be_escaped() {
        let parts =
            parts(vec![found("a", ["\u{1}".repeat(600_000)]), found("b", (0..9).map(|_| "\u{1}".repeat(20_000)))]);
        for part in &parts {
            let bytes = serde_json::to_vec(&part.items).unwrap().len();
            assert!(bytes < proto::limits::PAYLOAD_BYTES_MAX * 3 / 4, "{bytes}");
        }
        assert_eq!((parts[0].objects[0].flag, parts[0].objects[0].items.len()), (Flag::Incomplete, 0));
    }

    #[test]
    fn nothing_found_is_a_part_all_the_same() {
        assert_eq!(parts(Vec::new()).len(), 1);
    }
}
