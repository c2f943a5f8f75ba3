//! `isobench validate SCENARIO...`: everything that `run` would say of the files, without running them.

use std::path::PathBuf;

use clap::Args;

use super::pace::rough;
use super::scenarios::load_all;
use super::{CliError, Ended, output};
use crate::scenario::Options;

/// The arguments of `isobench validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Scenario files
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<PathBuf>,
    /// Check with a value of the file replaced, as `run` would take it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub(super) fn run(args: ValidateArgs) -> Result<Ended, CliError> {
    let options = Options { overrides: args.overrides, ..Options::default() };
    let mut text = String::new();
    for loaded in load_all(&args.scenarios, &options)? {
        let scenario = &loaded.scenario;
        text.push_str(&format!(
            "{}: ok, {} cases, {} + {} blocks, {} checks, about {}\n",
            loaded.path.display(),
            scenario.cases.len(),
            scenario.run.warmup_blocks,
            scenario.run.blocks,
            scenario.checks.len(),
            rough(scenario.estimate()),
        ));
    }
    output::print(&text)?;
    Ok(Ended::Pass)
}
