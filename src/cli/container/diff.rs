//! `isobench container diff`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{CliError, Ended, output};
use crate::container::config::Config;
use crate::container::store::{Store, Stored};
use crate::image::changes::{Difference, Upper, changes};
use crate::image::{self, Image};

/// The arguments of `isobench container diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// A name or identifier of a container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(super) fn run(store: &Store, args: &DiffArgs) -> Result<Ended, CliError> {
    let stored = store.find(&args.container)?;
    let upper = stored.upper();
    let found = own(changes(upper_of(&stored, &upper), &image_of(&stored.config)?.root.layers)?);
    let lines = found.iter().map(|(how, path)| format!("{} {}\n", how.letter(), path.display()));
    output::print(&lines.collect::<String>())?;
    Ok(Ended::Pass)
}

/// What the engine mounts over in every container, and makes where the image has it not.
const MADE: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// The changes without what the engine has made, which docker does not show either.
fn own(mut found: Vec<(Difference, PathBuf)>) -> Vec<(Difference, PathBuf)> {
    let all = found.len();
    found.retain(|(how, path)| *how != Difference::Added || !MADE.iter().any(|made| path == Path::new(made)));
    let etc = Path::new("/etc");
    // Only what was made in it had changed it.
    if found.len() < all && !found.iter().any(|(_, path)| path != etc && path.starts_with(etc)) {
        found.retain(|(how, path)| path != etc || *how == Difference::Deleted);
    }
    found
}

/// The image that a container was made of; it stays while this is held.
pub(super) fn image_of(config: &Config) -> Result<Image, CliError> {
    let name = config.image_id.as_ref().unwrap_or(&config.image);
    Ok(Image::open(&image::Store::of_machine()?, name, config.short_id())?)
}

/// What a container has written, with the notes that its kind of overlay makes.
pub(super) fn upper_of<'a>(stored: &Stored, upper: &'a Path) -> Upper<'a> {
    match stored.config.user_namespace {
        Some(_) => Upper::of_user_namespace(upper),
        None => upper.into(),
    }
}
