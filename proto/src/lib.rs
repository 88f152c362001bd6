//! Muster's vocabulary: what components say to each other, and nothing about how it travels.
//!
//! Invariants:
//! - No I/O, no clock, no tokio. Time and randomness come in from outside.
//! - [`topic`] is the only place in the project that spells a topic.
//! - [`message`] is the only registry of messages; one file a message. A receiver's `match` over
//!   its enum does not compile until every message has an arm.
//! - Everything here that derives `serde` is a promise to other versions and other vendors: the
//!   golden vectors in `proto/vectors` are only ever added to. It derives `JsonSchema`, too: `docs/schema` follows.
//!
//! Model: draft-ietf-sacm-arch-06 to -13. Where the drafts are silent, `docs/adr` says what we chose.

pub mod acl;
pub mod asyncapi;
pub mod budget;
pub mod capability;
pub mod channel;
pub mod content;
pub mod envelope;
pub mod fault;
pub mod id;
pub mod identity;
pub mod limits;
pub mod message;
pub mod observation;
pub mod operator;
pub mod plan;
pub mod query;
pub mod residency;
pub mod schedule;
pub mod schema;
pub mod seal;
pub mod time;
pub mod topic;
pub mod verdict;
pub mod wire_doc;
