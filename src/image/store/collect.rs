//! Taking away: names, images, and what no image and no user needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::Store;
use super::layers::chain_ids;
use super::lease::Kept;
use super::records::{Record, find};
use crate::fs::{FileError, Lock};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;

/// What a removal did, in the order in which it did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken from an image.
    Untagged(String),
    /// An image was removed.
    Deleted(Digest),
}

/// What a collection took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub blobs: u32,
    /// Unpacked layers.
    pub layers: u32,
    /// Bytes of the blobs and of the layers' files.
    pub bytes: u64,
}

impl Store {
    /// Removes a name, and the image with its last one. An identifier stands for the image with all its names, of
    /// which there may be several only where `force` is set.
    ///
    /// # Errors
    /// When there is no such image, or it is in use: where `force` is set only its names are taken then, and what is
    /// in use stays until it is not.
    pub fn remove(&self, text: &str, force: bool) -> Result<Vec<Removed>, ImageError> {
        let share = self.share()?;
        let removed = self.change_records(|images| {
            let id = find(images, text)?;
            take_away(images, id, text, force, &self.users(&id)?)
        })?;
        drop(share);
        self.tidy()?;
        Ok(removed)
    }

    /// Removes the images that `unwanted` says and that nothing uses, and collects.
    ///
    /// # Errors
    /// When the records or the leases cannot be read or changed, and what `unwanted` says.
    pub fn prune(
        &self,
        unwanted: impl Fn(&Digest, &Record) -> Result<bool, ImageError>,
    ) -> Result<(Vec<Removed>, Collected), ImageError> {
        let alone = Lock::exclusive(self.root.join("lock"))?;
        let used: BTreeSet<Digest> = self.kept(true)?.into_iter().map(|kept| kept.image).collect();
        let removed = self.change_records(|images| {
            let mut removed = Vec::new();
            let mut rest = BTreeMap::new();
            for (id, record) in std::mem::take(images) {
                if used.contains(&id) || !unwanted(&id, &record)? {
                    rest.insert(id, record);
                    continue;
                }
                removed.extend(record.names.into_iter().map(Removed::Untagged));
                removed.push(Removed::Deleted(id));
            }
            *images = rest;
            Ok(removed)
        })?;
        Ok((removed, self.sweep(alone)?))
    }

    /// Takes away what no image and no user needs. Waits until no other process works in the store.
    ///
    /// # Errors
    /// When the store cannot be read or a file cannot be removed.
    pub fn collect(&self) -> Result<Collected, ImageError> {
        let alone = Lock::exclusive(self.root.join("lock"))?;
        self.sweep(alone)
    }

