//! Reports that wait together are stored together, for whichever back end includes this file: a statement, and a commit, cost more
//! than what is in them (ADR 42).

use proto::message::{CollectionResults, EvaluationResults, FleetResults, Message as _};

use super::super::super::{Incoming, Said, StoreError, Stored};
use super::keep_observations::speakers;
use super::told::Told;
use super::{SqlStore, added_nothing, firsts, is_known, reports, share};

impl SqlStore {
    /// Stores them in one transaction, or, if that fails, each in its own: because of which of them it was, each says by itself.
    pub(super) async fn record_each(&self, reports: &[Incoming<'_>]) -> Vec<Result<Stored, StoreError>> {
        match self.record_together(reports).await {
            Ok(stored) => stored,
            Err(error) if reports.len() == 1 => vec![Err(error)],
            Err(_) => {
                let mut stored = Vec::with_capacity(reports.len());
                for report in reports.chunks(1) {
                    stored.extend(self.record_together(report).await.unwrap_or_else(|error| vec![Err(error)]));
                }
                stored
            }
        }
    }

    async fn record_together(&self, reports: &[Incoming<'_>]) -> Result<Vec<Result<Stored, StoreError>>, StoreError> {
        let (mut seen, mut decided) = (Vec::new(), Vec::new());
        for (at, Incoming { said, from, report }) in reports.iter().enumerate() {
            match said {
                Said::Observations(results) => seen.push((at, (*results, *from))),
                Said::Verdicts(results) => decided.push((at, (Told::alone(results), *from, *report))),
                Said::FleetVerdicts(results) => {
                    decided.extend(Told::all(results).map(|told| (at, (told, *from, *report))));
                }
            }
        }
        let observations = self.prepared_observations(seen.iter().map(|(_, report)| *report)).await?;
        let (decided, told): (Vec<usize>, Vec<_>) = decided.into_iter().unzip();
        let verdicts = self.prepared_verdicts(told.into_iter()).await?;
        let mut tx = self.begin().await?;
        share(&mut tx).await?;
        let mut outcomes: Vec<Result<Stored, StoreError>> = reports.iter().map(|_| Ok(Stored::Again)).collect();
        let speakers = speakers(&mut tx, &observations).await?;
        for ((at, (results, from)), prepared) in seen.iter().zip(&observations) {
            let speaker = speakers.get(&prepared.endpoint_text);
            if speaker == Some(&prepared.origin_text) || is_known(&mut tx, *from).await? {
                continue;
            }
            outcomes[*at] = Err(match speaker {
                None => StoreError::Unassigned(results.endpoint),
                Some(_) => StoreError::NotAssigned(results.endpoint),
            });
        }
        let allowed: Vec<usize> = (0..reports.len()).filter(|at| outcomes[*at].is_ok()).collect();
        let first = firsts(&mut tx, allowed.iter().map(|at| reports[*at].from)).await?;
        let mut is_new = vec![false; reports.len()];
        allowed.into_iter().zip(first).for_each(|(at, first)| is_new[at] = first);
        let kept: Vec<_> = reports
            .iter()
            .zip(&is_new)
            .filter(|(_, is_new)| **is_new)
            .map(|(Incoming { said, from, report }, _)| match said {
                Said::Observations(results) => (*report, CollectionResults::KIND, results.task.as_ref(), *from),
                Said::Verdicts(results) => (*report, EvaluationResults::KIND, results.task.as_ref(), *from),
                Said::FleetVerdicts(results) => (*report, FleetResults::KIND, Some(&results.task), *from),
            })
            .collect();
        if kept.is_empty() {
            return Ok(outcomes);
        }
        let numbers = reports::keep(&mut tx, &kept).await?;
        let (places, new): (Vec<usize>, Vec<_>) =
            seen.iter().zip(&observations).map(|((at, _), it)| (*at, it)).filter(|(at, _)| is_new[*at]).unzip();
        let hashes = places.iter().map(|at| reports[*at].report);
        let recorded = self.keep_observations(&mut tx, &new, hashes, &numbers).await?;
        for (at, (change_count, changed)) in places.into_iter().zip(recorded.changes) {
            outcomes[at] = Ok(Stored::New { change_count, changed });
        }
        let (places, new): (Vec<usize>, Vec<_>) =
            decided.into_iter().zip(&verdicts).filter(|(at, _)| is_new[*at]).unzip();
        for at in &places {
            outcomes[*at] = Ok(added_nothing());
        }
        for (at, count) in places.into_iter().zip(self.keep_verdicts(&mut tx, &new).await?) {
            if let Ok(Stored::New { change_count, .. }) = &mut outcomes[at] {
                *change_count += count;
            }
        }
        tx.commit().await?;
        self.names.have_kind(recorded.with_kind);
        Ok(outcomes)
    }
}
