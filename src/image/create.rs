//! New images: of a root file system in an archive or a directory, and of what a container changed.

use std::fs::File;
use std::path::Path;

use super::change::Change;
use super::changes::Upper;
use super::digest::Digest;
use super::error::ImageError;
use super::pack::{self, Tree};
use super::reference::Reference;
use super::spec::{ContainerConfig, HistoryEntry, ImageConfig, LayerDigests, Manifest, Platform, media, own_platform};
use super::store::Store;
use super::unpack::stream;
use super::unpack::tarball::TarReader;
use crate::fs::FileError;

/// What is said of a new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name, if it is to have one.
    pub name: Option<Reference>,
    /// A note for its history.
    pub comment: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// The command that made the layer, for its history.
    pub created_by: Option<String>,
    /// Changes of its configuration.
    pub changes: Vec<Change>,
    /// What it runs on.
    pub platform: Platform,
}

impl Description {
    /// An image for this machine's platform, of which only the name is said, if that.
    #[must_use]
    pub fn of(name: Option<Reference>) -> Self {
        let platform = own_platform();
        Self { name, comment: None, author: None, created_by: None, changes: Vec::new(), platform }
    }
}

/// Where a root file system is imported from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootSource<'a> {
    /// An archive: plain, gzip or zstd.
    Archive(&'a Path),
    /// A directory.
    Directory(&'a Path),
    /// An archive on standard input.
    StandardInput,
}

/// Makes an image with one layer of a root file system; its identifier.
///
/// # Errors
/// When it cannot be read or is damaged; nothing is left then.
pub fn import(store: &Store, source: RootSource<'_>, description: &Description) -> Result<Digest, ImageError> {
    check_name(description)?;
    let share = store.share()?;
    let imported = import_layer(store, source).and_then(|(blob, diff)| {
        let config = ImageConfig::default();
        finish(store, config, Vec::new(), blob, diff, description)
    });
    drop(share);
    if imported.is_err() {
        store.tidy()?;
    }
    imported
}

/// Makes an image of another (or of none) and what a container changed over it: the upper directory of its overlay.
///
/// `config` is what a container of the new image is to be; the changes of the description come over it.
///
/// # Errors
/// When the base is not there or the directory cannot be read; nothing is left then.
pub fn commit<'a>(
    store: &Store,
    base: Option<&str>,
    upper: impl Into<Upper<'a>>,
    config: ContainerConfig,
    description: &Description,
) -> Result<Digest, ImageError> {
    check_name(description)?;
    let share = store.share()?;
    let committed = commit_shared(store, base, upper.into(), config, description);
    drop(share);
    if committed.is_err() {
        store.tidy()?;
    }
    committed
}

/// Before the work: whether the new image can be called so.
fn check_name(description: &Description) -> Result<(), ImageError> {
    description.name.as_ref().map_or(Ok(()), |name| name.as_name().map(drop).map_err(ImageError::from))
}

fn commit_shared(
    store: &Store,
    base: Option<&str>,
    upper: Upper<'_>,
    container: ContainerConfig,
    description: &Description,
) -> Result<Digest, ImageError> {
    let (mut config, layers) = match base {
        Some(base) => {
            let base = store.image(base)?;
            (base.config, base.manifest.layers)
        }
        None => (ImageConfig::default(), Vec::new()),
    };
    config.config = container;
    let mut blob = store.begin_blob()?;
    pack::pack(upper.path, upper.tree, &mut blob)?;
    let blob = blob.finish()?;
    finish(store, config, layers, blob, blob.0, description)
}

/// A digest and a length.
type Blob = (Digest, u64);

/// Puts a root file system into the store as it is; its blob and its diff id.
fn import_layer(store: &Store, source: RootSource<'_>) -> Result<(Blob, Digest), ImageError> {
    let (what, blob) = match source {
        RootSource::Directory(path) => {
            let mut blob = store.begin_blob()?;
            pack::pack(path, Tree::Whole, &mut blob)?;
            let blob = blob.finish()?;
            return Ok((blob, blob.0));
        }
        RootSource::Archive(path) => {
            let mut file = File::open(path).map_err(FileError::new("open", path))?;
            (path, store.put(&path.display().to_string(), &mut file, None)?)
        }
        RootSource::StandardInput => {
            let what = "standard input";
            (Path::new(what), store.put(what, &mut std::io::stdin().lock(), None)?)
        }
    };
    // No digest tells whether all of it is there, so its end marker must.
    let limits = *store.limits();
    let read = stream::with_plain(store.open_blob(&blob.0)?, limits.bytes, |plain| {
        let mut archive = TarReader::new(plain, limits, true);
        while archive.next_entry()?.is_some() {}
        Ok::<(), ImageError>(())
    });
    match read {
        Ok(((), digests)) => Ok((blob, digests.plain.0)),
        Err(ImageError::Stream(source)) => Err(ImageError::Archive { path: what.to_owned(), source }),
        Err(error) => Err(error),
    }
}

/// Adds a layer to a configuration, unpacks it and records the image.
fn finish(
    store: &Store,
    mut config: ImageConfig,
    mut layers: Vec<super::spec::Descriptor>,
    (blob, size): Blob,
    diff: Digest,
    description: &Description,
) -> Result<Digest, ImageError> {
    let now = jiff::Timestamp::now().to_string();
    layers.push(store.layer_descriptor(blob, size)?);
    config.rootfs.kind = LayerDigests::KIND.to_owned();
    config.author = description.author.clone().or(config.author);
    if config.architecture.is_empty() {
        config.architecture = description.platform.architecture.clone();
        config.os = description.platform.os.clone();
        config.variant = description.platform.variant.clone();
    }
    complete_history(&mut config);
    config.rootfs.diff_ids.push(diff);
    config.created = Some(now.clone());
    config.history.push(HistoryEntry {
        created: Some(now),
        created_by: description.created_by.clone(),
        author: description.author.clone(),
        comment: description.comment.clone(),
        empty_layer: false,
    });
    Change::apply_all(&description.changes, &mut config.config);
    let text = serde_json::to_vec(&config).map_err(ImageError::json("a configuration"))?;
    let id = store.put_document(media::OCI_CONFIG, &text)?;
    let manifest = Manifest::oci(id.clone(), layers);
    let text = serde_json::to_vec(&manifest).map_err(ImageError::json("a manifest"))?;
    let descriptor = store.put_document(media::OCI_MANIFEST, &text)?;
    store.add(&descriptor, description.name.as_slice(), None)
}

/// An entry for each layer that the history does not tell of: entries are told layers by their number.
fn complete_history(config: &mut ImageConfig) {
    let told = config.history.iter().filter(|entry| !entry.empty_layer).count();
    for _ in told..config.rootfs.diff_ids.len() {
        config.history.push(HistoryEntry { created: config.created.clone(), ..HistoryEntry::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_that_was_left_out_is_completed() {
        let digest = Digest::of(b"");
        let rootfs = LayerDigests { diff_ids: vec![digest; 3], ..LayerDigests::default() };
        let empty = HistoryEntry { empty_layer: true, ..HistoryEntry::default() };
        let history = vec![HistoryEntry::default(), empty];
        let mut config = ImageConfig { rootfs, history, created: Some("then".to_owned()), ..ImageConfig::default() };
        complete_history(&mut config);
        assert_eq!(config.history.len(), 4, "three layers and one step without");
        assert_eq!(config.history[3].created.as_deref(), Some("then"));
        complete_history(&mut config);
        assert_eq!(config.history.len(), 4);
    }
}
