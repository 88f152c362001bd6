//! The posture collection service: looks at its endpoint as a plan says, and reports what it found.
//!
//! Listens: collection requests and schedules from the orchestrator. Tells: the repositories what was
//! found, the orchestrator how each request ended. Never: runs a command that this endpoint's operator has
//! not allowed, reads SCAP content, decides whether what it found is good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::Authentic;
use proto::budget::Budget;
use proto::capability::ComponentType;
use proto::message::{AdvertisedEndpoint, ToCollector};
use proto::residency::Residency;
use service::config::{self, CollectorConfig, ConfigError};
use service::member::{self, Member, MemberError, MemberSettings, ResidencyKey};
use service::reload::Live;
use service::shutdown::Shutdown;
use service::signature::key_of;

mod asking;
pub mod clock;
mod contents;
pub mod evidence;
pub mod facts;
mod guard;
pub mod host;
pub mod kept;
pub mod limits;
pub mod looking;
mod mounts;
pub mod observe;
pub mod pause;
pub mod probe;
pub mod report;
pub mod schedule;
pub mod script;
#[cfg(feature = "tpm")]
pub mod tpm;
pub mod watch;
mod work;

use script::Scripts;
use work::Worker;

/// The collector's own name for the endpoint that it runs on.
pub const SELF: &str = "self";

/// What a collector needs to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its data directory.
    pub data: PathBuf,
    /// A token, for the first start.
    pub join_token: Option<String>,
    /// Where the broker is, if not where it was when the component joined.
    pub broker: Option<String>,
    /// What operators call it; absent: the endpoint's name.
    pub name: Option<String>,
    /// The root directory of the endpoint.
    pub root: PathBuf,
    /// The TPM that ties the endpoint to its machine: a device such as `/dev/tpmrm0`, or the Unix socket of a virtual one.
    pub tpm: Option<PathBuf>,
    /// What one task may cost; what it does not say is as in [`limits::TASK_BUDGET`].
    pub budget: Live<Budget>,
    /// The scripts of policies that may run; none where nobody has allowed any.
    pub scripts: Option<Scripts>,
}

impl TryFrom<&CollectorConfig> for Settings {
    type Error = ConfigError;

    fn try_from(config: &CollectorConfig) -> Result<Self, ConfigError> {
        let root = config.root.clone().unwrap_or_else(|| PathBuf::from("/"));
        if !root.is_dir() {
            return Err(ConfigError::Value { key: "root", reason: format!("{} is not a directory", root.display()) });
        }
        let data = config.data.clone().unwrap_or_else(|| PathBuf::from("/var/lib/muster/pcs-agent"));
        let scripts = scripts(config, &data)?;
        Ok(Self {
            data,
            join_token: config.join_token.clone(),
            broker: config::address("broker", config.broker.as_ref())?,
            name: config.name.clone(),
            root,
            tpm: config.tpm.clone(),
            budget: config.budget.unwrap_or_default().into(),
            scripts,
        })
    }
}

impl Settings {
    /// Takes over what of a configuration may change while it runs: a task that has begun keeps its budget.
    pub fn take_over(&self, config: &CollectorConfig) -> Result<(), ConfigError> {
        self.budget.follow(&Self::try_from(config)?.budget);
        Ok(())
    }
}

/// The scripts that may run: a list is worth nothing without the key that has signed it.
fn scripts(config: &CollectorConfig, data: &Path) -> Result<Option<Scripts>, ConfigError> {
    let wrong = |key, reason: &str| ConfigError::Value { key, reason: reason.to_owned() };
    match (&config.scripts_allowed_file, &config.scripts_signer) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong("scripts-signer", "missing: without the key that has signed it, no list counts")),
        (None, Some(_)) => {
            Err(wrong("scripts-allowed-file", "missing: `scripts-signer` says who has signed that file"))
        }
        (Some(file), Some(signer)) => {
            key_of(signer).map_err(|reason| wrong("scripts-signer", &reason))?;
            Ok(Some(Scripts::new(file.clone(), signer.clone(), data.to_owned())))
        }
    }
}

/// Why a collector ends.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] service::data::DataError),
    /// Membership.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The TPM.
    #[cfg(feature = "tpm")]
    #[error(transparent)]
    Tpm(#[from] tpm::TpmError),
    /// This program knows nothing of TPMs.
    #[cfg(not(feature = "tpm"))]
    #[error("this collector was built without TPM support: build it with `--features tpm`, or leave `tpm` out")]
    NoTpm,
    /// What it keeps over a restart.
    #[error(transparent)]
    Kept(#[from] kept::KeptError),
}

/// Runs until it is asked to stop.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> Result<(), RunError> {
    let _data = service::data::DataDirectory::open(&settings.data)?;
    let facts = facts::gather(&settings.root);
    let (kinds, lacks) = probe::kinds(&host::Host::new(&settings.root).with_scripts(settings.scripts.clone()));
    let tpm = settings.tpm.as_deref().map(open_tpm).transpose()?;
    let residency = tpm.as_ref().map(|tpm| Residency::unproven(tpm.public_key()));
    let member_settings = MemberSettings {
        component_type: ComponentType::PostureCollectionService,
        name: settings.name.clone().unwrap_or_else(|| facts.host_name.clone()),
        data: settings.data.clone(),
        join_token: settings.join_token.clone(),
        broker: settings.broker.clone(),
        endpoints: vec![AdvertisedEndpoint {
            local_name: SELF.to_owned(),
            facts,
            evidence: evidence::gather(&settings.root),
            residency,
            kinds,
            lacks,
        }],
        tpm,
        tied: &["schedules.json", "observations.json"],
        store: None,
    };
    match member::start_unless(&mut shutdown, member_settings).await? {
        Some(member) => serve(member, &settings, shutdown).await,
        None => Ok(()),
    }
}

#[cfg(feature = "tpm")]
fn open_tpm(path: &Path) -> Result<Arc<dyn ResidencyKey>, RunError> {
    Ok(Arc::new(tpm::Tpm::open(path)?))
}

#[cfg(not(feature = "tpm"))]
fn open_tpm(_: &Path) -> Result<Arc<dyn ResidencyKey>, RunError> {
    Err(RunError::NoTpm)
}

/// Serves a member's inbox.
pub async fn serve(member: Member, settings: &Settings, mut shutdown: Shutdown) -> Result<(), RunError> {
    let Member { bus, mut inbox, assigned, dismissal } = member;
    let worker = Worker::start(bus.clone(), assigned, settings)?;
    loop {
        tokio::select! {
            () = shutdown.requested() => break,
            message = inbox.recv() => {
                let Some(message) = message else { break };
                take(&worker, &message).await;
            }
        }
    }
    bus.close();
    Ok(dismissal.check()?)
}

async fn take(worker: &Arc<Worker>, message: &Authentic) {
    match ToCollector::decode(message.envelope()) {
        Ok(ToCollector::CollectionRequest(request)) => worker.request(*request, message),
        Ok(ToCollector::CancelRequest(cancel)) => worker.cancel(cancel.request),
        Ok(ToCollector::PeriodicCollection(periodic)) => worker.periodic(*periodic, message).await,
        Ok(ToCollector::ObservationRequest(observation)) => worker.observation(*observation, message).await,
        Err(fault) => worker.refuse(message, fault),
    }
}
