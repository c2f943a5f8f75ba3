//! Compressed forms of layers that came uncompressed: made for a registry, and kept so that the next push finds the
//! same blob.

use std::io::Write;

use super::Store;
use crate::fs::{FileError, read_text, write_atomic_through};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::spec::{Descriptor, media};
use crate::image::unpack::stream::Compression;

/// How well layers are compressed: fast, since the network waits.
const LEVEL: u32 = 6;

impl Store {
    /// The gzip form of the layer with this diff id, if one was made.
    #[must_use]
    pub fn compressed(&self, diff: &Digest) -> Option<Descriptor> {
        let text = read_text(self.root.join("compressed").join(diff.hex())).ok()?;
        let digest: Digest = text.trim().parse().ok()?;
        let size = self.size(&digest).ok()?;
        Some(Descriptor::new(media::OCI_LAYER_GZIP, digest, size))
    }

    /// The layer in a compressed form: as it is, or its gzip form, which is made if it is missing. The same layer gives
    /// the same bytes each time. Who calls this holds [`Store::share`].
    ///
    /// # Errors
    /// When the layer is missing or damaged, or the form cannot be written.
    pub fn compress(&self, layer: &Descriptor, diff: &Digest) -> Result<Descriptor, ImageError> {
        if self.compression(&layer.digest)? != Compression::Plain {
            return Ok(layer.clone());
        }
        if let Some(known) = self.compressed(diff) {
            return Ok(known);
        }
        let mut encoder = flate2::write::GzEncoder::new(self.begin_blob()?, flate2::Compression::new(LEVEL));
        self.copy_blob(&layer.digest, &mut encoder)?;
        let writing = || FileError::new("write a blob in", self.temporary());
        let mut blob = encoder.finish().map_err(writing())?;
        blob.flush().map_err(writing())?;
        let (digest, size) = blob.finish()?;
        let note = self.root.join("compressed").join(diff.hex());
        write_atomic_through(self.temporary(), note, digest.to_string().as_bytes())?;
        Ok(Descriptor::new(media::OCI_LAYER_GZIP, digest, size))
    }

    /// How a layer's blob is compressed, by its first bytes.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn compression(&self, digest: &Digest) -> Result<Compression, ImageError> {
        use std::io::Read;
        let mut first = Vec::new();
        let read = self.open_blob(digest)?.take(4).read_to_end(&mut first);
        read.map_err(FileError::new("read", self.blob_path(digest)))?;
        Ok(Compression::of(&first))
    }

    /// What names a layer's blob, by its first bytes.
    ///
    /// # Errors
    /// As [`Store::compression`].
    pub fn layer_descriptor(&self, digest: Digest, size: u64) -> Result<Descriptor, ImageError> {
        let media_type = match self.compression(&digest)? {
            Compression::Plain => media::OCI_LAYER,
            Compression::Gzip => media::OCI_LAYER_GZIP,
            Compression::Zstd => media::OCI_LAYER_ZSTD,
        };
        Ok(Descriptor::new(media_type, digest, size))
    }
}
