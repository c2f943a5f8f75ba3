//! `isobench report RUN_DIR`: summarises, judges and renders a run again from its raw data.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{self, Format};
use super::{CliError, Ended, judge};
use crate::record::RunRecord;
use crate::scenario::{Options, Scenario};

/// The arguments of `isobench report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Directories that `run` wrote
    #[arg(required = true, value_name = "RUN_DIR")]
    directories: Vec<PathBuf>,
    /// For whom the result is
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: ReportArgs) -> Result<Ended, CliError> {
    let mut ended = Ended::Pass;
    let mut values = Vec::new();
    for directory in &args.directories {
        let record = RunRecord::read(directory)?;
        let scenario = scenario_of(&record)?;
        let judged = judge::judge_again(record, &scenario, directory)?;
        let one = judged.ended();
        ended = ended.worst(one);
        match args.format {
            Format::Text => output::print(&judged.text())?,
            Format::Json => values.push(judged.value(one)),
        }
    }
    if args.format == Format::Json {
        output::print(&format!("{:#}\n", json!({ "exit_code": ended.code(), "runs": values })))?;
    }
    Ok(ended)
}

/// The scenario as it was run: its text, with the same overrides. Its checks are what is needed of it.
fn scenario_of(record: &RunRecord) -> Result<Scenario, CliError> {
    let meta = &record.meta;
    let options = Options { quick: meta.quick, overrides: meta.overrides.clone(), seed: Some(meta.seed) };
    Ok(Scenario::parse(&meta.scenario_toml, &format!("{} (as run)", meta.name), &options)?)
}
