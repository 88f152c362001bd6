//! A campaign of faults: `cargo bench -p system-tests --bench faults`.
//!
//! `MUSTER_FAULTS` faults (1,000 unless told) of the seed `MUSTER_FAULT_SEED` (1 unless told); `MUSTER_FAULT_KINDS=kill,hold`
//! makes only these, and `MUSTER_FAULT_KEEP=DIR` leaves there what the processes have kept and said. Ends with what does
//! not hold, if something does not.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints")]

use std::process::ExitCode;

use system_tests::faults::{Campaign, Kind, run};

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

fn main() -> ExitCode {
    let count = usize::try_from(number("MUSTER_FAULTS", 1_000)).expect("a number of faults");
    let mut campaign = Campaign::new(count, number("MUSTER_FAULT_SEED", 1));
    if let Ok(kinds) = std::env::var("MUSTER_FAULT_KINDS") {
        let kind = |name: &str| Kind::parse(name).unwrap_or_else(|| panic!("no kind of fault is called `{name}`"));
        campaign.kinds = kinds.split(',').map(kind).collect();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(run(&campaign)) {
        Ok(report) => {
            println!("{report}\neverything holds");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{}", broken.report);
            eprintln!("BROKEN, with the seed {} and {count} faults: {}", campaign.seed, broken.what);
            ExitCode::FAILURE
        }
    }
}
