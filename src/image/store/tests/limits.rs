//! What is refused: too large, too many, or open to others.

use super::*;

#[test]
fn an_image_over_the_limits_is_refused_before_it_is_unpacked() {
    let (_directory, store) = store();
    let stored = {
        image(&store, Some("a"), "x");
        store.image("a").unwrap()
    };
    let with = |count: usize, size: u64, limits: Limits| {
        let layers = vec![Descriptor { size, ..stored.manifest.layers[0].clone() }; count];
        records::measure(&Manifest { layers, ..stored.manifest.clone() }, &limits)
    };
    let limits = Limits { bytes: 100, image: 250, ..Limits::default() };
    with(2, 100, limits).unwrap();
    with(127, 1, limits).unwrap();
    assert!(matches!(with(1, 101, limits), Err(ImageError::TooLarge { size: 101, limit: 100, .. })));
    assert!(matches!(with(3, 100, limits), Err(ImageError::TooLarge { size: 300, limit: 250, .. })));
    assert!(matches!(with(128, 1, limits), Err(ImageError::Invalid { .. })));
    let huge = Limits { bytes: u64::MAX, image: u64::MAX - 1, ..limits };
    assert!(matches!(with(3, i64::MAX.cast_unsigned(), huge), Err(ImageError::TooLarge { size: u64::MAX, .. })));
    // What unpacks to more than is left.
    std::fs::remove_dir_all(store.layers_directory()).unwrap();
    std::fs::create_dir(store.layers_directory()).unwrap();
    let size = stored.manifest.layers[0].size;
    let unpack = |image| store.clone().with_limits(Limits { image, ..Limits::default() }).unpack(&stored);
    let over = unpack(size - 1);
    assert!(
        matches!(over, Err(ImageError::Unpack { source: UnpackError::Limit { limit, .. }, .. }) if limit == size - 1)
    );
    unpack(size).unwrap();
    let chart = Descriptor {
        media_type: "application/vnd.cncf.helm.config.v1+json".to_owned(),
        ..stored.manifest.config.clone()
    };
    let chart = Manifest { config: chart, ..stored.manifest.clone() };
    assert!(matches!(records::measure(&chart, &limits), Err(ImageError::Invalid { .. })));
}

#[test]
fn a_store_is_closed_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b/images");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    Store::open(&root).unwrap();
    assert_eq!((mode(&root), mode(&root.join("layers"))), (0o700, 0o711));
    assert_eq!(mode(&directory.path().join("a")) & 0o700, 0o700);
    assert_ne!(mode(&directory.path().join("a/b")) & 0o055, 0, "what the store lies in is as others are");
    for part in ["", "blobs/sha256", "tmp"] {
        std::fs::set_permissions(root.join(part), PermissionsExt::from_mode(0o777)).unwrap();
        Store::open(&root).unwrap();
        assert_eq!(mode(&root.join(part)), 0o700, "{part}");
    }
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&root, Some(12345), None).unwrap();
        assert!(matches!(Store::open(&root), Err(ImageError::Invalid { why, .. }) if why.contains("12345")));
    }
    std::fs::write(directory.path().join("file"), "").unwrap();
    assert!(Store::open(directory.path().join("file")).is_err());
}

#[test]
fn a_file_of_several_images_leaves_nothing_where_one_is_wanted() {
    let (directory, store) = store();
    let names = ["a:1", "b:1"].map(|name| {
        image(&store, Some(name), name);
        name.to_owned()
    });
    let path = directory.path().join("both.tar");
    let mut archive = File::create(&path).unwrap();
    crate::image::archive::save(&store, &names, Default::default(), &mut archive).unwrap();
    let second = Store::open(directory.path().join("second")).unwrap();
    let text = format!("docker-archive:{}", path.display());
    let error = crate::image::Image::open(&second, &text, "a test").unwrap_err().to_string();
    assert!(error.contains("several images") && error.contains("a:1, b:1"), "{error}");
    assert!(second.records().unwrap().is_empty());
    for part in ["blobs/sha256", "layers", "tmp", "leases"] {
        assert_eq!(count(&second, part), 0, "{part}");
    }
    let image = crate::image::Image::open(&second, &format!("{text}:b:1"), "a test").unwrap();
    assert_eq!(second.records().unwrap().keys().copied().collect::<Vec<_>>(), [image.id.unwrap()]);
}

#[test]
fn an_archive_of_images_has_limits() {
    let (directory, store) = store();
    image(&store, Some("a:1"), &"x".repeat(5000));
    let path = directory.path().join("a.tar");
    let save = || {
        crate::image::archive::save(&store, &["a:1".to_owned()], Default::default(), &mut File::create(&path).unwrap())
    };
    save().unwrap();
    let selection = crate::image::archive::Selection { platform: own_platform(), name: None, named: true };
    let load = |limits: Limits| {
        let second = Store::open(directory.path().join("second")).unwrap().with_limits(limits);
        let outcome = crate::image::archive::load(&second, Some(&path), &selection);
        assert!(outcome.is_ok() || count(&second, "blobs/sha256") == 0, "nothing is left");
        outcome
    };
    let is_limit = |outcome: Result<_, ImageError>, of: &str| matches!(outcome, Err(ImageError::Archive { source: UnpackError::Limit { what, .. }, .. }) if what == of);
    assert!(is_limit(load(Limits { bytes: 5000, ..Limits::default() }), "bytes in a file"));
    assert!(is_limit(load(Limits { image: 8000, ..Limits::default() }), "uncompressed bytes"));
    load(Limits { bytes: 20_000, image: 30_000, ..Limits::default() }).unwrap();
}
