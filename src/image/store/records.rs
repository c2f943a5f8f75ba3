//! The records: which images there are, and what they are called.
//!
//! An image is known by its identifier, the digest of its configuration, as docker shows it. The same image that
//! comes again, from a registry or an archive, only gets a further name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Store;
use crate::fs::{FileError, Lock, write_durable};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::{Descriptor, ImageConfig, Manifest, media};
use crate::image::unpack::Limits;

/// The layout of the file.
const SCHEMA: u32 = 1;

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its manifest in the store.
    pub manifest: Descriptor,
    /// Its names, whole, as in `docker.io/library/busybox:latest`; none for one that lost its name.
    #[serde(default)]
    pub names: BTreeSet<String>,
    /// Where it was pulled from or pushed to, by digest: `registry/repository@digest`.
    #[serde(default)]
    pub repo_digests: BTreeSet<String>,
    /// Bytes of its files, over all layers.
    pub bytes: u64,
    /// When it came into this store, by RFC 3339.
    pub added: String,
}

impl Record {
    /// Of an image that is not recorded yet.
    pub(in crate::image) fn new(manifest: Descriptor) -> Self {
        let added = jiff::Timestamp::now().to_string();
        Self { manifest, names: BTreeSet::new(), repo_digests: BTreeSet::new(), bytes: 0, added }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    schema: u32,
    images: BTreeMap<Digest, Record>,
}

/// An image of the store with its documents.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its identifier: the digest of its configuration.
    pub id: Digest,
    /// Its record.
    pub record: Record,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

impl Store {
    fn records_path(&self) -> PathBuf {
        self.root.join("images.json")
    }

    /// All records, by the images' identifiers.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn records(&self) -> Result<BTreeMap<Digest, Record>, ImageError> {
        let path = self.records_path();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(FileError::new("read", path)(error).into()),
        };
        let document: Document = serde_json::from_slice(&text).map_err(ImageError::json(path.display().to_string()))?;
        if document.schema != SCHEMA {
            let why = format!("its schema is {}, and this isobench knows {SCHEMA}", document.schema);
            return Err(ImageError::invalid(path.display().to_string(), why));
        }
        Ok(document.images)
    }

    /// Changes the records; no other process changes them meanwhile.
    pub(in crate::image) fn change_records<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<Digest, Record>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _lock = Lock::exclusive(self.root.join("records.lock"))?;
        let mut images = self.records()?;
        let before = images.clone();
        let outcome = change(&mut images)?;
        if images != before {
            let text = serde_json::to_vec_pretty(&Document { schema: SCHEMA, images });
            let text = text.map_err(ImageError::json("the image records"))?;
            write_durable(self.temporary(), self.records_path(), &text)?;
        }
        Ok(outcome)
    }

    /// Adds an image whose blobs are in the store, or gives a known one further names. Who calls this holds
    /// [`Store::share`] since before the first blob was written. Its layers are unpacked, so that what is wrong with
    /// it is found now; a layer that was unpacked from another blob before is compared with this image's blob.
    ///
    /// # Errors
    /// When a layer cannot be unpacked or is not what its digests say, a blob is missing, the documents do not fit each
    /// other or go over the limits, or a name cannot be one.
    pub fn add(
        &self,
        manifest: &Descriptor,
        names: &[Reference],
        repo_digest: Option<String>,
    ) -> Result<Digest, ImageError> {
        let names = names.iter().map(Reference::as_name).collect::<Result<Vec<_>, _>>()?;
        let document = self.manifest(&manifest.digest)?;
        measure(&document, self.limits())?;
        let id = document.config.digest;
        let config = self.config(&id)?;
        check(&document, &config)?;
        for layer in &document.layers {
            self.size(&layer.digest)?;
        }
        let image = Stored { id, record: Record::new(manifest.clone()), manifest: document, config };
        let sizes = crate::image::history::sizes(self, &image)?;
        let bytes = sizes.iter().fold(0, |sum: u64, size| sum.saturating_add(*size));
        self.verify(&image)?;
        self.change_records(|images| {
            let record = images.entry(id).or_insert(Record { bytes, ..image.record });
            if repo_digest.is_some() {
                // What came from a registry can go to one as it is.
                record.manifest = manifest.clone();
            }
            record.repo_digests.extend(repo_digest);
            for name in &names {
                set_name(images, id, &name.to_string());
            }
            Ok(id)
        })
    }

    /// Gives an image a further name; another that had it loses it.
    ///
    /// # Errors
    /// When the image is not there, or the name cannot be one.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<Digest, ImageError> {
        let name = name.as_name()?;
        let _share = self.share()?;
        self.change_records(|images| {
            let id = find(images, image)?;
            set_name(images, id, &name.to_string());
            Ok(id)
        })
    }

    /// Finds an image by its name, its identifier or the beginning of that.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, text: &str) -> Result<Digest, ImageError> {
        find(&self.records()?, text)
    }

    /// An image with its documents.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub fn image(&self, text: &str) -> Result<Stored, ImageError> {
        let mut records = self.records()?;
        let id = find(&records, text)?;
        let record = records.remove(&id).ok_or_else(|| ImageError::NoSuchImage(text.to_owned()))?;
        self.stored(id, record)
    }

    /// A record's image with its documents.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn stored(&self, id: Digest, record: Record) -> Result<Stored, ImageError> {
        let manifest = self.manifest(&record.manifest.digest)?;
        let config = self.config(&id)?;
        Ok(Stored { id, record, manifest, config })
    }

    /// A manifest.
    ///
    /// # Errors
    /// When it is missing, damaged or no manifest.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest, ImageError> {
        parse(&self.read_document(digest)?, || format!("the manifest {digest}"))
    }

    /// A configuration.
    ///
    /// # Errors
    /// When it is missing, damaged or no configuration.
    pub fn config(&self, digest: &Digest) -> Result<ImageConfig, ImageError> {
        parse(&self.read_document(digest)?, || format!("the configuration {digest}"))
    }
}

