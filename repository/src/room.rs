//! The room for reports that wait to be stored. It is bounded by their number and by their bytes: of a large policy, a report has
//! hundreds of kilobytes, and a thousand of them would be most of what the process takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proto::limits::SERVICE_PAYLOAD_BYTES_MAX;

/// Reports that wait to be stored.
pub(crate) const REPORTS_MAX: usize = 1_024;
/// Bytes of these, sealed and not packed. Each is there as it was sealed, as it is read, and packed: it takes about twice as much.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// A quarter of the places, and of the bytes, is kept for those who were sent away before. They come when as many of those that wait are
/// stored, and find others that wait: there is always something to store.
const KEPT: usize = 4;
/// The mean is of about so many of the last reports.
const MEAN_OF: usize = 16;
// Whatever comes has room where nothing waits, and somebody is called in.
const _: () = assert!(BYTES_MAX / KEPT >= SERVICE_PAYLOAD_BYTES_MAX);

/// What is taken of the room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    reports: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes of a report, as a mean of those that came lately.
    mean: AtomicUsize,
}

/// A place, until it is let go.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.reports.fetch_sub(1, Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl Room {
    /// A place for a report; whoever was told to come now may have one of those that are kept. One taker at a time.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize, is_promised: bool) -> Option<Place> {
        let mean = self.mean.load(Relaxed);
        self.mean.store(if mean == 0 { bytes } else { mean - mean / MEAN_OF + bytes / MEAN_OF }, Relaxed);
        let of = |most: usize| if is_promised { most } else { most - most / KEPT };
        let (reports, taken) = (self.reports.load(Relaxed), self.bytes.load(Relaxed));
        if reports >= of(REPORTS_MAX) || taken + bytes > of(BYTES_MAX) {
            return None;
        }
        self.reports.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        Some(Place { room: Arc::clone(self), bytes })
    }

    /// How many more there is room for, if they are like those that came lately.
    pub(crate) fn left(&self) -> usize {
        let reports = REPORTS_MAX.saturating_sub(self.reports.load(Relaxed));
        let bytes = BYTES_MAX.saturating_sub(self.bytes.load(Relaxed));
        reports.min(bytes / self.mean.load(Relaxed).max(1))
    }

    /// How many places are kept, if those who come are like those that came lately.
    pub(crate) fn kept(&self) -> usize {
        (REPORTS_MAX / KEPT).min(BYTES_MAX / KEPT / self.mean.load(Relaxed).max(1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// As many places as there are for reports of this size.
    fn fill(room: &Arc<Room>, bytes: usize, is_promised: bool) -> Vec<Place> {
        std::iter::from_fn(|| room.take(bytes, is_promised)).take(2 * REPORTS_MAX).collect()
    }

    #[test]
    fn short_reports_are_bounded_by_their_number_and_long_ones_by_their_bytes() {
        for (bytes, most) in [(1_000, REPORTS_MAX), (BYTES_MAX / 64, 64)] {
            let room = Arc::new(Room::default());
            let places = fill(&room, bytes, false);
            assert_eq!((places.len(), room.left(), room.kept()), (most - most / KEPT, most / KEPT, most / KEPT));
            let kept = fill(&room, bytes, true);
            assert_eq!((kept.len(), room.left()), (most / KEPT, 0));
            assert!(room.take(bytes, false).is_none() && room.take(bytes, true).is_none());
            drop(kept);
            assert_eq!(room.left(), most / KEPT);
            drop(places);
            assert_eq!(room.left(), most);
        }
    }

    #[test]
    fn as_many_are_called_in_as_there_is_room_for_if_they_are_like_those_that_came_lately() {
        let room = Arc::new(Room::default());
        drop(fill(&room, 1_000, true));
        assert_eq!((room.left(), room.kept()), (REPORTS_MAX, REPORTS_MAX / KEPT));
        let lefts: Vec<usize> =
            (0..100).map(|_| room.take(SERVICE_PAYLOAD_BYTES_MAX, true).map_or(0, |_| room.left())).collect();
        let least = BYTES_MAX / SERVICE_PAYLOAD_BYTES_MAX;
        assert!(lefts.is_sorted_by(|one, next| one >= next), "{lefts:?}");
        assert!(lefts[0] > 2 * least && lefts[99] <= least + 1, "{lefts:?}");
    }
}
