//! Unpacked layers: each is unpacked once, by its chain id, and shared by all images that have it.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Store;
use super::records::Stored;
use crate::fs::{FileError, Lock, read_text, write_atomic_through};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::spec::Descriptor;
use crate::image::unpack::{self, Digests, Options, UnpackError, Unpacked, stream};

/// How many digits of the chain id a layer's directory is called by: 127 of them fit into the one page that mount(2)
/// takes. That it is the right chain is checked, so two that begin alike are an error and no mix-up.
const SHORT: usize = 24;

/// What a layer's directory was unpacked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The chain id: of this layer and all below it.
    pub chain: Digest,
    /// The digest of the uncompressed archive.
    pub diff: Digest,
    /// Bytes of its files.
    pub bytes: u64,
    /// The digest of a blob that was read and gave this layer; records of old may have none.
    #[serde(default)]
    blob: Option<Digest>,
    /// In which boot it was unpacked.
    boot: String,
}

/// The chain ids of layers given by their diff ids, the lowest first.
#[must_use]
pub fn chain_ids(diffs: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diffs.len());
    for diff in diffs {
        chains.push(match chains.last() {
            None => *diff,
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        });
    }
    chains
}

impl Store {
    /// The directory of the unpacked layers.
    #[must_use]
    pub fn layers_directory(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.layers_directory().join(&chain.hex()[..SHORT])
    }

    fn layer_record_path(&self, chain: &Digest) -> PathBuf {
        self.layers_directory().join(format!("{}.json", &chain.hex()[..SHORT]))
    }

    /// Unpacks the layers of an image that are not yet; their directories, the topmost first. Who calls this holds
    /// [`Store::share`].
    ///
    /// # Errors
    /// When a layer is missing, is not what its digests say, or cannot be unpacked; a part of it is not kept.
    pub fn unpack(&self, image: &Stored) -> Result<Vec<PathBuf>, ImageError> {
        let mut options = Options::layer(self.limits, Vec::with_capacity(image.manifest.layers.len()));
        let mut left = self.limits.image;
        for (chain, diff, blob) in layers(image) {
            options.limits.bytes = self.limits.bytes.min(left);
            left = left.saturating_sub(self.unpack_layer(&chain, diff, blob, &options)?);
            options.below.insert(0, self.layer_path(&chain));
        }
        Ok(options.below)
    }

    /// Makes sure that an image's blobs are what its digests say, where its layers were unpacked from other blobs of the
    /// same content: else they would be found out after the next boot, or where they are pushed to. Who calls this holds
    /// [`Store::share`].
    ///
    /// # Errors
    /// When a blob is missing or gives another layer.
    pub(super) fn verify(&self, image: &Stored) -> Result<(), ImageError> {
        for (chain, diff, blob) in layers(image) {
            let _lock = self.lock_layer(&chain)?;
            let record = self.layer_record(&chain)?;
            if record.as_ref().is_some_and(|record| record.blob == Some(blob.digest)) {
                continue;
            }
            let read = stream::with_plain(self.open_blob(&blob.digest)?, self.limits.bytes, |_| {
                Ok::<(), UnpackError>(()) // what is not read here is hashed all the same
            });
            let ((), digests) = read.map_err(|source| self.blame(blob, source))?;
            self.compare(blob, diff, &digests)?;
            if let Some(record) = record {
                self.write_layer_record(&LayerRecord { blob: Some(blob.digest), ..record })?;
            }
        }
        Ok(())
    }

    fn lock_layer(&self, chain: &Digest) -> Result<Lock, ImageError> {
        Ok(Lock::exclusive(self.root.join("locks").join(&chain.hex()[..SHORT]))?)
    }

    fn write_layer_record(&self, record: &LayerRecord) -> Result<(), ImageError> {
        let text = serde_json::to_vec(record).map_err(ImageError::json("a layer's record"))?;
        Ok(write_atomic_through(self.temporary(), self.layer_record_path(&record.chain), &text)?)
    }

    /// Why a layer's blob cannot be read: where it is damaged, that is why, and it is moved away.
    pub(in crate::image) fn blame(&self, blob: &Descriptor, source: UnpackError) -> ImageError {
        match self.copy_blob(&blob.digest, &mut std::io::sink()) {
            Err(damage @ ImageError::Digest { .. }) => damage,
            _ => ImageError::Unpack { layer: format!("the layer {}", blob.digest), source },
        }
    }

