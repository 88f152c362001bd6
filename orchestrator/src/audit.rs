//! The log of acts: signed by the orchestrator as it grows, and told to the repositories, which remember it.

use std::sync::PoisonError;
use std::time::Duration;

use bus::Context;
use jiff::Timestamp;
use proto::capability::ComponentType;
use proto::id::ComponentId;
use proto::message::{AuditCheckpoint, AuditWitness, Message as _};
use proto::operator::ComponentState;
use proto::topic::Topic;
use service::audit::Checkpoint;

use crate::driver::Handle;
use crate::store::StoreError;

/// Seconds for a repository's answer.
const ANSWER_SECONDS: u64 = 5;

impl Handle {
    /// Signs what was done since it was signed the last time, and tells the repositories.
    pub(crate) async fn sign_acts(&self) -> Result<(), StoreError> {
        // One at a time: two would sign the same.
        let _signing = self.inner.signing.lock().await;
        let now = Timestamp::now();
        // With a certificate that does not hold (the machine slept, or its clock was set) nobody would believe it: the
        // next one signs.
        let is_valid = self.inner.certificate.lock().unwrap_or_else(PoisonError::into_inner).valid_at(now).is_ok();
        let Some(audit_checkpoint) = self.inner.store.unsigned().await?.filter(|_| is_valid) else { return Ok(()) };
        let checkpoint = Checkpoint { audit_checkpoint, at: now };
        let sealed = self.inner.bus.seal(|sealer| checkpoint.seal(sealer));
        self.inner.store.put_checkpoint(checkpoint.audit_checkpoint.number, &sealed).await?;
        for (repository, _) in self.repositories().await.into_iter().filter(|(_, is_there)| *is_there) {
            let (handle, told) = (self.clone(), checkpoint.audit_checkpoint.clone());
            // Its answer says what it was told before; whoever checks the log asks for that.
            tokio::spawn(async move { handle.tell_witness(repository, &told).await });
        }
        Ok(())
    }

    /// Tells a repository that has come what it has missed.
    pub(crate) async fn remind(&self, repository: ComponentId) {
        if let Ok(Some(last)) = self.inner.store.last_entry().await {
            self.tell_witness(repository, &last).await;
        }
    }

    /// Every repository that there ever was, and whether it is there.
    pub(crate) async fn repositories(&self) -> Vec<(ComponentId, bool)> {
        let core = self.inner.core.lock().await;
        core.components()
            .filter(|component| component.component_type == ComponentType::RepositoryInterface)
            .map(|component| (component.id, component.state == ComponentState::Active))
            .collect()
    }

    async fn tell_witness(&self, to: ComponentId, told: &AuditCheckpoint) -> Option<AuditWitness> {
        let bus = &self.inner.bus;
        let topic = Topic::Directed { to, operation: AuditCheckpoint::KIND.to_owned(), from: bus.own() };
        bus.request(&topic, told, Context::alone(), Duration::from_secs(ANSWER_SECONDS)).await.ok()
    }

    /// What the repositories remember, and which of them do not answer.
    pub(crate) async fn witnesses(&self) -> (Vec<AuditCheckpoint>, Vec<ComponentId>) {
        let (mut known, mut silent) = (Vec::new(), Vec::new());
        // Nothing is told by this: a log has no entry 0.
        let nothing = AuditCheckpoint { number: 0, hash: service::audit::beginning() };
        for (repository, is_there) in self.repositories().await {
            let answer = if is_there { self.tell_witness(repository, &nothing).await } else { None };
            match answer {
                Some(witness) => known.extend(witness.checkpoints),
                None => silent.push(repository),
            }
        }
        (known, silent)
    }
}
