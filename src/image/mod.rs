//! Images: the layers that a container's root is made of, where they come from and where they are kept.
//!
//! [`open::Image`] is the entry for those who make containers; [`store::Store`] keeps images; [`archive`] and
//! [`registry`] bring them and take them away, [`create`] makes them. `docs/IMAGES.md` tells how it fits together.

pub mod archive;
pub mod change;
pub mod changes;
pub mod create;
pub mod digest;
pub mod embedded;
pub mod error;
pub mod history;
pub mod open;
pub mod pack;
pub mod reference;
pub mod registry;
pub mod spec;
pub mod store;
pub mod unpack;

use std::path::{Path, PathBuf};

pub use error::ImageError;
pub use open::Image;
pub use reference::Reference;
pub use store::Store;

/// A root file system as the engine takes it: directories to be stacked by overlayfs, the topmost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    /// The layers, read only, the topmost first; at least one.
    pub layers: Vec<PathBuf>,
}

impl RootFs {
    /// The directory that the lowest layer is in, as all of an image are, and what names each layer from there: mount(2)
    /// takes one page of options, into which 127 whole paths do not fit. `None` where that is the host's root.
    #[must_use]
    pub fn shortened(&self) -> Option<(&Path, Vec<&Path>)> {
        let base = self.layers.last()?.parent()?;
        if base == Path::new("/") {
            return None;
        }
        let short = |layer: &'_ PathBuf| layer.parent().is_some_and(|parent| parent == base);
        let names = self.layers.iter().map(|layer| match layer.file_name() {
            Some(name) if short(layer) => Path::new(name),
            _ => layer.as_path(),
        });
        Some((base, names.collect()))
    }
}

/// Where the isobench binary stands inside every container that runs a workload.
pub const WORKLOAD_PATH: &str = "/isobench";

/// Where isobench keeps what outlives a process: images and, later, container state.
pub const STORE: &str = "/var/lib/isobench";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_one_directory_are_named_shortly() {
        let root = |layers: &[&str]| RootFs { layers: layers.iter().map(PathBuf::from).collect() };
        let stacked = root(&["/self/work", "/store/layers/b", "/store/layers/a"]);
        let (base, names) = stacked.shortened().unwrap();
        assert_eq!(base, Path::new("/store/layers"));
        assert_eq!(names, [Path::new("/self/work"), Path::new("b"), Path::new("a")]);
        assert_eq!(
            root(&["/a/b", "/c/d"]).shortened(),
            Some((Path::new("/c"), vec![Path::new("/a/b"), Path::new("d")]))
        );
        assert_eq!(root(&["/a", "/b"]).shortened(), None);
    }
}
