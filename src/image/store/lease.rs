//! Who uses which image, so that nothing in use is taken away.
//!
//! A lease is a file that names an image. It is held by a process, by a lock that ends with it, however that ends; or
//! by a container that outlives every process, and then until it is given back.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::layers::chain_ids;
use super::records::Stored;
use crate::fs::{FileError, write_atomic};
use crate::image::digest::Digest;
use crate::image::error::ImageError;

/// What a lease keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The image.
    pub image: Digest,
    /// Its blobs.
    pub blobs: Vec<Digest>,
    /// The chain ids of its layers.
    pub chains: Vec<Digest>,
    /// Who uses it, for people.
    pub owner: String,
    /// Whether it outlives the process that made it.
    pub pinned: bool,
}

impl Kept {
    fn new(image: &Stored, owner: &str, pinned: bool) -> Self {
        let mut blobs = vec![image.record.manifest.digest, image.id];
        blobs.extend(image.manifest.layers.iter().map(|layer| layer.digest));
        let chains = chain_ids(&image.config.rootfs.diff_ids);
        Self { image: image.id, blobs, chains, owner: owner.to_owned(), pinned }
    }
}

/// A process's use of an image; ends when it is dropped, or with the process.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    _locked: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Where it stays, the next collection finds that no one holds it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// Keeps an image for as long as the lease lives. Who calls this holds [`Store::share`].
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn lease(&self, image: &Stored, owner: &str) -> Result<Lease, ImageError> {
        let kept = serde_json::to_vec(&Kept::new(image, owner, false)).map_err(ImageError::json("a lease"))?;
        let directory = self.leases();
        let made = tempfile::Builder::new().prefix("process-").suffix(".json").tempfile_in(&directory);
        let file = made.map_err(FileError::new("create a lease in", &directory))?;
        std::fs::write(file.path(), kept).map_err(FileError::new("write", file.path()))?;
        let (locked, path) = file.keep().map_err(|error| FileError::new("keep", &directory)(error.error))?;
        locked.lock().map_err(FileError::new("lock", &path))?;
        Ok(Lease { path, _locked: locked })
    }

    fn pin_path(&self, container: &str) -> Result<PathBuf, ImageError> {
        if container.is_empty() || !container.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_') {
            return Err(ImageError::invalid(format!("the container identifier `{container}`"), "it is no plain word"));
        }
        Ok(self.leases().join(format!("container-{container}.json")))
    }

    /// Keeps an image for a container, until [`Store::unpin`].
    ///
    /// # Errors
    /// When the image is not there or the lease cannot be written.
    pub fn pin(&self, image: &str, container: &str) -> Result<(), ImageError> {
        let _share = self.share()?;
        let kept = Kept::new(&self.image(image)?, &format!("the container {container}"), true);
        let kept = serde_json::to_vec(&kept).map_err(ImageError::json("a lease"))?;
        Ok(write_atomic(self.pin_path(container)?, &kept)?)
    }

    /// Gives a container's image back; one that has none is fine.
    ///
    /// # Errors
    /// When the lease cannot be removed.
    pub fn unpin(&self, container: &str) -> Result<(), ImageError> {
        let path = self.pin_path(container)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FileError::new("remove", path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// All leases that hold. Those whose process is gone are removed where `sweep` is set, which is for the one that
    /// holds the store alone.
    pub(super) fn kept(&self, sweep: bool) -> Result<Vec<Kept>, ImageError> {
        let directory = self.leases();
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(FileError::new("list", &directory))? {
            let path = entry.map_err(FileError::new("list", &directory))?.path();
            match read_lease(&path)? {
                Some(lease) => kept.push(lease),
                None if sweep => {
                    let _ = std::fs::remove_file(&path);
                }
                None => {}
            }
        }
        Ok(kept)
    }

    /// What uses an image, if anything does.
    ///
    /// # Errors
    /// When the leases cannot be read.
    pub fn used_by(&self, image: &Digest) -> Result<Option<Kept>, ImageError> {
        Ok(self.kept(false)?.into_iter().find(|kept| kept.image == *image))
    }
}

/// A lease that holds; `None` for one that was given back or whose process is gone.
fn read_lease(path: &Path) -> Result<Option<Kept>, ImageError> {
    let read = || FileError::new("read", path);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read()(error).into()),
    };
    let text = std::io::read_to_string(&file).map_err(read())?;
    let held = matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock));
    match serde_json::from_str::<Kept>(&text) {
        Ok(kept) if held || kept.pinned => Ok(Some(kept)),
        Ok(_) => Ok(None),
        // Written in part by a process that was killed, or by one that makes it now under the shared lock.
        Err(_) if !held => Ok(None),
        Err(error) => Err(ImageError::json(path.display().to_string())(error)),
    }
}
