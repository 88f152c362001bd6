//! Where a configuration comes from: a file, variables, flags. Each goes before those that were added earlier.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::reference::{Form, Key, TABLES};
use super::{Config, ConfigError};

/// Edits from an unknown key to a known one, at most, for it to be a slip.
const SLIP_MAX: usize = 3;
/// The same from a variable to a known one: other programs may have variables of their own.
const VARIABLE_SLIP_MAX: usize = 2;
/// What else this program reads; not keys.
const OTHER_VARIABLES: [&str; 2] = ["MUSTER_CONFIG", "MUSTER_LOG"];

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In this file.
    File(PathBuf),
    /// In a variable or with a flag, by its name.
    Word(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Word(name) => name.fmt(formatter),
        }
    }
}

/// What was given, and where.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    document: Table,
    origins: BTreeMap<(&'static str, &'static str), Origin>,
}

impl Sources {
    /// What a file says, and before it the environment.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut sources = Self::default();
        if let Some(path) = path {
            let failed = |source| ConfigError::Io { path: path.to_owned(), source };
            sources.add_text(path, &std::fs::read_to_string(path).map_err(failed)?)?;
        }
        check_names(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
        sources.add_variables(|name| std::env::var(name).ok())?;
        Ok(sources)
    }

    /// A file's text.
    pub(crate) fn add_text(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let invalid =
            |error: toml::de::Error| ConfigError::Invalid { path: path.to_owned(), reason: error.to_string() };
        let mut unknown: Option<String> = None;
        // Read as what it has to be: an error names line and column.
        let parsed = toml::de::Deserializer::parse(text).map_err(invalid)?;
        serde_ignored::deserialize::<_, _, Config>(parsed, |key| {
            unknown.get_or_insert_with(|| key.to_string());
        })
        .map_err(invalid)?;
        if let Some(key) = unknown {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), nearest: nearest(&key), key });
        }
        self.document = toml::from_str(text).map_err(invalid)?;
        for (table, key) in all() {
            if self.value(table, key.name).is_some() {
                self.origins.insert((table, key.name), Origin::File(path.to_owned()));
            }
        }
        Ok(())
    }

    /// `MUSTER_…` variables, for every table that has such a key. One that is empty says nothing.
    pub(super) fn add_variables(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for (table, key) in all() {
            let name = key.variable();
            if let Some(text) = variable(&name).filter(|text| !text.is_empty()) {
                self.put(table, key, &text, name)?;
            }
        }
        Ok(())
    }

    /// Flags of the daemon that reads a table, by the names of keys.
    pub fn add_flags<'flag>(
        &mut self,
        table: &str,
        flags: impl IntoIterator<Item = (&'flag str, Option<String>)>,
    ) -> Result<(), ConfigError> {
        for (name, text) in flags {
            let known = all().find(|(of, key)| *of == table && key.name == name);
            debug_assert!(known.is_some(), "{table}.{name} is no key");
            if let (Some((table, key)), Some(text)) = (known, text) {
                self.put(table, key, &text, format!("--{name}"))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, table: &'static str, key: &'static Key, text: &str, name: String) -> Result<(), ConfigError> {
        let wrong = |reason: String| ConfigError::Word { name: name.clone(), reason };
        let value = value_of(key.form, text).map_err(wrong)?;
        let alone = Table::from_iter([(key.name.to_owned(), value.clone())]);
        let alone = Table::from_iter([(table.to_owned(), Value::Table(alone))]);
        Config::deserialize(alone).map_err(|error| wrong(error.message().to_owned()))?;
        let keys = self.document.entry(table).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(keys) = keys {
            keys.insert(key.name.to_owned(), value);
        }
        self.origins.insert((table, key.name), Origin::Word(name));
        Ok(())
    }

    /// What was given for a key.
    pub fn value(&self, table: &str, key: &str) -> Option<&Value> {
        self.document.get(table)?.get(key)
    }

    /// Where it was given.
    pub fn origin(&self, table: &'static str, key: &'static str) -> Option<&Origin> {
        self.origins.get(&(table, key))
    }

    /// The whole; without a file and variables everything is as built in.
    pub fn config(&self) -> Config {
        Config::deserialize(self.document.clone()).expect("each part was read as a configuration")
    }
}

fn all() -> impl Iterator<Item = (&'static str, &'static Key)> {
    TABLES.iter().flat_map(|table| table.keys.iter().map(move |key| (table.name, key)))
}

/// An error for a variable that is a slip.
fn check_names(names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let known: Vec<String> = all().map(|(_, key)| key.variable()).collect();
    for name in names.filter(|name| name.starts_with("MUSTER_") && !OTHER_VARIABLES.contains(&&**name)) {
        if known.contains(&name) {
            continue;
        }
        let distances = known.iter().map(|known| (strsim::damerau_levenshtein(known, &name), known));
        // Of three letters one is not a slip, and of six two are not.
        let is_slip = |(distance, known): &(usize, &String)| {
            *distance <= VARIABLE_SLIP_MAX && known.len() - "MUSTER_".len() > 2 * distance + 2
        };
        if let Some((_, nearest)) = distances.min().filter(is_slip) {
            return Err(ConfigError::UnknownVariable { nearest: nearest.clone(), name });
        }
    }
    Ok(())
}

fn value_of(form: Form, text: &str) -> Result<Value, String> {
    match form {
        Form::Text => Ok(Value::String(text.to_owned())),
        Form::Switch => match text {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
            _ => Err("true or false is wanted".to_owned()),
        },
        Form::Table => text.parse().map_err(|error: toml::de::Error| error.message().to_owned()),
    }
}

/// The known name that is most like the last one of a path: of the same table where that is known.
fn nearest(path: &str) -> Option<String> {
    let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
    let known = TABLES.iter().find(|known| known.name == table);
    let names: Vec<&str> = match known {
        Some(table) => table.keys.iter().map(|key| key.name).collect(),
        None => TABLES.iter().map(|table| table.name).chain(all().map(|(_, key)| key.name)).collect(),
    };
    let distances = names.into_iter().map(|known| (strsim::damerau_levenshtein(known, name), known));
    distances.min().filter(|(distance, _)| *distance <= SLIP_MAX).map(|(_, known)| known.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::Seconds;

    fn sources(text: &str, variables: &[(&str, &str)]) -> Result<Sources, ConfigError> {
        let mut sources = Sources::default();
        sources.add_text(Path::new("muster.toml"), text)?;
        let variable = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.to_owned());
        sources.add_variables(variable)?;
        Ok(sources)
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
        let text = "[repository]\nname = 'file'\nbroker = 'file:1'\ndata = '/file'\n";
        let mut given = sources(text, &[("MUSTER_NAME", "variable"), ("MUSTER_BROKER", "variable:1")]).unwrap();
        given.add_flags("repository", [("broker", Some("flag:1".to_owned())), ("data", None)]).unwrap();
        let config = given.config().repository;
        assert_eq!(config.name.as_deref(), Some("variable"));
        assert_eq!(config.broker.as_deref(), Some("flag:1"));
        assert_eq!(config.data, Some("/file".into()));
        let origin = |key| given.origin("repository", key).unwrap().to_string();
        assert_eq!([origin("name"), origin("broker"), origin("data")], ["MUSTER_NAME", "--broker", "muster.toml"]);
        assert_eq!(given.origin("repository", "database"), None);
    }

    #[test]
    fn every_key_can_be_a_variable() {
        let variables = [
            ("MUSTER_TAKE_BACK_ENDPOINTS", "true"),
            ("MUSTER_KEEP_VERDICTS", "7d"),
            ("MUSTER_KEEP_OBSERVATIONS_OF", "{ 'unix:file' = '30d' }"),
            ("MUSTER_BUDGET", "cpu=20%"),
            ("MUSTER_ROOT", ""),
        ];
        let config = sources("", &variables).unwrap().config();
        assert!(config.orchestrator.take_back_endpoints);
        assert_eq!(config.repository.keep_verdicts, Some(Seconds(604_800)));
        assert_eq!(config.repository.keep_observations_of["unix:file"], Seconds(2_592_000));
        assert_eq!(config.pcs_agent.budget, Some("cpu=20%".parse().unwrap()));
        assert_eq!(config.pcs_agent.root, None);
    }

    #[test]
    fn a_variable_that_is_a_slip_is_an_error_and_those_of_others_are_not() {
        let check = |name: &str| check_names([name.to_owned()].into_iter()).map_err(|error| error.to_string());
        let error = check("MUSTER_KEEP_VERDICT").unwrap_err();
        assert!(error.contains("MUSTER_KEEP_VERDICT is") && error.contains("mean MUSTER_KEEP_VERDICTS?"), "{error}");
        assert!(check("MUSTER_JION_TOKEN_FILE").unwrap_err().contains("MUSTER_JOIN_TOKEN_FILE"));
        for name in [
            "MUSTER_LOG",
            "MUSTER_CONFIG",
            "MUSTER_ROOT",
            "MUSTER_TEST_POSTGRES",
            "MUSTER_RPM",
            "MUSTER_DIR",
            "KEEP_VERDICT",
        ] {
            check(name).unwrap();
        }
    }

    #[test]
    fn a_variable_that_cannot_be_is_named() {
        for (name, text, told) in [
            ("MUSTER_KEEP_VERDICTS", "7", "s, m, h or d"),
            ("MUSTER_TAKE_BACK_ENDPOINTS", "maybe", "true or false"),
            ("MUSTER_KEEP_OBSERVATIONS_OF", "unix:file", ""),
            ("MUSTER_BUDGET", "cpu=lots", "cpu"),
        ] {
            let error = sources("", &[(name, text)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: ")) && error.contains(told), "{error}");
        }
    }
}
