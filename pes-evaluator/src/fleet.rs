//! Verdicts on many endpoints, put into messages: what is decided in the same words is there once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::limits::{FLEET_ENDPOINTS_MAX, FLEET_RESULTS_BYTES};
use proto::message::{EndpointResults, FleetEvidence, FleetResults};
use proto::verdict::{EvaluationSummary, RuleResult};
use scap::memo::Decision;

use crate::Task;
use crate::deciding::{Decided, Prepared};

/// Bytes of a report's hash with what is around it, and of a position, in JSON.
const REPORT_BYTES: usize = 100;
const POSITION_BYTES: usize = 6;
/// Bytes of a summary, about.
const SUMMARY_BYTES: usize = 2_000;

/// Messages in the making.
pub(crate) struct Fleet<'task> {
    task: &'task Task,
    prepared: &'task Prepared,
    message: FleetResults,
    /// Decisions that are in the message, by their place in memory, where `kept` keeps them.
    decisions: HashMap<usize, Stated>,
    kept: Vec<Arc<Decision>>,
    /// Objects that are in the message, by their position in what the policy reads.
    objects: HashMap<usize, u32>,
    bytes: usize,
}

/// A decision that is in the message.
struct Stated {
    position: u32,
    /// The objects that it names, by their position in what the policy reads.
    objects: Box<[usize]>,
}

/// Where it is in memory.
fn place(decision: &Arc<Decision>) -> usize {
    Arc::as_ptr(decision).addr()
}

fn size_of(result: &RuleResult) -> usize {
    serde_json::to_vec(result).map_or(0, |json| json.len())
}

fn position(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl<'task> Fleet<'task> {
    pub(crate) fn new(task: &'task Task, prepared: &'task Prepared) -> Self {
        Self {
            task,
            prepared,
            message: nothing(task),
            decisions: HashMap::new(),
            kept: Vec::new(),
            objects: HashMap::new(),
            bytes: 0,
        }
    }

    /// By what they are decided.
    pub(crate) fn prepared(&self) -> &'task Prepared {
        self.prepared
    }

    /// Whether this goes into the message, too. What does not go into one that is empty is sent in parts.
    pub(crate) fn has_room_for(&self, decided: &Decided) -> bool {
        let new = decided.decisions.iter().filter(|(_, decision)| !self.decisions.contains_key(&place(decision)));
        let bytes: usize = new.map(|(_, decision)| size_of(&decision.result)).sum();
        let endpoint = POSITION_BYTES * (2 * decided.decisions.len() + 2 * decided.reports.len()) + SUMMARY_BYTES;
        self.bytes + bytes + endpoint <= FLEET_RESULTS_BYTES && self.message.endpoints.len() < FLEET_ENDPOINTS_MAX
    }

    /// Adds what was decided on an endpoint.
    pub(crate) fn add(&mut self, decided: &Decided, summary: EvaluationSummary) {
        let mut results = Vec::with_capacity(decided.decisions.len());
        let mut evidence: BTreeMap<&str, FleetEvidence> = BTreeMap::new();
        for (_, decision) in &decided.decisions {
            let stated = match self.decisions.entry(place(decision)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    let result = &decision.result;
                    self.bytes += size_of(result);
                    self.message.results.push(result.clone());
                    self.kept.push(Arc::clone(decision));
                    vacant.insert(Stated {
                        position: position(self.message.results.len() - 1),
                        objects: result.objects.iter().filter_map(|object| self.prepared.position(object)).collect(),
                    })
                }
            };
            results.push(stated.position);
            for object in &stated.objects {
                let Some(report) = decided.reports.get(*object).and_then(Option::as_ref) else { continue };
                let at = *self.objects.entry(*object).or_insert_with(|| {
                    let key = self.prepared.objects()[*object].clone();
                    self.bytes += key.0.len() + POSITION_BYTES;
                    self.message.objects.push(key);
                    position(self.message.objects.len() - 1)
                });
                let of_report = || FleetEvidence { report: report.as_ref().clone(), objects: Vec::new() };
                evidence.entry(report.as_str()).or_insert_with(of_report).objects.push(at);
            }
        }
        let mut evidence: Vec<FleetEvidence> = evidence.into_values().collect();
        for FleetEvidence { objects, .. } in &mut evidence {
            objects.sort_unstable();
            objects.dedup();
            self.bytes += REPORT_BYTES + POSITION_BYTES * objects.len();
        }
        self.bytes += POSITION_BYTES * results.len() + SUMMARY_BYTES + summary.verdicts.len();
        self.message.endpoints.push(EndpointResults { results, evidence, summary });
    }

    /// What is there, if anything is.
    pub(crate) fn take(&mut self) -> Option<FleetResults> {
        let message = std::mem::replace(&mut self.message, nothing(self.task));
        self.decisions.clear();
        self.kept.clear();
        self.objects.clear();
        self.bytes = 0;
        (!message.endpoints.is_empty()).then_some(message)
    }
}

fn nothing(task: &Task) -> FleetResults {
    FleetResults {
        request: task.request.request,
        task: task.asked_by.clone(),
        results: Vec::new(),
        objects: Vec::new(),
        endpoints: Vec::new(),
    }
}
