//! A certificate that renews itself: at half its life, earlier or later by chance so that components that joined
//! together do not come together, and over a connection without a certificate when it has run out or is refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::certificate::Certificate;
use bus::{Bus, Context, RequestError, mqtt};
use jiff::{SignedDuration, Timestamp};
use proto::fault::{Fault, FaultCode};
use proto::message::{ComponentRegistrationRequest, ComponentRegistrationResponse};
use proto::topic::Topic;
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};

use crate::identity::{self, Identity, IdentityError};
use crate::joining::{Failure, Stranger};
use crate::report::Chain;
use crate::token::host_and_port;

/// Seconds between two looks at the clock: a machine that slept, or whose clock was set, is noticed.
const CLOCK_SECONDS: u64 = 30;
/// Seconds after the first failure; doubled after each, up to the next.
const RETRY_SECONDS: u64 = 2;
const RETRY_SECONDS_MAX: u64 = 300;
/// Seconds after a renewal in which a refused connection is no reason for the next.
const REFUSED_SECONDS: u64 = 60;
/// Seconds for the answer.
const ANSWER_SECONDS: u64 = 10;

/// Keeps the certificate of a member fresh.
pub(crate) struct Renewal {
    pub(crate) bus: Bus,
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    pub(crate) tls: watch::Sender<Arc<ClientConfig>>,
    /// Where the connection goes.
    pub(crate) address: watch::Sender<(String, u16)>,
    /// The broker refused the connection.
    pub(crate) refused: Arc<Notify>,
    /// The broker has been away for long.
    pub(crate) away: Arc<Notify>,
    /// The CAs that the orchestrator says are to be trusted (PEM), and those that are (fingerprints).
    pub(crate) cas: watch::Receiver<Vec<String>>,
    pub(crate) trusted: watch::Sender<Vec<String>>,
}

/// When a certificate is to be renewed: at half its life, a tenth of it earlier or later. `chance` is from 0 to 1.
pub fn due(certificate: &Certificate, chance: f64) -> Timestamp {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "seconds of jitter")]
    let after = ((certificate.not_after - certificate.not_before) as f64 * (0.4 + 0.2 * chance)) as i64;
    Timestamp::from_second(certificate.not_before + after).unwrap_or(Timestamp::MIN)
}

/// How long to wait for that, or for the next look at the clock.
pub fn wait(due: Timestamp, now: Timestamp) -> Duration {
    let left = u64::try_from(due.duration_since(now).as_millis()).unwrap_or_default();
    Duration::from_millis(left).min(Duration::from_secs(CLOCK_SECONDS))
}

impl Renewal {
    /// Renews whenever it is due; ends when the orchestrator wants this component no more, and says why.
    pub(crate) async fn run(mut self) -> Fault {
        let mut renew_at = due(&self.identity.certificate, mqtt::rand_fraction());
        let mut is_refused = false;
        let mut failures = 0_u32;
        let mut renewed: Option<tokio::time::Instant> = None;
        loop {
            let now = Timestamp::now();
            if now < renew_at && !is_refused {
                tokio::select! {
                    () = tokio::time::sleep(wait(renew_at, now)) => {}
                    // A fresh certificate was refused: another one would be, too.
                    () = self.refused.notified() => {
                        is_refused = renewed.is_none_or(|at| at.elapsed() > Duration::from_secs(REFUSED_SECONDS));
                    }
                    // One that is not the orchestrator's own may have been given up: the orchestrator says which is in its place.
                    () = self.away.notified(), if self.identity.broker.is_some() => is_refused = true,
                    Ok(()) = self.cas.changed() => self.trust(),
                }
                continue;
            }
            match self.renew(is_refused, now).await {
                Ok(()) => {
                    (is_refused, failures) = (false, 0);
                    renewed = Some(tokio::time::Instant::now());
                    renew_at = due(&self.identity.certificate, mqtt::rand_fraction());
                    // However short it holds, or far ahead its maker's clock is.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    tracing::info!(until = %time(self.identity.certificate.not_after), "the certificate was renewed");
                }
                // An orchestrator that was set up anew, or back, does not know it: it has to join again.
                Err(Failure::Refused(fault))
                    if matches!(fault.code, FaultCode::Revoked | FaultCode::Banned | FaultCode::UnknownComponent) =>
                {
                    return fault;
                }
                Err(Failure::Refused(Fault { message: reason, .. }) | Failure::Unreachable(reason)) => {
                    let until = time(self.identity.certificate.not_after);
                    tracing::warn!(reason, %until, "the certificate could not be renewed");
                    failures += 1;
                    let seconds = (RETRY_SECONDS << failures.min(8)).min(RETRY_SECONDS_MAX);
                    tokio::time::sleep(Duration::from_secs(seconds).mul_f64(0.5 + mqtt::rand_fraction() / 2.0)).await;
                }
            }
        }
    }

