//! `isobench image rm` and `prune`.

use std::io::{self, Write};

use clap::Args;

use super::super::each::each;
use super::super::{CliError, Ended, columns, output};
use super::list::{Filter, Filters, Listed};
use crate::image::reference::Reference;
use crate::image::store::Store;
use crate::image::store::collect::Removed;

/// The arguments of `isobench image rm`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Names or identifiers of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Also take the names of an image that is used, or that has several
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's sake: there are no untagged parents
    #[arg(long)]
    no_prune: bool,
}

/// The arguments of `isobench image prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Also remove images that have a name
    #[arg(short, long)]
    all: bool,
    /// Only images for which this holds: until=TIME, label=NAME[=VALUE]; dangling=false is --all, dangling=true is not
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn lines(removed: &[Removed], untagged: &str, deleted: &str) -> String {
    let line = |removed: &Removed| match removed {
        Removed::Untagged(name) => {
            let name = name.parse::<Reference>().map_or_else(|_| name.clone(), |name| name.familiar());
            format!("{untagged}: {name}\n")
        }
        Removed::Deleted(id) => format!("{deleted}: {id}\n"),
    };
    removed.iter().map(line).collect()
}

pub(super) fn run(store: &Store, args: &RemoveArgs) -> Result<Ended, CliError> {
    each(&args.images, |name| {
        let removed = store.remove(name, args.force)?;
        output::print(&lines(&removed, "Untagged", "Deleted"))
    })
}

pub(super) fn prune(store: &Store, args: &PruneArgs) -> Result<Ended, CliError> {
    let filters = Filters::parse(&args.filters, Filter::parse_prune)?;
    let all = filters.with_names().unwrap_or(args.all);
    if !args.force {
        let what = if all { "images that no container uses" } else { "dangling images" };
        output::print(&format!("WARNING! This will remove all {what}.\nAre you sure you want to continue? [y/N] "))?;
        io::stdout().flush().map_err(CliError::Output)?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map_err(CliError::Output)?;
        if !matches!(answer.trim(), "y" | "Y") {
            return Ok(Ended::Pass);
        }
    }
    let (removed, collected) = store.prune(|id, record| {
        Ok((all || record.names.is_empty()) && filters.take_pruned(&Listed::of(store, *id, record.clone())?))
    })?;
    let mut text = String::new();
    if !removed.is_empty() {
        text.push_str(&format!("Deleted Images:\n{}\n", lines(&removed, "untagged", "deleted")));
    }
    text.push_str(&format!("Total reclaimed space: {}\n", columns::size(collected.bytes)));
    output::print(&text)?;
    Ok(Ended::Pass)
}
