//! `isobench container update`.

use clap::Args;

use super::options::LimitOptions;
use super::{CommandError, Outcome, each};
use crate::cgroup::{Layout, View};
use crate::container::client::settled;
use crate::container::config::{Config, RestartPolicy};
use crate::container::limits;
use crate::container::make::MakeError;
use crate::container::store::{Store, Stored};

/// The arguments of `isobench container update`.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    #[command(flatten)]
    limits: LimitOptions,
    /// When it is started again by itself: no, on-failure or on-failure:MOST, always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(store: &Store, args: &UpdateArgs) -> Result<Outcome, CommandError> {
    each(&args.containers, |name| {
        let stored = store.find(name)?;
        change(store, &stored, args)?;
        Ok(Some(name.to_owned()))
    })
}

/// The groups of one that is up first: what the kernel refuses is not written down.
fn change(store: &Store, stored: &Stored, args: &UpdateArgs) -> Result<(), CommandError> {
    settled(store, stored)?;
    let lock = stored.lock()?;
    // As it is now that no one else changes it.
    let stored = store.find(&stored.config.id)?;
    let mut changed = Config { restart: args.restart.unwrap_or(stored.config.restart), ..stored.config.clone() };
    if changed.auto_remove && changed.restart != RestartPolicy::No {
        let why = "a container of --rm is removed when it has ended, so no policy can start it again";
        return Err(CommandError::Usage(why.to_owned()));
    }
    args.limits.apply(&mut changed.limits)?;
    if lock.state()?.status.is_up() && changed.limits != stored.config.limits {
        let compiled = limits::compile_change(&stored.config.limits, &changed.limits).map_err(MakeError::from)?;
        let layout = Layout::detect().map_err(MakeError::from)?;
        if let Some(view) = View::existing(&stored.config.id, &layout) {
            view.apply(&compiled).map_err(MakeError::from)?;
        }
    }
    Ok(stored.write_config(&changed)?)
}