    /// Collects if no other process works in the store, or ends to within a tenth of a second; else the next
    /// collection will. What it took away; `None` where it did not begin.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn tidy(&self) -> Result<Option<Collected>, ImageError> {
        // A child that another thread has just forked holds all locks until its exec.
        for _ in 0..20 {
            if let Some(alone) = Lock::try_exclusive(self.root.join("lock"))? {
                return self.sweep(alone).map(Some);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(None)
    }

    /// Moves what is not needed out of the way while no one else works here; deletes it after.
    fn sweep(&self, alone: Lock) -> Result<Collected, ImageError> {
        let needed = self.needed()?;
        let temporary = self.temporary();
        let trash = tempfile::Builder::new().prefix("trash-").tempdir_in(&temporary);
        let trash = trash.map_err(FileError::new("create a directory in", &temporary))?;
        // Held until it is empty: the next collection may come while this one still deletes.
        let opened = File::open(trash.path()).and_then(|directory| directory.lock().map(|()| directory));
        let _held = opened.map_err(FileError::new("lock", trash.path()))?;
        let mut collected = Collected::default();
        for (name, path) in entries(&temporary)? {
            if !name.to_string_lossy().starts_with("trash-") || is_abandoned(&path) {
                discard(&path, trash.path(), &name)?;
            }
        }
        for (name, path) in entries(&self.root.join("blobs/sha256"))? {
            if !needed.blobs.contains(&name) {
                collected.blobs += 1;
                let bytes = path.metadata().map_or(0, |metadata| metadata.len());
                collected.bytes = collected.bytes.saturating_add(bytes);
                discard(&path, trash.path(), &name)?;
            }
        }
        for (name, path) in entries(&self.layers_directory())? {
            let Some(short) = name.to_str().map(|name| name.trim_end_matches(".json")) else { continue };
            if needed.layers.contains(short) {
                continue;
            }
            if path.is_dir() {
                collected.layers += 1;
            } else if let Ok(record) =
                serde_json::from_slice::<super::layers::LayerRecord>(&std::fs::read(&path).unwrap_or_default())
            {
                collected.bytes = collected.bytes.saturating_add(record.bytes);
            }
            discard(&path, trash.path(), &name)?;
        }
        for (name, path) in entries(&self.root.join("compressed"))? {
            if !needed.diffs.contains(&name) {
                discard(&path, trash.path(), &OsString::from(format!("gzip-{}", name.display())))?;
            }
        }
        for (_, path) in entries(&self.root.join("locks"))? {
            std::fs::remove_file(&path).map_err(FileError::new("remove", &path))?;
        }
        drop(alone);
        let path = trash.path().to_owned();
        trash.close().map_err(FileError::new("remove", path))?;
        Ok(collected)
    }

    /// What the records and the leases need.
    fn needed(&self) -> Result<Needed, ImageError> {
        let mut needed = Needed::default();
        let images: BTreeMap<Digest, Record> = self.records()?;
        for (id, record) in images {
            needed.blob(&record.manifest.digest);
            needed.blob(&id);
            let image = match self.stored(id, record) {
                Ok(image) => image,
                // A damaged image keeps its documents; its layers cannot be known.
                Err(error) if error.is_damage() => continue,
                // What cannot be read just now needs its layers all the same.
                Err(error) => return Err(error),
            };
            image.manifest.layers.iter().for_each(|layer| needed.blob(&layer.digest));
            for diff in &image.config.rootfs.diff_ids {
                needed.diffs.insert(diff.hex().into());
                if let Some(gzip) = self.compressed(diff) {
                    needed.blob(&gzip.digest);
                }
            }
            chain_ids(&image.config.rootfs.diff_ids).iter().for_each(|chain| needed.layer(self, chain));
        }
        for kept in self.kept(true)? {
            kept.blobs.iter().for_each(|blob| needed.blob(blob));
            kept.chains.iter().for_each(|chain| needed.layer(self, chain));
        }
        Ok(needed)
    }
}

/// Takes a name or a digest's name from an image, or the image away with its last.
fn take_away(
    images: &mut BTreeMap<Digest, Record>,
    id: Digest,
    text: &str,
    force: bool,
    users: &[Kept],
) -> Result<Vec<Removed>, ImageError> {
    let Some(record) = images.get_mut(&id) else { return Err(ImageError::NoSuchImage(text.to_owned())) };
    let reference = text.parse::<Reference>().ok().map(Reference::or_latest);
    let pinned = reference.as_ref().and_then(|name| name.digest().map(|digest| name.at_digest(*digest).to_string()));
    if let Some(pinned) = pinned.filter(|pinned| record.repo_digests.contains(pinned)) {
        if record.names.len() + record.repo_digests.len() > 1 {
            record.repo_digests.remove(&pinned);
            return Ok(vec![Removed::Untagged(pinned)]);
        }
    } else {
        let name = reference.map(|name| name.to_string()).filter(|name| record.names.contains(name));
        match name {
            Some(name) if record.names.len() > 1 => {
                record.names.remove(&name);
                return Ok(vec![Removed::Untagged(name)]);
            }
            None if record.names.len() > 1 && !force => return Err(ImageError::SeveralNames(text.to_owned())),
            _ => {}
        }
    }
    let nameless = record.names.is_empty() && record.repo_digests.is_empty();
    let by_container = users.iter().find(|user| user.pinned);
    if let Some(user) = users.first().filter(|_| !force).or(by_container.filter(|_| nameless)) {
        return Err(ImageError::InUse { image: text.to_owned(), by: user.owner.clone() });
    }
    let mut removed: Vec<Removed> = record.names.iter().cloned().map(Removed::Untagged).collect();
    if by_container.is_some() {
        // A container opens its image again, by its identifier, when it starts the next time.
        record.names.clear();
        record.repo_digests.clear();
    } else {
        removed.push(Removed::Deleted(id));
        images.remove(&id);
    }
    Ok(removed)
}

/// What stays, by the names of the files.
#[derive(Debug, Default)]
struct Needed {
    blobs: BTreeSet<OsString>,
    layers: BTreeSet<String>,
    diffs: BTreeSet<OsString>,
}

impl Needed {
    fn blob(&mut self, digest: &Digest) {
        self.blobs.insert(digest.hex().into());
    }

    fn layer(&mut self, store: &Store, chain: &Digest) {
        if let Some(name) = store.layer_path(chain).file_name() {
            self.layers.insert(name.to_string_lossy().into_owned());
        }
    }
}

/// Whether a collection was killed while it deleted this.
fn is_abandoned(trash: &Path) -> bool {
    File::open(trash).is_ok_and(|directory| directory.try_lock().is_ok())
}

fn entries(directory: &Path) -> Result<Vec<(OsString, PathBuf)>, FileError> {
    let listing = std::fs::read_dir(directory).map_err(FileError::new("list", directory))?;
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(FileError::new("list", directory))?;
        found.push((entry.file_name(), entry.path()));
    }
    Ok(found)
}

fn discard(path: &Path, trash: &Path, name: &OsString) -> Result<(), FileError> {
    match std::fs::rename(path, trash.join(name)) {
        // Another process deletes what it had moved away.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(FileError::new("move away", path)),
    }
}
