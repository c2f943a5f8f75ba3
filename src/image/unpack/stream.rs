//! The reading side of unpacking: a thread that reads an archive, hashes it, decompresses it, hashes it again and
//! hands it over in chunks that are used again and again.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::UnpackError;
use crate::image::digest::{Digest, Hasher, HashingReader};

/// The length of a chunk in bytes.
const CHUNK: usize = 256 << 10;

/// How many chunks can be on their way.
const CHUNKS: usize = 8;

/// The largest window of zstd that is taken, 2^27 bytes: what its strongest level uses, and its tools take unasked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl Compression {
    /// What the first bytes of a file say.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The digests and lengths of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// As it came.
    pub stored: (Digest, u64),
    /// As it was decompressed: the layer's diff id.
    pub plain: (Digest, u64),
}

/// What the reading thread hands over.
type Handed = Result<Vec<u8>, UnpackError>;

/// Runs `work` on an archive's uncompressed bytes, then reads on to the end, so that the digests are of all of it.
///
/// # Errors
/// What `work` says; else what is wrong with the compression, or more than `limit` uncompressed bytes.
pub fn with_plain<R: Read + Send, T, E: From<UnpackError>>(
    archive: R,
    limit: u64,
    work: impl FnOnce(&mut Chunks) -> Result<T, E>,
) -> Result<(T, Digests), E> {
    std::thread::scope(|scope| {
        let (sender, filled) = sync_channel(CHUNKS);
        let (empty, returned) = channel();
        let reader = scope.spawn(move || produce(archive, limit, &sender, &returned));
        let mut chunks = Chunks { filled, empty, chunk: Vec::new(), at: 0, failed: None };
        let outcome = work(&mut chunks).and_then(|value| Ok(chunks.drain().map(|()| value)?));
        // A failed read is why `work` failed, where it did.
        let failed = chunks.failed.take();
        drop(chunks);
        let digests = match reader.join() {
            Ok(digests) => digests,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        let value = outcome?;
        let digests = digests.ok_or_else(|| UnpackError::Damaged("its end was not reached".to_owned()))?;
        Ok((value, digests))
    })
}

/// The thread: `None` when it could not come to the end.
fn produce<R: Read>(
    archive: R,
    limit: u64,
    sender: &SyncSender<Handed>,
    returned: &Receiver<Vec<u8>>,
) -> Option<Digests> {
    let mut stored = BufReader::with_capacity(CHUNK, archive);
    let compression = match stored.fill_buf() {
        Ok(first) => Compression::of(first),
        Err(error) => {
            let _ = sender.send(Err(UnpackError::Read(error)));
            return None;
        }
    };
    if compression == Compression::Plain {
        // Hashed once: what came is what goes.
        let plain = transfer(&mut stored, compression, limit, sender, returned)?;
        return Some(Digests { stored: plain, plain });
    }
    let mut hashed = HashingReader::new(stored);
    let plain = match compression {
        Compression::Gzip => {
            let mut decoder = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(CHUNK, &mut hashed));
            transfer(&mut decoder, compression, limit, sender, returned)?
        }
        _ => match zstd_decoder(BufReader::with_capacity(CHUNK, &mut hashed)) {
            Ok(mut decoder) => transfer(&mut decoder, compression, limit, sender, returned)?,
            Err(error) => {
                let _ = sender.send(Err(UnpackError::Read(error)));
                return None;
            }
        },
    };
    // The decoder has read to the end of its data; what follows it is hashed too, and is more than was promised.
    match io::copy(&mut hashed, &mut io::sink()) {
        Ok(_) => Some(Digests { stored: hashed.finish(), plain }),
        Err(error) => {
            let _ = sender.send(Err(UnpackError::Read(error)));
            None
        }
    }
}

/// A decoder that takes no more memory than that of its largest window.
fn zstd_decoder<R: BufRead>(reader: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Hands a reader's bytes over; their digest and number.
fn transfer<R: Read>(
    plain: &mut R,
    compression: Compression,
    limit: u64,
    sender: &SyncSender<Handed>,
    returned: &Receiver<Vec<u8>>,
) -> Option<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut made = 0;
    loop {
        let mut chunk = match returned.try_recv() {
            Ok(chunk) => chunk,
            Err(_) if made < CHUNKS + 2 => {
                made += 1;
                vec![0; CHUNK]
            }
            // The other side went away.
            Err(_) => returned.recv().ok()?,
        };
        chunk.resize(CHUNK, 0);
        match fill(plain, &mut chunk) {
            Ok(0) => return Some(hasher.finish()),
            Ok(count) => chunk.truncate(count),
            Err(error) => {
                let wrong = match compression {
                    Compression::Plain => UnpackError::Read(error),
                    _ => UnpackError::Compression(compression.name(), error),
                };
                let _ = sender.send(Err(wrong));
                return None;
            }
        }
        hasher.update(&chunk);
        if hasher.bytes() > limit {
            let _ = sender.send(Err(UnpackError::Limit { what: "uncompressed bytes", limit }));
            return None;
        }
        sender.send(Ok(chunk)).ok()?;
    }
}

/// Reads until the chunk is full or the reader ends.
fn fill<R: Read>(reader: &mut R, chunk: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < chunk.len() {
        match reader.read(&mut chunk[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The uncompressed bytes as they arrive.
#[derive(Debug)]
pub struct Chunks {
    filled: Receiver<Handed>,
    empty: std::sync::mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    failed: Option<UnpackError>,
}

impl Chunks {
    fn drain(&mut self) -> Result<(), UnpackError> {
        loop {
            let count = self.fill_buf().map_err(UnpackError::Read)?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() && self.failed.is_none() {
            match self.filled.recv() {
                Ok(Ok(chunk)) => {
                    let used = std::mem::replace(&mut self.chunk, chunk);
                    self.at = 0;
                    if used.capacity() > 0 {
                        // The thread may be at its end and want none.
                        let _ = self.empty.send(used);
                    }
                }
                Ok(Err(error)) => self.failed = Some(error),
                // The end.
                Err(_) => {}
            }
        }
        match &self.failed {
            Some(error) => Err(io::Error::other(error.to_string())),
            None => Ok(&self.chunk[self.at..]),
        }
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.chunk.len());
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
