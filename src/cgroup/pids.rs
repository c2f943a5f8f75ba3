//! The pids controller, the same on v1 and v2: how many tasks a group may have.

use cgroups_rs::MaxValue;
use cgroups_rs::pid::PidController;

use super::limits::Applied;
use super::setting::Setting;
use super::{CgroupError, Controller, Hierarchy, Place, read, read_keyed, read_number};
use crate::units::Limit;

/// The file of the limit.
pub const MAX: &str = "pids.max";

/// Writes the limit.
///
/// # Errors
/// EINVAL above the kernel's PID_MAX_LIMIT.
pub(super) fn apply(place: &Place, limit: Limit) -> Result<Applied, CgroupError> {
    let value = match limit {
        Limit::Max => MaxValue::Max,
        Limit::Value(count) => MaxValue::Value(i64::try_from(count).unwrap_or(i64::MAX)),
    };
    let requested = limit.to_string();
    let set = PidController::new(place.path.clone(), place.hierarchy == Hierarchy::V2).set_pid_max(value);
    let setting = Setting { controller: Controller::Pids, file: MAX, path: &place.path };
    setting.after(requested.clone(), set, |kept| kept == requested)
}

/// Tasks now.
///
/// # Errors
/// When the file cannot be read.
pub fn current(place: &Place) -> Result<u64, CgroupError> {
    read_number(&place.path, "pids.current")
}

/// How often the limit refused a fork.
///
/// # Errors
/// When the file cannot be read or understood.
pub fn refusals(place: &Place) -> Result<u64, CgroupError> {
    const EVENTS: &str = "pids.events";
    read_keyed(&place.path, EVENTS, &read(&place.path, EVENTS)?, "max")
}
