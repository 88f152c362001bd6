//! The orchestrator: lets components join, learns what each can do, assigns their topics, watches that
//! they live, and starts every workflow.
//!
//! Listens: registrations, the administrative interfaces, status notifications, and operators on a
//! local socket. Tells: components what to do, operators what became of it. Never: keeps a posture
//! attribute, looks at an endpoint, or decides a verdict.

pub mod broker;
pub mod ca;
pub mod core;

mod admitted;
mod assignments;
mod audit;
mod chain;
mod control;
mod courier;
mod coverage;
mod driver;
mod external;
mod feeds;
mod followed;
mod lease;
mod onboarding;
mod policies;
mod posture;
mod preview;
mod registration;
mod retention;
mod settings;
mod shared;
mod signers;
mod standby;
mod standing;
mod status;
mod statuses;
pub mod store;
mod tasks;
pub mod transfer;
mod trust;
mod versions;
mod workflows;

pub use driver::{Handle, RunError, run};
pub use external::ExternalBroker;
pub use feeds::{FeedLimits, policy_name, signature_of};
pub use policies::BASELINE_SOURCE;
pub use registration::TokenScope;
pub use retention::{Expired, KEEP_DAYS_MIN};
pub use settings::{CERTIFICATE_SECONDS, KEEP_WORKFLOWS, Settings};
pub use shared::SharedError;

/// The name of the policy that comes with the program.
pub const BASELINE: &str = "muster-baseline-linux";
/// The socket in the data directory on which operators ask.
pub const CONTROL_SOCKET: &str = "control.sock";
