//! Who uses which image, so that nothing in use is taken away.
//!
//! A lease is a file that names an image. It is held by a process, by a lock that ends with it, however that ends; or
//! by a container that outlives every process, and then until it is given back.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use super::layers::chain_ids;
use super::records::Stored;
use crate::fs::{FileError, read_text, remove_if_there, write_durable};
use crate::image::digest::Digest;
use crate::image::error::ImageError;

/// What the name of a process's lease begins with.
const PROCESS: &str = "process-";

/// What the name of a container's lease begins with.
const CONTAINER: &str = "container-";

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
        let temporary = self.temporary();
        // Others see it once it is whole and locked.
        let made = tempfile::Builder::new().prefix(PROCESS).suffix(".json").tempfile_in(&temporary);
        let mut file = made.map_err(FileError::new("create a lease in", &temporary))?;
        file.write_all(&kept).map_err(FileError::new("write", file.path()))?;
        file.as_file().lock().map_err(FileError::new("lock", file.path()))?;
        let path = self.leases().join(file.path().file_name().unwrap_or_default());
        let locked = file.persist_noclobber(&path).map_err(|error| FileError::new("keep", &path)(error.error))?;
        Ok(Lease { path, _locked: locked })
    }

    fn pin_path(&self, container: &str) -> Result<PathBuf, ImageError> {
        if container.is_empty() || !container.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_') {
            return Err(ImageError::invalid(format!("the container identifier `{container}`"), "it is no plain word"));
        }
        Ok(self.leases().join(format!("{CONTAINER}{container}.json")))
    }

    /// Keeps an image for a container, until [`Store::unpin`]: it can be opened by its identifier, whatever happens to its
    /// names and to the machine.
    ///
    /// # Errors
    /// When the image is not there or the lease cannot be written.
    pub fn pin(&self, image: &str, container: &str) -> Result<(), ImageError> {
        let _share = self.share()?;
        let kept = Kept::new(&self.image(image)?, &format!("the container {container}"), true);
        let kept = serde_json::to_vec(&kept).map_err(ImageError::json("a lease"))?;
        Ok(write_durable(self.temporary(), self.pin_path(container)?, &kept)?)
    }

    /// Gives a container's image back; one that has none is fine.
    ///
    /// # Errors
    /// When the lease cannot be removed.
    pub fn unpin(&self, container: &str) -> Result<(), ImageError> {
        Ok(remove_if_there(self.pin_path(container)?)?)
    }

    /// All leases that hold. Those whose process is gone are removed where `sweep` is set, which is for the one that
    /// holds the store alone.
    pub(super) fn kept(&self, sweep: bool) -> Result<Vec<Kept>, ImageError> {
        let directory = self.leases();
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(FileError::new("list", &directory))? {
            let path = entry.map_err(FileError::new("list", &directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(CONTAINER) {
                kept.extend(read_pin(&path)?);
                continue;
            }
            // What is neither is not ours.
            if !name.starts_with(PROCESS) {
                continue;
            }
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

    /// What uses an image.
    ///
    /// # Errors
    /// When the leases cannot be read.
    pub fn users(&self, image: &Digest) -> Result<Vec<Kept>, ImageError> {
        let mut kept = self.kept(false)?;
        kept.retain(|kept| kept.image == *image);
        Ok(kept)
    }
}

/// A container's lease; `None` for one that was given back meanwhile. One that cannot be understood keeps something, and
/// no one knows what: it is an error.
fn read_pin(path: &Path) -> Result<Option<Kept>, ImageError> {
    match read_text(path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text).map_err(ImageError::json(path.display().to_string()))?)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A process's lease that holds; `None` for one that was given back or whose process is gone.
fn read_lease(path: &Path) -> Result<Option<Kept>, ImageError> {
    let read = || FileError::new("read", path);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read()(error).into()),
    };
    if !matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)) {
        return Ok(None);
    }
    let text = std::io::read_to_string(&file).map_err(read())?;
    serde_json::from_str(&text).map(Some).map_err(ImageError::json(path.display().to_string()))
}
