//! OCI's documents: an input is an index, a manifest and a configuration, with a zero byte between them, and becomes a
//! layout. A digest of 64 zeros in a document stands for that of the next one.

#![no_main]

use std::path::Path;

use isobench::image::Store;
use isobench::image::archive::{self, Selection};
use isobench::image::digest::Digest;
use isobench::image::history;
use isobench::image::spec::{ImageConfig, Index, Manifest, own_platform};
use isobench::image::unpack::Limits;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits =
    Limits { bytes: 1 << 20, image: 4 << 20, layers: 8, entries: 500, path: 4095, depth: 32, header: 1 << 16 };
const NEXT: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// An archive without entries, which is a layer too.
const LAYER: [u8; 1024] = [0; 1024];

/// Puts a document into the layout; its digest.
fn put(blobs: &Path, document: &[u8]) -> String {
    let digest = Digest::of(document);
    std::fs::write(blobs.join(digest.hex()), document).unwrap();
    digest.hex().to_owned()
}

/// What is read and written reads as the same.
fn round_trips(text: &str) {
    if let Ok(manifest) = serde_json::from_str::<Manifest>(text) {
        let again = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&again).unwrap(), manifest);
    }
    if let Ok(index) = serde_json::from_str::<Index>(text) {
        let again = serde_json::to_string(&index).unwrap();
        assert_eq!(serde_json::from_str::<Index>(&again).unwrap(), index);
    }
    if let Ok(config) = serde_json::from_str::<ImageConfig>(text) {
        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&again).unwrap(), config);
    }
}

fuzz_target!(|text: &str| {
    text.split('\0').for_each(round_trips);
    let mut parts = text.splitn(3, '\0');
    let (Some(index), Some(manifest), Some(config)) = (parts.next(), parts.next(), parts.next()) else { return };
    let place = tempfile::tempdir().unwrap();
    let layout = place.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layer = put(&blobs, &LAYER);
    let config = put(&blobs, config.replace(NEXT, &layer).as_bytes());
    // The configuration first, the layer second.
    let manifest = put(&blobs, manifest.replacen(NEXT, &config, 1).replace(NEXT, &layer).as_bytes());
    std::fs::write(layout.join("index.json"), index.replace(NEXT, &manifest)).unwrap();
    let store = Store::open(place.path().join("store")).unwrap().with_limits(LIMITS);
    let selection = Selection { platform: own_platform(), name: None, named: true };
    match archive::load(&store, Some(&layout), &selection) {
        Ok(images) => {
            for image in images {
                let stored = store.image(&image.id.to_string()).unwrap();
                // It can disagree with the layers; that is an error and no more.
                let _ = history::steps(&store, &stored);
                store.unpack(&stored).unwrap();
            }
        }
        Err(_) => assert!(store.records().unwrap().is_empty()),
    }
});
