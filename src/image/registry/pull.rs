//! Pulling: the manifest of this platform, then the blobs that are not there yet.

use std::io::{Read, Write};

use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::auth::Challenge;
use super::client::{Ask, Client, Payload, is_broken, is_passing};
use super::{Connection, Event, RegistryError, Watcher, transfer};
use crate::fs::FileError;
use crate::image::archive::select;
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::{Descriptor, Index, Platform, media};
use crate::image::store::records::parse;
use crate::image::store::{BlobWriter, MAX_DOCUMENT, Store};

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image's identifier.
    pub id: Digest,
    /// The digest that the registry knows the reference by: of the manifest, or of the index that it was chosen from.
    pub digest: Digest,
    /// Whether the image was not there before.
    pub new: bool,
}

/// Pulls an image into the store.
///
/// # Errors
/// When the registry cannot be reached, does not have it, denies it, or what it sends is not what its digests say;
/// nothing is recorded then.
pub fn pull(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    connection: &Connection,
    watcher: Watcher<'_>,
) -> Result<Pulled, ImageError> {
    let share = store.share()?;
    let pulled = pull_shared(store, reference, platform, connection, watcher);
    drop(share);
    if pulled.is_err() {
        store.tidy()?;
    }
    pulled
}

fn pull_shared(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    connection: &Connection,
    watcher: Watcher<'_>,
) -> Result<Pulled, ImageError> {
    let client = Client::connect(reference.registry(), reference.repository(), "pull", connection)?;
    let reference = reference.clone().or_latest();
    let what = reference.familiar();
    let asked = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    };
    let (top, bytes) = fetch_manifest(&client, &asked, &what, reference.digest())?;
    let mut manifest = top.clone();
    let mut document = bytes;
    for _ in 0..3 {
        if !media::is_index(&manifest.media_type) {
            break;
        }
        let index: Index = parse(&document, || format!("the index of {what}"))?;
        let chosen = select(index, platform, &what)?;
        (manifest, document) = fetch_manifest(&client, &chosen.digest.to_string(), &what, Some(&chosen.digest))?;
    }
    if !media::is_manifest(&manifest.media_type) {
        let why = format!("the registry has it as `{}`, which is not known", manifest.media_type);
        return Err(ImageError::invalid(what, why));
    }
    let parsed: crate::image::spec::Manifest = parse(&document, || format!("the manifest of {what}"))?;
    if parsed.config.size > MAX_DOCUMENT {
        let what = format!("the configuration of {what}");
        return Err(ImageError::TooLarge { what, size: parsed.config.size, limit: MAX_DOCUMENT });
    }
    store.put_document(&manifest.media_type, &document)?;
    let mut blobs = vec![parsed.config.clone()];
    blobs.extend(parsed.layers.iter().cloned());
    transfer::each(&blobs, connection.parallel, |blob| fetch_blob(store, &client, blob, watcher))?;
    let new = !store.records()?.contains_key(&parsed.config.digest);
    let names = match reference.tag() {
        Some(_) => vec![reference.without_digest()],
        None => Vec::new(),
    };
    let id = store.add(&manifest, &names, Some(reference.at_digest(top.digest).to_string()))?;
    Ok(Pulled { id, digest: top.digest, new })
}

