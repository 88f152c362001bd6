//! Typed identifiers. A component id can never be passed where a transaction id is wanted.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The one spelling of an id, as a regular expression.
pub const ID_PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

macro_rules! typed_id {
    ($($(#[doc = $doc:literal])+ $name:ident)*) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts only the lower-case hyphenated form, so that an id has one spelling: it is
            /// compared as text by brokers and in certificates.
            fn from_str(text: &str) -> Result<Self, IdError> {
                match Uuid::try_parse(text) {
                    Ok(uuid) if uuid.as_hyphenated().to_string() == text => Ok(Self(uuid)),
                    _ => Err(IdError { expected: stringify!($name), found: text.chars().take(64).collect() }),
                }
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!($($doc, "\n"),+),
                    "type": "string",
                    "format": "uuid",
                    "pattern": ID_PATTERN,
                })
            }
        }
    )*};
}

typed_id! {
    /// A component-unique-identifier (draft-ietf-sacm-arch-13 §6.1): minted by the orchestrator,
    /// persisted by both sides, the CN of the component's certificate and its MQTT client id.
    ComponentId
    /// A message's own id (UUIDv7). Receivers drop an id that they have seen from that sender.
    MessageId
    /// Names one request of a workflow; a request that is sent again keeps it.
    RequestId
    /// Follows one workflow from the operator's request to the last verdict.
    TransactionId
    /// A target endpoint's label: unique in the domain, stable over its life.
    EndpointId
}

/// Text that is not an id in its one accepted spelling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {expected}: a lower-case hyphenated UUID is wanted")]
pub struct IdError {
    expected: &'static str,
    found: String,
}

impl MessageId {
    /// When the message was made, by its sender's clock, as a UUIDv7 says (RFC 9562 section 5.7).
    pub fn made(self) -> Option<jiff::Timestamp> {
        let (seconds, nanoseconds) = self.0.get_timestamp()?.to_unix();
        jiff::Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "0190b6a0-7c1e-7000-8000-000000000001";
        assert_eq!(text.parse::<ComponentId>().unwrap().to_string(), text);
        assert!(text.to_uppercase().parse::<ComponentId>().is_err());
        assert!(text.replace('-', "").parse::<ComponentId>().is_err());
        assert!(format!("{{{text}}}").parse::<ComponentId>().is_err());
        assert!("".parse::<ComponentId>().is_err());
    }
}
