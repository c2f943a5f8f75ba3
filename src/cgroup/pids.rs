//! The pids controller: how many tasks a group may have.

use std::path::Path;

use cgroups_rs::MaxValue;
use cgroups_rs::pid::PidController;

use super::limits::{Applied, compare};
use super::{CgroupError, Controller, read, read_number};
use crate::units::Limit;

/// The file of the limit.
pub const MAX: &str = "pids.max";

/// Writes the limit.
///
/// # Errors
/// EINVAL above the kernel's PID_MAX_LIMIT.
pub(super) fn apply(path: &Path, limit: Limit) -> Result<Applied, CgroupError> {
    let value = match limit {
        Limit::Max => MaxValue::Max,
        Limit::Value(count) => MaxValue::Value(i64::try_from(count).unwrap_or(i64::MAX)),
    };
    let set = PidController::new(path.to_owned(), false).set_pid_max(value);
    set.map_err(|source| CgroupError::Write {
        controller: Controller::Pids,
        setting: MAX,
        value: limit.to_string(),
        path: path.to_owned(),
        source,
    })?;
    let row =
        Applied { controller: Controller::Pids, setting: MAX, requested: limit.to_string(), kept: read(path, MAX)? };
    compare(path, row, |row| row.kept == row.requested)
}

/// Tasks now.
///
/// # Errors
/// When the file cannot be read.
pub fn current(path: &Path) -> Result<u64, CgroupError> {
    read_number(path, "pids.current")
}
