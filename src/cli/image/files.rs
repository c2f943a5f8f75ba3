//! `isobench image save` and `load`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::{CliError, Ended, output};
use crate::fs::FileError;
use crate::image::archive::{self, Format, Selection};
use crate::image::spec::{Platform, own_platform};
use crate::image::store::Store;

/// The arguments of `isobench image save`.
#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Names or identifiers of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The archive; without it: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The form of the archive
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Form,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Form {
    /// What `docker save` makes
    #[default]
    DockerArchive,
    /// An OCI layout in an archive
    OciArchive,
}

/// The arguments of `isobench image load`.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// The archive, or the directory of an OCI layout; without it: standard input
    #[arg(short, long, value_name = "FILE|DIRECTORY")]
    input: Option<PathBuf>,
    /// Only the image of this name in the archive
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Which platform to take, where there are several and not this machine's
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = super::platform)]
    platform: Option<Platform>,
    /// Print only what went wrong
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn save(store: &Store, args: &SaveArgs) -> Result<Ended, CliError> {
    let format = match args.format {
        Form::DockerArchive => Format::Docker,
        Form::OciArchive => Format::Oci,
    };
    let Some(path) = &args.output else {
        if io::stdout().is_terminal() {
            return Err(CliError::Terminal);
        }
        let mut stdout = io::stdout().lock();
        archive::save(store, &args.images, format, &mut stdout)?;
        stdout.flush().map_err(CliError::Output)?;
        return Ok(Ended::Pass);
    };
    // Beside its place first: a half archive would look like a whole one.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| ".".as_ref());
    let made = tempfile::Builder::new()
        .prefix(".isobench-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent);
    let mut file = made.map_err(FileError::new("create a temporary file in", parent))?;
    let mut writer: BufWriter<&mut File> = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    archive::save(store, &args.images, format, &mut writer)?;
    writer.flush().map_err(FileError::new("write", path))?;
    drop(writer);
    file.persist(path).map_err(|error| FileError::new("replace", path)(error.error))?;
    Ok(Ended::Pass)
}

pub(super) fn load(store: &Store, args: &LoadArgs) -> Result<Ended, CliError> {
    let platform = args.platform.clone().unwrap_or_else(own_platform);
    let selection = Selection { platform, name: args.only.clone(), named: true };
    let loaded = archive::load(store, args.input.as_deref(), &selection)?;
    if args.quiet {
        return Ok(Ended::Pass);
    }
    for image in loaded {
        if image.names.is_empty() {
            output::print(&format!("Loaded image ID: {}\n", image.id))?;
        }
        for name in &image.names {
            output::print(&format!("Loaded image: {}\n", name.familiar()))?;
        }
    }
    Ok(Ended::Pass)
}
