//! `isobench container pause` and `unpause`.

use clap::Args;

use super::{CommandError, Outcome, each};
use crate::cgroup::{CgroupError, Layout, View};
use crate::container::ContainerError;
use crate::container::client::settled;
use crate::container::state::{State, Status};
use crate::container::store::Store;

/// The arguments of `isobench container pause` and `unpause`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PauseArgs {
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn pause(store: &Store, args: &PauseArgs) -> Result<Outcome, CommandError> {
    change(store, args, ("pause", Status::Running, Status::Paused), View::freeze)
}

pub(super) fn unpause(store: &Store, args: &PauseArgs) -> Result<Outcome, CommandError> {
    change(store, args, ("unpause", Status::Paused, Status::Running), View::thaw)
}

/// Freezes or thaws each, which the kernel has done when it returns, and writes so.
fn change(
    store: &Store,
    args: &PauseArgs,
    (act, from, to): (&'static str, Status, Status),
    how: fn(&View) -> Result<(), CgroupError>,
) -> Result<Outcome, CommandError> {
    let layout = Layout::detect().map_err(ContainerError::from)?;
    each(&args.containers, |name| {
        let stored = store.find(name)?;
        settled(store, &stored)?;
        let lock = stored.lock()?;
        let state = lock.state()?;
        let view = View::existing(&stored.config.id, &layout);
        let (Some(view), true) = (view, state.status == from) else {
            return Err(stored.refuse(act, state.status, "").into());
        };
        how(&view).map_err(ContainerError::from)?;
        lock.write(&State { status: to, ..state })?;
        Ok(Some(name.to_owned()))
    })
}
