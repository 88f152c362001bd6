//! Every limit that both sides of a wire must agree on. Each names its unit last.

/// Largest MQTT payload that a collector or a joining component may publish.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Largest payload between services (an evaluator's query answer, a content chunk).
pub const SERVICE_PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Largest payload that a connection without a certificate may publish: one registration.
pub const JOIN_PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// Room for topic, properties and packet header beside the payload: what a broker takes is at most that much larger.
pub const PACKET_OVERHEAD_BYTES: usize = 4 * 1024;
/// Largest JWS header line before the envelope.
pub const SEAL_HEADER_BYTES_MAX: usize = 8 * 1024;
/// One chunk of content in a `content-response`.
pub const CONTENT_CHUNK_BYTES: usize = 32 * 1024;
/// Largest content object (a compiled policy, a plan), after compression.
pub const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Certificates that come with a feed; they travel in an operator's question.
pub const FEED_CA_BYTES_MAX: usize = 32 * 1024;
/// A result message is cut into parts of about this size.
pub const RESULT_PART_BYTES: usize = 256 * 1024;
/// Items that one object may collect; more than this and its flag is `incomplete`.
pub const OBJECT_ITEMS_MAX: usize = 2_000;
/// How many times its size a packed message may have; a sender sends plain what would have more.
pub const PACKED_TIMES_MAX: usize = 32;
/// Bytes of one entity's value; longer text is cut and the item says so.
pub const ENTITY_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Capabilities in one advertisement.
pub const CAPABILITIES_MAX: usize = 256;
/// Characters of a component's name or description, of a label, of a fault's text.
pub const TEXT_CHARS_MAX: usize = 512;

/// Cuts text to [`TEXT_CHARS_MAX`] characters and removes control characters, so that text from
/// elsewhere can be shown in a terminal.
pub fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX).collect()
}
/// Questions about tasks in one message.
pub const TASKS_MAX: usize = 256;
/// Endpoints that an answer about a task names.
pub const TASK_ENDPOINTS_MAX: usize = 16_000;
/// Endpoints of one question of an evaluator, or of one message with verdicts.
pub const FLEET_ENDPOINTS_MAX: usize = 256;
/// A message with verdicts on many endpoints is cut at about this size.
pub const FLEET_RESULTS_BYTES: usize = 512 * 1024;
