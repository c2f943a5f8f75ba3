use std::io::Write;

use super::*;
use crate::image::create::{self, Description, RootSource};
use crate::image::spec::own_platform;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("images")).unwrap();
    (directory, store)
}

/// Imports an image of one file.
fn image(store: &Store, name: Option<&str>, content: &str) -> Digest {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), content).unwrap();
    let description = Description {
        name: name.map(|name| name.parse().unwrap()),
        comment: None,
        author: None,
        created_by: None,
        changes: Vec::new(),
        platform: own_platform(),
    };
    create::import(store, RootSource::Directory(directory.path()), &description).unwrap()
}

/// The number of files in a directory of the store.
fn count(store: &Store, part: &str) -> usize {
    std::fs::read_dir(store.root().join(part)).unwrap().count()
}

#[test]
fn a_blob_is_what_its_digest_says() {
    let (_directory, store) = store();
    let (digest, size) = store.put("a blob", &mut &b"abc"[..], None).unwrap();
    assert_eq!((digest, size, store.has(&digest)), (Digest::of(b"abc"), 3, true));
    assert_eq!(store.read_document(&digest).unwrap(), b"abc");
    let wrong = |size, digest| store.put("a blob", &mut &b"abd"[..], Some(&Descriptor::new("", digest, size)));
    assert!(matches!(wrong(3, digest), Err(ImageError::Digest { .. })));
    assert!(matches!(wrong(2, digest), Err(ImageError::Size { expected: 2, found: 3, .. })));
    assert_eq!((count(&store, "blobs/sha256"), count(&store, "tmp")), (1, 0), "nothing is kept");
}

#[test]
fn a_changed_blob_is_found_when_it_is_read() {
    let (_directory, store) = store();
    let (digest, _) = store.put("a blob", &mut &b"abc"[..], None).unwrap();
    let path = store.blob_path(&digest);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&path, "abd").unwrap();
    assert!(matches!(store.read_document(&digest), Err(ImageError::Digest { .. })));
    assert!(matches!(store.copy_blob(&digest, &mut Vec::new()), Err(ImageError::Digest { .. })));
    std::fs::remove_file(path).unwrap();
    assert!(matches!(store.read_document(&digest), Err(ImageError::MissingBlob(..))));
}

#[test]
fn images_are_found_by_name_and_identifier() {
    let (_directory, store) = store();
    let id = image(&store, Some("a:1"), "x");
    store.tag("a:1", &"example.org/b:2".parse().unwrap()).unwrap();
    let (hex, short) = (id.hex(), id.short());
    let repository = "docker.io/library/a:1";
    for text in ["a:1", repository, "example.org/b:2", &hex, &short, &id.to_string(), &hex[..4]] {
        assert_eq!(store.find(text).unwrap(), id, "{text}");
    }
    for text in ["a", "a:2", "b:2", "deadbeef"] {
        assert!(matches!(store.find(text), Err(ImageError::NoSuchImage(_))), "{text}");
    }
    assert!(matches!(store.find("A B"), Err(ImageError::Reference(_))));
}

#[test]
fn a_name_goes_over_to_the_image_that_got_it_last() {
    let (_directory, store) = store();
    let (first, second) = (image(&store, Some("a"), "1"), image(&store, Some("a"), "2"));
    assert_eq!(store.find("a").unwrap(), second);
    assert!(store.records().unwrap()[&first].names.is_empty());
}

#[test]
fn removing_the_last_name_takes_all_away() {
    let (_directory, store) = store();
    let id = image(&store, Some("a:1"), "x");
    store.tag("a:1", &"a:2".parse().unwrap()).unwrap();
    assert!(matches!(store.remove(&id.hex(), false), Err(ImageError::SeveralNames(_))));
    let untagged = collect::Removed::Untagged("docker.io/library/a:1".to_owned());
    assert_eq!(store.remove("a:1", false).unwrap(), [untagged]);
    assert_eq!(store.remove("a:2", false).unwrap().last(), Some(&collect::Removed::Deleted(id)));
    for part in ["blobs/sha256", "layers", "tmp"] {
        assert_eq!(count(&store, part), 0, "{part}");
    }
}

