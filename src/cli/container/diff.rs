//! `isobench container diff`.

use clap::Args;

use super::super::{CliError, Ended, output};
use crate::container::config::Config;
use crate::container::store::{Store, Stored};
use crate::image::changes::{Upper, changes};
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
    let found = changes(upper_of(&stored, &upper), &image_of(&stored.config)?.root.layers)?;
    let lines = found.iter().map(|(how, path)| format!("{} {}\n", how.letter(), path.display()));
    output::print(&lines.collect::<String>())?;
    Ok(Ended::Pass)
}

/// The image that a container was made of; it stays while this is held.
pub(super) fn image_of(config: &Config) -> Result<Image, CliError> {
    let name = config.image_id.as_ref().unwrap_or(&config.image);
    Ok(Image::open(&image::Store::of_machine()?, name, config.short_id())?)
}

/// What a container has written, with the notes that its kind of overlay makes.
pub(super) fn upper_of<'a>(stored: &Stored, upper: &'a std::path::Path) -> Upper<'a> {
    match stored.config.user_namespace {
        Some(_) => Upper::of_user_namespace(upper),
        None => upper.into(),
    }
}
