//! What a container's root is made from: the one entry for scenarios and for the container commands.

use std::path::{Path, PathBuf};

use super::RootFs;
use super::archive::{self, Selection};
use super::digest::Digest;
use super::embedded;
use super::error::ImageError;
use super::spec::{ContainerConfig, own_platform};
use super::store::Store;
use super::store::lease::Lease;

/// An image that containers can be made of. What it needs of the store stays there while it lives.
#[derive(Debug)]
pub struct Image {
    /// What it was asked for by.
    pub name: String,
    /// Its identifier; `None` for one that is not in the store.
    pub id: Option<Digest>,
    /// The layers of its root, the topmost first.
    pub root: RootFs,
    /// What a container of it is to be: program, environment, user, ….
    pub config: ContainerConfig,
    _lease: Option<Lease>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The running binary.
    Own,
    /// The store, by name or identifier.
    Stored(String),
    /// An archive or an OCI layout, and which of its images.
    File(PathBuf, Option<String>),
    /// A directory, as it is.
    Directory(PathBuf),
}

impl Origin {
    /// Takes a text apart: `self`, `docker-archive:PATH[:NAME]`, `oci:PATH[:NAME]`, `oci-archive:PATH[:NAME]`,
    /// `dir:PATH`, or the name or identifier of an image in the store.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text == "self" {
            return Self::Own;
        }
        if let Some(path) = text.strip_prefix("dir:") {
            return Self::Directory(path.into());
        }
        for scheme in ["docker-archive:", "oci-archive:", "oci:"] {
            if let Some(rest) = text.strip_prefix(scheme) {
                // A colon may be the path's own.
                return match rest.split_once(':') {
                    Some((path, name)) if !Path::new(rest).exists() => Self::File(path.into(), Some(name.to_owned())),
                    _ => Self::File(rest.into(), None),
                };
            }
        }
        Self::Stored(text.to_owned())
    }
}

impl Image {
    /// Opens an image by what [`Origin::of`] takes. One of an archive or a layout is put into the store without a name;
    /// it can be collected once no one uses it.
    ///
    /// `owner` says who uses it, to those who want to remove it.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub fn open(store: &Store, text: &str, owner: &str) -> Result<Self, ImageError> {
        match Origin::of(text) {
            Origin::Own => {
                let root = embedded::root_fs()?;
                let config = ContainerConfig { cmd: vec![super::WORKLOAD_PATH.to_owned()], ..Default::default() };
                Ok(Self { name: text.to_owned(), id: None, root, config, _lease: None })
            }
            Origin::Directory(path) => {
                let path = std::fs::canonicalize(&path).map_err(crate::fs::FileError::new("open", path))?;
                if !path.is_dir() {
                    return Err(ImageError::invalid(path.display().to_string(), "it is no directory"));
                }
                let root = RootFs { layers: vec![path] };
                let config = ContainerConfig::default();
                Ok(Self { name: text.to_owned(), id: None, root, config, _lease: None })
            }
            Origin::File(path, name) => {
                let selection = Selection { platform: own_platform(), name, named: false };
                // A collection between the two would take the image away.
                let share = store.share()?;
                let opened = archive::load_one(store, &path, &selection)
                    .and_then(|id| Self::stored(store, &id.to_string(), text, owner));
                drop(share);
                if opened.is_err() {
                    store.tidy()?;
                }
                opened
            }
            Origin::Stored(name) => {
                let _share = store.share()?;
                Self::stored(store, &name, text, owner)
            }
        }
    }

    /// Of the store, which the caller shares.
    fn stored(store: &Store, name: &str, text: &str, owner: &str) -> Result<Self, ImageError> {
        let image = store.image(name)?;
        let lease = store.lease(&image, owner)?;
        let layers = store.unpack(&image)?;
        let (id, config) = (Some(image.id), image.config.config);
        Ok(Self { name: text.to_owned(), id, root: RootFs { layers }, config, _lease: Some(lease) })
    }

    /// Its root with the isobench binary at [`super::WORKLOAD_PATH`], by a layer on top that holds nothing else: so
    /// that workloads run in any image.
    ///
    /// # Errors
    /// When that layer is missing and cannot be made.
    pub fn with_workload(&self) -> Result<RootFs, ImageError> {
        let mut root = self.root.clone();
        // The image of the binary has it.
        if Origin::of(&self.name) != Origin::Own {
            root.layers.insert(0, embedded::workload_layer()?);
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_is_asked_for_by() {
        assert_eq!(Origin::of("self"), Origin::Own);
        assert_eq!(Origin::of("busybox:1"), Origin::Stored("busybox:1".to_owned()));
        assert_eq!(Origin::of("oci:/no/dir"), Origin::File("/no/dir".into(), None));
        assert_eq!(
            Origin::of("docker-archive:/no/a.tar:b:1"),
            Origin::File("/no/a.tar".into(), Some("b:1".to_owned()))
        );
        assert_eq!(Origin::of("dir:/a:b"), Origin::Directory("/a:b".into()));
    }
}
