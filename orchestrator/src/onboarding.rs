//! Join tokens in files, for deployments where whoever may read the file may join: one for each type of component, each in a
//! directory of its own, so that each can be given to those alone for whom it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use service::report::Chain;
use service::token::JoinToken;

use crate::driver::{Handle, RunError};
use crate::registration::TokenScope;

/// For whom, and in which directory.
const TOKENS: [(ComponentType, &str); 3] = [
    (ComponentType::RepositoryInterface, "repository"),
    (ComponentType::PostureEvaluationService, "pes-evaluator"),
    (ComponentType::PostureCollectionService, "pcs-agent"),
];
/// How many components may join with one.
const USES: u32 = 10_000;
/// How long one holds; at half of that there is another.
const TTL_SECONDS: u64 = 7 * 86_400;
/// How often they are looked after.
const EVERY: Duration = Duration::from_secs(30);

/// What is wrong with a token in a file.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Good,
    /// Another one is due.
    Due,
    /// An operator does not want it.
    Revoked,
}

impl Handle {
    /// Sees that there is a token for each type of component.
    pub(crate) async fn write_tokens(&self, directory: &Path) -> Result<(), RunError> {
        for (component_type, name) in TOKENS {
            let directory = directory.join(name);
            let path = directory.join("token");
            match self.standing_of(&path).await? {
                Standing::Good => {}
                Standing::Revoked => {
                    tracing::debug!(%component_type, "the join token in the file was revoked: there is no other until it is deleted");
                }
                Standing::Due => {
                    let scope = TokenScope { uses: USES, ..TokenScope::one(component_type, TTL_SECONDS) };
                    let token = self.create_token(scope).await?;
                    service::data::make(&directory)
                        .and_then(|()| service::data::write_private(&path, format!("{token}\n").as_bytes()))
                        .map_err(|source| RunError::Tokens { path, source })?;
                }
            }
        }
        Ok(())
    }

    async fn standing_of(&self, path: &Path) -> Result<Standing, RunError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Standing::Due),
            Err(source) => return Err(RunError::Tokens { path: path.to_owned(), source }),
        };
        let Ok(token) = text.trim().parse::<JoinToken>() else { return Ok(Standing::Due) };
        // Of another installation, or of an address or a CA that is not the one any more.
        if token.address != self.address() || token.ca_fingerprint != self.ca_fingerprint() {
            return Ok(Standing::Due);
        }
        let Some(row) = self.inner.store.token(&token.id).await? else { return Ok(Standing::Due) };
        let half = SignedDuration::from_secs(i64::try_from(TTL_SECONDS / 2).unwrap_or(i64::MAX));
        let holds = row.view.expires.duration_since(Timestamp::now());
        Ok(match row.view {
            view if view.is_revoked => Standing::Revoked,
            view if holds < half || view.uses_left < USES / 2 => Standing::Due,
            _ => Standing::Good,
        })
    }

    /// Goes on seeing to it.
    pub(crate) async fn mind_tokens(self, directory: PathBuf) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.write_tokens(&directory).await {
                tracing::error!(error = %Chain(&error), "a join token could not be written");
            }
        }
    }
}
