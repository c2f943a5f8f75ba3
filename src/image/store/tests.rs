use std::io::Write;

use super::*;
use crate::image::create::{self, Description, RootSource};
use crate::image::reference::Reference;
use crate::image::spec::{Manifest, media, own_platform};

mod damage;
mod limits;

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("images")).unwrap();
    (directory, store)
}

/// Imports an image of one file.
fn image(store: &Store, name: Option<&str>, content: &str) -> Digest {
    import(store, name, content).unwrap()
}

fn import(store: &Store, name: Option<&str>, content: &str) -> Result<Digest, ImageError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), content).unwrap();
    let description = Description::of(name.map(|name| name.parse().unwrap()));
    create::import(store, RootSource::Directory(directory.path()), &description)
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
fn no_name_takes_the_place_of_an_identifier_or_a_digest() {
    let (_directory, store) = store();
    let (first, second) = (image(&store, Some("a:1"), "1"), image(&store, Some("b:1"), "2"));
    let pinned = format!("example.org/a@{first}");
    store
        .change_records(|images| {
            images.get_mut(&first).unwrap().repo_digests.insert(pinned.clone());
            Ok(())
        })
        .unwrap();
    for name in
        [format!("sha256:{}", first.hex()), "sha256".to_owned(), pinned.clone(), format!("example.org/a:2@{first}")]
    {
        let reference: Reference = name.parse().unwrap();
        assert!(matches!(store.tag("b:1", &reference), Err(ImageError::Reference(_))), "{name}");
        assert!(matches!(import(&store, Some(&name), "3"), Err(ImageError::Reference(_))), "{name}");
        assert_eq!(store.records().unwrap().len(), 2);
    }
    // Should one be in the records all the same.
    store
        .change_records(|images| {
            let names = [format!("docker.io/library/{first}"), pinned.clone()];
            images.get_mut(&second).unwrap().names.extend(names);
            Ok(())
        })
        .unwrap();
    for text in [first.to_string(), pinned, format!("sha256:{}", first.short())] {
        assert_eq!(store.find(&text).unwrap(), first, "{text}");
    }
    assert!(matches!(store.find("sha256:latest"), Err(ImageError::NoSuchImage(_))));
}

#[test]
fn temporary_files_are_made_in_one_place() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    let stored = store.image("a").unwrap();
    std::fs::remove_dir(store.temporary()).unwrap();
    let before = ["", "leases", "layers", "compressed"].map(|part| count(&store, part));
    assert!(store.tag("a", &"b".parse().unwrap()).is_err());
    assert!(store.pin("a", "c1").is_err() && store.lease(&stored, "a test").is_err());
    assert!(store.compress(&stored.manifest.layers[0], &stored.config.rootfs.diff_ids[0]).is_err());
    assert_eq!(before, ["", "leases", "layers", "compressed"].map(|part| count(&store, part)));
}

#[test]
fn a_containers_image_stays_openable_without_its_names() {
    let (_directory, store) = store();
    let id = image(&store, Some("a"), "x");
    store.pin("a", "c1").unwrap();
    let removed = store.remove("a", true).unwrap();
    assert_eq!(removed, [collect::Removed::Untagged("docker.io/library/a:latest".to_owned())]);
    // As after a boot: the layer is unpacked again from its blob.
    for entry in std::fs::read_dir(store.layers_directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    store.prune(|_, _| Ok(true)).unwrap();
    let image = store.image(&id.to_string()).unwrap();
    assert_eq!(store.unpack(&image).unwrap().len(), 1);
    assert!(matches!(store.remove(&id.to_string(), true), Err(ImageError::InUse { .. })), "no name is left to take");
    store.unpin("c1").unwrap();
    store.prune(|_, _| Ok(true)).unwrap();
    assert!(store.records().unwrap().is_empty() && !store.has(&id));
}

#[test]
fn removing_a_digest_takes_that_one_unless_it_is_the_last_name() {
    let (_directory, store) = store();
    let id = image(&store, Some("a"), "x");
    let digests = ["example.org/a", "example.org/b"].map(|name| format!("{name}@{id}"));
    store
        .change_records(|images| {
            images.get_mut(&id).unwrap().repo_digests.extend(digests.clone());
            Ok(())
        })
        .unwrap();
    let record = || store.records().unwrap().remove(&id);
    assert_eq!(store.remove(&digests[0], false).unwrap(), [collect::Removed::Untagged(digests[0].clone())]);
    assert_eq!((record().unwrap().names.len(), record().unwrap().repo_digests.len()), (1, 1));
    store.remove(&digests[1], false).unwrap();
    assert_eq!((record().unwrap().names.len(), record().unwrap().repo_digests.len()), (1, 0));
    store
        .change_records(|images| {
            let record = images.get_mut(&id).unwrap();
            record.names.clear();
            record.repo_digests.insert(digests[0].clone());
            Ok(())
        })
        .unwrap();
    assert_eq!(store.remove(&digests[0], false).unwrap(), [collect::Removed::Deleted(id)]);
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
    assert!(store.prune(|_, _| Ok(true)).unwrap().0.is_empty());
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
                    let _share = store.share().unwrap();
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

#[test]
fn several_unpack_one_layer_at_the_same_time() {
    let (directory, store) = store();
    for file in 0..40 {
        std::fs::create_dir_all(directory.path().join("tree")).unwrap();
        std::fs::write(directory.path().join(format!("tree/{file}")), "x".repeat(file)).unwrap();
    }
    let description = Description::of(Some("a".parse().unwrap()));
    create::import(&store, RootSource::Directory(&directory.path().join("tree")), &description).unwrap();
    let stored = store.image("a").unwrap();
    let record = store.unpack(&stored).unwrap()[0].with_extension("json");
    let (others, barrier) = (3, std::sync::Barrier::new(4));
    for _ in 0..10 {
        // As after a boot.
        std::fs::remove_file(&record).unwrap();
        std::thread::scope(|scope| {
            let unpack = || {
                barrier.wait();
                let _share = store.share().unwrap();
                let layers = store.unpack(&stored).unwrap();
                // Who comes first must not have it taken away by who comes after.
                for file in 0..40 {
                    assert_eq!(std::fs::read(layers[0].join(file.to_string())).unwrap().len(), file);
                }
            };
            (0..others).for_each(|_| drop(scope.spawn(unpack)));
            unpack();
        });
        assert_eq!((count(&store, "layers"), count(&store, "tmp")), (2, 0));
    }
}
