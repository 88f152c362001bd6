//! `muster`: the operator's command.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done (for evaluations: everything passed), 2 something failed or
//! is unknown, 1 an error, 64 wrong words on the command line (for `muster scap` 100 and 101, as `oscap`).

use std::process::ExitCode;

use clap::Parser as _;

mod admission;
mod audit;
mod backup;
mod broker;
mod ca;
mod cli;
mod client;
mod commands;
mod config;
mod drop_in;
mod endpoint;
mod exit;
mod measure;
mod metrics;
mod policy;
mod query;
mod show;
mod simulate;
mod tasks;
mod transactions;
mod up;
mod verify;
mod versions;

service::allocator!();

fn main() -> ExitCode {
    // The collector in `muster up` runs an allowed script by starting this program.
    pcs_agent::script::run_if_asked();
    service::process::take_small_pages();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            let _ = error.print();
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(exit::wrong_words(&error)) };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            show::error(&error);
            ExitCode::from(exit::ERROR)
        }
    }
}
