//! Pausing a collector: it looks at nothing until a time, and says so. What it is asked meanwhile waits.
//!
//! The collector is told at once, after every handshake and with the answer to every heartbeat: what it may have missed it
//! hears again, and what has run out ends at both sides by the clock.

use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{HeartbeatResponse, Success};

use super::roster::Component;
use super::{Action, Core};

/// Days for which a collector may be paused: who is forgotten looks again some day.
const DAYS_MAX: i64 = 7;

impl Component {
    /// Until when it looks at nothing, if it does not at this time.
    pub(super) fn paused_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.paused_until.filter(|until| *until > now)
    }
}

impl Core {
    /// Has a collector look at nothing until a time; none: it goes on now.
    pub fn pause(
        &mut self,
        id: ComponentId,
        until: Option<Timestamp>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Vec<Action>, Fault> {
        let component = self.named(id)?;
        if component.component_type != ComponentType::PostureCollectionService || !component.is_member() {
            let text = format!("{} is no collector that is in: only those can be paused", component.name);
            return Err(Fault::new(FaultCode::TargetUnknown, text));
        }
        if let Some(until) = until {
            if until <= now {
                return Err(Fault::new(FaultCode::Malformed, "a pause ends in the future"));
            }
            if until.duration_since(now) > SignedDuration::from_hours(24 * DAYS_MAX) {
                let text = format!("a collector is paused for {DAYS_MAX} days at most");
                return Err(Fault::new(FaultCode::Malformed, text));
            }
        } else if component.paused_at(now).is_none() {
            return Err(Fault::new(FaultCode::TargetUnknown, format!("{} is not paused", component.name)));
        }
        component.paused_until = until;
        let (code, text) = match until {
            Some(until) => {
                let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                ("collect.paused", format!("{} looks at nothing until {until:.0}{why}", component.name))
            }
            None => ("collect.resumed", format!("{} goes on", component.name)),
        };
        let store = Action::StoreComponent(Box::new(component.clone()));
        Ok(vec![store, Action::Pulse(id, self.pulse_of(id, now)), Action::Announce { code, text }])
    }

    /// A component's heartbeat is answered: when the next one is due, and until when it is to look at nothing. What it has
    /// missed it is asked again.
    pub fn answer(&mut self, sender: ComponentId, now: Timestamp) -> (HeartbeatResponse, Vec<Action>) {
        let pulse = HeartbeatResponse { interval_seconds: Some(self.pulse(sender)), ..self.pulse_of(sender, now) };
        (pulse, self.ask_missed(sender, now))
    }

    /// The same for a component that did not ask.
    pub(super) fn pulse_of(&self, id: ComponentId, now: Timestamp) -> HeartbeatResponse {
        let paused_until = self.components.get(&id).and_then(|component| component.paused_at(now));
        HeartbeatResponse { response: Success::Success, interval_seconds: None, paused_until }
    }
}