/// Fetches a manifest or an index by tag or digest.
fn fetch_manifest(
    client: &Client,
    asked: &str,
    what: &str,
    expected: Option<&Digest>,
) -> Result<(Descriptor, Vec<u8>), ImageError> {
    let accept = [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST].join(", ");
    let ask = Ask::new(Method::GET, client.url(&format!("manifests/{asked}")), format!("manifest of {what}"))
        .header("accept", accept);
    let mut response = client.ask(&ask, &[StatusCode::OK])?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let told: Option<Digest> = header("docker-content-digest").and_then(|digest| digest.parse().ok());
    let media_type = header("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
    let read = response.body_mut().with_config().limit(MAX_DOCUMENT).read_to_vec();
    let bytes = read.map_err(|source| match source {
        ureq::Error::BodyExceedsLimit(_) => {
            client.malformed(format!("a manifest of {what} that is longer than {MAX_DOCUMENT} bytes"))
        }
        source => RegistryError::Unreachable { registry: client.registry().to_owned(), source: Box::new(source) },
    })?;
    let found = Digest::of(&bytes);
    // By digest it must be what was asked for; by tag at least what the registry says that it is.
    if let Some(expected) = expected.copied().or(told).filter(|expected| *expected != found) {
        return Err(ImageError::Digest { what: format!("the manifest of {what}"), expected, found });
    }
    Ok((Descriptor::new(&media_type, found, bytes.len() as u64), bytes))
}

/// Brings a blob into the store; goes on where a broken connection left it.
fn fetch_blob(store: &Store, client: &Client, blob: &Descriptor, watcher: Watcher<'_>) -> Result<(), ImageError> {
    let digest = &blob.digest;
    if store.has(digest) {
        watcher(digest, Event::Known);
        return Ok(());
    }
    watcher(digest, Event::Begin(blob.size));
    let mut writer = store.begin_blob()?;
    let mut at = 0;
    let mut attempt = 1;
    let mut proven = false;
    while at < blob.size || (blob.size == 0 && attempt == 1) {
        let before = at;
        let ask = Ask::new(Method::GET, client.url(&format!("blobs/{digest}")), format!("blob {digest}"));
        let ask = if at > 0 { ask.header("range", format!("bytes={at}-")) } else { ask };
        match client.once(&ask, Payload::None) {
            Err(error) if attempt >= client.connection().attempts || !is_broken(&error) => return Err(error.into()),
            Err(_) => {}
            Ok(mut response) => match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                    if response.status() == StatusCode::OK && at > 0 {
                        // It cannot send a part: from the beginning.
                        (writer, at) = (store.begin_blob()?, 0);
                    } else if at > 0 && begins_at(&response) != Some(at) {
                        return Err(client
                            .malformed(format!("another part of the blob {digest} than was asked for"))
                            .into());
                    }
                    let broken = receive(response, blob, &mut writer, &mut at, watcher, store)?;
                    if let Some(error) = broken.filter(|_| attempt >= client.connection().attempts) {
                        let source = Box::new(ureq::Error::Io(error));
                        let registry = client.registry().to_owned();
                        return Err(RegistryError::Unreachable { registry, source }.into());
                    }
                    if blob.size == 0 {
                        break;
                    }
                }
                StatusCode::UNAUTHORIZED if !proven => {
                    // A token's time can run out on the way.
                    proven = true;
                    let challenge = Challenge::of(response.headers());
                    client.prove(challenge, &ask.what, &mut response)?;
                    continue;
                }
                status if is_passing(status) && attempt < client.connection().attempts => {}
                _ => return Err(client.refused(&ask.what, &mut response).into()),
            },
        }
        if at > before {
            // What gets on is not tried in vain.
            (attempt, proven) = (1, false);
        } else {
            attempt += 1;
        }
        if at < blob.size {
            watcher(digest, Event::Retry);
            client.rest(attempt, None);
        }
    }
    writer.finish_as(&format!("the blob {digest} of the registry {}", client.registry()), blob)?;
    watcher(digest, Event::Done);
    Ok(())
}

/// Where a partial answer begins, by its `Content-Range: bytes FROM-TO/SIZE`.
fn begins_at(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Writes what comes; an error of the connection is handed back, since what has come is kept.
fn receive(
    response: Response<Body>,
    blob: &Descriptor,
    writer: &mut BlobWriter<'_>,
    at: &mut u64,
    watcher: Watcher<'_>,
    store: &Store,
) -> Result<Option<std::io::Error>, ImageError> {
    let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match body.read(&mut buffer) {
            Ok(0) if *at < blob.size => return Ok(Some(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(0) => return Ok(None),
            Ok(count) => {
                *at += count as u64;
                if *at > blob.size {
                    let what = format!("the blob {}", blob.digest);
                    return Err(ImageError::Size { what, expected: blob.size, found: *at });
                }
                let written = writer.write_all(&buffer[..count]);
                written.map_err(FileError::new("write a blob in", store.root()))?;
                watcher(&blob.digest, Event::At(*at));
            }
            Err(error) => return Ok(Some(error)),
        }
    }
}
