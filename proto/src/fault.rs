//! A fault is an error on the wire: a bounded code, whether to try again, and text that is safe to
//! show. Nothing of the receiver's inside (paths, SQL, keys) belongs in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

macro_rules! fault_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)*) => {
        /// What went wrong, from a closed list (spec proposal P-7).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum FaultCode {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)*
        }

        impl FaultCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it stands on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code's documentation, for `docs/wire.md`.
            pub fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)* }
            }
        }
    };
}

fault_codes! {
    /// The bytes are not a sealed envelope, or the body is not that message.
    Malformed = "malformed",
    /// The envelope's version is not spoken here.
    UnsupportedVersion = "unsupported-version",
    /// No such capability here.
    UnsupportedCapability = "unsupported-capability",
    /// The data model, or a construct in it, is not covered.
    UnsupportedDataModel = "unsupported-data-model",
    /// The sender may not do this.
    NotAuthorized = "not-authorized",
    /// The id was never minted here: register without one.
    UnknownComponent = "unknown-component",
    /// The component was evicted; joining again needs a new token.
    Revoked = "revoked",
    /// The component was banned: it does not join again.
    Banned = "banned",
    /// An operator has to approve first.
    PendingApproval = "pending-approval",
    /// The identifier is in use with another content.
    DuplicateIdentifier = "duplicate-identifier",
    /// It does not go together with what there is.
    Conflict = "conflict",
    /// Another process is this component already: its key was copied.
    Duplicate = "duplicate-component",
    /// Nothing has that identifier.
    UnknownIdentifier = "unknown-identifier",
    /// The target is not an endpoint that is known here.
    TargetUnknown = "target-unknown",
    /// The content could not be fetched.
    ContentUnavailable = "content-unavailable",
    /// The content is not what its hash or its type says.
    ContentInvalid = "content-invalid",
    /// Too much to do; the same request may succeed later.
    Busy = "busy",
    /// Over a limit of `proto::limits`.
    TooLarge = "too-large",
    /// The message's `expires` has passed.
    Expired = "expired",
    /// The sender's clock is more than five minutes away.
    ClockSkew = "clock-skew",
    /// The message id was seen before.
    Replayed = "replayed",
    /// No answer within the deadline.
    Timeout = "timeout",
    /// Cancelled by who asked.
    Cancelled = "cancelled",
    /// A fault of the receiver; its log says more.
    Internal = "internal",
}

impl FaultCode {
    /// Whether the same request may succeed if it is sent again later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Timeout | Self::ContentUnavailable | Self::PendingApproval | Self::Internal)
    }
}

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[error("{}: {message}", .code.as_str())]
pub struct Fault {
    /// What went wrong.
    pub code: FaultCode,
    /// What went wrong, for a person; at most [`limits::TEXT_CHARS_MAX`] characters.
    pub message: String,
    /// After how many seconds it may be tried again, where the receiver wants it to be then: everybody else is told another
    /// time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Fault {
    /// A fault whose text is cut to the limit and free of control characters.
    pub fn new(code: FaultCode, message: impl AsRef<str>) -> Self {
        Self { code, message: limits::shown(message.as_ref()), retry_after_seconds: None }
    }

    /// The same, to be tried again after a time.
    #[must_use]
    pub fn after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }
}
