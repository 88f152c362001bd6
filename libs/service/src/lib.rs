//! What every daemon shares: where it keeps its data, who it is, how it joins and stays a member,
//! how it is configured, and how it logs.

pub mod audit;
pub mod broker_files;
pub mod chain;
pub mod config;
pub mod content;
pub mod daemon;
pub mod data;
pub mod descriptors;
pub mod health;
pub mod identity;
mod joining;
pub mod member;
pub mod process;
pub mod proof;
pub mod recurrence;
pub mod reload;
pub mod renewal;
pub mod report;
pub mod shutdown;
pub mod signature;
pub mod supervisor;
pub mod telemetry;
pub mod token;

/// The version that components advertise.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
