//! `isobench container rename`.

use clap::Args;

use super::super::{CliError, Ended};
use crate::container::store::Store;

/// The arguments of `isobench container rename`.
#[derive(Debug, Args)]
pub(super) struct RenameArgs {
    /// A name or identifier of a container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) fn run(store: &Store, args: &RenameArgs) -> Result<Ended, CliError> {
    // Docker writes a name with a slash before it.
    let name = args.name.strip_prefix('/').unwrap_or(&args.name);
    store.rename(&store.find(&args.container)?, name)?;
    Ok(Ended::Pass)
}
