//! Asks an orchestrator on its socket.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use proto::operator::{Ask, OperatorEvent, OperatorRequest};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

/// One question, and its answers as they come.
#[derive(Debug)]
pub(crate) struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
}

/// The socket of the installation in `data`: `muster up` keeps its orchestrator in a directory below.
fn socket(data: &Path) -> PathBuf {
    let below = data.join("orchestrator").join(orchestrator::CONTROL_SOCKET);
    if below.exists() { below } else { data.join(orchestrator::CONTROL_SOCKET) }
}

/// Asks, with content after the question.
pub(crate) async fn ask(data: &Path, ask: Ask, content: &[u8]) -> anyhow::Result<Answers> {
    let path = socket(data);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            bail!(
                "no orchestrator is running on {}\nhint: start one with `muster up`, or name its data directory with --data DIR",
                data.display()
            );
        }
        Err(error) => return Err(error).with_context(|| format!("cannot ask the orchestrator at {}", path.display())),
    };
    let (reading, mut writing) = stream.into_split();
    let request = OperatorRequest { ask, content_bytes: content.len() as u64 };
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    writing.write_all(&line).await?;
    writing.write_all(content).await?;
    // The other side reads exactly what was announced; the writing half may go.
    writing.forget();
    Ok(Answers { lines: BufReader::new(reading).lines() })
}

impl Answers {
    /// The next answer; `None` after the last one.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<OperatorEvent>> {
        let Some(line) = self.lines.next_line().await? else { bail!("the orchestrator ended before it answered") };
        match serde_json::from_str(&line)
            .context("the orchestrator's answer cannot be read: are both of the same version?")?
        {
            OperatorEvent::Done => Ok(None),
            OperatorEvent::Fault(fault) => bail!("{}", fault.message),
            event => Ok(Some(event)),
        }
    }
}
