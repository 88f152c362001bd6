//! The posture collection service.
pub mod host;
pub mod limits;
pub mod probe;
