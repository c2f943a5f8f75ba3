//! Scenarios as commands take them: from files, with overrides. `run` and `validate` read theirs here.

use std::path::{Path, PathBuf};

use super::error::{CliError, complain};
use crate::scenario::{Options, Scenario};

/// A scenario with the file it came from.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) scenario: Scenario,
}

/// Reads every file before any of them is run. A single bad one is the error; of several, each is complained of.
pub(super) fn load_all(paths: &[PathBuf], options: &Options) -> Result<Vec<Loaded>, CliError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for path in paths {
        match load(path, options) {
            Ok(scenario) => good.push(Loaded { path: path.clone(), scenario }),
            Err(error) => bad.push(error),
        }
    }
    match (bad.len(), bad.pop()) {
        (0, _) | (_, None) => Ok(good),
        (1, Some(error)) => Err(error),
        (count, Some(last)) => {
            bad.push(last);
            for error in &bad {
                complain(error);
            }
            Err(CliError::Scenarios(count))
        }
    }
}

fn load(path: &Path, options: &Options) -> Result<Scenario, CliError> {
    Ok(Scenario::load(path, options)?)
}
