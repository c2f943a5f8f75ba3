//! Volumes: directories that containers share and that outlive them.
//!
//! | path | holds |
//! |---|---|
//! | `NAME/_data/` | what containers see |
//! | `NAME/volume.json` | [`Volume`] |
//! | `.lock` | locked by whoever makes or removes one |
//!
//! One is made under a name that begins with `.`, and renamed once it is whole. A volume is in use as long as any
//! container of the store names it, whether that runs or not.

mod copy_up;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::{Config, MountSource};
use super::store::{Store, StoreError};
use crate::fs::{FileError, Lock, read_text};
use crate::image::RootFs;
use crate::image::unpack::UnpackError;

/// Why a volume cannot be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A text cannot be a name.
    #[error(
        "`{0}` cannot be a volume's name: it is a letter or digit, and then letters, digits, `_`, `.` and `-`, at least two in all"
    )]
    Name(String),
    /// There is none of that name.
    #[error("no such volume: {0}")]
    NotFound(String),
    /// A container names it.
    #[error("volume {name} is in use by container {}", containers.join(", "))]
    InUse {
        /// The volume.
        name: String,
        /// The containers' short identifiers.
        containers: Vec<String>,
    },
    /// What the image has at the target cannot be copied into it.
    #[error("cannot copy what the image has in {target} into the volume {name}")]
    Fill {
        /// The volume.
        name: String,
        /// The path in the image.
        target: String,
        /// Why.
        #[source]
        source: FillError,
    },
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The containers cannot be looked through.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an image's directory cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The image cannot be looked into, or the directory not be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The volume cannot be written.
    #[error(transparent)]
    Write(#[from] UnpackError),
    /// The threads that copy could not be had.
    #[error("there is no pipe or thread to copy through")]
    Thread(#[source] std::io::Error),
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Whether it was made for one container, which did not name it.
    pub anonymous: bool,
    /// When it was made, by RFC 3339.
    pub created: String,
}

/// What an empty volume is filled from.
#[derive(Debug, Clone, Copy)]
pub struct Seed<'a> {
    /// The image's layers.
    pub root: &'a RootFs,
    /// Where the volume goes in it.
    pub target: &'a str,
}

/// The volumes of a store.
#[derive(Debug, Clone)]
pub struct Volumes {
    store: Store,
}

/// The volumes, while no one else makes or removes any. Whoever makes a container that names volumes keeps this until
/// the container is in the store, so that none of them is removed before.
#[derive(Debug)]
pub struct LockedVolumes {
    volumes: Volumes,
    _lock: Lock,
}

impl Volumes {
    /// Those of a store.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.store.volumes().join(name)
    }

    /// The directory that a container sees of a volume, whether it is there or not.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory(name).join("_data")
    }

    /// Waits until no one else makes or removes any, and keeps it so.
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn lock(&self) -> Result<LockedVolumes, VolumeError> {
        let lock = Lock::exclusive(self.store.volumes().join(".lock"))?;
        Ok(LockedVolumes { volumes: self.clone(), _lock: lock })
    }

    /// All of them by name.
    ///
    /// # Errors
    /// When the directory cannot be listed or a description is damaged.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let directory = self.store.volumes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(FileError::new("list", &directory))? {
            let entry = entry.map_err(FileError::new("list", &directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                found.extend(self.find(&name)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The volume of a name, if there is one.
    ///
    /// # Errors
    /// When its description is damaged.
    pub fn find(&self, name: &str) -> Result<Option<Volume>, VolumeError> {
        check_name(name)?;
        let path = self.directory(name).join("volume.json");
        let text = match read_text(&path) {
            Err(error) if error.is_not_found() => return Ok(None),
            text => text?,
        };
        let damaged = |error: serde_json::Error| StoreError::Damaged { path, problem: error.to_string() };
        Ok(Some(serde_json::from_str(&text).map_err(damaged)?))
    }

    /// The short identifiers of the containers that name a volume.
    ///
    /// # Errors
    /// When a container's files are damaged: it might name it.
    pub fn users(&self, name: &str) -> Result<Vec<String>, VolumeError> {
        let mut users = Vec::new();
        for container in self.store.all()? {
            let (stored, _) = container?;
            if names_of(&stored.config).any(|(used, _)| used == name) {
                users.push(stored.config.short_id().to_owned());
            }
        }
        Ok(users)
    }
}

/// The volumes that a container names, and whether each was made for it alone.
fn names_of(config: &Config) -> impl Iterator<Item = (&str, bool)> {
    config.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { name, anonymous } => Some((name.as_str(), *anonymous)),
        _ => None,
    })
}

