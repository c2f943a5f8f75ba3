//! Pulling: the manifest of this platform, then the blobs that are not there yet.

use std::io::{Read, Write};

use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::auth::Challenge;
use super::client::{Ask, Client, Payload, is_broken, is_passing, told_pause};
use super::transfer::{self, Progress};
use super::{Connection, Event, RegistryError, Watcher};
use crate::fs::FileError;
use crate::image::archive::select;
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::{Descriptor, Index, Platform, media};
use crate::image::store::records::{measure, parse};
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
    // Before anything of them comes.
    measure(&parsed, store.limits())?;
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
    if store.has(&blob.digest) {
        watcher(&blob.digest, Event::Known);
        return Ok(());
    }
    watcher(&blob.digest, Event::Begin(blob.size));
    let writer = store.begin_blob()?;
    let mut download = Download {
        store,
        client,
        blob,
        watcher,
        writer,
        at: 0,
        progress: Progress::default(),
        proven: false,
        whole: false,
    };
    while !download.whole {
        download.request()?;
    }
    let what = format!("the blob {} of the registry {}", blob.digest, client.registry());
    download.writer.finish_as(&what, blob)?;
    watcher(&blob.digest, Event::Done);
    Ok(())
}

/// A blob on its way.
struct Download<'a> {
    store: &'a Store,
    client: &'a Client,
    blob: &'a Descriptor,
    watcher: Watcher<'a>,
    writer: BlobWriter<'a>,
    /// Bytes that have come.
    at: u64,
    progress: Progress,
    /// Whether we proved who we are since something came.
    proven: bool,
    whole: bool,
}

impl Download<'_> {
    /// Asks for what is missing and takes what comes.
    fn request(&mut self) -> Result<(), ImageError> {
        let digest = &self.blob.digest;
        let mut ask = Ask::new(Method::GET, self.client.url(&format!("blobs/{digest}")), format!("blob {digest}"));
        if self.at > 0 {
            ask = ask.header("range", format!("bytes={}-", self.at));
        }
        let (error, pause) = match self.client.once(&ask, Payload::None) {
            Err(error) if is_broken(&error) => (error, None),
            Err(error) => return Err(error.into()),
            Ok(mut response) => match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                    self.place(&response)?;
                    match self.receive(response)? {
                        None => {
                            self.whole = true;
                            return Ok(());
                        }
                        Some(error) => {
                            let (registry, source) =
                                (self.client.registry().to_owned(), Box::new(ureq::Error::Io(error)));
                            (RegistryError::Unreachable { registry, source }, None)
                        }
                    }
                }
                StatusCode::UNAUTHORIZED if !self.proven => {
                    // A token's time can run out on the way.
                    self.proven = true;
                    let challenge = Challenge::of(response.headers());
                    return Ok(self.client.prove(challenge, &ask.what, &mut response)?);
                }
                status if is_passing(status) => {
                    let pause = told_pause(response.headers());
                    (self.client.refused(&ask.what, &mut response), pause)
                }
                _ => return Err(self.client.refused(&ask.what, &mut response).into()),
            },
        };
        self.again(error, pause)
    }

    /// Waits before the next request, unless too many got nowhere.
    fn again(&mut self, error: RegistryError, pause: Option<std::time::Duration>) -> Result<(), ImageError> {
        if self.progress.note(self.at) {
            self.proven = false;
        } else if self.progress.vain() >= self.client.connection().attempts {
            return Err(error.into());
        }
        (self.watcher)(&self.blob.digest, Event::Retry);
        self.client.rest(self.progress.vain() + 1, pause);
        Ok(())
    }

    /// Makes sure that an answer begins where the next byte is missing.
    fn place(&mut self, response: &Response<Body>) -> Result<(), ImageError> {
        if response.status() == StatusCode::OK && self.at > 0 {
            // It cannot send a part: from the beginning.
            (self.writer, self.at) = (self.store.begin_blob()?, 0);
        } else if self.at > 0 && begins_at(response) != Some(self.at) {
            let what = format!("another part of the blob {} than was asked for", self.blob.digest);
            return Err(self.client.malformed(what).into());
        }
        Ok(())
    }

    /// Writes what comes; an error of the connection is handed back, since what has come is kept.
    fn receive(&mut self, response: Response<Body>) -> Result<Option<std::io::Error>, ImageError> {
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match body.read(&mut buffer) {
                Ok(0) if self.at < self.blob.size => return Ok(Some(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(0) => return Ok(None),
                Ok(count) => {
                    self.at += count as u64;
                    if self.at > self.blob.size {
                        let what = format!("the blob {}", self.blob.digest);
                        return Err(ImageError::Size { what, expected: self.blob.size, found: self.at });
                    }
                    let written = self.writer.write_all(&buffer[..count]);
                    written.map_err(FileError::new("write a blob in", self.store.root()))?;
                    (self.watcher)(&self.blob.digest, Event::At(self.at));
                }
                Err(error) => return Ok(Some(error)),
            }
        }
    }
}

/// Where a partial answer begins, by its `Content-Range: bytes FROM-TO/SIZE`.
fn begins_at(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::image::registry::Credentials;

    /// A registry that breaks off each answer, further on and less far in turns, and begins at 0 each time; a patient one
    /// gets all at last. Ends with the test's process.
    fn fickle(content: Vec<u8>, patience: usize) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut asked = 0;
            for mut stream in listener.incoming().flatten() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let blob = head.first().is_some_and(|line| line.contains("/blobs/"));
                asked += usize::from(blob);
                let (length, sent) = match (blob, asked) {
                    (false, _) => (0, 0),
                    (true, asked) if asked > patience => (content.len(), content.len()),
                    (true, asked) => (content.len(), if asked % 2 == 1 { 600 } else { 300 }),
                };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &content[..sent]].concat());
            }
        });
        address
    }

    #[test]
    fn what_comes_to_where_it_was_before_does_not_get_on() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("images")).unwrap();
        let content = vec![b'x'; 1000];
        let address = fickle(content.clone(), 20);
        let connection = Connection {
            plain_http: true,
            credentials: Some(Credentials::Nobody),
            attempts: 3,
            pause: Duration::from_millis(1),
            ..Connection::default()
        };
        let client = Client::connect(&address.to_string(), "a", "pull", &connection).unwrap();
        let blob = Descriptor::new("", Digest::of(&content), 1000);
        let outcome = fetch_blob(&store, &client, &blob, &|_, _| {});
        let unreachable = matches!(outcome, Err(ImageError::Registry(RegistryError::Unreachable { .. })));
        assert!(unreachable && !store.has(&blob.digest), "{outcome:?}");
    }
}
