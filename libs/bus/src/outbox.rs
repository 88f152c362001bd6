//! Durable messages: one file each, until the receiver's application has acknowledged it.
//!
//! A file is written under another name, flushed to the disk, and renamed; so whatever is there
//! after a power cut is whole. Ids are UUIDv7: the order of names is the order of sending.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use proto::id::MessageId;
use proto::seal::{Sealed, Sealer};
use proto::time::is_skewed;

use crate::{limits, packing};

/// A message that is called in again and again goes out as often as this.
const CALLED_EVERY: Duration = Duration::from_secs(1);

/// Why a message is not in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Too many messages wait.
    #[error("the outbox holds {} messages that nobody has acknowledged", limits::OUTBOX_MESSAGES_MAX)]
    Full,
    /// The disk refuses.
    #[error("the outbox {directory} cannot be written")]
    Io {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    topic: String,
    payload: Vec<u8>,
    sent: Option<Instant>,
    /// How often it was sent in this session.
    attempts: u32,
    /// Whoever is to take it wants it after this.
    not_before: Option<Instant>,
    /// When it was last called in.
    called: Option<Instant>,
    /// Since when it seems to be of a time that has not come yet.
    ahead: Option<Instant>,
}

impl Entry {
    fn new(topic: String, payload: Vec<u8>) -> Self {
        Self { topic, payload, sent: None, attempts: 0, not_before: None, called: None, ahead: None }
    }

    /// Whether it is to be sent now. The longer nobody takes it, the less often.
    fn is_due(&self, now: Instant) -> bool {
        let doubled = limits::RESEND_SECONDS << self.attempts.saturating_sub(1).min(limits::RESEND_DOUBLINGS_MAX);
        let is_late = self.sent.is_none_or(|sent| now.duration_since(sent) >= Duration::from_secs(doubled));
        is_late && self.not_before.is_none_or(|time| now >= time)
    }
}

/// Messages that must arrive.
#[derive(Debug)]
pub struct Outbox {
    /// `None`: only in memory, for components that have nothing durable to say, and for tests.
    directory: Option<PathBuf>,
    entries: BTreeMap<MessageId, Entry>,
}

impl Outbox {
    /// An outbox that does not outlive the process.
    pub fn in_memory() -> Self {
        Self { directory: None, entries: BTreeMap::new() }
    }

