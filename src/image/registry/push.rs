//! Pushing: the blobs that the registry does not have, then the manifest.

use std::io::{self, Read, Seek, SeekFrom};

use ureq::http::{HeaderMap, Method, StatusCode};

use super::auth::{Challenge, percent};
use super::client::{Ask, Client, Payload, is_broken, is_passing, told_pause};
use super::transfer::{self, Progress};
use super::{Connection, Event, RegistryError, Watcher};
use crate::fs::FileError;
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::{Descriptor, Manifest, media};
use crate::image::store::Store;

/// What a push brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The digest that the registry knows the image by.
    pub digest: Digest,
    /// The length of its manifest in bytes.
    pub size: u64,
}

/// Pushes the image of a name to the registry that the name says. Layers that are not compressed go as gzip.
///
/// # Errors
/// When there is no such image, or the registry cannot be reached, denies it or refuses it.
pub fn push(
    store: &Store,
    reference: &Reference,
    connection: &Connection,
    watcher: Watcher<'_>,
) -> Result<Pushed, ImageError> {
    let share = store.share()?;
    let reference = reference.clone().or_latest();
    let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
        return Err(ImageError::invalid(reference.familiar(), "an image is pushed by its name and tag, not by digest"));
    };
    let image = store.image(&reference.to_string())?;
    let mut layers = Vec::new();
    for (layer, diff) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
        let sent = store.compress(layer, diff)?;
        layers.push(if sent == *layer { sent } else { named(sent, image.manifest.media_type()) });
    }
    let (descriptor, document) = if layers == image.manifest.layers {
        (image.record.manifest.clone(), store.read_document(&image.record.manifest.digest)?)
    } else {
        let manifest = Manifest { layers: layers.clone(), ..image.manifest.clone() };
        let document = serde_json::to_vec(&manifest).map_err(ImageError::json("a manifest"))?;
        (store.put_document(manifest.media_type(), &document)?, document)
    };
    let mut client = Client::connect(reference.registry(), reference.repository(), "pull,push", connection)?;
    let other = other_repository(&image.record.repo_digests, &reference);
    if let Some(other) = &other {
        client.also_pull(other);
    }
    let mut blobs = layers;
    blobs.push(image.manifest.config.clone());
    transfer::each(&blobs, connection.parallel, |blob| send_blob(store, &client, blob, other.as_deref(), watcher))?;
    let ask =
        Ask::new(Method::PUT, client.url(&format!("manifests/{tag}")), format!("manifest of {}", reference.familiar()))
            .header("content-type", descriptor.media_type.as_str());
    client.ask_with(&ask, &document, &[StatusCode::CREATED, StatusCode::OK])?;
    store.change_records(|images| {
        if let Some(record) = images.get_mut(&image.id) {
            record.repo_digests.insert(reference.at_digest(descriptor.digest).to_string());
        }
        Ok(())
    })?;
    drop(share);
    Ok(Pushed { digest: descriptor.digest, size: descriptor.size })
}

/// A layer that was compressed for a manifest of some type: docker's manifests know docker's layers only.
fn named(layer: Descriptor, manifest: &str) -> Descriptor {
    match manifest {
        media::DOCKER_MANIFEST => Descriptor { media_type: media::DOCKER_LAYER_GZIP.to_owned(), ..layer },
        _ => layer,
    }
}

/// Another repository of the same registry that has the image: its blobs need not be sent.
fn other_repository<'a>(known: impl IntoIterator<Item = &'a String>, reference: &Reference) -> Option<String> {
    let known = known.into_iter().filter_map(|text| text.parse::<Reference>().ok());
    let mut others =
        known.filter(|known| known.registry() == reference.registry() && known.repository() != reference.repository());
    others.next().map(|known| known.repository().to_owned())
}

