//! A PostgreSQL server of a test's own: over TLS and with a password, and it can be killed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::eventually;

/// Its user's password.
pub const PASSWORD: &str = "corr/ect horse";

/// A server that ends with the test.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
}

/// Where Debian has the programs of the newest version: not on everybody's path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let programs = versions.map(|entry| entry.path().join("bin")).filter(|path| path.join("initdb").exists());
    let newest = programs.max_by_key(|path| version(path));
    if newest.is_none() {
        assert!(std::env::var_os("MUSTER_REQUIRE_POSTGRES").is_none(), "PostgreSQL is required here and is missing");
        let _ = writeln!(std::io::stderr(), "SKIPPED: PostgreSQL is not installed: nothing was tested on it");
    }
    newest
}

impl Postgres {
    /// A server that is not started yet, with the database `muster` of a user who may do nothing else; `None` where PostgreSQL is
    /// not installed.
    pub async fn prepared() -> Option<Self> {
        let programs = programs()?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let server = Self { programs, directory, port: crate::processes::free_port() };
        if geteuid().is_root() {
            server.run_as_root("chown", &["postgres", &server.path("")]);
        }
        server.run("initdb", &["-D", &server.path("data"), "-A", "trust", "-U", "postgres", "--no-sync"]);
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate =
            CertificateParams::new(names).and_then(|params| params.self_signed(&key)).expect("a certificate");
        server.write("data/server.key", &key.serialize_pem());
        server.write("data/server.crt", &certificate.pem());
        server.write("data/pg_hba.conf", "local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
        server.start().await;
        for statement in [
            format!("CREATE ROLE muster LOGIN NOSUPERUSER PASSWORD '{PASSWORD}'"),
            "CREATE DATABASE muster OWNER muster".to_owned(),
        ] {
            let socket = server.path("");
            let port = server.port.to_string();
            server.run("psql", &["-h", &socket, "-p", &port, "-U", "postgres", "-q", "-c", &statement]);
        }
        server.kill();
        Some(server)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// For the server's eyes only, as it demands.
    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode is set");
        if geteuid().is_root() {
            self.run_as_root("chown", &["postgres", &path]);
        }
    }

    fn run_as_root(&self, program: &str, words: &[&str]) {
        let status = Command::new(program).args(words).current_dir(self.directory.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{program}");
    }

    /// Runs one of its programs, never as root.
    fn run(&self, program: &str, words: &[&str]) {
        let output = self.command(program).args(words).output().expect("the program runs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c ssl=on -c fsync=off -c max_connections=40",
            self.port,
            self.path("")
        );
        let (data, log) = (self.path("data"), self.path("log"));
        // What it had in memory before it was killed may be there for a moment.
        eventually("the server starts", async || {
            let words = ["-D", &data, "-l", &log, "-w", "-o", &options, "start"];
            let status = self.command("pg_ctl").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success()).then_some(())
        })
        .await;
    }

    /// `kill -9`; the processes of its connections end by themselves.
    pub fn kill(&self) {
        let file = std::fs::read_to_string(self.path("data/postmaster.pid")).unwrap_or_default();
        let id = file.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process(id, Signal::KILL);
        }
    }

    /// How to reach the database, with a password, the server's certificate checked.
    pub fn url(&self, password: &str) -> String {
        let password: String = password.replace('/', "%2F").replace(' ', "%20");
        let certificate = self.path("data/server.crt");
        format!(
            "postgres://muster:{password}@localhost:{}/muster?sslmode=verify-full&sslrootcert={certificate}",
            self.port
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
