//! The words of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use proto::budget::Budget;
use proto::capability::ComponentType;
use proto::id::{ComponentId, EndpointId, TransactionId};
use proto::schedule::{OnMissed, Overlap, Schedule, TimeWindow};
use proto::verdict::Verdict;
use service::config::Seconds;

mod fleet;
mod policy;
mod posture;

use fleet::MEASURE_HELP;
pub(crate) use fleet::{MeasureArgs, SimulateArgs};
pub(crate) use policy::{AssignArgs, FeedCommand, ListArgs, PolicyCommand, SignerCommand};
use posture::QUERY_HELP;
pub(crate) use posture::{LabelCommand, QueryArgs, Staleness};

/// Know the posture of your machines: what it is, whether it meets policy, since when.
#[derive(Debug, Parser)]
#[command(name = "muster", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Data directory of the orchestrator to ask, or of the installation to start.
    #[arg(long, global = true, env = "MUSTER_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How to print answers.
    #[arg(short = 'o', long = "format", id = "format", global = true, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// How to print answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets: of `muster results` and `muster query`.
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything in this process, assess this machine, and keep running.
    Up(UpArgs),
    /// How is the system.
    Status,
    /// What the orchestrator and its broker count, in the OpenMetrics text format, for Prometheus and its like.
    Metrics,
    /// Who is registered, and is it alive.
    Roster,
    /// Collect what a policy needs, without evaluating it.
    Collect(WorkflowArgs),
    /// Collect and evaluate, or evaluate what is stored.
    Evaluate(EvaluateArgs),
    /// Stored verdicts, the newest of each endpoint and policy.
    Results(ResultsArgs),
    /// Which items are stored of which endpoints, under a condition; or have collectors look for them now.
    #[command(after_help = QUERY_HELP)]
    Query(Box<QueryArgs>),
    /// Names for endpoints: of some that are named, or of those on which something is found.
    #[command(subcommand)]
    Label(LabelCommand),
    /// The workflows of late; with an id, one of them with everybody who was asked.
    Transactions {
        /// Which one.
        transaction: Option<TransactionId>,
    },
    /// Wait until a workflow is done with everybody who was there.
    Wait {
        /// Which, from `muster transactions`.
        transaction: TransactionId,
        /// Wait for those too that were not there, until they have come back or the request has expired.
        #[arg(long)]
        all: bool,
        /// Give up after this time, such as 30s or 10m.
        #[arg(long)]
        timeout: Option<Seconds>,
    },
    /// Stop a workflow: whoever is at it is told to stop.
    Cancel {
        /// Which, from `muster transactions`.
        transaction: TransactionId,
    },
    /// Periodic collection: it lives at the collectors and runs while the orchestrator is away.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Event-based collection: collectors watch what a policy reads, and report what changes.
    #[command(subcommand)]
    Observe(ObserveCommand),
    /// What changed on the endpoints: what it was, what it is, when it was seen.
    Changes(ChangesArgs),
    /// Policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Join tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Play many collectors against an installation, to see what it carries.
    Simulate(SimulateArgs),
    /// Start an installation of its own with many collectors, and measure what this machine carries: a table with targets, what was
    /// measured, and what limits it.
    #[command(after_help = MEASURE_HELP)]
    Measure(Box<MeasureArgs>),
    /// What `oscap` does, with its words, options and exit codes.
    Scap(Box<crate::drop_in::ScapArgs>),
    /// Follow verdicts back to the evidence and to what was asked, by signatures alone.
    Verify(VerifyArgs),
    /// Who did what: the log of acts.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The certificate authorities: which are trusted, and how one is replaced while everything runs.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Brokers other than the embedded one.
    #[command(subcommand)]
    Broker(BrokerCommand),
    /// Configuration files: whether one can be used, what holds, and what there is.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The endpoints: what tells one from another, and which is which.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Let a component in that waits for approval.
    Approve {
        /// The component's id, from `muster roster`.
        component: ComponentId,
    },
    /// Put a component out: its certificate is refused from now on. It may join again with a new token.
    #[command(alias = "retire")]
    Evict {
        /// The component's id, from `muster roster`.
        component: ComponentId,
        /// Why; the component is told.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Have a collector look at nothing for a while: what it looks at stops where it is, and what it is asked waits.
    Pause {
        /// The component's id, from `muster roster`.
        component: ComponentId,
        /// For how long, such as 30m or 8h; 7 days at most.
        #[arg(long = "for", default_value = "1h", value_name = "TIME")]
        time: Seconds,
        /// Why.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Have a paused collector go on.
    Resume {
        /// The component's id, from `muster roster`.
        component: ComponentId,
    },
    /// Copy a data directory, of `muster up` or of one service, while it is in use. Services on machines of their own are
    /// copied in this order: collectors and evaluators, repositories, the orchestrator.
    Backup {
        /// A directory that is not there yet.
        to: PathBuf,
    },
    /// Make a data directory of what `muster backup` wrote, after checking that it is whole.
    Restore {
        /// The backup.
        from: PathBuf,
    },
    /// Move what a repository or an orchestrator keeps from the files in its data directory into an empty PostgreSQL database. It
    /// must not run; afterwards it is started with `database-file`.
    Migrate {
        /// Its data directory.
        data: PathBuf,
        /// File with the URL of the database.
        #[arg(long, env = "MUSTER_DATABASE_FILE", value_name = "FILE")]
        database_file: PathBuf,
        /// File with the passphrase of the CA's keys, which an orchestrator needs: in a database they are encrypted.
        #[arg(long, env = "MUSTER_CA_PASSPHRASE_FILE", value_name = "FILE")]
        ca_passphrase_file: Option<PathBuf>,
    },
    /// Put a component out for good: neither its key nor its endpoint gets in again.
    Ban {
        /// The component's id, from `muster roster`.
        component: ComponentId,
        /// Why; the component is told.
        #[arg(long, default_value = "", hide_default_value = true, conflicts_with = "lift")]
        reason: String,
        /// Make an evicted component of a banned one: it may join again with a new token.
        #[arg(long)]
        lift: bool,
    },
}

/// `muster config`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read a file as the daemons do, with MUSTER_… variables before it, and say what is wrong.
    Check {
        /// The file; without, /etc/muster/muster.toml where it is there.
        #[arg(env = "MUSTER_CONFIG")]
        file: Option<PathBuf>,
    },
    /// What holds for each daemon, and where it was given. Secrets are not shown.
    Show {
        /// The file; without, /etc/muster/muster.toml where it is there.
        #[arg(env = "MUSTER_CONFIG")]
        file: Option<PathBuf>,
    },
    /// A file with every key, what it is for, and what is built in.
    Reference,
}

