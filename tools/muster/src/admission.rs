//! `muster token`, `approve`, `evict`, `ban`: who gets in, and who stays in.

use std::path::Path;

use anyhow::bail;
use jiff::Timestamp;
use proto::operator::{Ask, OperatorEvent};
use service::config::Seconds;

use crate::cli::{Output, TokenCommand};
use crate::commands::one;
use crate::{exit, show};

/// Makes, lists or revokes join tokens.
pub(crate) async fn token(data: &Path, command: TokenCommand, output: Output) -> anyhow::Result<u8> {
    let ask = match command {
        TokenCommand::Create { component_type, uses, ttl: Seconds(ttl_seconds), labels, approve: needs_approval } => {
            Ask::TokenCreate { component_type, uses, ttl_seconds, labels, needs_approval }
        }
        TokenCommand::List => Ask::TokenList,
        TokenCommand::Revoke { id } => return told(data, Ask::TokenRevoke { id }).await,
    };
    match one(data, ask, &[]).await? {
        OperatorEvent::Token(token) => show::line(token),
        OperatorEvent::Tokens(tokens) if output == Output::Json => show::json(&tokens)?,
        OperatorEvent::Tokens(tokens) => {
            let now = Timestamp::now();
            let rows = tokens.into_iter().map(|token| {
                let approval = if token.needs_approval { "by an operator" } else { "automatic" };
                vec![
                    token.component_type.to_string(),
                    token.state(now).to_owned(),
                    token.uses_left.to_string(),
                    format!("{:.0}", token.expires),
                    approval.to_owned(),
                    token.labels.join(", "),
                    token.id,
                ]
            });
            show::table(&["type", "state", "uses left", "expires", "approval", "labels", "id"], rows.collect());
        }
        other => bail!("unexpected answer: {other:?}"),
    }
    Ok(exit::DONE)
}

/// Asks for something whose answer is one sentence.
pub(crate) async fn told(data: &Path, ask: Ask) -> anyhow::Result<u8> {
    if let OperatorEvent::Notice(text) = one(data, ask, &[]).await? {
        show::note(text);
    }
    Ok(exit::DONE)
}
