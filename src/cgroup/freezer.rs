//! The freezer of cgroup v1: stops every task of a group, and lets them go on.

use std::path::Path;
use std::time::{Duration, Instant};

use cgroups_rs::freezer::FreezerController;

use super::{CgroupError, Controller, read, write};

/// The file of the state.
pub const STATE: &str = "freezer.state";

/// How long a freeze may take; a task in an uninterruptible wait delays it.
const PATIENCE: Duration = Duration::from_secs(10);

fn write_error(value: &str, path: &Path) -> impl FnOnce(cgroups_rs::error::Error) -> CgroupError {
    let (value, path) = (value.to_owned(), path.to_owned());
    move |source| CgroupError::Write { controller: Controller::Freezer, setting: STATE, value, path, source }
}

/// Freezes the group and waits until the kernel says that every task is frozen.
///
/// # Errors
/// When it is not frozen after ten seconds; it is thawed again then.
pub fn freeze(path: &Path) -> Result<(), CgroupError> {
    FreezerController::new(path.to_owned(), false).freeze().map_err(write_error("FROZEN", path))?;
    let begin = Instant::now();
    loop {
        let state = read(path, STATE)?;
        if state == "FROZEN" {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            write(path, STATE, "THAWED")?;
            return Err(CgroupError::ReadBack {
                controller: Controller::Freezer,
                setting: STATE,
                requested: "FROZEN".to_owned(),
                kept: state,
                path: path.to_owned(),
            });
        }
        // Reading the state is what makes a v1 kernel look again, so this cannot be an event that one waits for.
        std::thread::yield_now();
    }
}

/// Lets the group go on.
///
/// # Errors
/// When the state cannot be written.
pub fn thaw(path: &Path) -> Result<(), CgroupError> {
    FreezerController::new(path.to_owned(), false).thaw().map_err(write_error("THAWED", path))
}
