//! `muster up`: the whole installation in one process. Each service is the same code as its own
//! binary, joins by a token like any other, and speaks over TLS to the broker.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use proto::capability::ComponentType;
use proto::operator::{ComponentState, Workflow};
use service::report::Chain;
use service::shutdown::{self, Shutdown};
use tokio::sync::{mpsc, oneshot};

use crate::cli::{Output, UpArgs};
use crate::{commands, exit, show};

/// Seconds for everything to be there.
const START_SECONDS: u64 = 60;
/// How long the tokens of the own services hold.
const TOKEN_SECONDS: u64 = 300;

pub(crate) async fn run(data: &Path, args: UpArgs, output: Output) -> anyhow::Result<u8> {
    service::telemetry::start(service::telemetry::WARN);
    let (stopper, stop) = shutdown::channel();
    let (ended, mut ends) = mpsc::channel::<anyhow::Error>(8);
    let handle = start_orchestrator(data, &args, &stop, &ended, &mut ends).await?;
    start_services(data, &args, &handle, &stop, &ended).await?;
    let work = async {
        wait_until_active(&handle).await?;
        if !is_root() {
            show::note("note: running without root rights: rules that need them will be unknown");
        }
        let workflow = Workflow {
            policy: args.policy.clone(),
            profile: args.profile.clone(),
            timeout_seconds: 600,
            ..Workflow::default()
        };
        let code = commands::evaluate(data, workflow, output).await?;
        if args.once {
            return Ok(code);
        }
        show::note("");
        show::note(format!("Muster runs. Ask it from another terminal ({}), end it with Ctrl-C:", data_hint(data)));
        show::note("    muster status | roster | results --verdict fail | evaluate | policy list");
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        Some(error) = ends.recv() => Err(error),
        () = shutdown::signal() => {
            show::note("stopping");
            Ok(exit::DONE)
        }
    };
    stopper.stop();
    // Connections are closed; what waits in outboxes is on disk.
    tokio::time::sleep(Duration::from_millis(200)).await;
    outcome
}

fn data_hint(data: &Path) -> String {
    format!("--data {}", data.display())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

async fn start_orchestrator(
    data: &Path,
    args: &UpArgs,
    stop: &Shutdown,
    ended: &mpsc::Sender<anyhow::Error>,
    ends: &mut mpsc::Receiver<anyhow::Error>,
) -> anyhow::Result<orchestrator::Handle> {
    service::data::make(data).with_context(|| {
        format!("the data directory {} cannot be used; give another one with --data", data.display())
    })?;
    let settings = orchestrator::Settings::new(data.join("orchestrator"), args.listen.clone());
    let (ready, is_ready) = oneshot::channel();
    let (stop, ended) = (stop.clone(), ended.clone());
    tokio::spawn(async move {
        if let Err(error) = orchestrator::run(settings, stop, Some(ready)).await {
            let hint = match &error {
                orchestrator::RunError::Broker(orchestrator::broker::BrokerError::Listen { .. }) => {
                    "\nhint: another process has the port, or the address is not this machine's; choose with --listen ADDRESS:PORT"
                }
                _ => "",
            };
            let _ = ended.send(anyhow!("{}{hint}", Chain(&error))).await;
        }
    });
    tokio::select! {
        handle = is_ready => match handle {
            Ok(handle) => Ok(handle),
            Err(_) => Err(ends.recv().await.unwrap_or_else(|| anyhow!("the orchestrator ended"))),
        },
        Some(error) = ends.recv() => Err(error),
    }
}

async fn start_services(
    data: &Path,
    args: &UpArgs,
    handle: &orchestrator::Handle,
    stop: &Shutdown,
    ended: &mpsc::Sender<anyhow::Error>,
) -> anyhow::Result<()> {
    // The port may be another one than last time.
    let broker = Some(handle.address().to_owned());
    let token = async |name: &str, component_type| {
        // One of its own that was put out stays out until its directory is deleted.
        if !service::member::needs_token(&data.join(name)) {
            return Ok(None);
        }
        handle.create_token(orchestrator::TokenScope::one(component_type, TOKEN_SECONDS)).await.map(Some)
    };
    let settings = repository::Settings {
        database: None,
        data: data.join("repository"),
        join_token: token("repository", ComponentType::RepositoryInterface).await?,
        broker: broker.clone(),
        name: "repository".to_owned(),
        retention: repository::retention::Retention::default().into(),
    };
    spawn("repository", repository::run(settings, stop.clone()), ended);
    let settings = pes_evaluator::Settings {
        data: data.join("pes-evaluator"),
        join_token: token("pes-evaluator", ComponentType::PostureEvaluationService).await?,
        broker: broker.clone(),
        name: "evaluator".to_owned(),
    };
    spawn("evaluator", pes_evaluator::run(settings, stop.clone()), ended);
    let config = service::config::CollectorConfig {
        data: Some(data.join("pcs-agent")),
        root: Some(args.root.clone()),
        budget: args.budget,
        scripts_allowed_file: args.scripts_allowed_file.clone(),
        scripts_signer: args.scripts_signer.clone(),
        ..service::config::CollectorConfig::default()
    };
    let settings = pcs_agent::Settings {
        join_token: token("pcs-agent", ComponentType::PostureCollectionService).await?,
        broker,
        ..pcs_agent::Settings::try_from(&config)?
    };
    spawn("collector", pcs_agent::run(settings, stop.clone()), ended);
    Ok(())
}

fn spawn<E: std::error::Error + Send + 'static>(
    name: &'static str,
    service: impl Future<Output = Result<(), E>> + Send + 'static,
    ended: &mpsc::Sender<anyhow::Error>,
) {
    let ended = ended.clone();
    tokio::spawn(async move {
        if let Err(error) = service.await {
            let _ = ended.send(anyhow!("{name}: {}", Chain(&error))).await;
        }
    });
}

/// Waits until repository, evaluator and collector have shaken hands.
async fn wait_until_active(handle: &orchestrator::Handle) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS);
    while tokio::time::Instant::now() < deadline {
        let active = handle
            .status()
            .await
            .component_counts
            .iter()
            .find(|(state, _)| *state == ComponentState::Active)
            .map(|(_, count)| *count);
        if active.unwrap_or_default() >= 3 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the services did not join within {START_SECONDS} s; MUSTER_LOG=debug shows why")
}
