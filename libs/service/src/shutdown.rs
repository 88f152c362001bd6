//! Stopping: one flag that every task of a process watches.

use tokio::sync::watch;

use crate::supervisor;

/// The watching side; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// The side that stops.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// A flag that is not set yet.
pub fn channel() -> (Stopper, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Shutdown(receiver))
}

impl Stopper {
    /// Everything ends.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when everything is to end, or when nobody is left to say so.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|is_stopped| *is_stopped).await;
    }

    /// What this comes to, or nothing where everything is to end first.
    pub async fn unless_requested<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.requested() => None,
            done = wait => Some(done),
        }
    }
}

/// A flag that Ctrl-C or SIGTERM sets. Must be called inside a tokio runtime.
pub fn on_signal() -> Shutdown {
    let (stopper, shutdown) = channel();
    tokio::spawn(async move {
        signal().await;
        supervisor::stopping();
        stopper.stop();
    });
    shutdown
}

/// Returns on Ctrl-C or SIGTERM.
pub async fn signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
