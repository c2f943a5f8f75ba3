//! Images in files: `docker save` archives, OCI layouts and OCI archives, read in one pass and without unpacking them
//! to disk first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::ImageError;
use super::reference::Reference;
use super::spec::{Descriptor, Index, Manifest, Platform, media};
use super::store::records::parse;
use super::store::{MAX_DOCUMENT, Store};
use super::unpack::stream;
use super::unpack::tarball::{Entry, Kind, TarReader};
use crate::fs::FileError;

mod save;

pub use save::{Format, save};

/// The annotation by which an OCI layout names an image.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation by which containerd and docker give the whole name there.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The most files that are taken of an archive of images.
const MOST_FILES: usize = 100_000;

/// One image of docker's `manifest.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its identifier.
    pub id: Digest,
    /// The names that the file gives it.
    pub names: Vec<Reference>,
}

/// What is taken out of a file.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The platform, where an index offers several.
    pub platform: Platform,
    /// Only the image of this name; `None` for all.
    pub name: Option<String>,
    /// Whether the images get the names that the file gives them.
    pub named: bool,
}

/// Where the documents and blobs of a load are found.
enum Found {
    /// All files of an archive were put into the store; which blob each became.
    Archive { what: String, files: BTreeMap<String, Member> },
    /// In the directory of a layout.
    Layout(PathBuf),
}

/// A file of an archive.
#[derive(Debug, Clone)]
enum Member {
    Blob(Digest, u64),
    Link(String),
}

/// Loads images from an archive, a layout's directory, or standard input where `path` is `None`.
///
/// # Errors
/// When it is neither, is damaged, or a layer cannot be unpacked. Nothing is left of it then.
pub fn load(store: &Store, path: Option<&Path>, selection: &Selection) -> Result<Vec<Loaded>, ImageError> {
    let share = store.share()?;
    let loaded = read(store, path, selection);
    drop(share);
    if loaded.is_err() {
        store.tidy()?;
    }
    loaded
}

fn read(store: &Store, path: Option<&Path>, selection: &Selection) -> Result<Vec<Loaded>, ImageError> {
    let found = match path {
        Some(path) if path.is_dir() => Found::Layout(path.to_owned()),
        Some(path) => {
            let file = File::open(path).map_err(FileError::new("open", path))?;
            Found::Archive { what: path.display().to_string(), files: ingest(store, path, file)? }
        }
        None => {
            let what = "standard input".to_owned();
            Found::Archive { files: ingest(store, Path::new(&what), std::io::stdin())?, what }
        }
    };
    // Docker's newer archives hold both; the OCI part says more.
    if let Some(index) = found.document(store, "index.json")? {
        return layout(store, &found, &index, selection);
    }
    match found.document(store, "manifest.json")? {
        Some(manifest) => docker(store, &found, &manifest, selection),
        None => {
            let why = "it holds neither index.json (an OCI layout) nor manifest.json (a docker archive)";
            Err(ImageError::invalid(found.what(), why))
        }
    }
}

/// Puts every file of an archive into the store.
fn ingest<R: Read + Send>(store: &Store, path: &Path, archive: R) -> Result<BTreeMap<String, Member>, ImageError> {
    let limits = *store.limits();
    let read = stream::with_plain(archive, u64::MAX, |plain| {
        let mut archive = TarReader::new(plain, limits, true);
        let mut files = BTreeMap::new();
        while let Some(entry) = archive.next_entry()? {
            let name = String::from_utf8_lossy(&entry.name).trim_start_matches("./").to_owned();
            match entry.kind {
                Kind::File => drop(files.insert(name, ingest_file(store, &entry, &mut archive)?)),
                Kind::Symlink | Kind::HardLink => {
                    let target = String::from_utf8_lossy(&entry.target).into_owned();
                    let target = if entry.kind == Kind::Symlink { beside(&name, &target) } else { target };
                    files.insert(name, Member::Link(target));
                }
                _ => {}
            }
            if files.len() > MOST_FILES {
                let why = format!("it holds more than {MOST_FILES} files");
                return Err(ImageError::invalid(path.display().to_string(), why));
            }
        }
        Ok(files)
    });
    match read {
        Ok((files, _)) => Ok(files),
        Err(ImageError::Stream(source)) => Err(ImageError::Archive { path: path.to_owned(), source }),
        Err(error) => Err(error),
    }
}

