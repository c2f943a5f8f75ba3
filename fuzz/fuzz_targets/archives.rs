//! Archives of images, docker's and OCI's: a load that fails leaves nothing in the store, one that succeeds leaves an
//! image that can be read.

#![no_main]

use isobench::image::Store;
use isobench::image::archive::{self, Selection};
use isobench::image::spec::own_platform;
use isobench::image::unpack::Limits;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[path = "tar_mutator.rs"]
mod tar_mutator;

const LIMITS: Limits =
    Limits { bytes: 1 << 20, image: 4 << 20, layers: 8, entries: 500, path: 4095, depth: 32, header: 1 << 16 };

fuzz_target!(|bytes: &[u8]| {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path().join("store")).unwrap().with_limits(LIMITS);
    let path = place.path().join("archive");
    std::fs::write(&path, bytes).unwrap();
    let selection = Selection { platform: own_platform(), name: None, named: true };
    match archive::load(&store, Some(&path), &selection) {
        Ok(images) => {
            for image in images {
                let stored = store.image(&image.id.to_string()).unwrap();
                isobench::image::history::steps(&store, &stored).unwrap();
            }
        }
        Err(_) => {
            assert!(store.records().unwrap().is_empty());
            assert_eq!(std::fs::read_dir(place.path().join("store/blobs/sha256")).unwrap().count(), 0);
        }
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, _seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    tar_mutator::mend_checksums(&mut data[..size]);
    size
});
