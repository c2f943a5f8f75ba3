//! Layers: whatever the archive says, nothing is made or changed outside the directory that it is unpacked into.

#![no_main]

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use isobench::image::unpack::{self, Limits, Options};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[path = "tar_mutator.rs"]
mod tar_mutator;

/// Small enough that an input cannot fill the disk.
const LIMITS: Limits =
    Limits { bytes: 1 << 20, image: 4 << 20, layers: 8, entries: 500, path: 4095, depth: 32, header: 1 << 16 };

fuzz_target!(|archive: &[u8]| {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(place.path().join("secret"), "untouched").unwrap();
    let before = std::fs::metadata(place.path()).unwrap();
    let directory = File::open(&root).unwrap();
    let unpacked = unpack::unpack(archive, &directory, &Options::layer(LIMITS, Vec::new()));
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.bytes <= LIMITS.bytes);
    }
    let secret = place.path().join("secret");
    assert_eq!(std::fs::read(&secret).unwrap(), b"untouched");
    assert_eq!(std::fs::metadata(&secret).unwrap().nlink(), 1, "a link to a file outside");
    let mut names: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["root", "secret"]);
    let after = std::fs::metadata(place.path()).unwrap();
    assert_eq!((before.mode(), before.uid(), before.mtime_nsec()), (after.mode(), after.uid(), after.mtime_nsec()));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, _seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    tar_mutator::mend_checksums(&mut data[..size]);
    size
});
