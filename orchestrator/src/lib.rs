//! The orchestrator.
pub mod broker;
