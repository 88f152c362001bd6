//! The real Mosquitto, with what `muster broker config` writes for it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use service::identity::Identity;

use crate::processes::{binaries, echo, free_port};
use crate::{Installation, eventually};

/// Where Debian has it: not on everybody's path.
const PROGRAMS: [&str; 2] = ["mosquitto", "/usr/sbin/mosquitto"];

/// The program, if it is installed. Where it is not, says that a test did nothing, past the
/// capture of its output; CI demands that it is.
fn program() -> Option<&'static str> {
    let program = PROGRAMS.into_iter().find(|program| Command::new(program).arg("-h").output().is_ok());
    if program.is_none() {
        use std::io::Write as _;
        assert!(std::env::var_os("MUSTER_REQUIRE_MOSQUITTO").is_none(), "mosquitto is required here and is missing");
        let _ = writeln!(std::io::stderr(), "SKIPPED: `mosquitto` is not installed: nothing was tested on it");
    }
    program
}

/// Runs `muster broker config` with more words.
pub fn broker_config(installation: &Installation, out: &Path, more: &[&str]) -> Output {
    Command::new(binaries().join("muster"))
        .args(["broker", "config", "--data"])
        .arg(installation.data.path())
        .arg("--out")
        .arg(out)
        .args(more)
        .output()
        .expect("muster runs")
}

/// A broker that ends with the test.
#[derive(Debug)]
pub struct Mosquitto {
    child: Child,
    /// Where its configuration is.
    pub directory: PathBuf,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
}

impl Mosquitto {
    /// Starts it for an installation; `None` where it is not installed.
    pub async fn start(installation: &Installation) -> Option<Self> {
        let program = program()?;
        // A port that is free may be taken before Mosquitto has it.
        for _ in 0..5 {
            let started = Self::start_at(free_port(), program, installation).await;
            if started.is_some() {
                return started;
            }
        }
        panic!("mosquitto does not start: see what it said");
    }

    /// `None` where it ends instead of listening.
    async fn start_at(port: u16, program: &str, installation: &Installation) -> Option<Self> {
        // A name that has to be kept together in every file.
        let directory = installation.data.path().join("the broker");
        configure(installation, &directory, port);
        let config = installation.data.path().join("mosquitto.conf");
        Self::run(directory, config, port, program).await
    }

    /// Starts it with a directory that somebody keeps for it, once that is written; `None` where it is not installed.
    pub async fn over(directory: PathBuf, port: u16) -> Option<Self> {
        let program = program()?;
        eventually("the broker's directory is written", async || {
            let is_there = |name: &str| directory.join(name).exists();
            (is_there("mosquitto.conf") && is_there("acl")).then_some(())
        })
        .await;
        let config = directory.with_extension("conf");
        Some(Self::run(directory, config, port, program).await.expect("mosquitto listens"))
    }

    /// Runs it with the configuration in a directory; `None` where it ends instead of listening.
    async fn run(directory: PathBuf, config: PathBuf, port: u16, program: &str) -> Option<Self> {
        // Started by root it would become another user, who cannot read a test's files.
        let text = std::fs::read_to_string(directory.join("mosquitto.conf")).expect("the configuration is there");
        std::fs::write(&config, text + "\nuser root\n").expect("a file is written");
        let mut child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mosquitto starts");
        if let Some(stderr) = child.stderr.take() {
            echo(program, stderr);
        }
        let mut mosquitto = Self { child, directory, port };
        let is_listening = eventually("mosquitto listens or ends", async || {
            if mosquitto.child.try_wait().expect("a child can be asked").is_some() {
                return Some(false);
            }
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| true)
        })
        .await;
        is_listening.then_some(mosquitto)
    }

    /// The component, with this broker as the one that it connects to.
    #[must_use]
    pub fn reach(&self, identity: Identity) -> Identity {
        Identity { host: "127.0.0.1".to_owned(), port: self.port, ..identity }
    }

    /// Writes its configuration anew, as the roster is now, and has it read.
    pub fn reload(&self, installation: &Installation) {
        configure(installation, &self.directory, self.port);
        self.read_again();
    }

    /// Whether it is installed; says loudly where it is not.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has it read its access list again.
    pub fn read_again(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(id, rustix::process::Signal::HUP).expect("the process is there");
    }
}

fn configure(installation: &Installation, directory: &Path, port: u16) {
    let listen = format!("127.0.0.1:{port}");
    let words = ["--for", "mosquitto", "--host", "127.0.0.1", "--host", "mqtt.example", "--listen", &listen];
    let output = broker_config(installation, directory, &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}
