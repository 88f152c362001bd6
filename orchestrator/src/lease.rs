//! One orchestrator of several on a database is active: the one that has the lease. The others wait, and take it when it was
//! given back or has run out. Whoever loses it ends; what it would still write is refused by the database itself.
//!
//! A file in a data directory is used by one process, which the directory's lock sees to; there is no lease.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use proto::id::ComponentId;
use proto::operator::OrchestratorView;
use service::config::{self, ConfigError, OrchestratorConfig};
use service::report::Chain;
use service::shutdown::Shutdown;
use service::{daemon, supervisor};
use store::postgres::DatabaseUrl;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::ca::{Ca, CaSettings};
use crate::driver::{Handle, RunError};
use crate::shared::{self, SharedError};
use crate::standby::Standby;
use crate::store::postgres::{Instance, LeaseRow};
use crate::store::{DATABASE_FILE, Store, StoreError};

/// How long a lease holds; as long as it could not be renewed, its holder ends.
const HOLD: Duration = Duration::from_secs(5);
/// How often it is renewed.
const RENEW: Duration = Duration::from_millis(1_500);
/// How long a renewal is waited for, and how long until the next where it failed: a database that was restarted is found again.
const RENEWAL_MAX: Duration = Duration::from_millis(1_500);
const RETRY: Duration = Duration::from_millis(250);
/// How often those who wait look whether it is free.
const LOOK: Duration = Duration::from_millis(500);
/// An orchestrator that was not seen for so long is gone.
const SILENT: SignedDuration = SignedDuration::from_secs(15);

/// What the configuration says of a database.
pub(crate) fn database(config: &OrchestratorConfig) -> Result<Option<DatabaseUrl>, ConfigError> {
    let url = config::secret_or_file("database", config.database.as_ref(), config.database_file.as_ref())?;
    let database = url.map(|url| url.parse()).transpose();
    let database = database.map_err(|reason| ConfigError::Value { key: "database", reason })?;
    if database.is_some() && config.ca_passphrase_file.is_none() {
        let reason = SharedError::Passphrase.to_string();
        return Err(ConfigError::Value { key: "ca-passphrase-file", reason });
    }
    Ok(database)
}

/// What an orchestrator begins with.
pub(crate) struct Entered {
    pub(crate) store: Store,
    pub(crate) ca: Ca,
    /// The id that it has, where it is not its own data directory that says so.
    pub(crate) component: Option<ComponentId>,
    pub(crate) held: Held,
}

/// The lease, while it is held.
pub(crate) struct Held(Option<Lease>);

struct Lease {
    store: Store,
    instance: Instance,
    holding: JoinHandle<()>,
    /// Answers operators until the active one does.
    standby: Option<Standby>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.holding.abort();
    }
}

impl Held {
    /// This process among those on the database.
    pub(crate) fn instance(&self) -> Option<String> {
        self.0.as_ref().map(|lease| lease.instance.id.clone())
    }

    /// The active one answers operators itself from now on.
    pub(crate) fn begun(&mut self) {
        if let Some(lease) = &mut self.0 {
            lease.standby = None;
        }
    }

    /// Returns when this is not the active one any more.
    pub(crate) async fn lost(&mut self) {
        match &mut self.0 {
            Some(lease) => drop((&mut lease.holding).await),
            None => std::future::pending().await,
        }
    }

    /// Others take over at once.
    pub(crate) async fn give_back(self) -> Result<(), StoreError> {
        let Some(lease) = &self.0 else { return Ok(()) };
        lease.holding.abort();
        let Some(database) = lease.store.database() else { return Ok(()) };
        database.give_lease_back().await?;
        database.remove_instance(&lease.instance.id).await
    }
}

/// Opens what an orchestrator keeps. With a database this waits until the lease is free; `None` where the end came first.
pub(crate) async fn enter(
    data: &Path,
    database: Option<&DatabaseUrl>,
    ca_settings: CaSettings,
    shutdown: &mut Shutdown,
) -> Result<Option<Entered>, RunError> {
    let Some(url) = database else {
        let ca = Ca::open_with(ca_settings, Timestamp::now())?;
        let store = Store::open(&data.join(DATABASE_FILE)).await?;
        return Ok(Some(Entered { store, ca, component: None, held: Held(None) }));
    };
    if ca_settings.passphrase.is_none() {
        return Err(SharedError::Passphrase.into());
    }
    // A service manager does not wait for what may never come.
    daemon::begin();
    let standby = Standby::listen(data)?;
    let Some(store) = connect(url, shutdown).await? else { return Ok(None) };
    let instance = Instance {
        id: Uuid::new_v4().to_string(),
        host: host_name(),
        version: service::VERSION.to_owned(),
        started: standby.started(),
        seen: Timestamp::UNIX_EPOCH,
    };
    if !wait(&store, &instance, &standby, shutdown).await? {
        if let Some(database) = store.database() {
            database.remove_instance(&instance.id).await?;
        }
        return Ok(None);
    }
    supervisor::status("is the active orchestrator");
    tracing::info!(host = instance.host, "this is the active orchestrator now");
    let holding = tokio::spawn(hold(store.clone(), instance.clone()));
    let held = Held(Some(Lease { store: store.clone(), instance, holding, standby: Some(standby) }));
    let entered = shared::take_over(data, &store, ca_settings).await;
    match entered {
        Ok((ca, component)) => Ok(Some(Entered { store, ca, component: Some(component), held })),
        Err(error) => {
            // Another one may be able to.
            held.give_back().await?;
            Err(error)
        }
    }
}

