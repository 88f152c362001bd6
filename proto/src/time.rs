//! Times on the wire: RFC 3339, UTC.

use jiff::Timestamp;

/// How far a sender's clock may be from the receiver's before its messages are refused with
/// `clock-skew` (RFC 8248 ARCH-009, OP-001).
pub const SKEW_SECONDS_MAX: i64 = 300;

/// Whether `sent` is so far from `now` that the message must be refused.
pub fn is_skewed(sent: Timestamp, now: Timestamp) -> bool {
    now.as_second().abs_diff(sent.as_second()) > SKEW_SECONDS_MAX.unsigned_abs()
}
