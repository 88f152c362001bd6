//! Which repository is asked. A request names one, and those that keep the same: of these the one that answered last is asked
//! first, and another where it does not answer or cannot.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, Context, RequestError};
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{ContentRequest, EvaluationRequest, Message, QueryRequest};
use proto::topic::Topic;
use service::content::{ContentStore, Patience};

/// Seconds to wait for an answer where somebody else can be asked.
const NEXT_SECONDS: u64 = 5;
/// Seconds to wait for an answer where nobody else can, or everybody was asked.
const ANSWER_SECONDS: u64 = 15;
/// How long to wait where a repository does not have a policy, or is busy.
const NOT_YET: Duration = Duration::from_secs(2);
/// How long it is asked again: work of which nobody says anything for 30 seconds goes to another evaluator.
const NOT_YET_MAX: Duration = Duration::from_secs(20);
/// How often everybody is asked.
const ROUNDS: usize = 3;
/// Repositories that are asked, however many a request names.
const REPOSITORIES_MAX: usize = 16;

pub(crate) struct Repositories {
    bus: Bus,
    /// The one that answered last.
    answered: Mutex<Option<ComponentId>>,
}

impl Repositories {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus, answered: Mutex::default() }
    }

    /// Asks what is stored; again, or somebody else, where a repository is busy or silent.
    pub(crate) async fn ask<Q: Message, A: Message>(
        &self,
        request: &EvaluationRequest,
        question: &Q,
        context: Context,
    ) -> Result<A, Fault> {
        let mut last = None;
        for (repository, patience) in self.tries(request) {
            // Whatever is asked of what is stored, it is a query.
            let ask = directed::<QueryRequest>(repository, self.bus.own());
            match self.bus.request(&ask, question, context, patience).await {
                Ok(answer) => {
                    self.has_answered(repository);
                    return Ok(answer);
                }
                Err(RequestError::Fault(fault)) if !fault.code.is_retryable() => return Err(fault),
                Err(error) => last = Some(error.to_string()),
            }
        }
        Err(Fault::new(FaultCode::Timeout, format!("the repository does not answer: {}", last.unwrap_or_default())))
    }

    /// The request's policy: from here, or from a repository.
    pub(crate) async fn policy(
        &self,
        content: &ContentStore,
        request: &EvaluationRequest,
        context: Context,
    ) -> Result<Arc<Vec<u8>>, Fault> {
        if let Some(found) = content.find(&request.content.sha256) {
            return Ok(found);
        }
        let (began, mut last) = (Instant::now(), Fault::new(FaultCode::ContentUnavailable, "nobody was asked"));
        // A policy that was just imported, by an orchestrator that was restarted since, may be on its way to it.
        let again = std::iter::from_fn(|| (began.elapsed() < NOT_YET_MAX).then(|| self.tries(request))).flatten();
        for (repository, answer) in again {
            let ask = directed::<ContentRequest>(repository, self.bus.own());
            let patience = Patience { answer, tries: 1 };
            match content.fetch_within(&self.bus, &ask, &request.content, context, patience).await {
                Ok(bytes) => {
                    self.has_answered(repository);
                    return Ok(bytes);
                }
                Err(fault) if !fault.code.is_retryable() => return Err(fault),
                Err(fault) => {
                    if fault.code != FaultCode::Timeout {
                        tokio::time::sleep(NOT_YET).await;
                    }
                    last = fault;
                }
            }
        }
        Err(last)
    }

    fn has_answered(&self, repository: ComponentId) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(repository);
    }

    fn tries(&self, request: &EvaluationRequest) -> Vec<(ComponentId, Duration)> {
        let answered = *self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        tries(request.repository, &request.stand_ins, answered)
    }
}

/// Whom to ask in turn, and how long to wait for each.
fn tries(first: ComponentId, stand_ins: &[ComponentId], answered: Option<ComponentId>) -> Vec<(ComponentId, Duration)> {
    let mut all = vec![first];
    for stand_in in stand_ins {
        if all.len() < REPOSITORIES_MAX && !all.contains(stand_in) {
            all.push(*stand_in);
        }
    }
    if let Some(at) = all.iter().position(|repository| Some(*repository) == answered) {
        all[..=at].rotate_right(1);
    }
    let seconds = |round: usize| if round == 0 && all.len() > 1 { NEXT_SECONDS } else { ANSWER_SECONDS };
    let round = |round| all.iter().map(move |repository| (*repository, Duration::from_secs(seconds(round))));
    (0..ROUNDS).flat_map(round).collect()
}

fn directed<M: Message>(to: ComponentId, from: ComponentId) -> Topic {
    Topic::Directed { to, operation: M::KIND.to_owned(), from }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(number: u128) -> ComponentId {
        format!("0190b6a0-7c1e-7000-8000-{number:012}").parse().expect("an id")
    }

    fn asked(stand_ins: &[u128], answered: Option<u128>) -> Vec<(ComponentId, u64)> {
        let stand_ins: Vec<ComponentId> = stand_ins.iter().copied().map(repository).collect();
        let tries = tries(repository(1), &stand_ins, answered.map(repository));
        tries.into_iter().map(|(repository, patience)| (repository, patience.as_secs())).collect()
    }

    #[test]
    fn one_repository_is_asked_three_times_with_patience() {
        let alone = [(repository(1), 15); 3];
        assert_eq!(asked(&[], None), alone);
        // Another that once answered keeps something else.
        assert_eq!(asked(&[], Some(2)), alone);
        assert_eq!(asked(&[1, 1], None), alone);
    }

    #[test]
    fn of_several_each_is_asked_soon_and_the_one_that_answered_last_is_the_first() {
        let rounds = |order: [u128; 3]| {
            [5, 15, 15].into_iter().flat_map(move |seconds| order.map(|one| (repository(one), seconds)))
        };
        assert_eq!(asked(&[2, 3], None), rounds([1, 2, 3]).collect::<Vec<_>>());
        assert_eq!(asked(&[2, 3], Some(3)), rounds([3, 1, 2]).collect::<Vec<_>>());
        assert_eq!(asked(&[2, 3], Some(9)), rounds([1, 2, 3]).collect::<Vec<_>>());
    }

    #[test]
    fn a_request_that_names_very_many_is_bounded() {
        assert_eq!(asked(&(2..1_000).collect::<Vec<_>>(), None).len(), REPOSITORIES_MAX * ROUNDS);
    }
}
