//! How the system is, for operators.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use proto::operator::{ComponentState, SystemStatus};

use crate::driver::Handle;
use crate::external::Link;

impl Handle {
    /// How the system is.
    pub async fn status(&self) -> SystemStatus {
        let orchestrators = self.orchestrators().await;
        let core = self.inner.core.lock().await;
        let mut counts: BTreeMap<ComponentState, u64> = BTreeMap::new();
        for component in core.components() {
            *counts.entry(component.state).or_default() += 1;
        }
        SystemStatus {
            is_standby: false,
            orchestrators,
            orchestrator: self.inner.bus.own(),
            version: service::VERSION.to_owned(),
            started: self.inner.started,
            listen: self.inner.broker.address().to_string(),
            external_broker: self.inner.external.as_ref().map(Link::get),
            data_directory: self.inner.data.display().to_string(),
            component_counts: counts.into_iter().collect(),
            endpoint_count: core.components().map(|component| component.endpoints.len() as u64).sum(),
            open_transaction_count: core.workflows().filter(|workflow| workflow.ended.is_none()).count() as u64,
            security_counts: self
                .inner
                .security
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .map(|(code, count)| (code.clone(), *count))
                .collect(),
            broker_counts: self.inner.broker.metrics(),
            refused_counts: self
                .inner
                .bus
                .refused()
                .into_iter()
                .map(|(code, count)| (code.as_str().to_owned(), count))
                .collect(),
        }
    }
}
