//! Writing images to an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, Write};

use super::{DockerImage, IMAGE_NAME, REF_NAME};
use crate::fs::FileError;
use crate::image::digest::{Digest, HashingReader};
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::{Descriptor, Index, media};
use crate::image::store::Store;
use crate::image::store::records::Stored;
use crate::image::unpack::stream::{self, Compression};

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// What `docker save` makes and most tools read: layers uncompressed.
    #[default]
    Docker,
    /// An OCI layout in an archive: blobs as they are.
    Oci,
}

/// Writes images, each with the names it was asked for by, to an archive.
///
/// # Errors
/// When an image is not there or damaged, or the archive cannot be written.
pub fn save(store: &Store, images: &[String], format: Format, to: &mut dyn Write) -> Result<(), ImageError> {
    let _share = store.share()?;
    let mut chosen: BTreeMap<Digest, (Stored, BTreeSet<String>)> = BTreeMap::new();
    for text in images {
        let image = store.image(text)?;
        let name = text.parse::<Reference>().ok().map(|name| name.or_latest().to_string());
        let name = name.filter(|name| image.record.names.contains(name));
        chosen.entry(image.id).or_insert((image, BTreeSet::new())).1.extend(name);
    }
    let mut archive = Archive { store, builder: tar::Builder::new(to), held: BTreeSet::new() };
    match format {
        Format::Docker => archive.docker(chosen.into_values().collect())?,
        Format::Oci => archive.oci(chosen.into_values().collect())?,
    }
    archive.builder.finish().map_err(writing)
}

fn writing(error: io::Error) -> ImageError {
    FileError::new("write", "the archive")(error).into()
}

/// An archive in the making.
struct Archive<'a, W: Write> {
    store: &'a Store,
    builder: tar::Builder<W>,
    /// The files that are in it.
    held: BTreeSet<String>,
}

impl<W: Write> Archive<'_, W> {
    /// Adds a file unless it is in there. The same images give the same archive: every file is of 1970.
    fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<(), ImageError> {
        if !self.held.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.builder.append_data(&mut header, name, content).map_err(writing)
    }

    fn document(&mut self, name: &str, content: &impl serde::Serialize) -> Result<(), ImageError> {
        let text = serde_json::to_vec(content).map_err(ImageError::json(name))?;
        self.file(name, text.len() as u64, &mut text.as_slice())
    }

    /// Adds a blob as it is; its digest is checked on the way.
    fn blob(&mut self, name: &str, digest: &Digest) -> Result<(), ImageError> {
        let size = self.store.size(digest)?;
        let content = self.store.open_blob(digest)?;
        let mut reader = HashingReader::new(&content);
        let fresh = !self.held.contains(name);
        self.file(name, size, &mut reader)?;
        let (found, _) = reader.finish();
        if fresh && found != *digest {
            self.store.set_aside(digest, &content);
            let what = format!("the blob {digest}");
            return Err(ImageError::Digest { what, expected: *digest, found });
        }
        Ok(())
    }

    fn docker(&mut self, images: Vec<(Stored, BTreeSet<String>)>) -> Result<(), ImageError> {
        let mut list = Vec::new();
        for (image, names) in images {
            let config = format!("{}.json", image.id.hex());
            self.blob(&config, &image.id)?;
            let mut layers = Vec::new();
            for (layer, diff) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
                let name = format!("{}/layer.tar", diff.hex());
                self.plain_layer(&name, layer, diff)?;
                layers.push(name);
            }
            let familiar = |name: &String| name.parse::<Reference>().map(|name| name.familiar());
            let tags = names.iter().map(familiar).collect::<Result<Vec<_>, _>>()?;
            list.push(DockerImage { config, repo_tags: Some(tags), layers });
        }
        self.document("manifest.json", &list)
    }

    /// Adds a layer uncompressed. Its length must stand before it, so a compressed one is decompressed to a file first.
    fn plain_layer(&mut self, name: &str, layer: &Descriptor, diff: &Digest) -> Result<(), ImageError> {
        let digest = &layer.digest;
        if self.held.contains(name) {
            return Ok(());
        }
        if self.store.compression(digest)? == Compression::Plain {
            return self.blob(name, digest);
        }
        let directory = self.store.temporary();
        let temporary = || FileError::new("write a temporary file in", &directory);
        let mut file = tempfile::tempfile_in(&directory).map_err(temporary())?;
        let limit = self.store.limits().bytes;
        let copied = stream::with_plain(self.store.open_blob(digest)?, limit, |plain| {
            io::copy(plain, &mut file).map_err(|error| ImageError::from(temporary()(error)))
        });
        let (size, digests) = match copied {
            Err(ImageError::Stream(source)) => return Err(self.store.blame(layer, source)),
            copied => copied?,
        };
        if digests.plain.0 != *diff {
            let what = format!("the layer {digest}");
            return Err(ImageError::Digest { what, expected: *diff, found: digests.plain.0 });
        }
        file.rewind().map_err(temporary())?;
        self.file(name, size, &mut file)
    }

    fn oci(&mut self, images: Vec<(Stored, BTreeSet<String>)>) -> Result<(), ImageError> {
        self.document("oci-layout", &serde_json::json!({"imageLayoutVersion": "1.0.0"}))?;
        let name_of = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let mut manifests = Vec::new();
        for (image, names) in images {
            let manifest = &image.record.manifest;
            let blobs = image.manifest.layers.iter().map(|layer| layer.digest);
            for digest in blobs.chain([image.id, manifest.digest]) {
                self.blob(&name_of(&digest), &digest)?;
            }
            let mut entry = manifest.clone();
            entry.platform = Some(image.config.platform());
            if names.is_empty() {
                manifests.push(entry.clone());
            }
            for name in names {
                let reference: Reference = name.parse()?;
                let mut named = entry.clone();
                named.annotations.insert(IMAGE_NAME.to_owned(), name.clone());
                let tag = reference.tag().unwrap_or_default().to_owned();
                named.annotations.insert(REF_NAME.to_owned(), tag);
                manifests.push(named);
            }
        }
        let media_type = Some(media::OCI_INDEX.to_owned());
        self.document("index.json", &Index { schema_version: 2, media_type, manifests })
    }
}