#[test]
fn what_is_used_stays() {
    let (_directory, store) = store();
    let id = image(&store, Some("a"), "x");
    let lease = store.lease(&store.image("a").unwrap(), "a test").unwrap();
    assert!(matches!(store.remove("a", false), Err(ImageError::InUse { .. })));
    assert!(store.prune(|_, _| true).unwrap().0.is_empty());
    store.remove("a", true).unwrap();
    assert_eq!(count(&store, "layers"), 2, "the layer and its record");
    drop(lease);
    assert!(store.collect().unwrap().layers == 1 && !store.has(&id));
}

#[test]
fn a_pin_outlives_its_maker_and_a_dead_lease_does_not() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    store.pin("a", "c1").unwrap();
    // As a killed process leaves it: the file without a lock on it.
    let kept = std::fs::read(store.root().join("leases/container-c1.json")).unwrap();
    let text = String::from_utf8(kept).unwrap().replace("\"pinned\":true", "\"pinned\":false");
    std::fs::write(store.root().join("leases/process-dead.json"), text).unwrap();
    std::fs::write(store.root().join("leases/process-torn.json"), "{").unwrap();
    store.collect().unwrap();
    assert_eq!(count(&store, "leases"), 1);
    assert!(matches!(store.remove("a", false), Err(ImageError::InUse { by, .. }) if by == "the container c1"));
    store.unpin("c1").unwrap();
    store.remove("a", false).unwrap();
    assert!(store.pin("a", "../c1").is_err() && store.unpin("../c1").is_err());
}

#[test]
fn what_a_killed_process_left_is_collected() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    let mut blob = store.begin_blob().unwrap();
    blob.write_all(b"half").unwrap();
    std::mem::forget(blob);
    std::fs::create_dir_all(store.root().join("tmp/layer-x/usr/bin")).unwrap();
    store.put("a blob", &mut &b"of no image"[..], None).unwrap();
    let before = count(&store, "blobs/sha256");
    let collected = store.collect().unwrap();
    assert_eq!((collected.blobs, collected.layers, count(&store, "tmp")), (1, 0, 0));
    assert_eq!(count(&store, "blobs/sha256"), before - 1);
    store.image("a").unwrap();
}

#[test]
fn a_layer_of_another_boot_or_without_a_record_is_unpacked_again() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    let stored = store.image("a").unwrap();
    let layers = store.unpack(&stored).unwrap();
    let record = layers[0].with_extension("json");
    let old = std::fs::read_to_string(&record).unwrap();
    for text in [old.replace("\"boot\":\"", "\"boot\":\"old-"), "{\"chain".to_owned()] {
        std::fs::write(layers[0].join("file"), "torn").unwrap();
        std::fs::write(&record, text).unwrap();
        assert_eq!(store.unpack(&stored).unwrap(), layers);
        assert_eq!(std::fs::read_to_string(layers[0].join("file")).unwrap(), "x");
    }
}

#[test]
fn a_layer_is_shared_and_a_lying_diff_id_is_found() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    let mut stored = store.image("a").unwrap();
    assert_eq!(store.unpack(&stored).unwrap().len(), 1);
    stored.config.rootfs.diff_ids[0] = Digest::of(b"something else");
    assert!(matches!(store.unpack(&stored), Err(ImageError::Digest { .. })));
    assert_eq!((count(&store, "layers"), count(&store, "tmp")), (2, 0), "nothing of it is kept");
}

#[test]
fn records_of_a_later_version_are_not_touched() {
    let (_directory, store) = store();
    std::fs::write(store.root().join("images.json"), r#"{"schema": 2, "images": {}}"#).unwrap();
    assert!(matches!(store.records(), Err(ImageError::Invalid { .. })));
    assert!(store.collect().is_err());
}

#[test]
fn two_that_add_and_one_that_collects_do_not_meet() {
    let (_directory, store) = store();
    let store = &store;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for round in 0..8 {
                    let name = format!("t{thread}:{round}");
                    image(store, Some(&name), &name);
                    store.image(&name).and_then(|image| store.unpack(&image)).unwrap();
                }
            });
        }
        scope.spawn(|| (0..20).for_each(|_| assert_eq!(store.collect().unwrap().layers, 0)));
    });
    assert_eq!(store.records().unwrap().len(), 16);
    for id in store.records().unwrap().keys() {
        for layer in store.unpack(&store.image(&id.hex()).unwrap()).unwrap() {
            assert!(layer.join("file").exists());
        }
    }
}
