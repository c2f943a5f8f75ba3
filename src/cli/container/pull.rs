//! The image of a new container: of the store, or fetched.

use super::CommandError;
use super::options::{Options, Pull};
use crate::cli::image;
use crate::image::open::Origin;
use crate::image::{Image, ImageError, Store};

/// Opens the image, and fetches it first if it is missing or `--pull always` says so.
pub(super) fn open(name: &str, options: &Options) -> Result<Image, CommandError> {
    const OWNER: &str = "a container that is being made";
    let store = Store::of_machine()?;
    let is_stored = matches!(Origin::of(name), Origin::Stored(_));
    if is_stored && options.pull() == Pull::Always {
        fetch(&store, name, options)?;
    }
    match Image::open(&store, name, OWNER) {
        Err(error) if is_stored && is_missing(&error) && options.pull() == Pull::Missing => {
            fetch(&store, name, options)?;
            Ok(Image::open(&store, name, OWNER)?)
        }
        opened => Ok(opened?),
    }
}

fn is_missing(error: &ImageError) -> bool {
    matches!(error, ImageError::NoSuchImage(_))
}

/// Standard output is the container's: the progress and the name go to standard error.
fn fetch(store: &Store, name: &str, options: &Options) -> Result<(), CommandError> {
    Ok(image::fetch(store, name, options.platform())?)
}
