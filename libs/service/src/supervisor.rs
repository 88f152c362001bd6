//! What a service manager hears that started this process: that it runs, how it is, that it is alive (sd_notify(3)). Where nobody
//! listens, nothing is said.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service does what it is there for, or waits for what it needs.
pub fn ready() {
    notify("READY=1");
}

/// How it is, for people.
pub fn status(text: &str) {
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    notify(&format!("STATUS={line}"));
}

/// It ends by itself.
pub fn stopping() {
    notify("STOPPING=1");
}

/// Says again and again that the process is alive, if that is wanted: from a task, so that a runtime that is stuck is found out.
pub fn keep_alive() {
    let wanted: Option<u64> = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
    let is_ours = std::env::var("WATCHDOG_PID").map_or(true, |text| text == std::process::id().to_string());
    let Some(microseconds) = wanted.filter(|_| is_ours) else { return };
    let pause = Duration::from_micros(microseconds / 3).max(Duration::from_millis(10));
    tokio::spawn(async move {
        loop {
            notify("WATCHDOG=1");
            tokio::time::sleep(pause).await;
        }
    });
}

fn notify(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // A name that begins with `@` is in no file system.
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // Whoever does not read must not hold this process up.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager cannot be told `{text}`");
    }
}
