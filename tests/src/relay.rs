//! What a network attacker has: the way between a component and the listener. It sees every byte, and changes, repeats,
//! invents or stops what it wants to. It works on TLS records, which it can tell apart but not read.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is done to one record on its way.
#[derive(Debug, Clone)]
pub enum Tamper {
    /// One bit of it is another.
    Change,
    /// It comes twice.
    Repeat,
    /// These bytes come before it.
    Insert(Vec<u8>),
    /// It does not come.
    Swallow,
    /// It comes after the next one.
    Swap,
}

/// Which way a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the component to the listener.
    Up,
    /// And back.
    Down,
}

/// A relay on loopback.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listener: String,
    is_recording: bool,
    seen: Mutex<Seen>,
    is_open: watch::Sender<bool>,
    is_flowing: watch::Sender<bool>,
}

/// What came by, and what happens to what comes next; up, and down.
#[derive(Debug, Default)]
struct Seen {
    recorded: [Vec<u8>; 2],
    next: [Option<Tamper>; 2],
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Before the listener at this address.
    pub async fn before(listener: &str) -> io::Result<Self> {
        Self::new(listener, true).await
    }

    /// The same, and it does not keep what comes by.
    pub async fn forgetful(listener: &str) -> io::Result<Self> {
        Self::new(listener, false).await
    }

    async fn new(listener: &str, is_recording: bool) -> io::Result<Self> {
        let own = TcpListener::bind("127.0.0.1:0").await?;
        let address = own.local_addr()?.to_string();
        let (is_open, is_flowing) = (watch::Sender::new(true), watch::Sender::new(true));
        let listener = listener.to_owned();
        let shared = Arc::new(Shared { listener, is_recording, seen: Mutex::default(), is_open, is_flowing });
        tokio::spawn(accept(own, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// What the next record to the listener suffers.
    pub fn tamper(&self, tamper: Tamper) {
        self.tamper_on(Way::Up, tamper);
    }

    /// What the next record that goes this way suffers.
    pub fn tamper_on(&self, way: Way, tamper: Tamper) {
        self.shared.seen().next[way as usize] = Some(tamper);
    }

    /// All that came by: to the listener, and from it.
    pub fn recorded(&self) -> (Vec<u8>, Vec<u8>) {
        let [up, down] = self.shared.seen().recorded.clone();
        (up, down)
    }

    /// Ends every connection, and lets none through.
    pub fn block(&self) {
        self.shared.is_open.send_replace(false);
    }

    /// Lets them through again.
    pub fn unblock(&self) {
        self.shared.is_open.send_replace(true);
    }

    /// Carries nothing and ends nothing: neither side can tell that from a peer that has nothing to say.
    pub fn hold(&self) {
        self.shared.is_flowing.send_replace(false);
    }

    /// Carries on, with what waited first.
    pub fn go_on(&self) {
        self.shared.is_flowing.send_replace(true);
    }
}

async fn accept(own: TcpListener, shared: Arc<Shared>) {
    while let Ok((component, _)) = own.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut is_open = shared.is_open.subscribe();
            if *is_open.borrow_and_update() {
                tokio::select! {
                    _ = carry(component, &shared) => {}
                    _ = is_open.changed() => {}
                }
            }
        });
    }
}

async fn carry(component: TcpStream, shared: &Shared) -> io::Result<()> {
    let listener = TcpStream::connect(&shared.listener).await?;
    component.set_nodelay(true)?;
    listener.set_nodelay(true)?;
    let (mut of_component, mut to_component) = component.into_split();
    let (mut of_listener, mut to_listener) = listener.into_split();
    let up = carry_on(Way::Up, &mut of_component, &mut to_listener, shared);
    let down = carry_on(Way::Down, &mut of_listener, &mut to_component, shared);
    // An error of one direction ends both.
    tokio::try_join!(up, down).map(|_| ())
}

async fn carry_on(
    way: Way,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
) -> io::Result<()> {
    let mut is_flowing = shared.is_flowing.subscribe();
    // The record that is to come after the next one.
    let mut late = Vec::new();
    while let Some(record) = record(from).await? {
        let tamper = {
            let mut seen = shared.seen();
            if shared.is_recording {
                seen.recorded[way as usize].extend_from_slice(&record);
            }
            seen.next[way as usize].take()
        };
        let _ = is_flowing.wait_for(|is_flowing| *is_flowing).await;
        if matches!(tamper, Some(Tamper::Swap)) {
            late.extend(record);
            continue;
        }
        let mut bytes = tampered(record, tamper);
        bytes.append(&mut late);
        to.write_all(&bytes).await?;
    }
    let _ = is_flowing.wait_for(|is_flowing| *is_flowing).await;
    to.shutdown().await
}

fn tampered(mut record: Vec<u8>, tamper: Option<Tamper>) -> Vec<u8> {
    match tamper {
        None | Some(Tamper::Swap) => record,
        Some(Tamper::Change) => {
            let middle = record.len() / 2;
            record[middle] ^= 1;
            record
        }
        Some(Tamper::Repeat) => record.repeat(2),
        Some(Tamper::Insert(before)) => [before, record].concat(),
        Some(Tamper::Swallow) => Vec::new(),
    }
}

/// A whole TLS record; `None` at the end.
async fn record(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut record = vec![0; 5];
    match from.read_exact(&mut record).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let count = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + count, 0);
    from.read_exact(&mut record[5..]).await?;
    Ok(Some(record))
}