/// Brings a blob to the registry, unless it has it.
fn send_blob(
    store: &Store,
    client: &Client,
    blob: &Descriptor,
    other: Option<&str>,
    watcher: Watcher<'_>,
) -> Result<(), ImageError> {
    let digest = &blob.digest;
    let what = format!("blob {digest}");
    let head = Ask::new(Method::HEAD, client.url(&format!("blobs/{digest}")), what.as_str());
    if client.ask(&head, &[StatusCode::OK, StatusCode::NOT_FOUND])?.status() == StatusCode::OK {
        watcher(digest, Event::Known);
        return Ok(());
    }
    watcher(digest, Event::Begin(blob.size));
    let mut attempt = 1;
    let mut mount = other;
    loop {
        let mut url = client.url("blobs/uploads/");
        if let Some(other) = mount.take() {
            url.push_str(&format!("?mount={}&from={}", percent(&digest.to_string()), percent(other)));
        }
        let post = Ask::new(Method::POST, url, format!("upload of the {what}"));
        let response = client.ask(&post, &[StatusCode::ACCEPTED, StatusCode::CREATED])?;
        if response.status() == StatusCode::CREATED {
            watcher(digest, Event::Mounted);
            return Ok(());
        }
        let location = client.location(response.headers())?;
        match upload(store, client, blob, location, watcher)? {
            None => break,
            Some(error) if attempt >= client.connection().attempts => return Err(error.into()),
            Some(_) => {}
        }
        // The registry forgot the upload, or did not like what came of it: a new one.
        watcher(digest, Event::Retry);
        client.rest(attempt, None);
        attempt += 1;
    }
    watcher(digest, Event::Done);
    Ok(())
}

/// One upload; where the connection breaks it goes on from what the registry has. An error that a new upload may mend
/// is handed back.
fn upload(
    store: &Store,
    client: &Client,
    blob: &Descriptor,
    location: String,
    watcher: Watcher<'_>,
) -> Result<Option<RegistryError>, ImageError> {
    let what = format!("upload of the blob {}", blob.digest);
    let mut upload =
        Upload { store, client, blob, watcher, what, location, at: 0, progress: Progress::default(), proven: false };
    while upload.at < blob.size {
        if let Some(error) = upload.send()? {
            return Ok(Some(error));
        }
    }
    upload.finish()
}

/// A blob on its way.
struct Upload<'a> {
    store: &'a Store,
    client: &'a Client,
    blob: &'a Descriptor,
    watcher: Watcher<'a>,
    what: String,
    /// Where it goes on.
    location: String,
    /// Bytes that the registry has.
    at: u64,
    progress: Progress,
    /// Whether we proved who we are since the registry took something.
    proven: bool,
}

