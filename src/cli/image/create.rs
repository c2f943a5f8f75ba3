//! `isobench image tag` and `import`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{CliError, Ended, output};
use crate::image::change::{Change, ChangeError};
use crate::image::create::{self, Description, RootSource};
use crate::image::reference::{Reference, ReferenceError};
use crate::image::spec::{Platform, own_platform};
use crate::image::store::Store;

/// The arguments of `isobench image tag`.
#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// A name or identifier of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The further name
    #[arg(value_name = "NAME[:TAG]", value_parser = name)]
    name: Reference,
}

/// The arguments of `isobench image import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The root file system: an archive (plain, gzip or zstd), a directory, or - for standard input
    #[arg(value_name = "FILE|DIRECTORY|-")]
    source: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]", value_parser = name)]
    name: Option<Reference>,
    /// A line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long = "change", value_name = "LINE", value_parser = change)]
    changes: Vec<Change>,
    /// A note for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What it runs on, where that is not this machine
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = super::platform)]
    platform: Option<Platform>,
}

fn name(text: &str) -> Result<Reference, ReferenceError> {
    text.parse().map(Reference::or_latest)
}

fn change(text: &str) -> Result<Change, ChangeError> {
    text.parse()
}

pub(super) fn tag(store: &Store, args: &TagArgs) -> Result<Ended, CliError> {
    store.tag(&args.image, &args.name)?;
    Ok(Ended::Pass)
}

pub(super) fn import(store: &Store, args: &ImportArgs) -> Result<Ended, CliError> {
    let source = match args.source.as_path() {
        path if path == Path::new("-") => RootSource::StandardInput,
        path if path.is_dir() => RootSource::Directory(path),
        path => RootSource::Archive(path),
    };
    let from = args.source.display();
    let description = Description {
        name: args.name.clone(),
        comment: Some(args.message.clone().unwrap_or_else(|| format!("Imported from {from}"))),
        author: None,
        created_by: None,
        changes: args.changes.clone(),
        platform: args.platform.clone().unwrap_or_else(own_platform),
    };
    let id = create::import(store, source, &description)?;
    output::print(&format!("{id}\n"))?;
    Ok(Ended::Pass)
}
