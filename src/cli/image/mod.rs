//! `isobench image …`: images by hand, with docker's words, columns and exit codes (1 for what cannot be done).

use clap::{Args, Subcommand};

use super::{CliError, Ended, complain};
use crate::image::error::ImageError;
use crate::image::store::Store;
use crate::image::unpack::Limits;

mod create;
mod files;
mod inspect;
mod list;
mod remove;
mod transfer;

pub(super) use transfer::fetch;

/// The arguments of `isobench image`.
#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    command: Command,
    /// The most bytes that a layer may unpack to
    #[arg(long, global = true, value_name = "BYTES", hide_short_help = true)]
    max_layer_bytes: Option<u64>,
    /// The most bytes that all layers of an image may have together
    #[arg(long, global = true, value_name = "BYTES", hide_short_help = true)]
    max_image_bytes: Option<u64>,
    /// The most files that a layer may hold
    #[arg(long, global = true, value_name = "COUNT", hide_short_help = true)]
    max_layer_files: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List images
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Download an image from a registry
    Pull(transfer::PullArgs),
    /// Upload an image to a registry
    Push(transfer::PushArgs),
    /// Give an image a further name
    Tag(create::TagArgs),
    /// Show how an image came to be
    History(inspect::HistoryArgs),
    /// Show all that is known of images
    Inspect(inspect::InspectArgs),
    /// Remove images, or names of images
    #[command(visible_alias = "remove")]
    Rm(remove::RemoveArgs),
    /// Save images to an archive
    Save(files::SaveArgs),
    /// Load images from a docker archive, an OCI archive or an OCI layout
    Load(files::LoadArgs),
    /// Make an image of a root file system: an archive, a directory, or standard input
    Import(create::ImportArgs),
    /// Remove images that are not used
    Prune(remove::PruneArgs),
}

pub(super) fn run(args: ImageArgs) -> Result<Ended, CliError> {
    let outcome = open(&args).map_err(CliError::from).and_then(|store| dispatch(&store, args.command));
    match outcome {
        // Docker's commands end with 1 where something cannot be done.
        Err(error) if !error.is_broken_pipe() => {
            complain(&error);
            Ok(Ended::Failed)
        }
        outcome => outcome,
    }
}

fn open(args: &ImageArgs) -> Result<Store, ImageError> {
    let mut limits = Limits::default();
    limits.bytes = args.max_layer_bytes.unwrap_or(limits.bytes);
    limits.image = args.max_image_bytes.unwrap_or(limits.image.max(limits.bytes));
    limits.entries = args.max_layer_files.unwrap_or(limits.entries);
    Ok(Store::of_machine()?.with_limits(limits))
}

fn dispatch(store: &Store, command: Command) -> Result<Ended, CliError> {
    match command {
        Command::Ls(args) => list::run(store, &args),
        Command::Pull(args) => transfer::pull(store, &args),
        Command::Push(args) => transfer::push(store, &args),
        Command::Tag(args) => create::tag(store, &args),
        Command::History(args) => inspect::history(store, &args),
        Command::Inspect(args) => inspect::run(store, &args),
        Command::Rm(args) => remove::run(store, &args),
        Command::Save(args) => files::save(store, &args),
        Command::Load(args) => files::load(store, &args),
        Command::Import(args) => create::import(store, &args),
        Command::Prune(args) => remove::prune(store, &args),
    }
}

/// A platform as `OS/ARCHITECTURE[/VARIANT]`.
fn platform(text: &str) -> Result<crate::image::spec::Platform, String> {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
            let (os, architecture) = (os.to_owned(), architecture.to_owned());
            Ok(crate::image::spec::Platform { architecture, os, variant: variant.map(str::to_owned) })
        }
        _ => Err("a platform is OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/amd64".to_owned()),
    }
}
