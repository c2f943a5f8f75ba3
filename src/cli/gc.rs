//! `isobench gc`: takes away what a killed isobench could not give back.

use super::{CliError, Ended, output};
use crate::container::gc;

pub(super) fn run() -> Result<Ended, CliError> {
    let collected = gc::collect().map_err(|error| CliError::Collect(Box::new(error)))?;
    let text = if collected == Default::default() {
        "nothing was left behind\n".to_owned()
    } else {
        format!("removed {} cgroup directories, ended {} processes in them\n", collected.groups, collected.processes)
    };
    output::print(&text)?;
    Ok(Ended::Pass)
}
