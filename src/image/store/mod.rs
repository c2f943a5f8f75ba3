//! The store: blobs by digest, image records, unpacked layers, and who uses them.
//!
//! ```text
//! blobs/sha256/HEX    manifests, configurations, layers as they came; read only, never changed
//! images.json         the records: image, its names, its manifest
//! layers/SHORT/       an unpacked layer, a lower directory of overlayfs; SHORT is of its chain id
//! layers/SHORT.json   what it was unpacked from, written when it is whole
//! compressed/HEX      which blob is the gzip form of the layer with this diff id
//! leases/             who uses which image
//! locks/, tmp/        layers that are being unpacked; what is not whole yet
//! ```
//!
//! Three locks (flock) make it safe for any number of processes. `lock` is held shared by all that add or look up,
//! and alone by the collection of what is not used. `records.lock` is held while the records are changed. A lock a
//! layer lets one process unpack it while the others wait. A killed process leaves at most files in `tmp/`, which
//! the next collection takes away.
//!
//! Blobs and records are on disk (fsync) before they can be seen. Unpacked layers are not: they can be made again
//! from their blobs, and are, when the machine was booted since.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::digest::{Digest, HashingReader, HashingWriter};
use super::error::ImageError;
use super::spec::Descriptor;
use super::unpack::{Limits, UnpackError};
use crate::fs::{FileError, Lock, sync_directory};

pub mod collect;
pub mod compressed;
pub mod layers;
pub mod lease;
pub mod records;

/// Where the store of this machine is, unless `ISOBENCH_IMAGES` names another directory.
pub const DEFAULT_ROOT: &str = "/var/lib/isobench/images";

/// The longest manifest, index or configuration that is taken, in bytes: what registries take at most.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// A store in a directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
}

impl Store {
    /// The store in a directory; made if it is missing. Who opens it owns its directories, and they let in no others.
    ///
    /// # Errors
    /// When its directories cannot be made, or belong to another user.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let root = root.into();
        let root = std::path::absolute(&root).map_err(FileError::new("resolve", &root))?;
        if let Some(parent) = root.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.map_err(FileError::new("create directory", parent))?;
        }
        // Layers hold programs that are set-user-id and devices: no user of this machine may come to them.
        for (part, mode) in
            [("", 0o700), ("blobs", 0o700), ("blobs/sha256", 0o700), ("layers", 0o711), ("compressed", 0o700)]
        {
            own_directory(&root.join(part), mode)?;
        }
        for part in ["leases", "locks", "tmp"] {
            own_directory(&root.join(part), 0o700)?;
        }
        Ok(Self { root, limits: Limits::default() })
    }

    /// The store of this machine.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn of_machine() -> Result<Self, ImageError> {
        Self::open(root_of_machine())
    }

    /// The store of this machine, if there is one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn existing() -> Result<Option<Self>, ImageError> {
        let root = root_of_machine();
        if root.is_dir() { Self::open(root).map(Some) } else { Ok(None) }
    }

    /// The same store with other limits on what is unpacked.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The directory it is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What a layer may be at most.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Keeps everything in the store while it is held: for those that add or look up.
    ///
    /// # Errors
    /// When the lock cannot be taken.
    pub fn share(&self) -> Result<Lock, ImageError> {
        Ok(Lock::shared(self.root.join("lock"))?)
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Moves a blob away whose content, as `read` was opened on it, is not what its digest says: so that it counts as
    /// missing, and comes anew with the next pull or load. The next collection deletes it.
    pub(in crate::image) fn set_aside(&self, digest: &Digest, read: &File) {
        let path = self.blob_path(digest);
        // It may have come anew already.
        let same = match (read.metadata(), path.symlink_metadata()) {
            (Ok(read), Ok(there)) => (read.dev(), read.ino()) == (there.dev(), there.ino()),
            _ => false,
        };
        if same {
            // Where it cannot be moved, who asked is told of the damage all the same.
            let _ = std::fs::rename(&path, self.temporary().join(format!("damaged-{}", digest.hex())));
        }
    }

    /// The length of a blob in bytes.
    ///
    /// # Errors
    /// When it is missing.
    pub fn size(&self, digest: &Digest) -> Result<u64, ImageError> {
        match std::fs::metadata(self.blob_path(digest)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(self.missing(digest, error)),
        }
    }

    /// Opens a blob. Who reads it checks its digest.
    ///
    /// # Errors
    /// When it is missing.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, ImageError> {
        File::open(self.blob_path(digest)).map_err(|error| self.missing(digest, error))
    }

    fn missing(&self, digest: &Digest, error: io::Error) -> ImageError {
        if error.kind() == io::ErrorKind::NotFound {
            return ImageError::MissingBlob(*digest, "the store".to_owned());
        }
        FileError::new("read", self.blob_path(digest))(error).into()
    }

    /// Reads a document and checks its digest.
    ///
    /// # Errors
    /// When it is missing, longer than [`MAX_DOCUMENT`], or not what its digest says.
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let what = || format!("the blob {digest}");
        let file = self.open_blob(digest)?;
        let bytes = read_small(&file, &self.blob_path(digest), what)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            self.set_aside(digest, &file);
            return Err(ImageError::Digest { what: what(), expected: *digest, found });
        }
        Ok(bytes)
    }

    /// Copies a blob out and checks its digest on the way.
    ///
    /// # Errors
    /// When it is missing, cannot be read or written, or is not what its digest says.
    pub fn copy_blob(&self, digest: &Digest, to: &mut dyn Write) -> Result<u64, ImageError> {
        let file = self.open_blob(digest)?;
        let mut reader = HashingReader::new(&file);
        io::copy(&mut reader, to).map_err(FileError::new("copy", self.blob_path(digest)))?;
        let (found, bytes) = reader.finish();
        if found != *digest {
            self.set_aside(digest, &file);
            let what = format!("the blob {digest}");
            return Err(ImageError::Digest { what, expected: *digest, found });
        }
        Ok(bytes)
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin_blob(&self) -> Result<BlobWriter<'_>, ImageError> {
        let parent = self.temporary();
        let made = tempfile::NamedTempFile::new_in(&parent);
        let file = made.map_err(FileError::new("create a temporary file in", parent))?;
        Ok(BlobWriter { store: self, writer: HashingWriter::new(file) })
    }

    /// Puts a document in.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_document(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, ImageError> {
        let mut blob = self.begin_blob()?;
        blob.write_all(bytes).map_err(FileError::new("write a blob in", self.temporary()))?;
        let (digest, size) = blob.finish()?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Puts all that a reader has in.
    ///
    /// # Errors
    /// When it cannot be read or written, is not what was expected, or is longer than the limit of a layer where nothing
    /// was; nothing is kept then.
    pub fn put(
        &self,
        what: &str,
        reader: &mut dyn Read,
        expected: Option<&Descriptor>,
    ) -> Result<(Digest, u64), ImageError> {
        let mut blob = self.begin_blob()?;
        let copying = || FileError::new("copy a blob to", self.temporary());
        match expected {
            // One byte more tells that it is longer than was told.
            Some(expected) => {
                let most = expected.size.saturating_add(1);
                io::copy(&mut reader.take(most), &mut blob).map_err(copying())?;
            }
            None => {
                let limit = self.limits.bytes;
                let size = io::copy(&mut reader.take(limit.saturating_add(1)), &mut blob).map_err(copying())?;
                if size > limit {
                    return Err(UnpackError::Limit { what: "bytes", limit }.into());
                }
            }
        }
        match expected {
            Some(expected) => blob.finish_as(what, expected).map(|()| (expected.digest, expected.size)),
            None => blob.finish(),
        }
    }
}

