//! Observations of one size, one after the other, as many as a repository takes: how ingest is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bus::{Authentic, Bus, Context};
use jiff::Timestamp;
use pcs_agent::report::{Found, Part};
use proto::fault::{Fault, FaultCode};
use proto::message::{CollectedPart, CollectionRequest, CollectionResults};
use proto::observation::{Collected, Flag, Item};
use proto::plan::{Datatype, ObjectKey};
use proto::topic::Topic;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::collector::{Speaker, acknowledged};
use super::fleet::{Commit, Fleet};
use super::template::mixed;

/// What is poured in.
#[derive(Debug)]
pub(crate) struct Ingest {
    /// Bytes of the items of one message, in JSON, before it is packed.
    pub(crate) item_bytes: usize,
    /// How many messages may be on their way at a time, of the whole fleet.
    pub(crate) places: Semaphore,
    /// How many of one collector.
    pub(crate) of_one: usize,
    /// Until when new ones are made.
    pub(crate) until: Instant,
}

/// What one collector pours in: its lanes share it.
struct Source {
    bus: Bus,
    context: Context,
    deadline: Timestamp,
    /// A report with nothing in it.
    blank: CollectionResults,
    objects: Vec<(ObjectKey, Vec<Item>)>,
    collector: u64,
    /// How many messages there were.
    count: AtomicU64,
}

impl Fleet {
    /// Answers a request with one observation after the other, each other than the one before, until the time is over.
    pub(super) async fn pour(
        self: &Arc<Self>,
        speaker: &Speaker,
        request: &CollectionRequest,
        message: &Authentic,
        ingest: &Arc<Ingest>,
    ) -> Result<(), Fault> {
        let context = Context::of(message.envelope().transaction);
        let template = self.template(&speaker.bus, request, context).await?;
        let with_text = |(object, collected, _): &Found| Some((object.clone(), with_text(collected)?));
        let source = Arc::new(Source {
            bus: speaker.bus.clone(),
            context,
            deadline: request.deadline,
            blank: speaker.results(request, message, 0, Part::default()),
            objects: template.iter().filter_map(with_text).collect(),
            collector: speaker.number,
            count: AtomicU64::new(0),
        });
        if source.objects.is_empty() {
            return Err(Fault::new(FaultCode::Internal, "the root has nothing of which there could be more"));
        }
        // Of few collectors each has several on their way.
        let mut lanes = JoinSet::new();
        for _ in 0..ingest.of_one {
            let (fleet, source, ingest) = (Arc::clone(self), Arc::clone(&source), Arc::clone(ingest));
            lanes.spawn(async move { fleet.lane(&source, &ingest).await });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.map_err(internal)??;
        }
        Ok(())
    }

    async fn lane(&self, source: &Source, ingest: &Ingest) -> Result<(), Fault> {
        loop {
            let Ok(_place) = ingest.places.acquire().await else { return Ok(()) };
            if Instant::now() >= ingest.until {
                return Ok(());
            }
            let results = source.next(ingest.item_bytes);
            let (bus, context) = (source.bus.clone(), source.context);
            let handed = Instant::now();
            // It waits for the disk, and the others need not wait for that.
            let kept = tokio::task::spawn_blocking(move || {
                bus.send_durable(&Topic::CollectionResults(bus.own()), &results, context)
            });
            let id = kept.await.map_err(internal)?.map_err(internal)?;
            self.counts.reported.fetch_add(1, Relaxed);
            acknowledged(&source.bus, id, source.deadline).await?;
            if source.bus.was_given_up(id) {
                return Err(internal("the repository has refused an observation"));
            }
            self.note(|record| record.commits.push(Commit { handed, acknowledged: Instant::now() }));
        }
    }
}

impl Source {
    /// The next observation, of the next object.
    fn next(&self, item_bytes: usize) -> CollectionResults {
        let number = self.count.fetch_add(1, Relaxed);
        // Not all of them begin with the same object.
        let at = usize::try_from(self.collector + number).unwrap_or_default() % self.objects.len();
        let (object, found) = &self.objects[at];
        let items = filled(found, mixed(self.collector) ^ number, item_bytes);
        let looked = CollectedPart {
            object: object.clone(),
            flag: Flag::Complete,
            collected: Timestamp::now(),
            items: (0..u32::try_from(items.len()).unwrap_or_default()).collect(),
            messages: Vec::new(),
        };
        let part = u32::try_from(number).unwrap_or(u32::MAX);
        CollectionResults { part, items, objects: vec![looked], ..self.blank.clone() }
    }
}

fn internal(error: impl ToString) -> Fault {
    Fault::new(FaultCode::Internal, error.to_string())
}

fn text_of(item: &mut Item) -> Option<&mut String> {
    let mut texts = item.entities.iter_mut().rev().filter(|entity| entity.datatype == Datatype::String);
    texts.find_map(|entity| entity.value.as_mut())
}

/// What was found, if a text in it can be made longer.
fn with_text(collected: &Collected) -> Option<Vec<Item>> {
    let mut items = collected.items.clone();
    items.first_mut().and_then(text_of).is_some().then_some(items)
}

fn size_of(items: &[Item]) -> usize {
    serde_json::to_vec(items).map_or(0, |json| json.len())
}

/// These items with a text of the first so long that together they have that size; with another number it is another text.
fn filled(items: &[Item], number: u64, bytes: usize) -> Vec<Item> {
    let mut items = items.to_vec();
    while items.len() > 1 && size_of(&items) > bytes / 2 {
        items.pop();
    }
    // What is too long alone makes room for what is new in it.
    if size_of(&items) > bytes / 2
        && let Some(text) = items.first_mut().and_then(text_of)
    {
        text.truncate(text.floor_char_boundary(bytes / 4));
    }
    let more = bytes.saturating_sub(size_of(&items));
    if let Some(text) = items.first_mut().and_then(text_of) {
        text.push_str(&filler(number, more));
    }
    items
}

/// Text that packs about as well as reports do, to a sixth.
fn filler(number: u64, chars: usize) -> String {
    let mut text = String::with_capacity(chars + 64);
    let mut block = number;
    while text.len() < chars {
        block = mixed(block);
        text.push_str(&format!("{block:016x}").repeat(4));
    }
    text.truncate(chars);
    text
}

#[cfg(test)]
mod tests {
    use proto::observation::{Flag, ItemEntity};

    use super::*;

    #[test]
    fn what_is_poured_in_has_the_size_and_is_never_the_same() {
        let item = |name: &str, text: &str| {
            Item::new("unix:file", vec![ItemEntity::text("filepath", name), ItemEntity::text("text", text)])
        };
        let check = |items: &[Item]| {
            let (one, other) = (filled(items, 1, 4_096), filled(items, 2, 4_096));
            assert_eq!((size_of(&one), size_of(&other)), (4_096, 4_096));
            assert_ne!(one, other);
            assert_eq!(one, filled(items, 1, 4_096));
        };
        check(&[item("/etc/passwd", "x")]);
        check(&[item("/etc/passwd", "x"), item("/etc/group", "y")]);
        check(&[item("/etc/services", &"long ".repeat(10_000))]);
        check(&(0..200).map(|number| item("/etc/many", &number.to_string())).collect::<Vec<_>>());
        let number = Item::new("unix:file", vec![ItemEntity::int("size", 1)]);
        let nothing = Collected { flag: Flag::Complete, items: vec![number], messages: Vec::new() };
        assert_eq!(with_text(&nothing), None, "a number cannot be made longer");
    }
}
