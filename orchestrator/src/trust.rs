//! Replacing the CA while everything runs: everybody learns the new one, then it signs, then the old one goes.

use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};
use proto::fault::{Fault, FaultCode};
use proto::message::CapabilityAdvertisementResponse;
use proto::operator::CaView;
use service::audit::{Act, Actor};

use crate::ca::CaError;
use crate::core::Action;
use crate::driver::Handle;
use crate::store::StoreError;

/// The end of a CA's certificate is told so many days before, once a day.
const ENDING_DAYS: i64 = 60;
const TOLD_HOURS: i64 = 24;

/// Components that are named where it is told who would be cut off.
const NAMED_MAX: usize = 5;

impl From<CaError> for Fault {
    fn from(error: CaError) -> Self {
        Self::new(FaultCode::Conflict, error.to_string())
    }
}

impl Handle {
    /// The CAs, with who knows each of them.
    pub(crate) async fn cas(&self) -> Vec<CaView> {
        let mut views = self.inner.ca.views();
        let core = self.inner.core.lock().await;
        for component in core.components().filter(|component| component.is_member()) {
            let issuer = component.certificate.as_ref().and_then(|certificate| certificate.issuer.as_ref());
            for view in &mut views {
                view.known_by += u64::from(component.trusted_cas.contains(&view.fingerprint));
                view.certificate_count += u64::from(issuer == Some(&view.fingerprint));
            }
        }
        views
    }

    /// Tells a component which CAs there are, where it has said that it knows others.
    pub(crate) fn add_cas(&self, trusted: &[String], response: &mut CapabilityAdvertisementResponse) {
        if !trusted.is_empty() && trusted != self.inner.ca.fingerprints() {
            response.ca_certificates = self.inner.ca.pems();
        }
    }

    /// Begins a rotation. What was brought: the PEM of a certificate, a zero byte, the PEM of its key.
    pub(crate) async fn rotate_ca(&self, actor: Actor, brought: &[u8]) -> Result<Vec<CaView>, Fault> {
        let text = std::str::from_utf8(brought)
            .map_err(|_| Fault::new(FaultCode::Malformed, "a certificate and a key in PEM are text"))?;
        self.inner.ca.introduce(text.split_once('\0'), Timestamp::now())?;
        self.keep_ca().await?;
        let fingerprint = self.inner.ca.introduced().unwrap_or_default();
        self.take_over_cas(Act::new(actor, "rotate-ca", fingerprint)).await?;
        Ok(self.cas().await)
    }

    /// Ends a rotation: whoever knows only the old CA is cut off, who has a certificate of it has to get another. The
    /// broker ends their connections.
    pub(crate) async fn retire_ca(&self, actor: Actor, is_forced: bool) -> Result<Vec<CaView>, Fault> {
        if let Some(next) = self.inner.ca.introduced() {
            if !is_forced {
                let core = self.inner.core.lock().await;
                let unaware: Vec<&str> = core.unaware_of(&next).take(NAMED_MAX).collect();
                let text = format!(
                    "the new CA does not sign yet: not every component that is there knows it ({}); `muster ca show`. With \
                     --force it signs at once, and they have to join again",
                    unaware.join(", ")
                );
                return Err(Fault::new(FaultCode::Conflict, text));
            }
            self.inner.ca.switch()?;
            self.keep_ca().await?;
        }
        let views = self.inner.ca.views();
        let Some(stays) = views.iter().find(|view| view.is_issuer).map(|view| view.fingerprint.clone()) else {
            return Err(Fault::new(FaultCode::Internal, "no CA signs"));
        };
        let goes: Vec<&str> =
            views.iter().filter(|view| !view.is_issuer).map(|view| view.fingerprint.as_str()).collect();
        let (behind, unaware) = {
            let core = self.inner.core.lock().await;
            let (mut behind, mut unaware) = (Vec::new(), Vec::new());
            for component in core.components().filter(|component| component.is_member()) {
                let issuer = component.certificate.as_ref().and_then(|certificate| certificate.issuer.as_deref());
                if !component.trusted_cas.contains(&stays) {
                    unaware.push(component.name.clone());
                } else if issuer.is_none_or(|issuer| goes.contains(&issuer)) {
                    behind.push(component.name.clone());
                }
            }
            (behind, unaware)
        };
        let is_harmless = goes.is_empty() || (unaware.is_empty() && behind.is_empty());
        if !is_harmless && !is_forced {
            let text: Vec<String> = [
                (&behind, "have a certificate of the old CA and get another when it is due: with --force they come back for it"),
                (&unaware, "do not know the new CA: with --force they have to join again"),
            ]
            .into_iter()
            .filter(|(names, _)| !names.is_empty())
            .map(|(names, what)| {
                let named = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
                format!("{} components {what} ({named})", names.len())
            })
            .collect();
            let text = text.join("; ");
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        self.inner.ca.retire()?;
        self.keep_ca().await?;
        let detail = format!("{} components have to join again", unaware.len());
        self.take_over_cas(Act::new(actor, "retire-ca", goes.join(" ")).because(detail)).await?;
        Ok(self.cas().await)
    }

    /// Everything goes on with the CAs that there are now.
    async fn take_over_cas(&self, act: Act) -> Result<(), Fault> {
        let ca = &self.inner.ca;
        self.inner.broker.trust(ca.ders()).map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?;
        self.inner.bus.trust(ca.ders());
        self.inner.joins.trust(ca.ders());
        // The own certificate is from the oldest CA that is trusted, which may be another one now: before anybody is told
        // to believe no other.
        self.renew_own_now().map_err(|error| Fault::new(FaultCode::Internal, error.to_string()))?;
        let fingerprints = ca.fingerprints();
        self.act(|core, _| {
            core.set_trusted(fingerprints);
            ((), vec![Action::Record(Box::new(act))])
        })
        .await?;
        Ok(())
    }

    /// Looks after a rotation that goes on, and after the end of the CAs.
    pub(crate) async fn mind_cas(&self) -> Result<(), StoreError> {
        // What could not be kept when it changed.
        self.catch_up_ca().await?;
        if let Some(fingerprint) = self.inner.ca.introduced()
            && self.inner.core.lock().await.is_known_to_all(&fingerprint)
        {
            match self.inner.ca.switch() {
                Ok(()) => {
                    self.keep_ca().await?;
                    let act = Act::new(Actor::Orchestrator, "ca-signs", &fingerprint);
                    let text = format!("the new CA {} signs from now on", &fingerprint[..12]);
                    self.act(|_, _| {
                        let announce = Action::Announce { code: "security.ca-switched", text };
                        ((), vec![Action::Record(Box::new(act)), announce])
                    })
                    .await?;
                }
                Err(error) => tracing::error!(error = %service::report::Chain(&error), "the new CA cannot sign"),
            }
        }
        let now = Timestamp::now();
        let ending = self.inner.ca.views().into_iter().find(|view| {
            view.is_issuer && view.not_after.duration_since(now) < SignedDuration::from_hours(24 * ENDING_DAYS)
        });
        let is_due = {
            let mut told = self.inner.ca_ending_told.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = ending.is_some()
                && told.is_none_or(|told| now.duration_since(told) > SignedDuration::from_hours(TOLD_HOURS));
            if is_due {
                *told = Some(now);
            }
            is_due
        };
        if let Some(view) = ending.filter(|_| is_due) {
            let text =
                format!("the CA's certificate ends {:.0}: `muster ca rotate` makes its successor", view.not_after);
            self.act(|_, _| ((), vec![Action::Announce { code: "security.ca-ending", text }])).await?;
        }
        Ok(())
    }
}