fn ingest_file(
    store: &Store,
    entry: &Entry,
    archive: &mut TarReader<'_, stream::Chunks>,
) -> Result<Member, ImageError> {
    let name = String::from_utf8_lossy(&entry.name).into_owned();
    let mut blob = store.begin_blob()?;
    let write = |part: &[u8]| {
        let written = blob.write_all(part);
        written.map_err(|source| super::unpack::UnpackError::Entry { act: "store", name: name.clone(), source })
    };
    let mut write = write;
    while archive.data(u64::MAX, &mut write)? > 0 {}
    let (digest, size) = blob.finish()?;
    Ok(Member::Blob(digest, size))
}

/// The name that a relative link beside a file leads to.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Found {
    fn what(&self) -> String {
        match self {
            Found::Archive { what, .. } => what.clone(),
            Found::Layout(path) => path.display().to_string(),
        }
    }

    /// A small file; `None` when it is not there.
    fn document(&self, store: &Store, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        match self {
            Found::Archive { .. } => match self.file(name) {
                Ok((digest, _)) => store.read_document(&digest).map(Some),
                Err(_) => Ok(None),
            },
            Found::Layout(path) => {
                let path = path.join(name);
                let size = match path.metadata() {
                    Ok(metadata) => metadata.len(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(FileError::new("read", path)(error).into()),
                };
                if size > MAX_DOCUMENT {
                    let what = path.display().to_string();
                    return Err(ImageError::TooLarge { what, size, limit: MAX_DOCUMENT });
                }
                Ok(Some(std::fs::read(&path).map_err(FileError::new("read", path))?))
            }
        }
    }

    /// The blob that a file of the archive became.
    fn file(&self, name: &str) -> Result<(Digest, u64), ImageError> {
        let missing = || ImageError::invalid(self.what(), format!("it names `{name}`, which it does not hold"));
        let Found::Archive { files, .. } = self else { return Err(missing()) };
        let mut found = files.get(name.trim_start_matches("./")).ok_or_else(missing)?;
        // Old archives hold a layer once and link to it. A chain of links is none.
        if let Member::Link(target) = found {
            found = files.get(target).ok_or_else(missing)?;
        }
        match found {
            Member::Blob(digest, size) => Ok((*digest, *size)),
            Member::Link(_) => Err(missing()),
        }
    }

    /// Makes sure that a blob is in the store.
    fn blob(&self, store: &Store, descriptor: &Descriptor) -> Result<(), ImageError> {
        let what = || format!("the blob {} of {}", descriptor.digest, self.what());
        if let Found::Layout(path) = self
            && !store.has(&descriptor.digest)
        {
            let path = path.join("blobs/sha256").join(descriptor.digest.hex());
            let mut file = File::open(&path).map_err(FileError::new("open", &path))?;
            store.put(&what(), &mut file, Some(descriptor))?;
        }
        let found = match store.size(&descriptor.digest) {
            Ok(found) => found,
            Err(ImageError::MissingBlob(digest, _)) => return Err(self.damaged(&digest)),
            Err(error) => return Err(error),
        };
        if found != descriptor.size {
            return Err(ImageError::Size { what: what(), expected: descriptor.size, found });
        }
        Ok(())
    }

    /// A blob is missing; or there is a file of its name with other content.
    fn damaged(&self, digest: &Digest) -> ImageError {
        let name = format!("blobs/sha256/{}", digest.hex());
        match self.file(&name) {
            Ok((found, _)) => {
                ImageError::Digest { what: format!("`{name}` of {}", self.what()), expected: *digest, found }
            }
            Err(_) => ImageError::MissingBlob(*digest, self.what()),
        }
    }
}

/// Records an image.
fn settle(store: &Store, manifest: &Descriptor, names: Vec<Reference>, named: bool) -> Result<Loaded, ImageError> {
    let id = store.add(manifest, if named { &names } else { &[] }, None)?;
    Ok(Loaded { id, names })
}

/// The images of a docker archive.
fn docker(store: &Store, found: &Found, manifest: &[u8], selection: &Selection) -> Result<Vec<Loaded>, ImageError> {
    let images: Vec<DockerImage> = parse(manifest, || format!("manifest.json of {}", found.what()))?;
    let mut loaded = Vec::new();
    for image in images {
        let tags = image.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| tag.parse().map(Reference::or_latest)).collect::<Result<Vec<_>, _>>()?;
        if !wanted(selection, &names, &tags) {
            continue;
        }
        let (config, size) = found.file(&image.config)?;
        let config = Descriptor::new(media::OCI_CONFIG, config, size);
        let layers = image.layers.iter().map(|layer| {
            let (digest, size) = found.file(layer)?;
            store.layer_descriptor(digest, size)
        });
        let manifest = Manifest::oci(config, layers.collect::<Result<_, _>>()?);
        let document = serde_json::to_vec(&manifest).map_err(ImageError::json("a manifest"))?;
        let manifest = store.put_document(media::OCI_MANIFEST, &document)?;
        loaded.push(settle(store, &manifest, names, selection.named)?);
    }
    none_is_an_error(loaded, found, selection)
}

