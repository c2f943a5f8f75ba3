//! `isobench container export`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::super::{CliError, Ended};
use super::cp;
use crate::container::files::Root;
use crate::container::store::Store;
use crate::fs::FileError;

/// The arguments of `isobench container export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A name or identifier of a container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The archive; without it: standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(store: &Store, args: &ExportArgs) -> Result<Ended, CliError> {
    match &args.output {
        None => {
            let output = io::stdout().lock();
            if output.is_terminal() {
                return Err(CliError::Terminal);
            }
            let mut output = BufWriter::new(output);
            write(store, &args.container, &mut output)?;
            output.flush().map_err(CliError::Output)?;
        }
        Some(path) => {
            // Beside its place, so that a half-written archive is not seen under its name.
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => std::path::Path::new("."),
            };
            let file = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .tempfile_in(directory)
                .map_err(FileError::new("write", path))?;
            let mut output = BufWriter::new(file);
            write(store, &args.container, &mut output)?;
            let file: tempfile::NamedTempFile =
                output.into_inner().map_err(|error| FileError::new("write", path)(error.into_error()))?;
            let _: File = file.persist(path).map_err(|error| FileError::new("write", path)(error.error))?;
        }
    }
    Ok(Ended::Pass)
}

/// The container's own file system, without what is mounted in it.
fn write(store: &Store, name: &str, to: &mut dyn Write) -> Result<(), CliError> {
    let reached = cp::reach_by(store, name, Root::running_bare, |_| Vec::new())?;
    Ok(reached.root.read_all(to)?)
}
