//! Every key of `muster.toml`: what it is for, what is built in, and how it is given otherwise. `docs/muster.toml` is made from
//! this, and whoever looks for the nearest key looks here.

use std::fmt::Write as _;

/// Columns of a comment.
const WIDTH: usize = 120;

/// How a value is written outside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Text,
    /// `true` or `false`.
    Switch,
    /// As in the file.
    Table,
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// How its value is written.
    pub form: Form,
    /// A value as it stands in the file: what is built in, or an example.
    pub value: &'static str,
    /// Whether that is what is built in.
    pub is_built_in: bool,
    /// Whether the daemon has a flag of this name.
    pub has_flag: bool,
    /// Whether its value is shown to nobody.
    pub is_secret: bool,
    /// Whether a change takes effect in a daemon that runs.
    pub is_live: bool,
    /// What it is for.
    pub about: &'static str,
}

impl Key {
    const fn built_in(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self {
            name,
            form: Form::Text,
            value,
            is_built_in: true,
            has_flag: false,
            is_secret: false,
            is_live: false,
            about,
        }
    }

    const fn example(name: &'static str, value: &'static str, about: &'static str) -> Self {
        Self { is_built_in: false, ..Self::built_in(name, value, about) }
    }

    const fn flag(self) -> Self {
        Self { has_flag: true, ..self }
    }

    const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    const fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    const fn live(self) -> Self {
        Self { is_live: true, ..self }
    }