/// `muster up`
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Address and port that the broker listens on; port 0 takes a free one.
    #[arg(long, env = "MUSTER_LISTEN", default_value = "127.0.0.1:8883")]
    pub(crate) listen: String,
    /// Exit after the first evaluation.
    #[arg(long)]
    pub(crate) once: bool,
    /// Policy of the first evaluation.
    #[arg(long, default_value = orchestrator::BASELINE)]
    pub(crate) policy: String,
    /// Profile of the first evaluation, by its id or the end of it.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Root directory of the endpoint.
    #[arg(long, default_value = "/")]
    pub(crate) root: PathBuf,
    /// What one task may cost this machine, such as cpu=20%,memory=64M,read=200M,time=60s.
    #[arg(long, env = "MUSTER_BUDGET")]
    pub(crate) budget: Option<Budget>,
    /// A signed list of the scripts of policies that may run on this machine, in a sandbox.
    #[arg(long, env = "MUSTER_SCRIPTS_ALLOWED_FILE", value_name = "FILE", requires = "scripts_signer")]
    pub(crate) scripts_allowed_file: Option<PathBuf>,
    /// The public key that has signed it, as OpenSSH writes it.
    #[arg(long, env = "MUSTER_SCRIPTS_SIGNER", value_name = "KEY", requires = "scripts_allowed_file")]
    pub(crate) scripts_signer: Option<String>,
}