/// The images of an OCI layout.
fn layout(store: &Store, found: &Found, index: &[u8], selection: &Selection) -> Result<Vec<Loaded>, ImageError> {
    let index: Index = parse(index, || format!("index.json of {}", found.what()))?;
    let mut by_manifest: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    for entry in index.manifests {
        let mut texts = Vec::new();
        texts.extend(entry.annotations.get(IMAGE_NAME).cloned());
        texts.extend(entry.annotations.get(REF_NAME).cloned());
        // A bare tag is no name of an image.
        let names: Vec<Reference> = (texts.iter().take(1))
            .filter(|text| text.contains([':', '/']))
            .filter_map(|text| text.parse().ok().map(Reference::or_latest))
            .collect();
        if !wanted(selection, &names, &texts) {
            continue;
        }
        let manifest = choose(store, found, entry, &selection.platform, 0)?;
        match by_manifest.iter_mut().find(|(known, _)| known.digest == manifest.digest) {
            Some((_, known)) => known.extend(names),
            None => by_manifest.push((manifest, names)),
        }
    }
    let mut loaded = Vec::new();
    for (manifest, names) in by_manifest {
        let document = store.manifest(&manifest.digest)?;
        found.blob(store, &document.config)?;
        for layer in &document.layers {
            found.blob(store, layer)?;
        }
        loaded.push(settle(store, &manifest, names, selection.named)?);
    }
    none_is_an_error(loaded, found, selection)
}

/// Follows an index to the manifest of a platform. The documents are in the store after.
fn choose(
    store: &Store,
    found: &Found,
    entry: Descriptor,
    platform: &Platform,
    depth: u32,
) -> Result<Descriptor, ImageError> {
    if entry.size > MAX_DOCUMENT {
        let what = format!("the manifest {} of {}", entry.digest, found.what());
        return Err(ImageError::TooLarge { what, size: entry.size, limit: MAX_DOCUMENT });
    }
    found.blob(store, &entry)?;
    if !media::is_index(&entry.media_type) {
        return Ok(entry);
    }
    if depth > 2 {
        return Err(ImageError::invalid(found.what(), "its indexes lie too deep within each other"));
    }
    let what = format!("the index {} of {}", entry.digest, found.what());
    let index: Index = parse(&store.read_document(&entry.digest)?, || what.clone())?;
    choose(store, found, select(index, platform, &what)?, platform, depth + 1)
}

/// The manifest of a platform.
pub(super) fn select(index: Index, platform: &Platform, what: &str) -> Result<Descriptor, ImageError> {
    let fits = |has: &Platform| {
        has.os == platform.os
            && has.architecture == platform.architecture
            && platform.variant.as_ref().is_none_or(|wanted| has.variant.as_ref() == Some(wanted))
    };
    let names = |platform: &Platform| match &platform.variant {
        Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
        None => format!("{}/{}", platform.os, platform.architecture),
    };
    let has: Vec<String> = index.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(names).collect();
    let mut manifests = index.manifests;
    // Without platforms there is no choice to make.
    let at = if has.is_empty() && manifests.len() == 1 {
        Some(0)
    } else {
        manifests.iter().position(|entry| entry.platform.as_ref().is_some_and(fits))
    };
    match at {
        Some(at) => Ok(manifests.swap_remove(at)),
        None => Err(ImageError::Platform { what: what.to_owned(), wanted: names(platform), has: has.join(", ") }),
    }
}

/// Whether an image is the one that was asked for.
fn wanted(selection: &Selection, names: &[Reference], texts: &[String]) -> bool {
    let Some(name) = &selection.name else { return true };
    let reference = name.parse::<Reference>().ok().map(Reference::or_latest);
    texts.contains(name) || reference.is_some_and(|reference| names.contains(&reference))
}

fn none_is_an_error(loaded: Vec<Loaded>, found: &Found, selection: &Selection) -> Result<Vec<Loaded>, ImageError> {
    if !loaded.is_empty() {
        return Ok(loaded);
    }
    let why = match &selection.name {
        Some(name) => format!("it holds no image `{name}`"),
        None => "it holds no image".to_owned(),
    };
    Err(ImageError::invalid(found.what(), why))
}