    async fn renew(&mut self, is_refused: bool, now: Timestamp) -> Result<(), Failure> {
        let unusable = |error: &(dyn std::error::Error + 'static)| Failure::Unreachable(Chain(error).to_string());
        let key = identity::key(&self.directory).map_err(|error| unusable(&error))?;
        let request = ComponentRegistrationRequest {
            component_unique_identifier: Some(self.identity.component),
            component_type: self.identity.certificate.component_type,
            component_name: self.name.clone(),
            component_description: None,
            certificate_signing_request: identity::signing_request(&key).map_err(|error| unusable(&error))?,
            join_proof: None,
        };
        let answer = if is_refused || self.identity.certificate.valid_at(now).is_err() {
            let ca_fingerprints = self.identity.ca_fingerprints();
            let (host, port) = (&*self.identity.host, self.identity.port);
            Stranger { host, port, ca_fingerprints: &ca_fingerprints, key: &key }.ask(&request).await?
        } else {
            self.ask(&request).await?
        };
        let skew = answer.server_time.duration_since(now);
        if skew.abs() > SignedDuration::from_secs(proto::time::SKEW_SECONDS_MAX) {
            tracing::warn!(seconds = skew.as_secs(), "the orchestrator's clock is far ahead of (or behind) this one's");
        }
        self.take(&answer).map_err(|error| unusable(&error))
    }

    /// Trusts the CAs that the orchestrator names, which it did under a seal that one of the present ones vouches for.
    fn trust(&mut self) {
        let pems = self.cas.borrow_and_update().clone();
        let is_whole = !pems.is_empty() && pems.iter().all(|pem| identity::certificate_der(pem).is_some());
        let kept = if is_whole { Identity::trust(&self.directory, &pems) } else { Ok(()) };
        let reloaded = kept.and_then(|()| self.reload());
        match reloaded {
            Ok(()) => tracing::info!(count = pems.len(), "the CAs that are trusted are others now"),
            Err(error) => tracing::error!(error = %Chain(&error), "the CAs cannot be kept"),
        }
    }

    /// Goes on with what is on the disk.
    fn reload(&mut self) -> Result<(), IdentityError> {
        let Some(mut identity) = Identity::load(&self.directory)? else { return Ok(()) };
        (identity.host, identity.port) = (self.identity.host.clone(), self.identity.port);
        self.bus.trust(identity.cas.clone());
        self.bus.renew(identity.sealer()?);
        self.tls.send_replace(identity.tls()?);
        self.trusted.send_replace(identity.ca_fingerprints());
        self.address.send_if_modified(|address| {
            let now = identity.address();
            let is_other = *address != now;
            if is_other {
                tracing::info!(host = now.0, port = now.1, "members connect there from now on");
                *address = now;
            }
            is_other
        });
        self.identity = identity;
        Ok(())
    }

    /// Asks over the connection that there is.
    async fn ask(&self, request: &ComponentRegistrationRequest) -> Result<ComponentRegistrationResponse, Failure> {
        let deadline = Duration::from_secs(ANSWER_SECONDS);
        self.bus.request(&Topic::Registration, request, Context::alone(), deadline).await.map_err(|error| match error {
            RequestError::Fault(fault) => Failure::Refused(fault),
            other => Failure::Unreachable(other.to_string()),
        })
    }

    /// Keeps the new certificate, and goes on with it: new messages carry it, and the next connection shows it.
    fn take(&mut self, answer: &ComponentRegistrationResponse) -> Result<(), IdentityError> {
        // What cannot be an address is not kept: the next start would have none.
        let broker = answer.broker.as_deref().filter(|broker| host_and_port(broker).is_some());
        Identity::renew(&self.directory, &answer.certificate, broker)?;
        self.reload()
    }
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
