//! The envelope: who says what to whom, when, in answer to what, as part of which workflow.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fault::{Fault, FaultCode};
use crate::id::{ComponentId, MessageId, TransactionId};
use crate::time;

/// The version of the envelope that this code speaks.
pub const ENVELOPE_VERSION: u32 = 1;

/// Everything around a message's body. Unknown members are ignored, so that later versions may add
/// some; `v` changes when a member changes its meaning.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Envelope {
    /// The version of the envelope, [`ENVELOPE_VERSION`].
    #[schemars(extend("const" = ENVELOPE_VERSION))]
    pub v: u32,
    /// This message's id.
    pub id: MessageId,
    /// The message's kind, from the registry in [`crate::message`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Who sends. Must be the signer, and the sender's level of the topic where it has one. A
    /// joining component puts its client id.
    pub from: ComponentId,
    /// Who is meant. On a topic that is for one component it says so once more, because the seal covers
    /// this and not the topic: a broker cannot hand the message to somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ComponentId>,
    /// When it was made (RFC 8248 OP-001).
    pub sent: Timestamp,
    /// After this it must not be acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<MessageId>,
    /// The workflow.
    pub transaction: TransactionId,
    /// Counts up for each sender and process start; a hint for diagnosis, ids decide.
    pub seq: u64,
    /// The message.
    pub body: Box<RawValue>,
}

impl Envelope {
    /// Reads an envelope and checks all that can be checked without keys: version and times.
    pub fn read(bytes: &[u8], now: Timestamp) -> Result<Self, Fault> {
        let envelope: Self = serde_json::from_slice(bytes)
            .map_err(|error| Fault::new(FaultCode::Malformed, format!("the envelope cannot be read: {error}")))?;
        if envelope.v != ENVELOPE_VERSION {
            let text = format!("envelope version {} is not spoken here, only {ENVELOPE_VERSION}", envelope.v);
            return Err(Fault::new(FaultCode::UnsupportedVersion, text));
        }
        if envelope.expires.is_some_and(|expires| expires < now) {
            return Err(Fault::new(FaultCode::Expired, "the message has expired"));
        }
        // A durable message may be old when its sender was offline: `sent` in the past is fine, the
        // replay check bounds it. `sent` in the future is a wrong clock or a forgery.
        if envelope.sent > now && time::is_skewed(envelope.sent, now) {
            return Err(Fault::new(FaultCode::ClockSkew, "the sender's clock is ahead by more than five minutes"));
        }
        Ok(envelope)
    }

    /// Bytes as they are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope always serialises")
    }

    /// The body as this message.
    pub fn decode<M: crate::message::Message>(&self) -> Result<M, Fault> {
        if self.kind != M::KIND {
            return Err(Fault::new(FaultCode::Malformed, format!("expected {}, got {}", M::KIND, self.kind)));
        }
        decode_body(&self.kind, &self.body)
    }
}

/// The body as some message, with a fault that names the message.
pub(crate) fn decode_body<M: serde::de::DeserializeOwned>(kind: &str, body: &RawValue) -> Result<M, Fault> {
    serde_json::from_str(body.get())
        .map_err(|error| Fault::new(FaultCode::Malformed, format!("{kind}: the body cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut serde_json::Value)) -> Result<Envelope, Fault> {
        let mut envelope = serde_json::json!({
            "v": 1, "id": "0190b6a0-7c1e-7000-8000-000000000001", "type": "heartbeat-request",
            "from": "0190b6a0-7c1e-7000-8000-00000000000a", "sent": "2026-11-22T10:00:00Z",
            "transaction": "0190b6a0-7c1e-7000-8000-000000000002", "seq": 7, "body": {"action": "pulse"}
        });
        change(&mut envelope);
        Envelope::read(&serde_json::to_vec(&envelope).unwrap(), "2026-11-22T10:00:01Z".parse().unwrap())
    }

    fn code(result: Result<Envelope, Fault>) -> FaultCode {
        result.unwrap_err().code
    }

    #[test]
    fn an_unknown_member_is_ignored() {
        assert!(read(|json| json["colour"] = "green".into()).is_ok());
    }

    #[test]
    fn an_expired_envelope_is_refused() {
        assert_eq!(code(read(|json| json["expires"] = "2026-11-22T10:00:00Z".into())), FaultCode::Expired);
    }

    #[test]
    fn a_clock_far_ahead_is_refused_and_an_old_message_is_not() {
        assert_eq!(code(read(|json| json["sent"] = "2026-11-22T11:00:00Z".into())), FaultCode::ClockSkew);
        assert!(read(|json| json["sent"] = "2026-11-20T10:00:00Z".into()).is_ok());
    }

    #[test]
    fn another_version_is_refused_by_name() {
        assert_eq!(code(read(|json| json["v"] = 2.into())), FaultCode::UnsupportedVersion);
    }

    #[test]
    fn a_missing_member_is_malformed() {
        assert_eq!(
            code(read(|json| {
                json.as_object_mut().unwrap().remove("from");
            })),
            FaultCode::Malformed
        );
    }
}
