//! systemd's units, as systemd tells of them over D-Bus (org.freedesktop.systemd1(5)): one connection for all observations.
//! A signal says that something may have changed; what, the probes look at themselves.
//!
//! Where nobody is there to listen to, or the bus does not answer, it is tried again after 1 s, and twice as long each time,
//! up to 60 s. After that everything about units may have changed.
//!
//! Probes make systemd load units, and systemd tells of that as well: of units that come and go, and of units that they
//! name. So what is told of a unit counts if it is not what was told last, and coming and going alone is no hurry.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::hash::{DefaultHasher, Hasher as _};
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_core::Stream as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

use super::ways::{Teller, Told, Way};
use crate::limits::DBUS_SECONDS_MAX;
use crate::probe::systemd::{DESTINATION, MANAGER, MANAGER_PATH, SOCKET, UNIT};

const BUS: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// What the bus is to pass on.
const RULES: [&str; 7] = [
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='UnitNew'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='UnitRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',\
     member='UnitFilesChanged'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='Reloading'",
    "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',path_namespace='/org/freedesktop/systemd1/unit',arg0='org.freedesktop.systemd1.Unit'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.freedesktop.systemd1'",
];

/// The first pause after a connection that did not come or has ended, and the longest.
const PAUSE_LEAST: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_mins(1);
/// What is told within this time is told on once.
const GATHER: Duration = Duration::from_millis(100);
/// After this time units are looked at because one has come or gone.
const LATER: Duration = Duration::from_secs(30);
/// How often it is asked whether systemd is still there.
const PING: Duration = Duration::from_mins(1);
/// Who tells more within [`FLOOD`] is not listened to for [`PAUSE_MOST`]: a machine that starts all its units tells less.
const FLOOD_MAX: u32 = 5_000;
const FLOOD: Duration = Duration::from_secs(5);
/// Units of which it is known what was told last.
const SAID_MAX: usize = 16_384;

/// Why listening ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    #[error("no answer within {DBUS_SECONDS_MAX} s")]
    NoAnswer,
    #[error("the connection was closed")]
    Closed,
    #[error("another systemd is there now, or none")]
    Restarted,
    #[error("more than {FLOOD_MAX} signals within {} s", FLOOD.as_secs())]
    Flooded,
}

