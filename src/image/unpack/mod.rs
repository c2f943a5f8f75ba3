//! From a layer's archive to a directory that overlayfs takes as a layer.
//!
//! One thread reads, checks and decompresses ([`stream`]), the calling one reads the archive ([`tarball`]) and makes
//! its entries ([`tree`]). What is held in memory does not depend on the archive's size: eight chunks of 256 KiB, one
//! extended header, one descriptor a directory level.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

pub mod stream;
pub mod tarball;
mod tree;
pub(super) mod whiteout;

pub use stream::Digests;
pub use tree::Rights;

use tarball::TarReader;
use tree::Tree;

/// What an archive may be at most. What goes beyond is an error, so that a small download cannot fill a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a layer's uncompressed archive, bytes of all its files with their holes, and bytes of a layer as it comes.
    pub bytes: u64,
    /// Bytes of all layers of an image together, and of an archive of images.
    pub image: u64,
    /// Layers of an image: what the options of one overlay mount can name.
    pub layers: usize,
    /// Entries, and directories that are made because an entry lies in them.
    pub entries: u64,
    /// Bytes of a path.
    pub path: usize,
    /// Directories within each other. Each level costs a descriptor while it is worked in.
    pub depth: usize,
    /// Bytes of the extended headers of one entry, and of those that hold for all entries to come, over the archive.
    pub header: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            image: 256 << 30,
            layers: 127,
            entries: 4_000_000,
            path: 4095,
            depth: 256,
            header: 1 << 20,
        }
    }
}

/// What an unpacked layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// The digests and lengths of the archive as it came and as it was decompressed.
    pub digests: Digests,
    /// Bytes of the files, without holes.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It cannot be read.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// Its compression is damaged.
    #[error("the archive's {0} data is damaged or cut short")]
    Compression(&'static str, #[source] io::Error),
    /// It ends within an entry, or before its end marker.
    #[error("the archive is cut short{}", .0.as_ref().map_or(String::new(), |name| format!(" within `{name}`")))]
    CutShort(Option<String>),
    /// It is no tar archive, or a damaged one.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// An entry's name leads out of the root.
    #[error("the archive's entry `{0}` points outside: its name holds `..`")]
    Outside(String),
    /// An entry's name is no name.
    #[error("the archive's entry `{name}` cannot be: {why}")]
    Name {
        /// The entry.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry of an unknown kind.
    #[error("the archive's entry `{name}` is of the kind `{kind}`, which is not known")]
    Kind {
        /// The entry.
        name: String,
        /// The kind's letter.
        kind: char,
    },
    /// It is larger than what is allowed.
    #[error("the archive goes over the limit of {limit} {what}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// To how many.
        limit: u64,
    },
    /// An entry cannot be made.
    #[error("cannot {act} `{name}` of the archive")]
    Entry {
        /// What was tried.
        act: &'static str,
        /// The entry.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// How to unpack.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the archive may be at most.
    pub limits: Limits,
    /// Whether owners, devices and whiteouts are made.
    pub rights: Rights,
    /// The layers below, the topmost first: a directory that the archive goes through but does not hold is made like
    /// theirs.
    pub below: Vec<PathBuf>,
    /// Whether an archive without an end marker is an error. It need not be where a digest tells that all is there.
    pub end_marker: bool,
    /// Whether whiteouts are turned into what overlayfs takes for them; else they are ordinary files.
    pub whiteouts: bool,
    /// How the entries come into a directory that has files already; absent for an empty one.
    pub copy: Option<Copying>,
}

/// How entries are copied into a directory that has files and may be changed by others meanwhile: a file is replaced by
/// a file; a directory is not replaced by a file, nor a file by a directory; and no link on the way is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copying {
    /// Whose the copies are; absent: as the archive says.
    pub owner: Option<(u32, u32)>,
    /// The host's id that stands for id 0 in the archive.
    pub first_id: u32,
    /// Whether devices are made, and set-user-id bits and extended attributes kept.
    pub special: bool,
}

impl Options {
    /// For a layer over others.
    #[must_use]
    pub fn layer(limits: Limits, below: Vec<PathBuf>) -> Self {
        Self { limits, rights: Rights::own(), below, end_marker: false, whiteouts: true, copy: None }
    }
}

/// Unpacks an archive (plain, gzip or zstd) into an empty directory, which must be out of others' reach.
///
/// # Errors
/// What is wrong with the archive, or what the kernel refused. What was made by then is left to the caller, who made
/// the directory.
pub fn unpack<R: Read + Send>(archive: R, directory: &File, options: &Options) -> Result<Unpacked, UnpackError> {
    let ((bytes, entries), digests) =
        stream::with_plain(archive, options.limits.bytes, |plain| apply(plain, directory, options))?;
    Ok(Unpacked { digests, bytes, entries })
}

/// A name of an archive for a message: what would steer a terminal is written out.
fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(name).chars() {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}

/// Makes every entry; the number of bytes and of entries.
fn apply<R: BufRead>(plain: &mut R, directory: &File, options: &Options) -> Result<(u64, u64), UnpackError> {
    let mut archive = TarReader::new(plain, options.limits, options.end_marker);
    let mut tree = Tree::new(directory, options)?;
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        tree.make(&entry, &mut archive)?;
    }
    tree.finish()?;
    Ok((tree.bytes(), entries))
}

#[cfg(test)]
mod tests;
