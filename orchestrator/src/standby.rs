//! What an orchestrator that waits for its turn tells operators: that it waits, and who is active.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::operator::{Ask, OperatorEvent, OperatorRequest, OrchestratorView, SystemStatus};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::control::{self, Answers, LINE_BYTES_MAX};
use crate::driver::RunError;

/// The operators' socket of a standby.
pub(crate) struct Standby {
    shown: Arc<Shown>,
    listening: JoinHandle<()>,
}

struct Shown {
    data: PathBuf,
    started: Timestamp,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    orchestrators: Vec<OrchestratorView>,
    component: Option<ComponentId>,
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Standby {
    /// Opens the socket.
    pub(crate) fn listen(data: &Path) -> Result<Self, RunError> {
        let listener = control::bind(data)?;
        let shown =
            Arc::new(Shown { data: data.to_owned(), started: Timestamp::now(), known: Mutex::new(Known::default()) });
        let answering = Arc::clone(&shown);
        let listening = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let shown = Arc::clone(&answering);
                        tokio::spawn(async move {
                            if let Err(error) = serve(&shown, stream).await {
                                tracing::debug!(%error, "an operator's connection ended");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an operator");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Self { shown, listening })
    }

    /// Since when it runs.
    pub(crate) fn started(&self) -> Timestamp {
        self.shown.started
    }

    /// What is known of the others.
    pub(crate) fn show(&self, orchestrators: Vec<OrchestratorView>, component: Option<ComponentId>) {
        *self.shown.known.lock().unwrap_or_else(PoisonError::into_inner) = Known { orchestrators, component };
    }
}

async fn serve(shown: &Shown, stream: UnixStream) -> std::io::Result<()> {
    let (reading, writing) = stream.into_split();
    let mut answers = Answers::new(writing);
    let mut line = String::new();
    BufReader::new(reading).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<OperatorRequest>(&line) {
        Ok(OperatorRequest { ask: Ask::Status, .. }) => {
            answers.send(&OperatorEvent::Status(Box::new(shown.status()))).await?;
            OperatorEvent::Done
        }
        Ok(_) => OperatorEvent::Fault(Fault::new(FaultCode::Busy, shown.elsewhere())),
        Err(error) => OperatorEvent::Fault(Fault::new(FaultCode::Malformed, error.to_string())),
    };
    answers.send(&answer).await
}

impl Shown {
    fn status(&self) -> SystemStatus {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        SystemStatus {
            is_standby: true,
            orchestrators: known.orchestrators.clone(),
            orchestrator: known.component.unwrap_or(ComponentId(Uuid::nil())),
            version: service::VERSION.to_owned(),
            started: self.started,
            listen: "nothing, as a standby".to_owned(),
            external_broker: None,
            data_directory: self.data.display().to_string(),
            component_counts: Vec::new(),
            endpoint_count: 0,
            open_transaction_count: 0,
            refused_counts: Vec::new(),
            security_counts: Vec::new(),
            broker_counts: Vec::new(),
        }
    }

    fn elsewhere(&self) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let active = known.orchestrators.iter().find_map(|one| Some((one.host.as_str(), one.active_since?)));
        match active {
            Some((host, since)) => {
                format!(
                    "this orchestrator is a standby: ask the active one, on {host}, which is active since {since:.0}"
                )
            }
            None if known.orchestrators.is_empty() => {
                "this orchestrator is a standby, and waits for its database".to_owned()
            }
            None => "this orchestrator is a standby, and none is active at this moment".to_owned(),
        }
    }
}