impl LockedVolumes {
    /// A volume by name, made if it is missing; an empty one is filled with what the image has at its target, if a seed
    /// says which. Returns the directory that a container sees.
    ///
    /// # Errors
    /// When it cannot be made or filled; a new one is gone then.
    pub fn ensure(&self, name: &str, anonymous: bool, seed: Option<Seed<'_>>) -> Result<PathBuf, VolumeError> {
        let data = self.volumes.data(name);
        if self.volumes.find(name)?.is_some() {
            if is_empty(&data)? {
                fill(name, &data, seed)?;
            }
            return Ok(data);
        }
        let fresh = self.volumes.directory(&format!(".{name}"));
        remove_tree(&fresh)?;
        let made = self.make(name, anonymous, seed, &fresh);
        if made.is_err() {
            let _ = remove_tree(&fresh);
        }
        made.map(|()| data)
    }

    fn make(&self, name: &str, anonymous: bool, seed: Option<Seed<'_>>, fresh: &Path) -> Result<(), VolumeError> {
        let data = fresh.join("_data");
        for directory in [fresh, &data] {
            std::fs::create_dir(directory).map_err(FileError::new("make the directory", directory))?;
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&data, mode).map_err(FileError::new("set the mode of", &data))?;
        fill(name, &data, seed)?;
        let known = Volume { name: name.to_owned(), anonymous, created: jiff::Timestamp::now().to_string() };
        let file = fresh.join("volume.json");
        // It has string keys only, which is all that JSON asks for.
        let text = serde_json::to_vec(&known).unwrap_or_default();
        std::fs::write(&file, text).map_err(FileError::new("write", &file))?;
        let place = self.volumes.directory(name);
        Ok(std::fs::rename(fresh, &place).map_err(FileError::new("make the directory", place))?)
    }

    /// Removes a volume that no container names.
    ///
    /// # Errors
    /// When there is none, a container names it, or it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        if self.volumes.find(name)?.is_none() {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        let containers = self.volumes.users(name)?;
        if !containers.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), containers });
        }
        let place = self.volumes.directory(name);
        let hidden = self.volumes.directory(&format!(".removed-{name}"));
        remove_tree(&hidden)?;
        std::fs::rename(&place, &hidden).map_err(FileError::new("remove", &place))?;
        Ok(remove_tree(&hidden)?)
    }

    /// Removes the volumes that were made for a container alone, once it is no more in the store. Those that another
    /// one has come to name stay.
    ///
    /// # Errors
    /// When one cannot be removed; the others are tried all the same.
    pub fn remove_anonymous_of(&self, config: &Config) -> Result<(), VolumeError> {
        let mut outcome = Ok(());
        for (name, _) in names_of(config).filter(|(_, anonymous)| *anonymous) {
            match self.remove(name) {
                Ok(()) | Err(VolumeError::NotFound(_) | VolumeError::InUse { .. }) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Removes every volume that no container names, of those without a name of the user's choice unless all are meant,
    /// and what killed processes left. Returns their names.
    ///
    /// # Errors
    /// At the first that cannot be removed.
    pub fn prune(&self, all: bool) -> Result<Vec<String>, VolumeError> {
        let mut removed = Vec::new();
        for volume in self.volumes.list()?.into_iter().filter(|volume| all || volume.anonymous) {
            match self.remove(&volume.name) {
                Ok(()) => removed.push(volume.name),
                Err(VolumeError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let directory = self.volumes.store.volumes();
        for entry in std::fs::read_dir(&directory).map_err(FileError::new("list", &directory))?.flatten() {
            // No one else makes one now, so what is hidden was left.
            if entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_dir() {
                remove_tree(&entry.path())?;
            }
        }
        Ok(removed)
    }
}

fn fill(name: &str, data: &Path, seed: Option<Seed<'_>>) -> Result<(), VolumeError> {
    let Some(seed) = seed else { return Ok(()) };
    copy_up::copy_up(seed, data).map_err(|source| VolumeError::Fill {
        name: name.to_owned(),
        target: seed.target.to_owned(),
        source,
    })
}

fn is_empty(directory: &Path) -> Result<bool, FileError> {
    Ok(std::fs::read_dir(directory).map_err(FileError::new("list", directory))?.next().is_none())
}

fn remove_tree(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::new("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Docker's rule for names.
fn check_name(name: &str) -> Result<(), VolumeError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let right = first && (2..=255).contains(&name.len()) && name.chars().all(good);
    right.then_some(()).ok_or_else(|| VolumeError::Name(name.to_owned()))
}

/// A name for a volume that has none: 64 hexadecimal digits.
///
/// # Errors
/// When the kernel's random numbers cannot be read.
pub fn fresh_name() -> Result<String, VolumeError> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; 32];
    let read = std::fs::File::open(SOURCE).and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(FileError::new("read", SOURCE))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
