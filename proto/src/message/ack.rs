//! `ack`: the answer to every durable message, sent after the receiver's commit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::MessageId;

/// The message is stored: its sender deletes it from its outbox. `in-reply-to` of the envelope
/// repeats `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Ack {
    /// The message that is stored.
    pub message: MessageId,
}