    /// The variable that it can be given in.
    pub fn variable(&self) -> String {
        format!("MUSTER_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// A table: what one daemon reads.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Who reads it.
    pub daemon: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const JOIN_TOKEN: Key = Key::example(
    "join-token",
    "\"muster1.…\"",
    "A join token, for the first start only, or to come back after having been put out; better in a file.",
)
.flag()
.secret();
const JOIN_TOKEN_FILE: Key = Key::example(
    "join-token-file",
    "\"/run/secrets/muster-join-token\"",
    "A file with the join token. It is waited for where it is not there yet, and looked at for the first start alone.",
)
.flag();
const BROKER: Key = Key::example(
    "broker",
    "\"muster.example:8883\"",
    "Where the broker is, if not where it was when the component joined.",
)
.flag();
const NAME: &str = "What operators call it.";

/// All tables, in the order of the file.
pub const TABLES: &[Table] = &[
    Table {
        name: "orchestrator",
        daemon: "muster-orchestrator",
        keys: &[
            Key::built_in(
                "data",
                "\"/var/lib/muster/orchestrator\"",
                "Data directory: roster, workflows, the CA's key. Readable by its owner alone.",
            )
            .flag(),
            Key::built_in("listen", "\"0.0.0.0:8883\"", "Address and port that the broker listens on.").flag(),
            Key::example(
                "advertise",
                "\"muster.example:8883\"",
                "Address and port that join tokens tell components to connect to; several with commas, which are tried in turn. Without: that of `listen`, with 127.0.0.1 where it \
                 listens on all addresses.",
            )
            .flag(),
            Key::example(
                "external-broker",
                "\"mqtt.example:8883\"",
                "The address of a broker that is not the embedded one, for everybody: members connect there, and at `listen` components \
                 only join. docs/brokers.md says what such a broker needs.",
            )
            .flag(),
            Key::example(
                "external-broker-config",
                "\"/etc/muster-broker\"",
                "A directory that is kept for that broker: its settings, certificate and key, and an access list that follows the \
                 roster. The broker has to read it again whenever it changes.",
            )
            .flag(),
            Key::example("external-broker-kind", "\"mosquitto\"", "For which broker that directory is: mosquitto or emqx."),
            Key::built_in(
                "certificate-lifetime",
                "\"30d\"",
                "How long a component's certificate holds; it renews itself at half of that, a tenth earlier or later.",
            )
            .flag(),
            Key::example(
                "ca-passphrase-file",
                "\"/run/secrets/muster-ca-passphrase\"",
                "File with a passphrase: the CA's key is encrypted at rest with it, from the first start on which it is given.",
            )
            .flag(),
            Key::example(
                "ca-certificate",
                "\"/etc/muster/ca.pem\"",
                "The certificate of a CA of your own, such as an intermediate, for the first start; PEM. Its key has to be given, too.",
            )
            .flag(),
            Key::example(
                "ca-key",
                "\"/run/secrets/muster-ca-key.pem\"",
                "Its key; PEM, PKCS #8, Ed25519 or P-256; encrypted with the passphrase, or in the clear.",
            )
            .flag(),
            Key::built_in(
                "take-back-endpoints",
                "false",
                "Whether a machine whose component was evicted has its old label, and its history, at once when it joins anew. \
                 Otherwise an operator says so: `muster endpoint same`.",
            )
            .form(Form::Switch)
            .flag()
            .live(),
            Key::built_in(
                "keep-workflows",
                "\"31d\"",
                "How long workflows that have ended are kept, at least 31d. What they asked is kept as long as a repository keeps an answer.",
            )
            .live(),
            Key::example(
                "join-tokens",
                "\"/join\"",
                "Keep a join token for each type of component in a file below this directory: repository/token, pes-evaluator/token, \
                 pcs-agent/token. Whoever may read one may join with it. One that is revoked is not replaced.",
            )
            .flag(),
            Key::example(
                "database",
                "\"postgres://muster@db.example/orchestrator?sslmode=verify-full\"",
                "Keep everything in this PostgreSQL database, and not in a file of the data directory. Other orchestrators may share \
                 it: one is active, the others wait to take over. It is not the database of a repository. `ca-passphrase-file` has \
                 to be given, and is the same for all.",
            )
            .secret(),
            Key::example("database-file", "\"/run/secrets/muster-database\"", "A file with the URL of the database.").flag(),
        ],
    },
    Table {
        name: "repository",
        daemon: "muster-repository",
        keys: &[
            Key::built_in("data", "\"/var/lib/muster/repository\"", "Data directory: identity, outbox, and what is kept.").flag(),
            JOIN_TOKEN,
            JOIN_TOKEN_FILE,
            BROKER,
            Key::built_in("name", "\"repository\"", NAME),
            Key::example(
                "database",
                "\"postgres://muster@db.example/muster?sslmode=verify-full\"",
                "Keep observations, policies and verdicts in this PostgreSQL database, and not in a file of the data directory. Where \
                 its URL has a password, it is better in a file.",
            )
            .secret(),
            Key::example("database-file", "\"/run/secrets/muster-database\"", "A file with the URL of the database.").flag(),
            Key::built_in(
                "keep-observations",
                "\"400d\"",
                "How long observations are kept that hold no more, and the changes that ended them. What holds is kept, and so is \
                 what a verdict that is kept rests on.",
            )
            .live(),
            Key::example(
                "keep-observations-of",
                "{ \"linux:inetlisteningservers\" = \"30d\" }",
                "The same, for kinds of items.",
            )
            .form(Form::Table)
            .live(),
            Key::built_in("keep-verdicts", "\"400d\"", "How long verdicts are kept that hold no more.").live(),
            Key::built_in(
                "keep-evaluations",
                "\"30d\"",
                "How long evaluations are kept in which nothing was decided anew, and those as of a time in the past.",
            )
            .live(),
        ],
    },
    Table {
        name: "pes-evaluator",
        daemon: "muster-pes-evaluator",
        keys: &[
            Key::built_in(
                "data",
                "\"/var/lib/muster/pes-evaluator\"",
                "Data directory: identity, outbox, and policies that are in use.",
            )
            .flag(),
            JOIN_TOKEN,
            JOIN_TOKEN_FILE,
            BROKER,
            Key::built_in("name", "\"evaluator\"", NAME),
        ],
    },
    Table {
        name: "pcs-agent",
        daemon: "muster-pcs-agent",
        keys: &[
            Key::built_in(
                "data",
                "\"/var/lib/muster/pcs-agent\"",
                "Data directory: identity, outbox, schedules, and what was reported last.",
            )
            .flag(),
            JOIN_TOKEN,
            JOIN_TOKEN_FILE,
            BROKER,
            Key::example("name", "\"web-17\"", "What operators call it. Without: the endpoint's own name."),
            Key::built_in("root", "\"/\"", "Root directory of the endpoint.").flag(),
            Key::example(
                "tpm",
                "\"/dev/tpmrm0\"",
                "The TPM 2.0 that ties the endpoint to its machine, in builds with `--features tpm`.",
            )
            .flag(),
            Key::example(
                "budget",
                "\"cpu=20%,memory=64M,read=200M,time=60s\"",
                "What one task may cost this machine; what an operator asks for can only be less. Percent of one processor, memory for \
                 what is found and for a file, bytes that are read, time. What does not fit is cut off, and what depends on it is \
                 unknown, with that reason. Without: memory=256M,read=1G,time=5m.",
            )
            .flag()
            .live(),
            Key::example(
                "scripts-allowed-file",
                "\"/etc/muster/scripts\"",
                "A file with the scripts (SCE) of policies that may run on this machine, in a sandbox: a line for each, its SHA-256 \
                 and any words. Beside it, with .sig at the end of its name, is the signature that `ssh-keygen -Y sign -n muster-scripts \
                 -f KEY FILE` makes. It is read for every task. Without: no script runs.",
            ),
            Key::example(
                "scripts-signer",
                "\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…\"",
                "The public key that has to have signed that file, as OpenSSH writes it.",
            ),
        ],
    },
];

/// `docs/muster.toml`: every key, with what is built in, or with an example that is commented out.
pub fn muster_toml() -> String {
    let mut text = String::new();
    comment(
        &mut text,
        "Every key of `muster.toml`: what is built in, or, commented out, an example. A table for each daemon; a daemon reads its \
         own. Flags go before MUSTER_… variables, and these before this file. An unknown key is an error. `muster config check` \
         reads a file, `muster config show` says what holds and where it was given. On SIGHUP (`systemctl reload`) a daemon reads the \
         file again: what is marked so takes effect at once, of everything else its log says that it waits for the next start.",
    );
    for table in TABLES {
        write!(text, "\n[{}]\n", table.name).expect("text can be added to");
        for key in table.keys {
            let flag = if key.has_flag { format!("--{}, ", key.name) } else { String::new() };
            let live = if key.is_live { "; read again on SIGHUP" } else { "" };
            comment(&mut text, &format!("{} ({flag}{}{live})", key.about, key.variable()));
            let mark = if key.is_built_in { "" } else { "# " };
            writeln!(text, "{mark}{} = {}", key.name, key.value).expect("text can be added to");
        }
    }
    text
}

fn comment(text: &mut String, about: &str) {
    let mut line = String::from("#");
    for word in about.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}
