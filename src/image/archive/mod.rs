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
use super::spec::{Descriptor, Manifest, Platform, media};
use super::store::records::{measure, parse};
use super::store::{Store, read_small};
use super::unpack::tarball::{Entry, Kind, TarReader};
use super::unpack::{UnpackError, stream};
use crate::fs::{FileError, open_regular};

mod layout;
mod save;

pub(super) use layout::select;
pub use save::{Format, save};

/// The annotation by which an OCI layout names an image.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation by which containerd and docker give the whole name there.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The most files that are taken of an archive of images.
const MOST_FILES: usize = 100_000;

/// The most bytes of all their names and what links among them point to: they are kept in memory.
const MOST_NAMES: usize = 16 << 20;

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
    let loaded = read(store, path, selection).and_then(|(found, candidates)| {
        candidates.into_iter().map(|candidate| settle(store, &found, candidate, selection.named)).collect()
    });
    drop(share);
    if loaded.is_err() {
        store.tidy()?;
    }
    loaded
}

/// Loads the one image that there is, or that is selected, without giving it a name; its identifier. Who calls this
/// holds [`Store::share`], and collects where there is an error.
///
/// # Errors
/// As [`load`], and when there are several; none of them is recorded then.
pub(super) fn load_one(store: &Store, path: &Path, selection: &Selection) -> Result<Digest, ImageError> {
    let (found, candidates) = read(store, Some(path), selection)?;
    let names = candidates.iter().flat_map(|image| image.names.iter().map(Reference::familiar));
    let mut names: Vec<String> = names.collect();
    names.sort();
    let names = names.join(", ");
    match <[Candidate; 1]>::try_from(candidates) {
        Ok([candidate]) => settle(store, &found, candidate, false).map(|loaded| loaded.id),
        Err(_) => {
            let why = format!("it holds several images; name one of them after a colon: {names}");
            Err(ImageError::invalid(found.what(), why))
        }
    }
}

/// An image that was found and is not recorded. Its manifest is in the store.
struct Candidate {
    manifest: Descriptor,
    names: Vec<Reference>,
}

fn read(store: &Store, path: Option<&Path>, selection: &Selection) -> Result<(Found, Vec<Candidate>), ImageError> {
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
    let candidates = if let Some(index) = found.document(store, "index.json")? {
        layout::candidates(store, &found, &index, selection)?
    } else if let Some(manifest) = found.document(store, "manifest.json")? {
        docker(store, &found, &manifest, selection)?
    } else {
        let why = "it holds neither index.json (an OCI layout) nor manifest.json (a docker archive)";
        return Err(ImageError::invalid(found.what(), why));
    };
    if candidates.is_empty() {
        let why = match &selection.name {
            Some(name) => format!("it holds no image `{name}`"),
            None => "it holds no image".to_owned(),
        };
        return Err(ImageError::invalid(found.what(), why));
    }
    Ok((found, candidates))
}

/// Puts every file of an archive into the store.
fn ingest<R: Read + Send>(store: &Store, path: &Path, archive: R) -> Result<BTreeMap<String, Member>, ImageError> {
    let limits = *store.limits();
    let read = stream::with_plain(archive, limits.image, |plain| {
        let mut archive = TarReader::new(plain, limits, true);
        let mut files = BTreeMap::new();
        let mut names = 0;
        while let Some(entry) = archive.next_entry()? {
            names += entry.name.len() + entry.target.len();
            if names > MOST_NAMES {
                return Err(UnpackError::Limit { what: "bytes of names", limit: MOST_NAMES as u64 }.into());
            }
            let name = String::from_utf8_lossy(&entry.name).trim_start_matches("./").to_owned();
            match entry.kind {
                Kind::File => drop(files.insert(name, ingest_file(store, &entry, &mut archive)?)),
                Kind::Symlink | Kind::HardLink => {
                    let target = String::from_utf8_lossy(&entry.target).into_owned();
                    let target = match entry.kind {
                        Kind::Symlink => beside(&name, &target),
                        _ => target.trim_start_matches("./").to_owned(),
                    };
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
    let limit = store.limits().bytes;
    if entry.size > limit {
        return Err(UnpackError::Limit { what: "bytes in a file", limit }.into());
    }
    if entry.pieces.is_some() {
        // Only its data would be kept, and they are another content.
        let why = "it is sparse, and a blob has no holes";
        return Err(UnpackError::Name { name, why }.into());
    }
    let mut blob = store.begin_blob()?;
    let write = |part: &[u8]| {
        let written = blob.write_all(part);
        written.map_err(|source| UnpackError::Entry { act: "store", name: name.clone(), source })
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
                match open_regular(&path) {
                    Ok(file) => read_small(&file, &path, || path.display().to_string()).map(Some),
                    Err(error) if error.is_not_found() => Ok(None),
                    Err(error) => Err(error.into()),
                }
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
            let mut file = open_regular(&path)?;
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

/// Brings an image's blobs where they are not in the store yet, and records it.
fn settle(store: &Store, found: &Found, candidate: Candidate, named: bool) -> Result<Loaded, ImageError> {
    let Candidate { manifest, names } = candidate;
    let document = store.manifest(&manifest.digest)?;
    measure(&document, store.limits())?;
    found.blob(store, &document.config)?;
    for layer in &document.layers {
        found.blob(store, layer)?;
    }
    let id = store.add(&manifest, if named { &names } else { &[] }, None)?;
    Ok(Loaded { id, names })
}

/// The images of a docker archive.
fn docker(store: &Store, found: &Found, manifest: &[u8], selection: &Selection) -> Result<Vec<Candidate>, ImageError> {
    let images: Vec<DockerImage> = parse(manifest, || format!("manifest.json of {}", found.what()))?;
    let mut candidates = Vec::new();
    for image in images {
        let tags = image.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| tag.parse::<Reference>()?.as_name()).collect::<Result<Vec<_>, _>>()?;
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
        candidates.push(Candidate { manifest, names });
    }
    Ok(candidates)
}

/// Whether an image is the one that was asked for.
fn wanted(selection: &Selection, names: &[Reference], texts: &[String]) -> bool {
    let Some(name) = &selection.name else { return true };
    let reference = name.parse::<Reference>().ok().map(Reference::or_latest);
    texts.contains(name) || reference.is_some_and(|reference| names.contains(&reference))
}

#[cfg(test)]
mod tests;