/// Listens to systemd, until it is dropped.
#[derive(Debug)]
pub(super) struct Units {
    is_heard: watch::Receiver<Option<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Units {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Units {
    /// None where there is no runtime to do it.
    pub(super) fn follow(teller: Teller) -> Option<Self> {
        let (tell_heard, is_heard) = watch::channel(None);
        let listening = listen_again_and_again(format!("unix:path={SOCKET}"), teller, tell_heard);
        Some(Self { is_heard, task: Handle::try_current().ok()?.spawn(listening) })
    }

    /// Whether systemd is listened to at present.
    pub(super) fn is_heard(&self) -> bool {
        *self.is_heard.borrow() == Some(true)
    }

    /// The same, nothing before the first attempt has ended.
    pub(super) fn known(&self) -> watch::Receiver<Option<bool>> {
        self.is_heard.clone()
    }
}

async fn listen_again_and_again(address: String, teller: Teller, is_heard: watch::Sender<Option<bool>>) {
    let mut pause = PAUSE_LEAST;
    loop {
        let Err(ended) = listen(&address, &teller, &is_heard).await;
        if is_heard.send_replace(Some(false)) == Some(true) {
            tracing::warn!(error = %ended, "systemd is not listened to: units are looked at again and again");
            pause = PAUSE_LEAST;
        } else {
            tracing::debug!(error = %ended, "systemd cannot be listened to");
        }
        if matches!(ended, Ended::Flooded) {
            pause = PAUSE_MOST;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// One connection, from its beginning to its end.
async fn listen(address: &str, teller: &Teller, is_heard: &watch::Sender<Option<bool>>) -> Result<Infallible, Ended> {
    let deadline = Duration::from_secs(DBUS_SECONDS_MAX);
    let builder = zbus::connection::Builder::address(address).method_timeout(deadline);
    let connection = timeout(deadline, builder.build()).await.map_err(|_| Ended::NoAnswer)??;
    for rule in RULES {
        connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &(rule,)).await?;
    }
    connection.call_method(Some(DESTINATION), MANAGER_PATH, Some(MANAGER), "Subscribe", &()).await?;
    let mut messages = MessageStream::from(connection.clone());
    is_heard.send_replace(Some(true));
    // What has changed until now was not told.
    teller.tell(Told::Way(Way::Units));
    let mut there = pin!(ask_whether_it_is_there(connection));
    let mut ear = Ear::new(Instant::now());
    loop {
        tokio::select! {
            message = next(&mut messages) => ear.hear(&message.ok_or(Ended::Closed)??, Instant::now())?,
            () = at(ear.due) => {
                ear.due = None;
                teller.tell(Told::Way(Way::Units));
            }
            Err(error) = &mut there => return Err(error.into()),
        }
    }
}

async fn next(messages: &mut MessageStream) -> Option<zbus::Result<Message>> {
    poll_fn(|context| Pin::new(&mut *messages).poll_next(context)).await
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// A bus that hangs says nothing, as one does on which nothing happens.
async fn ask_whether_it_is_there(connection: Connection) -> zbus::Result<Infallible> {
    loop {
        sleep(PING).await;
        connection.call_method(Some(DESTINATION), MANAGER_PATH, Some("org.freedesktop.DBus.Peer"), "Ping", &()).await?;
    }
}

/// What a signal leads to.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    /// Units are looked at.
    Now,
    /// Units are looked at, when it suits.
    Later,
}

/// Makes one of many signals.
#[derive(Debug)]
struct Ear {
    /// When units are to be looked at.
    due: Option<Instant>,
    /// What was told last, by unit.
    said: HashMap<u64, u64>,
    /// Since when signals are counted, and how many came.
    counted: (Instant, u32),
}

impl Ear {
    fn new(now: Instant) -> Self {
        Self { due: None, said: HashMap::new(), counted: (now, 0) }
    }

    fn hear(&mut self, message: &Message, now: Instant) -> Result<(), Ended> {
        if now.duration_since(self.counted.0) > FLOOD {
            self.counted = (now, 0);
        }
        self.counted.1 += 1;
        if self.counted.1 > FLOOD_MAX {
            return Err(Ended::Flooded);
        }
        let due = match self.meaning(message)? {
            Heard::Nothing => return Ok(()),
            Heard::Now => now + GATHER,
            Heard::Later => now + LATER,
        };
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        Ok(())
    }

    fn meaning(&mut self, message: &Message) -> Result<Heard, Ended> {
        let header = message.header();
        if message.message_type() != Type::Signal {
            return Ok(Heard::Nothing);
        }
        let interface = header.interface().map(zbus::names::InterfaceName::as_str).unwrap_or_default();
        let member = header.member().map(zbus::names::MemberName::as_str).unwrap_or_default();
        Ok(match (interface, member) {
            (MANAGER, "JobRemoved" | "UnitFilesChanged" | "Reloading") => Heard::Now,
            (MANAGER, "UnitNew" | "UnitRemoved") => Heard::Later,
            (PROPERTIES, "PropertiesChanged") => {
                let path = header.path().map(zbus::ObjectPath::as_str).unwrap_or_default();
                if self.is_new(path, message) { Heard::Now } else { Heard::Nothing }
            }
            (BUS, "NameOwnerChanged") => return Err(Ended::Restarted),
            _ => Heard::Nothing,
        })
    }

    /// Whether it is not what was told of this unit before.
    fn is_new(&mut self, path: &str, message: &Message) -> bool {
        let body = message.body();
        // Of its services, timers and so on nobody asks.
        if !body.deserialize_ignore_signature::<(&str,)>().is_ok_and(|(interface,)| interface == UNIT) {
            return false;
        }
        if self.said.len() >= SAID_MAX {
            self.said.clear();
        }
        let said = hash(&body.data()[..]);
        self.said.insert(hash(path), said) != Some(said)
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use zbus::Variant;

    fn of_manager(member: &str) -> Message {
        Message::signal(MANAGER_PATH, MANAGER, member).build(&("x.service", "/a")).unwrap()
    }

    fn of_unit(unit: &str, interface: &str, state: &str) -> Message {
        let changed = BTreeMap::from([("ActiveState", Variant::from(state))]);
        let path = format!("{MANAGER_PATH}/unit/{unit}");
        let signal = Message::signal(path, PROPERTIES, "PropertiesChanged");
        signal.build(&(interface, changed, Vec::<String>::new())).unwrap()
    }

    #[test]
    fn a_job_a_reload_or_another_state_is_looked_at_and_what_was_told_already_is_not() {
        let mut ear = Ear::new(Instant::now());
        let mut heard = |message: Message| ear.meaning(&message).unwrap();
        for (member, wanted) in [
            ("JobRemoved", Heard::Now),
            ("UnitFilesChanged", Heard::Now),
            ("Reloading", Heard::Now),
            ("UnitNew", Heard::Later),
            ("UnitRemoved", Heard::Later),
            ("JobNew", Heard::Nothing),
        ] {
            assert_eq!(heard(of_manager(member)), wanted, "{member}");
        }
        assert_eq!(heard(of_unit("a", UNIT, "active")), Heard::Now);
        assert_eq!(heard(of_unit("a", UNIT, "active")), Heard::Nothing);
        assert_eq!(heard(of_unit("b", UNIT, "active")), Heard::Now);
        assert_eq!(heard(of_unit("a", UNIT, "failed")), Heard::Now);
        assert_eq!(heard(of_unit("a", UNIT, "active")), Heard::Now);
        assert_eq!(heard(of_unit("a", "org.freedesktop.systemd1.Timer", "x")), Heard::Nothing);
        let broken = Message::signal(MANAGER_PATH, PROPERTIES, "PropertiesChanged").build(&()).unwrap();
        assert_eq!(heard(broken), Heard::Nothing);
        let owner = Message::signal("/org/freedesktop/DBus", BUS, "NameOwnerChanged");
        assert!(matches!(ear.meaning(&owner.build(&(DESTINATION, "", "")).unwrap()), Err(Ended::Restarted)));
    }

    #[test]
    fn many_signals_are_one_and_a_flood_ends_it() {
        let began = Instant::now();
        let mut ear = Ear::new(began);
        ear.hear(&of_manager("UnitNew"), began).unwrap();
        assert_eq!(ear.due, Some(began + LATER));
        let job = of_manager("JobRemoved");
        for _ in 0..100 {
            ear.hear(&job, began).unwrap();
        }
        // What is in a hurry does not wait for what is not, nor is it put off.
        assert_eq!(ear.due, Some(began + GATHER));
        ear.hear(&job, began + GATHER / 2).unwrap();
        assert_eq!(ear.due, Some(began + GATHER));
        let mut flood = (0..2 * FLOOD_MAX).map(|_| ear.hear(&job, began));
        assert!(flood.any(|heard| matches!(heard, Err(Ended::Flooded))));
        ear.hear(&job, began + FLOOD * 2).unwrap();
    }

    #[tokio::test]
    async fn a_bus_that_is_not_there_or_closes_is_tried_again_after_a_longer_time_each() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bus");
        let (told, mut heard) = tokio::sync::mpsc::channel(8);
        let (tell_heard, mut is_heard) = watch::channel(None);
        let teller = Teller::new(told, Arc::<AtomicBool>::default());
        let address = format!("unix:path={}", path.display());
        let listening = tokio::spawn(listen_again_and_again(address, teller, tell_heard));
        let patience = Duration::from_mins(1);
        let known = timeout(patience, is_heard.wait_for(Option::is_some)).await.unwrap().map(|known| *known);
        assert_eq!(known.unwrap(), Some(false));
        let bus = tokio::net::UnixListener::bind(&path).unwrap();
        let mut times = Vec::new();
        while times.len() < 3 {
            drop(timeout(patience, bus.accept()).await.unwrap().unwrap());
            times.push(Instant::now());
        }
        // After 1 s it was there, then come 2 s and 4 s.
        assert!(times[2].duration_since(times[0]) > Duration::from_millis(5_900), "{times:?}");
        assert!(heard.try_recv().is_err(), "who is not listened to tells nothing");
        listening.abort();
    }
}
