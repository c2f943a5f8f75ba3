//! Why something cannot be done with an image.

use std::path::PathBuf;

use super::digest::Digest;
use super::reference::ReferenceError;
use super::unpack::UnpackError;
use crate::fs::FileError;

/// Why something cannot be done with an image. Nothing of it was left behind.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of the store, or one that was named, cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name breaks the grammar.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No image has this name or identifier.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// Several images' identifiers begin so.
    #[error("several images' identifiers begin with `{0}`; give more of it")]
    Ambiguous(String),
    /// A container or a benchmark uses it.
    #[error("the image {image} is used by {by}; force its removal to take only its names")]
    InUse {
        /// The image.
        image: String,
        /// What uses it.
        by: String,
    },
    /// It has several names, and was given by its identifier.
    #[error("the image {0} has several names; give one of them, or force its removal")]
    SeveralNames(String),
    /// A blob is missing in the store, the layout or the archive.
    #[error("the blob {0} is missing in {1}")]
    MissingBlob(Digest, String),
    /// Content is not what its digest says.
    #[error("{what} is not what its digest says: it is {found}, and should be {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// The digest that was told.
        expected: Digest,
        /// The digest that was found.
        found: Digest,
    },
    /// Content is not as long as was told.
    #[error("{what} is {found} bytes long, and should be {expected}")]
    Size {
        /// What was read.
        what: String,
        /// The length that was told, in bytes.
        expected: u64,
        /// The length that was found, in bytes.
        found: u64,
    },
    /// Something is larger than is taken.
    #[error("{what} is {size} bytes long, which is more than the {limit} that are taken")]
    TooLarge {
        /// What was read.
        what: String,
        /// Its length in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document cannot be understood.
    #[error("cannot understand {what}")]
    Json {
        /// Which document.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A document contradicts itself or another.
    #[error("{what}: {why}")]
    Invalid {
        /// Which document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack {layer}")]
    Unpack {
        /// Which layer.
        layer: String,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// An archive that was named cannot be read.
    #[error("cannot read {}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why not.
        #[source]
        source: UnpackError,
    },
    /// An archive cannot be read; which one is said by who opened it.
    #[error(transparent)]
    Stream(#[from] UnpackError),
    /// An index has no image for a platform.
    #[error("{what} has no image for {wanted}; it has {has}")]
    Platform {
        /// What was read.
        what: String,
        /// The platform that was wanted.
        wanted: String,
        /// The platforms that there are.
        has: String,
    },
    /// A registry refused something, or cannot be reached.
    #[error(transparent)]
    Registry(#[from] super::registry::RegistryError),
}

impl ImageError {
    /// Names the document that cannot be understood; made for `map_err`.
    pub(super) fn json(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Json { what, source }
    }

    /// Whether the content of an image is at fault: it stays so until the image comes anew. Whatever else went wrong says
    /// nothing of the image.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        // A document that outgrew what any document may be was changed, as one with another digest was.
        matches!(
            self,
            Self::Json { .. }
                | Self::Digest { .. }
                | Self::MissingBlob(..)
                | Self::Invalid { .. }
                | Self::TooLarge { .. }
        )
    }

    /// A document contradicts itself or another.
    pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }
}