    /// Compares what was read of a blob with what its digests say.
    fn compare(&self, blob: &Descriptor, diff: &Digest, digests: &Digests) -> Result<(), ImageError> {
        if digests.stored.0 != blob.digest {
            self.set_aside(&blob.digest, &self.open_blob(&blob.digest)?);
        }
        for (expected, found) in [(blob.digest, digests.stored.0), (*diff, digests.plain.0)] {
            if expected != found {
                return Err(ImageError::Digest { what: format!("the layer {}", blob.digest), expected, found });
            }
        }
        Ok(())
    }

    /// A layer that is there, whole.
    ///
    /// # Errors
    /// When its directory belongs to another chain.
    pub fn layer(&self, chain: &Digest) -> Result<Option<LayerRecord>, ImageError> {
        let record = self.layer_record(chain)?;
        let boot = boot()?;
        Ok(record.filter(|record| record.boot == boot && self.layer_path(chain).is_dir()))
    }

    /// What a layer was when it was unpacked last, in this boot or another.
    ///
    /// # Errors
    /// When its directory belongs to another chain.
    pub fn layer_record(&self, chain: &Digest) -> Result<Option<LayerRecord>, ImageError> {
        let path = self.layer_record_path(chain);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // One that a crash cut short is as good as none.
        let Ok(record) = serde_json::from_str::<LayerRecord>(&text) else { return Ok(None) };
        if record.chain != *chain {
            let why = format!("it holds the layer {}, which begins like {chain}", record.chain);
            return Err(ImageError::invalid(path.display().to_string(), why));
        }
        Ok(Some(record))
    }

    /// Unpacks a layer that is not yet; bytes of its files.
    fn unpack_layer(
        &self,
        chain: &Digest,
        diff: &Digest,
        blob: &Descriptor,
        options: &Options,
    ) -> Result<u64, ImageError> {
        if let Some(known) = self.layer(chain)? {
            return Ok(known.bytes);
        }
        let _lock = self.lock_layer(chain)?;
        if let Some(known) = self.layer(chain)? {
            return Ok(known.bytes); // another process did it meanwhile
        }
        let place = self.layer_path(chain);
        let parent = self.temporary();
        let staging = tempfile::Builder::new().prefix("layer-").tempdir_in(&parent);
        let staging = staging.map_err(FileError::new("create a directory in", &parent))?;
        let bytes = self.layer_in(&staging, diff, blob, options)?.bytes;
        // What a crash or an earlier boot left in its place.
        let old = tempfile::Builder::new().prefix("old-").tempdir_in(&parent);
        let old = old.map_err(FileError::new("create a directory in", &parent))?;
        match std::fs::rename(&place, old.path().join("layer")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::new("move", place)(error).into());
            }
            _ => {}
        }
        std::fs::rename(staging.path(), &place).map_err(FileError::new("move a layer to", &place))?;
        let (chain, diff, blob) = (*chain, *diff, Some(blob.digest));
        self.write_layer_record(&LayerRecord { chain, diff, bytes, blob, boot: boot()? })?;
        Ok(bytes)
    }

    /// Unpacks a layer into a new directory and checks that it is what its digests say.
    fn layer_in(
        &self,
        staging: &tempfile::TempDir,
        diff: &Digest,
        blob: &Descriptor,
        options: &Options,
    ) -> Result<Unpacked, ImageError> {
        let root = staging.path();
        let opening = |error| FileError::new("open", root)(error);
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).map_err(opening)?;
        let directory = File::open(root).map_err(|error| FileError::new("open", root)(error))?;
        let unpacked = unpack::unpack(self.open_blob(&blob.digest)?, &directory, options);
        let unpacked = unpacked.map_err(|source| self.blame(blob, source))?;
        self.compare(blob, diff, &unpacked.digests)?;
        Ok(unpacked)
    }
}

/// An image's layers, the lowest first: chain id, diff id, blob.
fn layers(image: &Stored) -> impl Iterator<Item = (Digest, &Digest, &Descriptor)> {
    let diffs = &image.config.rootfs.diff_ids;
    chain_ids(diffs).into_iter().zip(diffs).zip(&image.manifest.layers).map(|((chain, diff), blob)| (chain, diff, blob))
}

/// What tells this boot from all others.
fn boot() -> Result<String, FileError> {
    Ok(read_text("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_specification() {
        let diffs = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"a")];
        let chains = chain_ids(&diffs);
        assert_eq!(chains[0], diffs[0]);
        let text = format!("{} {}", diffs[0], diffs[1]);
        assert_eq!(chains[1], Digest::of(text.as_bytes()));
        assert_ne!(chains[2], chains[0], "the same layer over others is another chain");
    }
}
