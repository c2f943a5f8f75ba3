//! `isobench list`: the tables of a scenario with their keys, the metrics, the scenarios in ./scenarios.

use std::path::{Path, PathBuf};

use super::output::{self, BOLD, Table};
use super::{CliError, Ended};
use crate::fs::FileError;
use crate::record::metric::METRICS;
use crate::scenario::{Options, Scenario, ScenarioError, TABLES};

/// Where scenarios are looked for.
const DIRECTORY: &str = "scenarios";

pub(super) fn run() -> Result<Ended, CliError> {
    let text = format!(
        "{BOLD}Tables of a scenario{BOLD:#} (lists multiply; a scalar is a list of one)\n{}\n\
         {BOLD}Metrics{BOLD:#}\n{}\n{BOLD}Scenarios{BOLD:#} in ./{DIRECTORY}\n{}",
        tables(),
        metrics(),
        scenarios(Path::new(DIRECTORY))?,
    );
    output::print(&text)?;
    Ok(Ended::Pass)
}

fn tables() -> String {
    let mut text = String::new();
    for (title, keys) in TABLES {
        let mut table = Table::titled(&["key", "default", "takes", "meaning"]);
        for (key, takes, default, meaning) in *keys {
            table.row([key, default, takes, meaning]);
        }
        text.push_str(&format!("\n  {title}\n{}", table.render(4)));
    }
    text
}

fn metrics() -> String {
    let mut table = Table::titled(&["experiment", "metric", "unit", "better", "meaning"]);
    for metric in METRICS {
        table.row([metric.experiment, metric.name, metric.unit, metric.better.as_str(), metric.meaning]);
    }
    table.render(2)
}

fn scenarios(directory: &Path) -> Result<String, CliError> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(directory) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok("  there is no such directory here\n".to_owned());
        }
        Err(error) => return Err(FileError::new("read directory", directory)(error).into()),
    };
    files.sort();
    let mut table = Table::titled(&["file", "cases", "question"]);
    for path in &files {
        let (cases, question) = match Scenario::load(path, &Options::default()) {
            Ok(scenario) => (scenario.cases.len().to_string(), scenario.question),
            Err(ScenarioError::Invalid(problems)) => {
                let count = problems.len();
                let wrong = if count == 1 { "1 thing".to_owned() } else { format!("{count} things") };
                ("-".to_owned(), format!("not valid: {wrong} wrong with it, see isobench validate"))
            }
            Err(error) => ("-".to_owned(), error.to_string()),
        };
        table.row([&path.display().to_string(), &cases, &question]);
    }
    Ok(table.render(2))
}
