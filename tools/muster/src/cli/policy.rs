//! The words of `muster policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use service::config::Seconds;

use super::{ScheduleArgs, TaskArgs, parse_age, parse_time};

/// `muster policy`
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Take a SCAP data stream (plain, .xz or .gz) as a policy. Of one that is there already it is another version, which
    /// waits until it is activated.
    Import {
        /// The file. A signature beside it, in FILE.sig, goes along.
        file: PathBuf,
        /// The policy's name; without, from the file's name.
        #[arg(long)]
        name: Option<String>,
        /// Put it in force at once.
        #[arg(long)]
        activate: bool,
        /// A signature that `ssh-keygen -Y sign -n muster-policy` made.
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
    },
    /// Make a policy of another one and a tailoring (XCCDF 1.2), with a name of its own.
    Tailor {
        /// The policy that is tailored.
        policy: String,
        /// The tailoring. A signature beside it, in FILE.sig, goes along.
        file: PathBuf,
        /// What the new policy is called.
        #[arg(long)]
        name: String,
        /// Put it in force at once, where there is one of that name.
        #[arg(long)]
        activate: bool,
        /// A signature that `ssh-keygen -Y sign -n muster-policy` made.
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
    },
    /// The policies with their profiles.
    List(ListArgs),
    /// The versions of a policy.
    Versions {
        /// The policy.
        policy: String,
    },
    /// What a version would change, decided on what is stored; no endpoint is contacted.
    Preview {
        /// The policy.
        policy: String,
        /// Which version; without, the newest that waits.
        #[arg(long, value_name = "NUMBER")]
        version: Option<u64>,
        /// Profile, by its id or the end of it.
        #[arg(long)]
        profile: Option<String>,
        /// Endpoints by label or name; without, all.
        #[arg(long = "target", value_name = "ENDPOINT")]
        targets: Vec<String>,
        /// Endpoints that are left out, by label or name; may be given several times.
        #[arg(long = "exclude", value_name = "ENDPOINT")]
        excluded: Vec<String>,
    },
    /// Put a version in force, also one of before; what is assigned is decided anew.
    Activate {
        /// The policy.
        policy: String,
        /// Which version; without, the newest that waits.
        #[arg(long, value_name = "NUMBER")]
        version: Option<u64>,
    },
    /// Whose signatures are believed. Once there is one, nothing is taken that none of them has signed.
    #[command(subcommand)]
    Signer(SignerCommand),
    /// Directories and URLs at which policies are looked for.
    #[command(subcommand)]
    Feed(FeedCommand),
    /// Evaluate a policy again and again, or when what it reads changes; on endpoints that join later, too.
    Assign(Box<AssignArgs>),
    /// End that.
    Unassign {
        /// What it is called.
        name: String,
    },
    /// Which policies are assigned to what, and how it goes.
    Assignments,
    /// Which rules of a policy nobody can decide, on which endpoints, and why.
    Coverage {
        /// What, and where.
        #[command(flatten)]
        task: TaskArgs,
        /// Endpoints that are left out, by label or name; may be given several times.
        #[arg(long = "exclude", value_name = "ENDPOINT")]
        excluded: Vec<String>,
    },
}

/// `muster policy list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only policies whose name has this in it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Only of this type; data streams and tailorings are xccdf.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) policy_type: Option<String>,
    /// Only those for this platform: a CPE name, or a part of it. Those that apply everywhere are listed, too.
    #[arg(long, value_name = "CPE")]
    pub(crate) platform: Option<String>,
    /// Only of this version, as the benchmark says it.
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Only those that came in then or later.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<Timestamp>,
    /// Only those that came in before.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<Timestamp>,
}

/// `muster policy signer`
#[derive(Debug, Subcommand)]
pub(crate) enum SignerCommand {
    /// Believe a key.
    Add {
        /// What it is called.
        name: String,
        /// The public key: a file such as id_ed25519.pub, or what is in it.
        key: String,
    },
    /// Believe it no more.
    Remove {
        /// What it is called.
        name: String,
    },
    /// The keys that are believed.
    List,
}

/// `muster policy feed`
#[derive(Debug, Subcommand)]
pub(crate) enum FeedCommand {
    /// Look in a directory of the orchestrator's machine, or at one data stream on an HTTPS server. Each data stream (NAME.xml,
    /// NAME-ds.xml; .xz and .gz) is a policy; what is new of one that is there waits.
    Add {
        /// What it is called; the same name again replaces it.
        name: String,
        /// The directory, or the data stream's URL (https://…). A signature is beside it, with .sig at the end.
        #[arg(value_name = "DIRECTORY|URL")]
        source: PathBuf,
        /// How often.
        #[arg(long, value_name = "TIME", default_value = "1h")]
        every: Seconds,
        /// Who is trusted to certify the server, beside those whom the orchestrator's machine trusts: certificates, PEM.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Look there no more; its policies stay.
    Remove {
        /// What it is called.
        name: String,
    },
    /// Where policies are looked for, and how that went.
    List,
}

/// `muster policy assign`
#[derive(Debug, Args)]
pub(crate) struct AssignArgs {
    /// What it is called; the same name again replaces what was assigned before.
    pub(crate) name: String,
    /// What, and where.
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Endpoints that are left out, by label or name; may be given several times.
    #[arg(long = "exclude", value_name = "ENDPOINT")]
    pub(crate) excluded: Vec<String>,
    /// Evaluate when something has changed that the policy reads: collectors watch for it.
    #[arg(long)]
    pub(crate) on_change: bool,
    /// How often collectors look for changes, such as 10s or 5m; without, as they like.
    #[arg(long, value_name = "TIME", requires = "on_change")]
    pub(crate) poll: Option<Seconds>,
    /// When.
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
    /// Do not collect what is stored and not older than this, such as 15m.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) max_age: Option<Seconds>,
    /// How long endpoints that are not there are asked when they come back; without, a day, or until the next run.
    #[arg(long, value_name = "TIME", value_parser = parse_age)]
    pub(crate) catch_up: Option<Seconds>,
    /// Seconds to wait for answers.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}