/// What a workflow is about.
#[derive(Debug, Args)]
pub(crate) struct WorkflowArgs {
    /// What, and where.
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Endpoints that are left out, by label or name; may be given several times.
    #[arg(long = "exclude", value_name = "ENDPOINT")]
    pub(crate) excluded: Vec<String>,
    /// Do not collect what is stored and not older than this, such as 15m; 0s collects everything.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) max_age: Option<Seconds>,
    /// How long endpoints that are not there are asked when they come back, such as 7d; 0s: not at all.
    #[arg(long, default_value = "1d", value_name = "TIME", value_parser = parse_age)]
    pub(crate) catch_up: Seconds,
    /// Ask all collectors by one broadcast.
    #[arg(long)]
    pub(crate) broadcast: bool,
    /// Seconds to wait for answers.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// `muster evaluate`
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// What it is about.
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    /// Evaluate what is stored; contact no endpoint. With --max-age, what is older is stale and its rules are unknown.
    #[arg(long)]
    pub(crate) stored: bool,
    /// Evaluate what was known at that time: 2026-10-01 (its beginning, UTC) or 2026-10-01T12:00:00Z. Contacts no endpoint.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) as_of: Option<Timestamp>,
}

/// `muster results`
#[derive(Debug, Args)]
pub(crate) struct ResultsArgs {
    /// Only rules with this verdict; may be given several times.
    #[arg(long = "verdict", value_parser = parse_verdict)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Which policy, at which endpoints.
#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// The policy whose objects are collected.
    #[arg(long, default_value = orchestrator::BASELINE)]
    pub(crate) policy: String,
    /// A profile, by its id or the end of it.
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Endpoints by label or name; without, all.
    #[arg(long = "target", value_name = "ENDPOINT")]
    pub(crate) targets: Vec<String>,
    /// What collecting may cost an endpoint, such as cpu=20%,memory=64M,read=200M,time=60s. What is cut off is unknown.
    #[arg(long)]
    pub(crate) budget: Option<Budget>,
}

/// `muster schedule`
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Collect again and again.
    Add(Box<ScheduleAddArgs>),
    /// End it.
    Cancel {
        /// What it is called.
        identifier: String,
        /// Collect once more before it ends.
        #[arg(long)]
        last: bool,
        /// Endpoints by label or name; without, all.
        #[arg(long = "target", value_name = "ENDPOINT")]
        targets: Vec<String>,
    },
    /// What each collector has scheduled.
    List {
        /// Endpoints by label or name; without, all.
        #[arg(long = "target", value_name = "ENDPOINT")]
        targets: Vec<String>,
    },
}

/// `muster schedule add`
#[derive(Debug, Args)]
pub(crate) struct ScheduleAddArgs {
    /// What it is called; one name at a collector stands for one schedule.
    pub(crate) identifier: String,
    /// When.
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    /// Collect once at once as well.
    #[arg(long)]
    pub(crate) now: bool,
    /// What, and where.
    #[command(flatten)]
    pub(crate) task: TaskArgs,
}

/// When something runs.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct ScheduleArgs {
    /// How often, such as 10m, 1h or 7d.
    #[arg(long, value_name = "TIME", conflicts_with = "cron")]
    pub(crate) every: Option<Seconds>,
    /// A crontab expression: minute, hour, day of the month, month, day of the week.
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: Option<String>,
    /// The time zone of --cron, --window and --blackout, such as Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
    /// Each run up to so much later, by chance.
    #[arg(long, value_name = "TIME")]
    pub(crate) jitter: Option<Seconds>,
    /// No run before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) start: Option<Timestamp>,
    /// No run after this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) end: Option<Timestamp>,
    /// Run only then, such as 'mon-fri 22:00-06:00'; may be given several times.
    #[arg(long = "window", value_name = "WINDOW")]
    pub(crate) windows: Vec<TimeWindow>,
    /// Do not run then; may be given several times.
    #[arg(long = "blackout", value_name = "WINDOW")]
    pub(crate) blackouts: Vec<TimeWindow>,
    /// Runs that could not be made when they were due: make one as soon as it can be, or leave them out.
    #[arg(long, value_enum, default_value_t = Missed::Once)]
    pub(crate) missed: Missed,
    /// A run that is due while the one before goes on: leave it out, or make it after that.
    #[arg(long, value_enum, default_value_t = Overlapping::Skip)]
    pub(crate) overlap: Overlapping,
}