/// The database, when it is there; `None` where the end came first.
async fn connect(url: &DatabaseUrl, shutdown: &mut Shutdown) -> Result<Option<Store>, StoreError> {
    let mut waiting = ::store::Waiting::default();
    loop {
        match Store::connect(url).await {
            Ok(store) => return Ok(Some(store)),
            Err(error) if error.is_absence() => {
                if !waiting.after(&error, shutdown).await {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes the lease, or says who has it and who there is.
async fn look(
    store: &Store,
    instance: &Instance,
    is_told: bool,
) -> Result<Option<(LeaseRow, Vec<OrchestratorView>, Option<ComponentId>)>, StoreError> {
    let Some(database) = store.database() else { return Ok(None) };
    if !is_told {
        database.put_instance(instance).await?;
    }
    if database.take_lease(&instance.id, HOLD).await? {
        return Ok(None);
    }
    let all = orchestrators(store, &instance.id).await?;
    Ok(Some((database.lease().await?, all, database.known_component().await?)))
}

/// Waits for the lease, and takes it; false where the end came first.
async fn wait(
    store: &Store,
    instance: &Instance,
    standby: &Standby,
    shutdown: &mut Shutdown,
) -> Result<bool, StoreError> {
    let mut seen: Option<Instant> = None;
    let mut told: Option<i64> = None;
    let mut is_away = false;
    loop {
        let is_told = seen.is_some_and(|seen| seen.elapsed() < RENEW);
        let looked = look(store, instance, is_told).await;
        if looked.is_ok() && !is_told {
            seen = Some(Instant::now());
        }
        match looked {
            Ok(None) => return Ok(true),
            Ok(Some((row, all, component))) => {
                is_away = false;
                if told != Some(row.epoch) {
                    let active = all.iter().find(|one| one.active_since.is_some());
                    let active = active.map_or("another", |active| active.host.as_str());
                    tracing::info!(active, since = %row.since, "this orchestrator is a standby");
                    supervisor::status(&format!("standby: {active} is the active orchestrator since {:.0}", row.since));
                    told = Some(row.epoch);
                }
                standby.show(all, component);
            }
            Err(error) if error.is_absence() => {
                if !is_away {
                    tracing::warn!(error = %Chain(&error), "the database does not answer; waiting for it");
                    supervisor::status("standby: waits for its database");
                    (is_away, told) = (true, None);
                }
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(false),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Renews the lease; ends when it is lost.
async fn hold(store: Store, instance: Instance) {
    let Some(database) = store.database() else { return };
    let (mut renewed, mut pause) = (Instant::now(), RENEW);
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = database.deposed() => {
                tracing::error!("another orchestrator has taken the lease: what this one would have stored was refused");
                return;
            }
        }
        let began = Instant::now();
        let renew = async {
            database.renew_lease(HOLD).await?;
            database.put_instance(&instance).await
        };
        let patience = HOLD.saturating_sub(renewed.elapsed()).min(RENEWAL_MAX);
        pause = RETRY;
        match tokio::time::timeout(patience, renew).await {
            Ok(Ok(())) => (renewed, pause) = (began, RENEW),
            Ok(Err(StoreError::Deposed)) => {
                tracing::error!("another orchestrator has taken the lease");
                return;
            }
            Ok(Err(error)) => tracing::warn!(error = %Chain(&error), "the lease could not be renewed; trying again"),
            Err(_) => tracing::warn!("the lease could not be renewed: the database does not answer"),
        }
        if renewed.elapsed() >= HOLD {
            tracing::error!(
                seconds = HOLD.as_secs(),
                "the lease could not be renewed for as long as it holds: another may have it"
            );
            return;
        }
    }
}

/// All orchestrators on the database.
async fn orchestrators(store: &Store, own: &str) -> Result<Vec<OrchestratorView>, StoreError> {
    let Some(database) = store.database() else { return Ok(Vec::new()) };
    let LeaseRow { holder, since, is_over, .. } = database.lease().await?;
    let (instances, now) = database.instances().await?;
    let view = |instance: Instance| OrchestratorView {
        active_since: (instance.id == holder && !is_over).then_some(since),
        is_silent: now.duration_since(instance.seen) > SILENT,
        is_this: instance.id == own,
        host: instance.host,
        version: instance.version,
        started: instance.started,
        seen: instance.seen,
    };
    Ok(instances.into_iter().map(view).collect())
}

impl Handle {
    /// The orchestrators on the database; none where there is no database, or where it does not answer.
    pub(crate) async fn orchestrators(&self) -> Vec<OrchestratorView> {
        let Some(own) = &self.inner.instance else { return Vec::new() };
        orchestrators(&self.inner.store, own).await.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "the database does not say which orchestrators there are");
            Vec::new()
        })
    }
}

/// The name of this host.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    proto::limits::shown(name.trim())
}
