//! `muster config`: whether a configuration can be used, what holds, and what there is; `muster migrate`. Asks nobody.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use repository::store::postgres::DatabaseUrl;
use service::config::reference::{self, Key, TABLES};
use service::config::{Config, ConfigError, Sources};

use crate::cli::{ConfigCommand, Output};
use crate::{exit, show};

/// Where packages put it.
const INSTALLED: &str = "/etc/muster/muster.toml";

/// Carries out a command.
pub(crate) fn run(command: ConfigCommand, output: Output) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Reference => {
            show::text(&reference::muster_toml());
            Ok(exit::DONE)
        }
        ConfigCommand::Check { file } => check(file, output),
        ConfigCommand::Show { file } => {
            show_all(&Sources::read(or_installed(file).as_deref())?, output)?;
            Ok(exit::DONE)
        }
    }
}

/// The file that is meant; `None` where there is none.
fn or_installed(file: Option<PathBuf>) -> Option<PathBuf> {
    file.or_else(|| Some(PathBuf::from(INSTALLED)).filter(|path| path.exists()))
}

/// What each daemon says of its table.
fn verdicts(config: &Config) -> [(&'static str, Result<(), ConfigError>); 4] {
    [
        ("orchestrator", orchestrator::Settings::try_from(&config.orchestrator).map(drop)),
        ("repository", repository::Settings::try_from(&config.repository).map(drop)),
        ("pes-evaluator", pes_evaluator::Settings::try_from(&config.pes_evaluator).map(drop)),
        ("pcs-agent", pcs_agent::Settings::try_from(&config.pcs_agent).map(drop)),
    ]
}

fn check(file: Option<PathBuf>, output: Output) -> anyhow::Result<u8> {
    let file = or_installed(file);
    let config = Sources::read(file.as_deref())?.config();
    let verdicts = verdicts(&config);
    let is_good = verdicts.iter().all(|(_, verdict)| verdict.is_ok());
    let said = |verdict: &Result<(), ConfigError>| {
        verdict.as_ref().err().map(|error| service::report::Chain(error).to_string())
    };
    if output == Output::Json {
        let tables: serde_json::Map<String, serde_json::Value> =
            verdicts.iter().map(|(table, verdict)| ((*table).to_owned(), said(verdict).into())).collect();
        show::json(&serde_json::json!({ "file": file, "is-good": is_good, "errors": tables }))?;
    } else {
        show::line(format!("{}, and MUSTER_… variables", shown(file.as_deref())));
        for (table, verdict) in &verdicts {
            show::line(format!("{table:14} {}", said(verdict).unwrap_or_else(|| "can be used".to_owned())));
        }
    }
    Ok(if is_good { exit::DONE } else { exit::ERROR })
}

fn shown(file: Option<&Path>) -> String {
    file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string())
}

/// A value, and who says so; `None` where nobody does and nothing is built in.
fn holds(sources: &Sources, table: &'static str, key: &'static Key) -> Option<(String, String)> {
    match (sources.value(table, key.name), sources.origin(table, key.name)) {
        (Some(_), Some(origin)) if key.is_secret => Some(("\"…\"".to_owned(), format!("{origin}, not shown"))),
        (Some(value), Some(origin)) => Some((value.to_string(), origin.to_string())),
        _ if key.is_built_in => Some((key.value.to_owned(), "built in".to_owned())),
        _ => None,
    }
}

fn show_all(sources: &Sources, output: Output) -> anyhow::Result<()> {
    let mut document = serde_json::Map::new();
    for table in TABLES {
        let mut keys = serde_json::Map::new();
        let mut lines = Vec::new();
        for key in table.keys {
            if let Some((value, origin)) = holds(sources, table.name, key) {
                lines.push((format!("{} = {value}", key.name), origin.clone()));
                keys.insert(key.name.to_owned(), serde_json::json!({ "value": value, "from": origin }));
            }
        }
        if output == Output::Json {
            document.insert(table.name.to_owned(), keys.into());
            continue;
        }
        show::line(format!("[{}]", table.name));
        let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or_default();
        for (setting, origin) in lines {
            show::line(format!("{setting:width$}  # {origin}"));
        }
        show::line("");
    }
    if output == Output::Json { show::json(&document) } else { Ok(()) }
}

/// `muster migrate`
pub(crate) async fn migrate(
    data: &Path,
    database_file: &Path,
    ca_passphrase_file: Option<&PathBuf>,
    output: Output,
) -> anyhow::Result<u8> {
    let url = service::config::secret("database", Some(&database_file.to_owned()))?.unwrap_or_default();
    let url: DatabaseUrl = url.parse().map_err(|reason: String| anyhow!("{}: {reason}", database_file.display()))?;
    let is_orchestrator = orchestrator::transfer::is_orchestrator(data);
    let moved = if is_orchestrator {
        let passphrase = service::config::secret("ca-passphrase", ca_passphrase_file)?;
        orchestrator::transfer::transfer(data, &url, passphrase).await?
    } else {
        repository::transfer::transfer(data, &url).await?
    };
    if output == Output::Json {
        let tables: serde_json::Map<String, serde_json::Value> =
            moved.into_iter().map(|(table, count)| (table, count.into())).collect();
        show::json(&serde_json::json!({ "database": url.to_string(), "rows": tables }))?;
        return Ok(exit::DONE);
    }
    let rows =
        moved.iter().filter(|(_, count)| *count > 0).map(|(table, count)| vec![table.clone(), count.to_string()]);
    show::table(&["table", "rows"], rows.collect());
    let (who, passphrase) = match ca_passphrase_file.filter(|_| is_orchestrator) {
        Some(file) => ("orchestrator", format!(" --ca-passphrase-file {}", file.display())),
        None => ("repository", String::new()),
    };
    show::line(format!(
        "Everything is in {url}. Start the {who} with --database-file {}{passphrase}.",
        database_file.display()
    ));
    Ok(exit::DONE)
}
