//! How an image came to be: its layers, each with the command that made it.

use super::digest::Digest;
use super::error::ImageError;
use super::spec::HistoryEntry;
use super::store::Store;
use super::store::layers::chain_ids;
use super::store::records::Stored;

/// One step, as `history` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The image's identifier at the newest step; older ones have none here, since they are no images of their own.
    pub id: Option<Digest>,
    /// When and by what.
    pub entry: HistoryEntry,
    /// Bytes of the layer's files; 0 where none was made.
    pub bytes: u64,
}

/// The steps of an image, the newest first.
///
/// # Errors
/// When the store cannot be read or a layer cannot be unpacked.
pub fn steps(store: &Store, image: &Stored) -> Result<Vec<Step>, ImageError> {
    let mut sizes = sizes(store, image)?.into_iter();
    let history = &image.config.history;
    let mut steps = Vec::new();
    for entry in history {
        let bytes = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        steps.push(Step { id: None, entry: entry.clone(), bytes });
    }
    // Layers that no entry tells of: builders may leave the history out.
    for bytes in sizes {
        let entry = HistoryEntry { created: image.config.created.clone(), ..HistoryEntry::default() };
        steps.push(Step { id: None, entry, bytes });
    }
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        newest.id = Some(image.id);
    }
    Ok(steps)
}

/// Bytes of each layer's files, the lowest first.
///
/// # Errors
/// As [`steps`].
pub fn sizes(store: &Store, image: &Stored) -> Result<Vec<u64>, ImageError> {
    let chains = chain_ids(&image.config.rootfs.diff_ids);
    let known = || -> Result<Option<Vec<u64>>, ImageError> {
        chains.iter().map(|chain| Ok(store.layer_record(chain)?.map(|layer| layer.bytes))).collect()
    };
    if let Some(sizes) = known()? {
        return Ok(sizes);
    }
    store.unpack(image)?;
    known()?.ok_or_else(|| ImageError::invalid(format!("the image {}", image.id), "a layer of it went away"))
}