    /// The outbox in a directory, with what an earlier process left there. Files that are not whole
    /// messages are moved aside, not deleted.
    pub fn open(directory: &Path) -> Result<Self, OutboxError> {
        let failed = |source| OutboxError::Io { directory: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(directory).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path).map_err(failed)?;
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "msg") {
                continue;
            }
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let bytes = fs::read(&path).map_err(failed)?;
            let split = bytes.iter().position(|byte| *byte == b'\n');
            if let (Some(id), Some(at)) = (id, split) {
                let topic = String::from_utf8_lossy(&bytes[..at]).into_owned();
                entries.insert(id, Entry::new(topic, bytes[at + 1..].to_vec()));
            } else {
                tracing::warn!(file = %path.display(), "not a message: moved aside");
                fs::rename(&path, path.with_extension("damaged")).map_err(failed)?;
            }
        }
        Ok(Self { directory: Some(directory.to_owned()), entries })
    }

    /// Keeps a message. When this returns, a killed process does not lose it.
    pub fn keep(&mut self, id: MessageId, topic: &str, payload: &[u8]) -> Result<(), OutboxError> {
        if self.entries.len() >= limits::OUTBOX_MESSAGES_MAX {
            return Err(OutboxError::Full);
        }
        self.write(id, topic, payload)?;
        self.entries.insert(id, Entry::new(topic.to_owned(), payload.to_vec()));
        Ok(())
    }

    fn write(&self, id: MessageId, topic: &str, payload: &[u8]) -> Result<(), OutboxError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let temporary = directory.join(format!("{id}.tmp"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(topic.as_bytes())?;
            file.write_all(b"\n")?;
            file.write_all(payload)?;
            file.sync_all()?;
            fs::rename(&temporary, directory.join(format!("{id}.msg")))?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|source| OutboxError::Io { directory: directory.clone(), source })
    }

    /// Seals anew what was sealed with an earlier certificate. What is no sealed message stays as it is.
    pub fn reseal(&mut self, sealer: &Sealer) -> Result<(), OutboxError> {
        let old: Vec<(MessageId, Vec<u8>)> = self
            .entries
            .iter()
            .filter_map(|(id, entry)| {
                let plain = packing::unpack(&entry.payload).ok()?;
                let sealed = Sealed::split(&plain).ok()?;
                let pack = if packing::is_packed(&entry.payload) { packing::pack } else { |sealed| sealed };
                (!sealer.has_sealed(&sealed)).then(|| (*id, pack(sealer.seal(sealed.envelope))))
            })
            .collect();
        for (id, payload) in old {
            let topic = self.entries[&id].topic.clone();
            self.write(id, &topic, &payload)?;
            self.entries.insert(id, Entry::new(topic, payload));
        }
        Ok(())
    }

    /// The receiver has it.
    pub fn acknowledged(&mut self, id: MessageId) -> bool {
        if self.entries.remove(&id).is_none() {
            return false;
        }
        if let Some(directory) = &self.directory
            && let Err(error) = fs::remove_file(directory.join(format!("{id}.msg")))
        {
            // It will be sent again, and the receiver will drop it.
            tracing::warn!(%error, "an acknowledged message could not be deleted");
        }
        true
    }

    /// Messages that were made while the clock was ahead by more than receivers take, and wait since it was set back: all refuse
    /// them until their time comes, and then they would say what is no longer so. A clock that is back for a moment only is
    /// wrong itself.
    pub fn of_the_future(&mut self, clock: Timestamp, now: Instant) -> Vec<MessageId> {
        let mut of_the_future = Vec::new();
        for (id, entry) in &mut self.entries {
            let is_ahead = id.made().is_some_and(|made| made > clock && is_skewed(made, clock));
            entry.ahead = is_ahead.then(|| entry.ahead.unwrap_or(now));
            if entry.ahead.is_some_and(|since| now.duration_since(since).as_secs() >= limits::AHEAD_SECONDS) {
                of_the_future.push(*id);
            }
        }
        of_the_future
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether this message still waits.
    pub fn contains(&self, id: MessageId) -> bool {
        self.entries.contains_key(&id)
    }

    /// A new session: everything has to be sent again, but for what is wanted later.
    pub fn session_began(&mut self) {
        for entry in self.entries.values_mut() {
            (entry.sent, entry.attempts) = (None, 0);
        }
    }

    /// Whoever is to take a message wants it then. Says whether it waits here.
    pub fn put_off(&mut self, id: MessageId, until: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        (entry.sent, entry.attempts, entry.not_before) = (None, 0, Some(until));
        true
    }

    /// Whoever is to take a message has room for it now, and not before a second has passed since it last said so: nobody has it
    /// sent as fast as it is answered.
    pub fn call_in(&mut self, id: MessageId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let earliest = entry.called.map_or(now, |called| now.max(called + CALLED_EVERY));
        if earliest == now {
            entry.called = Some(now);
        }
        self.put_off(id, earliest)
    }

    /// Up to `most` messages that have to be sent now, in order.
    pub fn due(&mut self, now: Instant, most: usize) -> Vec<(String, Vec<u8>)> {
        let mut due: Vec<(Option<Instant>, MessageId)> =
            self.entries.iter().filter(|(_, entry)| entry.is_due(now)).map(|(id, entry)| (entry.sent, *id)).collect();
        // What waits longest comes first, so that messages that nobody takes hold up no others.
        due.sort_unstable();
        due.into_iter()
            .take(most)
            .filter_map(|(_, id)| {
                let entry = self.entries.get_mut(&id)?;
                (entry.sent, entry.attempts, entry.not_before) = (Some(now), entry.attempts + 1, None);
                Some((entry.topic.clone(), entry.payload.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn id(number: u128) -> MessageId {
        MessageId(Uuid::from_u128(number))
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_until_it_is_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(directory.path()).unwrap();
        outbox.keep(id(2), "/b", b"two\nlines").unwrap();
        outbox.keep(id(1), "/a", b"one").unwrap();
        drop(outbox);
        let mut outbox = Outbox::open(directory.path()).unwrap();
        let due = outbox.due(Instant::now(), 10);
        assert_eq!(due, [("/a".to_owned(), b"one".to_vec()), ("/b".to_owned(), b"two\nlines".to_vec())]);
        assert!(outbox.acknowledged(id(1)));
        assert!(!outbox.acknowledged(id(1)));
        drop(outbox);
        assert_eq!(Outbox::open(directory.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_message_is_sent_again_only_after_a_while_or_in_a_new_session() {
        let mut outbox = Outbox::in_memory();
        outbox.keep(id(1), "/a", b"one").unwrap();
        let now = Instant::now();
        assert_eq!(outbox.due(now, 10).len(), 1);
        assert!(outbox.due(now, 10).is_empty());
        assert_eq!(outbox.due(now + Duration::from_secs(limits::RESEND_SECONDS), 10).len(), 1);
        outbox.session_began();
        assert_eq!(outbox.due(now, 10).len(), 1);
    }

    #[test]
    fn what_was_made_while_the_clock_was_hours_ahead_is_given_up_a_while_after_it_was_set_back() {
        let mut outbox = Outbox::in_memory();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let right = Timestamp::now();
        let id = MessageId(Uuid::now_v7());
        outbox.keep(id, "/a", b"one").unwrap();
        let back = |seconds| right - jiff::SignedDuration::from_secs(seconds);
        // No more than others take; and for a moment only.
        assert!(outbox.of_the_future(back(200), after(0)).is_empty());
        assert!(outbox.of_the_future(back(200), after(600)).is_empty());
        assert!(outbox.of_the_future(back(7_200), after(600)).is_empty());
        assert!(outbox.of_the_future(right, after(650)).is_empty());
        assert!(outbox.of_the_future(back(7_200), after(700)).is_empty());
        assert!(outbox.of_the_future(back(7_200), after(729)).is_empty());
        assert_eq!(outbox.of_the_future(back(7_200), after(730)), [id]);
    }

    #[test]
    fn the_longer_nobody_takes_it_the_less_often_it_is_sent() {
        let mut outbox = Outbox::in_memory();
        outbox.keep(id(1), "/a", b"one").unwrap();
        let began = Instant::now();
        let seconds = (0..300_u64).filter(|second| !outbox.due(began + Duration::from_secs(*second), 10).is_empty());
        assert_eq!(seconds.collect::<Vec<_>>(), [0, 10, 30, 70, 110, 150, 190, 230, 270]);
        outbox.session_began();
        assert_eq!(outbox.due(began + Duration::from_secs(271), 10).len(), 1);
    }

    #[test]
    fn a_message_that_was_put_off_waits_for_its_time_in_a_new_session_too() {
        let mut outbox = Outbox::in_memory();
        outbox.keep(id(1), "/a", b"one").unwrap();
        let now = Instant::now();
        assert_eq!(outbox.due(now, 10).len(), 1);
        assert!(outbox.put_off(id(1), now + Duration::from_secs(25)));
        assert!(!outbox.put_off(id(2), now));
        outbox.session_began();
        assert!(outbox.due(now + Duration::from_secs(24), 10).is_empty());
        assert_eq!(outbox.due(now + Duration::from_secs(25), 10).len(), 1);
        // From then on it is as any other.
        assert_eq!(outbox.due(now + Duration::from_secs(25 + limits::RESEND_SECONDS), 10).len(), 1);
        // Called in, it goes at once; called in again and again, once a second.
        let later = now + Duration::from_mins(2);
        assert!(outbox.put_off(id(1), later + Duration::from_mins(10)) && outbox.due(later, 10).is_empty());
        let after = |millis| later + Duration::from_millis(millis);
        let sent = (0..3_000).filter(|millis| {
            assert!(outbox.call_in(id(1), after(*millis)) && !outbox.call_in(id(9), after(*millis)));
            !outbox.due(after(*millis), 10).is_empty()
        });
        assert_eq!(sent.collect::<Vec<u64>>(), [0, 1_000, 2_000]);
    }

    #[test]
    fn what_waits_is_sealed_again_and_stays_what_it_is() {
        let sealer = |certificate: &[u8]| {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            Sealer::with_certificate(key.serialized_der(), &[certificate]).unwrap()
        };
        let (old, new) = (sealer(b"old"), sealer(b"new"));
        let directory = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(directory.path()).unwrap();
        outbox.keep(id(1), "/a", &old.seal(b"what it says\nin full")).unwrap();
        outbox.keep(id(2), "/b", b"no sealed message").unwrap();
        let long = "what is long is packed\n".repeat(20) + &(0..1_000).map(|line| line.to_string()).collect::<String>();
        let packed = packing::pack(old.seal(long.as_bytes()));
        assert!(packing::is_packed(&packed));
        outbox.keep(id(3), "/c", &packed).unwrap();
        outbox.reseal(&new).unwrap();
        drop(outbox);
        let due = Outbox::open(directory.path()).unwrap().due(Instant::now(), 10);
        let sealed = Sealed::split(&due[0].1).unwrap();
        assert!(new.has_sealed(&sealed));
        sealed.verify(&new.public_key()).unwrap();
        assert_eq!(sealed.envelope, b"what it says\nin full");
        assert_eq!(due[1].1, b"no sealed message");
        assert!(packing::is_packed(&due[2].1));
        let plain = packing::unpack(&due[2].1).unwrap();
        let sealed = Sealed::split(&plain).unwrap();
        assert!(new.has_sealed(&sealed) && sealed.envelope == long.as_bytes());
    }

    #[test]
    fn a_half_written_file_is_not_a_message() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x.tmp"), "half").unwrap();
        fs::write(directory.path().join("junk.msg"), "no newline").unwrap();
        let outbox = Outbox::open(directory.path()).unwrap();
        assert!(outbox.is_empty());
        assert!(directory.path().join("junk.damaged").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_that_names_it() {
        let error = Outbox::open(Path::new("/proc/muster")).unwrap_err();
        assert!(error.to_string().contains("/proc/muster"));
    }
}
