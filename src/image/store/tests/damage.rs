//! What is not as it was left: changed blobs, torn files, what a killed process was at.

use super::*;

#[test]
fn a_changed_blob_is_found_when_it_is_read() {
    let (_directory, store) = store();
    let (digest, _) = store.put("a blob", &mut &b"abc"[..], None).unwrap();
    damage(&store, &digest, b"abd");
    assert!(matches!(store.read_document(&digest), Err(ImageError::Digest { .. })));
    // It counts as missing from then on, so that it can come anew.
    assert!(matches!(store.read_document(&digest), Err(ImageError::MissingBlob(..))));
    assert!(!store.has(&digest));
    store.put("a blob", &mut &b"abc"[..], None).unwrap();
    assert_eq!(store.read_document(&digest).unwrap(), b"abc");
    damage(&store, &digest, b"abd");
    assert!(matches!(store.copy_blob(&digest, &mut Vec::new()), Err(ImageError::Digest { .. })));
    assert!(!store.has(&digest));
    store.collect().unwrap();
    assert_eq!(count(&store, "tmp"), 0);
}

/// Changes a blob in its place, as a disk may.
fn damage(store: &Store, digest: &Digest, content: &[u8]) {
    let path = store.blob_path(digest);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&path, content).unwrap();
}

#[test]
fn a_damaged_layer_comes_anew_with_the_image() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    let stored = store.image("a").unwrap();
    let blob = stored.manifest.layers[0].digest;
    let whole = std::fs::read(store.blob_path(&blob)).unwrap();
    // Both a part that is no archive and one that is another.
    for content in [&whole[..700], &[&whole[..], &[0; 512]].concat()] {
        std::fs::write(
            store.root().join("layers").join(&stored.config.rootfs.diff_ids[0].hex()[..24]).with_extension("json"),
            "{",
        )
        .unwrap();
        damage(&store, &blob, content);
        assert!(matches!(store.unpack(&stored), Err(ImageError::Digest { .. })), "{}", content.len());
        assert!(!store.has(&blob));
        store.put("a blob", &mut &whole[..], None).unwrap();
        store.unpack(&stored).unwrap();
    }
}

#[test]
fn a_blob_for_a_layer_that_is_unpacked_is_compared_all_the_same() {
    let (_directory, store) = store();
    let id = image(&store, Some("a"), "x");
    let stored = store.image("a").unwrap();
    let as_layer = |content: &[u8]| {
        let (digest, size) = store.put("a blob", &mut &content[..], None).unwrap();
        let layers = vec![store.layer_descriptor(digest, size).unwrap()];
        let manifest = Manifest { layers, ..stored.manifest.clone() };
        let descriptor = store.put_document(media::OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap()).unwrap();
        store.add(&descriptor, &[], Some(format!("example.org/a@{}", descriptor.digest))).map(|id| (id, descriptor))
    };
    // Another content under the known diff id: the record keeps its manifest.
    assert!(matches!(as_layer(&[0; 1024]), Err(ImageError::Digest { .. })));
    assert_eq!(store.image("a").unwrap().manifest, stored.manifest);
    // The same content compressed is the same layer.
    let plain = std::fs::read(store.blob_path(&stored.manifest.layers[0].digest)).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let (same, descriptor) = as_layer(&zstd).unwrap();
    assert_eq!((same, store.records().unwrap()[&id].manifest.digest), (id, descriptor.digest));
}

#[test]
fn a_collection_ends_where_it_cannot_tell_what_is_needed() {
    let (_directory, store) = store();
    let id = image(&store, Some("a"), "x");
    // The document is there, and cannot be read just now: a directory in its place stands for a disk's error.
    let (path, kept) = (store.blob_path(&id), store.root().join("kept"));
    std::fs::rename(&path, &kept).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(store.collect(), Err(ImageError::File(_))));
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&kept, &path).unwrap();
    let image = store.image("a").unwrap();
    assert!(store.has(&image.manifest.layers[0].digest), "its layer is still there");
    // One that is missing is damage: the layers cannot be known, and its names can still be taken away.
    std::fs::remove_file(&path).unwrap();
    store.collect().unwrap();
    assert!(!store.has(&image.manifest.layers[0].digest));
    store.remove("a", false).unwrap();
}

#[test]
fn a_containers_lease_that_cannot_be_read_ends_a_collection() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    store.pin("a", "c1").unwrap();
    let path = store.root().join("leases/container-c1.json");
    let whole = std::fs::read(&path).unwrap();
    for torn in [&b""[..], b"{"] {
        std::fs::write(&path, torn).unwrap();
        assert!(matches!(store.collect(), Err(ImageError::Json { .. })));
        assert!(path.exists(), "no one knows what it keeps");
    }
    std::fs::write(&path, whole).unwrap();
    // What is neither a process's nor a container's is not ours.
    std::fs::write(store.root().join("leases/.isobench-x"), "{").unwrap();
    store.collect().unwrap();
    assert_eq!(count(&store, "leases"), 2);
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
fn a_layer_is_shared_and_a_lying_diff_id_is_found() {
    let (_directory, store) = store();
    image(&store, Some("a"), "x");
    let mut stored = store.image("a").unwrap();
    assert_eq!(store.unpack(&stored).unwrap().len(), 1);
    stored.config.rootfs.diff_ids[0] = Digest::of(b"something else");
    assert!(matches!(store.unpack(&stored), Err(ImageError::Digest { .. })));
    assert_eq!((count(&store, "layers"), count(&store, "tmp")), (2, 0), "nothing of it is kept");
}