/// See `proto::schedule::OnMissed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Missed {
    /// One of them.
    Once,
    /// None.
    Skip,
}

/// See `proto::schedule::Overlap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Overlapping {
    /// Left out.
    Skip,
    /// After it.
    Queue,
}

impl ScheduleArgs {
    /// What there is to say about it; none where there is no rhythm.
    pub(crate) fn schedule(self) -> Option<Schedule> {
        (self.every.is_some() || self.cron.is_some()).then(|| Schedule {
            every_seconds: self.every.map(|every| every.0),
            cron: self.cron,
            time_zone: self.time_zone,
            jitter_seconds: self.jitter.map_or(0, |jitter| jitter.0),
            start: self.start,
            end: self.end,
            windows: self.windows,
            blackouts: self.blackouts,
            on_missed: if self.missed == Missed::Once { OnMissed::Once } else { OnMissed::Skip },
            overlap: if self.overlap == Overlapping::Skip { Overlap::Skip } else { Overlap::Queue },
        })
    }
}

/// `muster observe`
#[derive(Debug, Subcommand)]
pub(crate) enum ObserveCommand {
    /// Report everything once, and then what changes.
    Start {
        /// What it is called; one name at a collector stands for one observation.
        identifier: String,
        /// How often to look, such as 10s or 5m; without, as the collector likes.
        #[arg(long)]
        poll: Option<Seconds>,
        /// What, and where.
        #[command(flatten)]
        task: TaskArgs,
    },
    /// End it.
    Cancel {
        /// What it is called.
        identifier: String,
        /// Endpoints by label or name; without, all.
        #[arg(long = "target", value_name = "ENDPOINT")]
        targets: Vec<String>,
    },
    /// What each collector watches.
    List {
        /// Endpoints by label or name; without, all.
        #[arg(long = "target", value_name = "ENDPOINT")]
        targets: Vec<String>,
    },
}

/// `muster changes`
#[derive(Debug, Args)]
pub(crate) struct ChangesArgs {
    /// Endpoints by label or name; without, all.
    #[arg(long = "target", value_name = "ENDPOINT")]
    pub(crate) targets: Vec<String>,
    /// At most so many of those that are stored.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub(crate) limit: u32,
    /// Only changes of items for which a question of `muster query` holds, before or after.
    #[arg(long = "where", value_name = "QUESTION")]
    pub(crate) question: Option<String>,
    /// Go on as changes come in, until Ctrl-C.
    #[arg(long)]
    pub(crate) follow: bool,
}

/// `muster endpoint`
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// The endpoints with their evidence, and which of them seem to be one.
    List,
    /// The collector's endpoint is the one that it seems to be: it takes over its label and its history.
    Same {
        /// The collector's id.
        component: ComponentId,
    },
    /// The collector's endpoint is another one than it seems to be.
    Distinct {
        /// The collector's id.
        component: ComponentId,
    },
    /// Two endpoints are one: what is known of the first is known of the second.
    Merge {
        /// The first, by its label.
        endpoint: EndpointId,
        /// The second.
        into: EndpointId,
    },
    /// Take apart again what was merged; each has its own history.
    Split {
        /// The endpoint that was merged into another.
        endpoint: EndpointId,
    },
}

/// `muster ca`
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Which CAs are trusted, which one signs, and how many components know each.
    Show,
    /// Make the successor of the CA: it is trusted beside the old one at once, and signs once everybody knows it.
    Rotate {
        /// The certificate of a CA of your own, PEM; without, a new root is made.
        #[arg(long, value_name = "FILE", requires = "key")]
        certificate: Option<PathBuf>,
        /// Its key, PEM in PKCS #8, Ed25519 or P-256.
        #[arg(long, value_name = "FILE", requires = "certificate")]
        key: Option<PathBuf>,
    },
    /// Trust the old CA no more, once no certificate of it is left.
    Retire {
        /// Even if components are cut off by it, and have to join again.
        #[arg(long)]
        force: bool,
    },
}

