//! A short campaign of faults; the long one is a bench.

use system_tests::faults::{Campaign, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_holds_after_a_storm_of_faults() {
    let campaign = Campaign::new(25, 3);
    let outcome = run(&campaign).await;
    assert!(outcome.is_ok(), "seed {}: {outcome:?}", campaign.seed);
}
