//! `isobench container ls`.

use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::template::Format;
use super::super::{CliError, Ended, columns, complain, output};
use super::filters::Filters;
use super::shown;
use crate::container::config::{Config, MountSource};
use crate::container::state::{State, Status};
use crate::container::store::{Store, Stored};
use crate::image;

/// The arguments of `isobench container ls`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Show also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only containers for which this holds: id, name, label, exited, status, ancestor, before, since, volume, network,
    /// publish, expose, health, as in status=exited
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// `json`, a template as in '{{.Names}}: {{.Status}}', or 'table TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the last that were made, running or not
    #[arg(short = 'n', long, value_name = "COUNT", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the last that was made, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten identifiers and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only identifiers
    #[arg(short, long)]
    quiet: bool,
    /// Show how large they are
    #[arg(short, long)]
    size: bool,
}

const TABLE: &str =
    "table {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Names}}";

pub(super) fn run(store: &Store, args: &ListArgs) -> Result<Ended, CliError> {
    let filters = Filters::parse(&args.filters, store)?;
    let format = match &args.format {
        Some(format) => Format::parse(format)?,
        None if args.size => Format::parse(&format!("{TABLE}\\t{{{{.Size}}}}"))?,
        None => Format::parse(TABLE)?,
    };
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    let all = args.all || last.is_some() || filters.want_all();
    let mut found = Vec::new();
    let mut ended = Ended::Pass;
    for container in store.all()? {
        match container {
            Ok((stored, state)) => {
                let state = shown::settled(state);
                if wanted(&state, all) && filters.take(&stored, &state) {
                    found.push((stored, state));
                }
            }
            Err(error) => {
                complain(&error);
                ended = Ended::Failed;
            }
        }
    }
    // The newest first.
    found.sort_by_cached_key(|(stored, _)| std::cmp::Reverse(shown::time(Some(&stored.config.created))));
    found.truncate(last.unwrap_or(usize::MAX));
    if args.quiet && args.format.is_none() {
        let id = |config: &Config| if args.no_trunc { config.id.clone() } else { config.short_id().to_owned() };
        output::print(&found.iter().map(|(stored, _)| id(&stored.config) + "\n").collect::<String>())?;
        return Ok(ended);
    }
    let now = Timestamp::now();
    let sized = args.size || args.format.as_ref().is_some_and(|format| format.contains(".Size"));
    let values: Vec<Value> = found.iter().map(|(stored, state)| row(stored, state, args, sized, now)).collect();
    output::print(&format.render(&values, &titles())?)?;
    Ok(ended)
}

fn wanted(state: &State, all: bool) -> bool {
    all || matches!(state.status, Status::Running | Status::Paused | Status::Restarting)
}

fn titles() -> Value {
    json!({
        "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
        "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Names": "NAMES", "Labels": "LABELS",
        "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "HealthStatus": "HEALTH",
    })
}

fn row(stored: &Stored, state: &State, args: &ListArgs, sized: bool, now: Timestamp) -> Value {
    let config = &stored.config;
    let created = shown::time(Some(&config.created));
    let labels: Vec<String> = config.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts: Vec<String> =
        config.mounts.iter().filter_map(|mount| mount_name(&mount.source, args.no_trunc)).collect();
    let volumes = config.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Volume { .. })).count();
    let state_word = if state.removing { "removing" } else { state.status.as_str() };
    json!({
        "ID": if args.no_trunc { config.id.as_str() } else { config.short_id() },
        "Image": image_name(config, args.no_trunc),
        "Command": shown::command(config, args.no_trunc),
        "CreatedAt": created.map(columns::at).unwrap_or_default(),
        "RunningFor": created.map(|then| columns::since(then, now)).unwrap_or_default(),
        "Ports": shown::ports(config, state),
        "State": state_word,
        "Status": shown::status_line(state, now),
        "Size": if sized { size(stored) } else { "0B".to_owned() },
        "Names": config.name,
        "Labels": labels.join(","),
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": shown::network(config),
        "HealthStatus": shown::health(state),
    })
}

/// What the image was asked for by; an identifier is shortened.
fn image_name(config: &Config, whole: bool) -> String {
    match config.image.strip_prefix("sha256:") {
        Some(digits) if !whole => digits.chars().take(12).collect(),
        _ => config.image.clone(),
    }
}

fn mount_name(source: &MountSource, whole: bool) -> Option<String> {
    let name = match source {
        MountSource::Bind { path, .. } => path,
        MountSource::Volume { name, .. } => name,
        MountSource::Tmpfs { .. } => return None,
    };
    const MOST: usize = 15;
    Some(match name.chars().count() > MOST && !whole {
        true => name.chars().take(MOST - 1).chain(['…']).collect(),
        false => name.clone(),
    })
}

/// What it has written, and that with its image.
fn size(stored: &Stored) -> String {
    let own = written(&stored.upper());
    let image = stored.config.image_id.as_deref().and_then(|id| {
        let store = image::Store::existing().ok().flatten()?;
        Some(store.image(id).ok()?.record.bytes)
    });
    format!("{} (virtual {})", columns::size(own), columns::size(own + image.unwrap_or(0)))
}

/// The bytes of the files beneath a directory. What goes away meanwhile counts nothing.
pub(super) fn written(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => written(&entry.path()),
        Ok(data) if data.is_file() => data.len(),
        _ => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_a_title() {
        let Format::Table(..) = Format::parse(TABLE).unwrap() else { panic!() };
        let titled = Format::parse(TABLE).unwrap().render(&[], &titles()).unwrap();
        let names: Vec<&str> = titled.split("  ").map(str::trim).filter(|name| !name.is_empty()).collect();
        assert_eq!(names, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    }
}