/// `muster verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A workflow, from `muster transactions`; without, the newest evaluation.
    pub(crate) transaction: Option<TransactionId>,
    /// Only verdicts on this endpoint, by label or name.
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) target: Option<String>,
    /// Only this rule, by its id or the end of it; shows each step.
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// Write the messages to a new file as well, to check them elsewhere.
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// Check what `--export` wrote; asks no orchestrator.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["transaction", "target", "export"])]
    pub(crate) file: Option<PathBuf>,
    /// The CA's certificate, PEM; without, that of the data directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// `muster audit`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// The log, the latest act last.
    Log {
        /// At most so many of the latest.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// The whole log with what was signed of it, one line each, to keep or to check elsewhere.
    Export,
    /// Check that nothing was changed, removed or cut off: the log of the orchestrator, or one that was exported.
    Verify {
        /// A log from `muster audit export`; without, the orchestrator's own.
        file: Option<PathBuf>,
        /// The CA's certificate, PEM; without, that of the data directory.
        #[arg(long)]
        ca: Option<PathBuf>,
        /// The hash of an entry that was noted down earlier: it must be in the log.
        #[arg(long, value_name = "HASH")]
        has: Option<String>,
    },
}

/// `muster broker`
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Write what such a broker needs: settings, an access list, a key, and a certificate that the orchestrator signs.
    Config(BrokerConfigArgs),
}

/// `muster broker config`
#[derive(Debug, Args)]
pub(crate) struct BrokerConfigArgs {
    /// Which broker.
    #[arg(long = "for", value_enum, value_name = "BROKER")]
    pub(crate) broker: BrokerKind,
    /// Where to write it: a directory of its own. What an earlier run wrote there is written anew; the key stays.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Host name or address that the certificate is for; may be given several times. Components go by the CA and do not
    /// look at it, other clients do.
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,
    /// Address and port that the broker is to listen on.
    #[arg(long, default_value = "0.0.0.0:8883", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
}

/// A broker that configuration can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BrokerKind {
    /// Eclipse Mosquitto 2.
    Mosquitto,
    /// EMQX 5.
    Emqx,
}

/// `muster token`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token.
    Create {
        /// pcs, pes or repository.
        #[arg(long = "type", value_name = "TYPE")]
        component_type: ComponentType,
        /// How many components may join with it.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it holds, such as 30m, 1h or 7d.
        #[arg(long, default_value = "1h")]
        ttl: Seconds,
        /// What to call those who come with it; may be given several times. A label is a target, as a name is.
        #[arg(long = "label", value_name = "LABEL")]
        labels: Vec<String>,
        /// An operator has to approve each of them: `muster approve`.
        #[arg(long)]
        approve: bool,
    },
    /// The tokens; their secrets are shown once, when they are made.
    List,
    /// Nobody joins with this token any more; those who have joined stay.
    Revoke {
        /// Its id, from `muster token list`.
        id: String,
    },
}

/// A duration that may be nothing.
fn parse_age(text: &str) -> Result<Seconds, String> {
    let is_nothing = text.len() > 1 && text.trim_end_matches(['s', 'm', 'h', 'd']).parse() == Ok(0_u64);
    if is_nothing { Ok(Seconds(0)) } else { text.parse() }
}

/// A time, or a date for its beginning.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let of_date = |date: jiff::civil::Date| date.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp());
    let time = text.parse::<Timestamp>().or_else(|_| text.parse::<jiff::civil::Date>().and_then(of_date));
    time.map_err(|_| "use a date such as 2026-10-01, or a time such as 2026-10-01T12:00:00Z".to_owned())
}

fn parse_verdict(text: &str) -> Result<Verdict, String> {
    Verdict::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
        format!("use one of {}", all.join(", "))
    })
}

/// The data directory of an installation that `muster up` runs.
pub(crate) fn data_directory(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(given);
    }
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".local/share")));
    base.map(|base| base.join("muster")).ok_or_else(|| anyhow::anyhow!("there is no home directory: give --data DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
