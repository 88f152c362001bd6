//! What a network attacker has: the way between a component and the listener. It sees every byte, and changes, repeats,
//! invents or stops what it wants to. It works on TLS records, which it can tell apart but not read.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is done to one record on its way to the listener.
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
    seen: Mutex<Seen>,
    is_open: watch::Sender<bool>,
}

/// What came by, and what happens to what comes next.
#[derive(Debug, Default)]
struct Seen {
    to_listener: Vec<u8>,
    from_listener: Vec<u8>,
    next: Option<Tamper>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Before the listener at this address.
    pub async fn before(listener: &str) -> io::Result<Self> {
        let own = TcpListener::bind("127.0.0.1:0").await?;
        let address = own.local_addr()?.to_string();
        let is_open = watch::Sender::new(true);
        let shared = Arc::new(Shared { listener: listener.to_owned(), seen: Mutex::default(), is_open });
        tokio::spawn(accept(own, Arc::clone(&shared)));
        Ok(Self { address, shared })
    }

    /// What the next record to the listener suffers.
    pub fn tamper(&self, tamper: Tamper) {
        self.shared.seen().next = Some(tamper);
    }

    /// All that came by: to the listener, and from it.
    pub fn recorded(&self) -> (Vec<u8>, Vec<u8>) {
        let seen = self.shared.seen();
        (seen.to_listener.clone(), seen.from_listener.clone())
    }

    /// Ends every connection, and lets none through.
    pub fn block(&self) {
        self.shared.is_open.send_replace(false);
    }

    /// Lets them through again.
    pub fn unblock(&self) {
        self.shared.is_open.send_replace(true);
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
    let up = async {
        while let Some(record) = record(&mut of_component).await? {
            let tamper = {
                let mut seen = shared.seen();
                seen.to_listener.extend_from_slice(&record);
                seen.next.take()
            };
            to_listener.write_all(&tampered(record, tamper)).await?;
        }
        to_listener.shutdown().await
    };
    let down = async {
        while let Some(record) = record(&mut of_listener).await? {
            shared.seen().from_listener.extend_from_slice(&record);
            to_component.write_all(&record).await?;
        }
        to_component.shutdown().await
    };
    // An error of one direction ends both.
    tokio::try_join!(up, down).map(|_| ())
}

fn tampered(mut record: Vec<u8>, tamper: Option<Tamper>) -> Vec<u8> {
    match tamper {
        None => record,
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
