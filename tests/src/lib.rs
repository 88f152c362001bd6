//! Helpers of the system tests.

use jiff::Timestamp;
use oval::resolve::Resolver;
use pcs_agent::host::Host;
use pcs_agent::probe::Probes;
use scap::evaluate::{Evaluation, Evidence, Observed, evaluate};

/// The shipped baseline.
pub const BASELINE: &[u8] = include_bytes!("../../orchestrator/policies/muster-baseline-linux-ds.xml");

/// Assesses a root without any service: read, compile, collect, evaluate.
pub fn assess(data_stream: &[u8], profile: Option<&str>, root: &str) -> Evaluation {
    let policy = scap::datastream::read(data_stream.to_vec()).expect("the data stream can be read");
    let compiled = scap::compile::compile(&policy, profile).expect("the profile exists");
    let host = Host::new(root);
    let now = Timestamp::now();
    let mut resolver = Resolver::new(&compiled.collection, Probes::new(&host), now);
    let mut evidence = Evidence::default();
    for key in &compiled.collection.report {
        let collected_object = resolver.object(key);
        evidence.observations.insert(key.clone(), Observed { collected_object, collected: now });
    }
    evaluate(&compiled, &evidence, now)
}