impl Upload<'_> {
    /// Sends what the registry does not have, in one request.
    fn send(&mut self) -> Result<Option<RegistryError>, ImageError> {
        let (digest, size) = (&self.blob.digest, self.blob.size);
        let mut file = self.store.open_blob(digest)?;
        file.seek(SeekFrom::Start(self.at)).map_err(FileError::new("read a blob in", self.store.root()))?;
        let left = size - self.at;
        let mut patch = Ask::new(Method::PATCH, self.location.as_str(), self.what.as_str())
            .header("content-type", "application/octet-stream");
        if self.at > 0 {
            patch = patch.header("content-range", format!("{}-{}", self.at, size - 1));
        }
        let tell = |at| (self.watcher)(digest, Event::At(at));
        let mut counted = Counted { reader: file.take(left), at: self.at, tell: &tell };
        match self.client.once(&patch, Payload::Stream(&mut counted, left)) {
            Ok(mut response) => match response.status() {
                StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                    self.location = self.client.location(response.headers())?;
                    self.at = size;
                    Ok(None)
                }
                StatusCode::UNAUTHORIZED if !self.proven => {
                    self.proven = true;
                    let challenge = Challenge::of(response.headers());
                    self.client.prove(challenge, &self.what, &mut response)?;
                    Ok(None)
                }
                status => {
                    let pause = told_pause(response.headers());
                    let refused = self.client.refused(&self.what, &mut response);
                    match status.as_u16() {
                        404 | 416 => Ok(Some(refused)), // it was forgotten
                        _ if is_passing(status) => self.recover(refused, pause),
                        _ => Err(refused.into()),
                    }
                }
            },
            Err(error) if is_broken(&error) => self.recover(error, None),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks what the registry has after a failure, unless too many got nowhere.
    fn recover(
        &mut self,
        failed: RegistryError,
        pause: Option<std::time::Duration>,
    ) -> Result<Option<RegistryError>, ImageError> {
        (self.watcher)(&self.blob.digest, Event::Retry);
        self.client.rest(self.progress.vain() + 1, pause);
        let status = Ask::new(Method::GET, self.location.as_str(), self.what.as_str());
        match self.client.ask(&status, &[StatusCode::NO_CONTENT, StatusCode::OK]) {
            Ok(response) => {
                self.at = received(response.headers()).min(self.blob.size);
                if response.headers().contains_key("location") {
                    self.location = self.client.location(response.headers())?;
                }
            }
            Err(RegistryError::NotFound { .. }) => return Ok(Some(failed)),
            Err(error) => return Err(error.into()),
        }
        if self.progress.note(self.at) {
            self.proven = false;
        } else if self.progress.vain() >= self.client.connection().attempts {
            return Err(failed.into());
        }
        Ok(None)
    }

    /// Says that all of it was sent, and what it must be.
    fn finish(self) -> Result<Option<RegistryError>, ImageError> {
        let between = if self.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{between}digest={}", self.location, percent(&self.blob.digest.to_string()));
        let put = Ask::new(Method::PUT, url, self.what.as_str()).header("content-type", "application/octet-stream");
        match self.client.ask(&put, &[StatusCode::CREATED, StatusCode::NO_CONTENT]) {
            Ok(_) => Ok(None),
            Err(error @ (RegistryError::NotFound { .. } | RegistryError::Refused { status: 400 | 416, .. })) => {
                Ok(Some(error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How many bytes the registry has, by its `Range: 0-LAST`. `0-0` stands for none: one byte alone is never left over.
fn received(headers: &HeaderMap) -> u64 {
    let range = headers.get("range").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let range = range.trim_start_matches("bytes=");
    match range.split_once('-').and_then(|(_, last)| last.parse::<u64>().ok()) {
        None | Some(0) => 0,
        Some(last) => last + 1,
    }
}

/// Counts what is read.
struct Counted<'a, R> {
    reader: R,
    at: u64,
    tell: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.at += count as u64;
        (self.tell)(self.at);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_has_of_an_upload() {
        for (range, bytes) in [("0-0", 0), ("0-99", 100), ("bytes=0-9", 10), ("", 0), ("x", 0)] {
            let mut headers = HeaderMap::new();
            headers.insert("range", range.parse().unwrap());
            assert_eq!(received(&headers), bytes, "{range}");
        }
    }

    #[test]
    fn a_manifest_names_layers_of_its_own_kind() {
        let layer = Descriptor::new(media::OCI_LAYER_GZIP, Digest::of(b""), 0);
        assert_eq!(named(layer.clone(), media::OCI_MANIFEST), layer);
        assert_eq!(named(layer, media::DOCKER_MANIFEST).media_type, media::DOCKER_LAYER_GZIP);
    }

    #[test]
    fn blobs_are_mounted_from_the_same_registry_only() {
        let hex = "0".repeat(64);
        let known = [format!("a.example/x@sha256:{hex}"), format!("b.example/y@sha256:{hex}")];
        let other = |name: &str| other_repository(&known, &name.parse().unwrap());
        assert_eq!(other("b.example/z").as_deref(), Some("y"));
        assert_eq!(other("b.example/y"), None);
        assert_eq!(other("c.example/x"), None);
    }
}
