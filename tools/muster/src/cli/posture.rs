//! The words of `muster query` and `muster label`.

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use proto::budget::Budget;
use service::config::Seconds;

use super::{parse_age, parse_time};

pub(super) const QUERY_HELP: &str = "\
A question is KIND, or KIND where CONDITION:
  linux:dpkginfo where name prefix openssl and evr < '0:3.0.17-1~deb12u2'
  unix:sysctl where name = net.ipv4.ip_forward and value != 0
  linux:inetlisteningservers where local_port < 1024 and not local_address = 127.0.0.1
  unix:file where path = /etc/cron.d and owrite = true
  endpoint where os_name glob 'Debian*'
  verdict where verdict in (fail, unknown) and severity = high
Conditions: = != < <= > >= in (...) prefix glob matches, exists FIELD, and, or, not, brackets. Quotes keep the shell and
blanks out of values.";

/// `muster query`
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The question, in one word or in several.
    #[arg(required = true, value_name = "QUESTION")]
    pub(crate) question: Vec<String>,
    /// Endpoints by label or name; without, all.
    #[arg(long = "target", value_name = "ENDPOINT")]
    pub(crate) targets: Vec<String>,
    /// Endpoints that are left out, by label or name; may be given several times.
    #[arg(long = "exclude", value_name = "ENDPOINT")]
    pub(crate) excluded: Vec<String>,
    /// Have collectors look now, whatever is stored.
    #[arg(long, conflicts_with_all = ["as_of", "max_age"])]
    pub(crate) collect: bool,
    /// What is older than this, such as 15m, is stale.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) max_age: Option<Seconds>,
    /// What is stale is marked, left out, or collected anew.
    #[arg(long, value_enum, default_value_t = Staleness::Mark, requires = "max_age")]
    pub(crate) on_stale: Staleness,
    /// As it was known at that time: 2026-10-01 (its beginning, UTC) or 2026-10-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) as_of: Option<Timestamp>,
    /// Show these fields, such as name,evr.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub(crate) select: Vec<String>,
    /// Only how many there are, for each endpoint.
    #[arg(long, conflicts_with = "metadata")]
    pub(crate) count: bool,
    /// What collecting may cost an endpoint, such as cpu=20%,memory=64M,read=200M,time=60s.
    #[arg(long)]
    pub(crate) budget: Option<Budget>,
    /// Only where it comes from and how old it is.
    #[arg(long)]
    pub(crate) metadata: bool,
    /// Seconds to wait for collectors.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// What becomes of what is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Staleness {
    /// Marked.
    Mark,
    /// Left out.
    Omit,
    /// Collected anew.
    Collect,
}

/// `muster label`
#[derive(Debug, Subcommand)]
pub(crate) enum LabelCommand {
    /// Give endpoints a name; what the name meant before is forgotten. As a target it means them, also in other labels.
    Set {
        /// The label.
        name: String,
        /// Endpoints that it means, by label or name.
        #[arg(value_name = "ENDPOINT")]
        members: Vec<String>,
        /// Endpoints that it does not mean, whatever else holds; may be given several times.
        #[arg(long = "exclude", value_name = "ENDPOINT")]
        excluded: Vec<String>,
        /// It means the endpoints on which something is found: a question as of `muster query`.
        #[arg(long, value_name = "QUESTION")]
        query: Option<String>,
        /// How often collectors look for what the question is about.
        #[arg(long, default_value = "1h", value_name = "TIME")]
        every: Seconds,
        /// What is older says nothing: it is not known whether the label means the endpoint.
        #[arg(long, value_name = "AGE", value_parser = parse_age)]
        max_age: Option<Seconds>,
    },
    /// Take a name away.
    Remove {
        /// The label.
        name: String,
    },
    /// The labels, and what they mean now.
    List,
}