fn root_of_machine() -> PathBuf {
    std::env::var_os("ISOBENCH_IMAGES").map_or_else(|| DEFAULT_ROOT.into(), PathBuf::from)
}

/// A directory of the store: made if it is missing, and closed to others if it was open.
fn own_directory(path: &Path, mode: u32) -> Result<(), ImageError> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(FileError::new("create directory", path)(error).into());
        }
        _ => {}
    }
    let metadata = path.metadata().map_err(FileError::new("look at", path))?;
    let wrong = |why: String| ImageError::invalid(format!("the store's directory {}", path.display()), why);
    if !metadata.is_dir() {
        return Err(wrong("it is no directory".to_owned()));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        // Its owner could change what is in it, and open it again.
        return Err(wrong(format!("it belongs to the user {}, so what it holds cannot be trusted", metadata.uid())));
    }
    if metadata.mode() & 0o7777 != mode {
        let mode = PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).map_err(FileError::new("chmod", path))?;
    }
    Ok(())
}

/// Reads what an open file has, if that is no more than a document may be.
pub(super) fn read_small(file: &File, path: &Path, what: impl Fn() -> String) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    // Not by the length that it is said to have: it may grow, or have none.
    let read = file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
    read.map_err(FileError::new("read", path))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let size = file.metadata().map_or(0, |metadata| metadata.len()).max(bytes.len() as u64);
        return Err(ImageError::TooLarge { what: what(), size, limit: MAX_DOCUMENT });
    }
    Ok(bytes)
}

/// A blob that is being written. It is not in the store until it is finished.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    writer: HashingWriter<tempfile::NamedTempFile>,
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.writer.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl BlobWriter<'_> {
    /// Puts it into the store; its digest and length.
    ///
    /// # Errors
    /// When it cannot be put to disk or moved to its place.
    pub fn finish(self) -> Result<(Digest, u64), ImageError> {
        let (file, digest, size) = self.writer.finish();
        self.store.settle(file, &digest)?;
        Ok((digest, size))
    }

    /// Puts it into the store if it is what was expected.
    ///
    /// # Errors
    /// When it is not, or as [`BlobWriter::finish`]; nothing is kept then.
    pub fn finish_as(self, what: &str, expected: &Descriptor) -> Result<(), ImageError> {
        let (file, digest, size) = self.writer.finish();
        if size != expected.size {
            let found = size;
            return Err(ImageError::Size { what: what.to_owned(), expected: expected.size, found });
        }
        if digest != expected.digest {
            let what = what.to_owned();
            return Err(ImageError::Digest { what, expected: expected.digest, found: digest });
        }
        self.store.settle(file, &digest)
    }
}

impl Store {
    /// Moves a file that is whole and checked to the place of its digest.
    pub(super) fn settle(&self, file: tempfile::NamedTempFile, digest: &Digest) -> Result<(), ImageError> {
        let path = self.blob_path(digest);
        if path.exists() {
            return Ok(());
        }
        file.as_file().sync_all().map_err(FileError::new("write to disk", file.path()))?;
        let mode = PermissionsExt::from_mode(0o444);
        file.as_file().set_permissions(mode).map_err(FileError::new("chmod", file.path()))?;
        file.persist(&path).map_err(|error| FileError::new("move a blob to", &path)(error.error))?;
        Ok(sync_directory(self.root.join("blobs/sha256"))?)
    }
}

#[cfg(test)]
mod tests;
