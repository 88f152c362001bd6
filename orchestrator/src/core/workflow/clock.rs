//! A clock that is set back. What stands for a time that has not come yet was noted while the clock was ahead: nobody is to wait
//! until it comes.

use jiff::{SignedDuration, Timestamp};

use crate::core::{Action, Core};

/// Clocks are corrected by less than this all the time.
const SLEW: SignedDuration = SignedDuration::from_secs(1);

impl Core {
    /// Whoever was asked at a time that has not come yet is asked now, with as much time as it was to have: what was sent then
    /// is refused by those whose clocks are right.
    pub(in crate::core) fn mind_the_clock(&mut self, now: Timestamp) -> Vec<Action> {
        let is_ahead = |time: Timestamp| time.duration_since(now) > SLEW;
        for component in self.components.values_mut() {
            for time in [&mut component.heard, &mut component.said] {
                *time = time.map(|time| if is_ahead(time) { now } else { time });
            }
        }
        let (mut actions, mut again) = (Vec::new(), Vec::new());
        for workflow in self.workflows.values_mut().filter(|workflow| workflow.ended.is_none()) {
            if is_ahead(workflow.begun) {
                workflow.begun = now;
                actions.push(Action::StoreWorkflow(Box::new(workflow.header())));
            }
            for (position, responder) in workflow.responders.iter_mut().enumerate() {
                if !responder.state.is_open() || !is_ahead(responder.asked) {
                    continue;
                }
                let ahead = responder.asked.duration_since(now);
                responder.deadline = responder.deadline.saturating_sub(ahead).unwrap_or(now);
                (responder.asked, responder.again, responder.given) = (now, 0, Some(now));
                again.push((workflow.id, position, true));
            }
        }
        actions.extend(self.asked(again));
        actions
    }
}
