//! `isobench container commit`.

use clap::{ArgAction, Args};

use super::super::{CliError, Ended, output};
use super::diff::{image_of, upper_of};
use super::shown;
use crate::cgroup::{Layout, View};
use crate::container::config::{Config, MountSource};
use crate::container::state::Status;
use crate::container::store::{Store, Stored};
use crate::image;
use crate::image::change::{Change, ChangeError};
use crate::image::create::{self, Description};
use crate::image::reference::{Reference, ReferenceError};
use crate::image::spec::{ContainerConfig, Empty};

/// The arguments of `isobench container commit`.
#[derive(Debug, Args)]
pub(super) struct CommitArgs {
    /// A name or identifier of a container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]", value_parser = name)]
    name: Option<Reference>,
    /// Who made it, as in "John Hannibal Smith <hannibal@a-team.com>"
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// A note for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// A line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "LINE", value_parser = change)]
    changes: Vec<Change>,
    /// Freeze the container meanwhile
    #[arg(short, long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: bool,
}

fn name(text: &str) -> Result<Reference, ReferenceError> {
    text.parse().map(Reference::or_latest)
}

fn change(text: &str) -> Result<Change, ChangeError> {
    text.parse()
}

pub(super) fn run(store: &Store, args: &CommitArgs) -> Result<Ended, CliError> {
    let stored = store.find(&args.container)?;
    let frozen = if args.pause { freeze(&stored)? } else { None };
    let committed = commit(&stored, args);
    let thawed = frozen.map_or(Ok(()), |view| view.thaw());
    let id = committed?;
    thawed?;
    output::print(&format!("{id}\n"))?;
    Ok(Ended::Pass)
}

/// Freezes a container that runs and is not paused already.
fn freeze(stored: &Stored) -> Result<Option<View>, CliError> {
    if shown::settled(stored.state()?).status != Status::Running {
        return Ok(None);
    }
    let Some(view) = View::existing(&stored.config.id, &Layout::detect()?) else { return Ok(None) };
    view.freeze()?;
    Ok(Some(view))
}

fn commit(stored: &Stored, args: &CommitArgs) -> Result<image::digest::Digest, CliError> {
    // The image stays while it is built upon.
    let base = image_of(&stored.config)?;
    let description = Description {
        name: args.name.clone(),
        comment: args.message.clone(),
        author: args.author.clone(),
        created_by: Some(stored.config.arguments().join(" ")),
        changes: args.changes.clone(),
        ..Description::of(None)
    };
    let store = image::Store::of_machine()?;
    let upper = stored.upper();
    let id = base.id.map(|id| id.to_string());
    let config = config_of(&stored.config, &base.config);
    Ok(create::commit(&store, id.as_deref(), upper_of(stored, &upper), config, &description)?)
}

/// What a container of the new image is to be: what this one is, and of its image what a container does not have.
fn config_of(container: &Config, base: &ContainerConfig) -> ContainerConfig {
    let volumes = container.mounts.iter().filter(|mount| {
        matches!(mount.source, MountSource::Volume { anonymous: true, .. }) && base.volumes.contains_key(&mount.target)
    });
    ContainerConfig {
        user: container.user.clone(),
        exposed_ports: container.exposed.iter().map(|port| (port.clone(), Empty {})).collect(),
        env: container.environment.clone(),
        entrypoint: container.entrypoint.clone(),
        cmd: container.command.clone(),
        volumes: volumes.map(|mount| (mount.target.clone(), Empty {})).chain(base.volumes.clone()).collect(),
        working_dir: container.working_directory.clone(),
        labels: container.labels.clone(),
        stop_signal: base.stop_signal.clone(),
        healthcheck: container.health.clone().or_else(|| base.healthcheck.clone()),
        shell: base.shell.clone(),
        other: base.other.clone(),
    }
}