/// Reads a JSON document.
pub(in crate::image) fn parse<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    what: impl FnOnce() -> String,
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Json { what: what(), source })
}

/// Whether a manifest and a configuration can belong together.
pub(in crate::image) fn check(manifest: &Manifest, config: &ImageConfig) -> Result<(), ImageError> {
    let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diffs {
        let why = format!("its manifest has {layers} layers and its configuration {diffs}");
        return Err(ImageError::invalid(format!("the image {}", manifest.config.digest), why));
    }
    if layers == 0 {
        let what = format!("the image {}", manifest.config.digest);
        return Err(ImageError::invalid(what, "it has no layer, so it is no file system"));
    }
    Ok(())
}

/// Whether a manifest is one of an image that may be taken: asked before its blobs come.
pub(in crate::image) fn measure(manifest: &Manifest, limits: &Limits) -> Result<(), ImageError> {
    let what = || format!("the image {}", manifest.config.digest);
    if !media::is_config(&manifest.config.media_type) {
        let why = format!("its configuration is a `{}`, so it is no image", manifest.config.media_type);
        return Err(ImageError::invalid(what(), why));
    }
    let layers = manifest.layers.len();
    if layers > limits.layers {
        let why = format!("it has {layers} layers, and {} are the most that a root can be made of", limits.layers);
        return Err(ImageError::invalid(what(), why));
    }
    let mut size: u64 = 0;
    for layer in &manifest.layers {
        if layer.size > limits.bytes {
            let what = format!("the layer {}", layer.digest);
            return Err(ImageError::TooLarge { what, size: layer.size, limit: limits.bytes });
        }
        size = size.saturating_add(layer.size);
    }
    if size > limits.image {
        return Err(ImageError::TooLarge { what: what(), size, limit: limits.image });
    }
    Ok(())
}

fn set_name(images: &mut BTreeMap<Digest, Record>, id: Digest, name: &str) {
    for (other, record) in images.iter_mut() {
        if *other == id {
            record.names.insert(name.to_owned());
        } else {
            record.names.remove(name);
        }
    }
}

/// What begins like an identifier is one. Else by name first, as docker does; by repository and digest, which no name
/// can take the place of; then by the beginning of an identifier.
pub(in crate::image) fn find(images: &BTreeMap<Digest, Record>, text: &str) -> Result<Digest, ImageError> {
    if let Some(hex) = text.strip_prefix("sha256:") {
        return find_by_identifier(images, text, hex);
    }
    let reference = text.parse::<Reference>().map(Reference::or_latest);
    if let Ok(reference) = &reference {
        let found = match reference.digest() {
            Some(digest) => {
                let pinned = reference.at_digest(*digest).to_string();
                images.iter().find(|(_, record)| record.repo_digests.contains(&pinned))
            }
            None => {
                let name = reference.to_string();
                images.iter().find(|(_, record)| record.names.contains(&name))
            }
        };
        if let Some((id, _)) = found {
            return Ok(*id);
        }
    }
    match find_by_identifier(images, text, text) {
        // What cannot be a name is told so; what can, is not there.
        Err(ImageError::NoSuchImage(_)) if !is_hex(text) => {
            reference.map_err(ImageError::from).and(Err(ImageError::NoSuchImage(text.to_owned())))
        }
        outcome => outcome,
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|c| c.is_ascii_hexdigit())
}

fn find_by_identifier(images: &BTreeMap<Digest, Record>, text: &str, hex: &str) -> Result<Digest, ImageError> {
    if !is_hex(hex) {
        return Err(ImageError::NoSuchImage(text.to_owned()));
    }
    let mut found = images.keys().filter(|id| id.hex().starts_with(&hex.to_ascii_lowercase()));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(ImageError::Ambiguous(text.to_owned())),
        (None, _) => Err(ImageError::NoSuchImage(text.to_owned())),
    }
}
