//! Images in files: made by umoci, turned about by skopeo, read by us, and written by us for skopeo.

use std::path::Path;

use isobench::image::archive::{self, Format, Selection};
use isobench::image::create::{self, Description, RootSource};
use isobench::image::digest::Digest;
use isobench::image::spec::own_platform;
use isobench::image::{Image, ImageError};

use crate::harness::Case;
use crate::tools::{Outcome, Place, case, run, skopeo};
use crate::tree::{describe, differences};

pub fn cases() -> Vec<Case> {
    let tools = &["umoci", "skopeo"];
    vec![
        case("archives::an_oci_layout_unpacks_as_umoci_unpacks_it", tools, layout),
        case("archives::docker_and_oci_archives_by_skopeo_are_the_same_image", tools, by_skopeo),
        case("archives::skopeo_reads_what_is_saved", tools, saved),
        case("archives::a_platform_is_chosen_from_an_index", tools, platforms),
        case("archives::a_damaged_archive_leaves_nothing_behind", tools, damaged),
        case("archives::what_lies_about_its_size_or_digest_leaves_nothing_behind", tools, lies),
        case("archives::a_layer_that_points_outside_leaves_nothing_behind", &["tar"], outside),
        case("archives::a_damaged_root_file_system_leaves_nothing_behind", &["tar"], import),
    ]
}

pub fn selection() -> Selection {
    Selection { platform: own_platform(), name: None, named: true }
}

/// An image's layers merged by the kernel, looked at in a mount namespace of its own.
fn merged(place: &Place, image: &Image) -> Outcome<std::collections::BTreeMap<String, String>> {
    let (base, names) = match image.root.shortened() {
        Some((base, names)) => {
            (base.to_owned(), names.iter().map(|name| name.display().to_string()).collect::<Vec<_>>())
        }
        None => ("/".into(), image.root.layers.iter().map(|layer| layer.display().to_string()).collect()),
    };
    let (target, copy) = (place.text("", "merged"), place.text("", "copy"));
    std::fs::create_dir_all(&target)?;
    std::fs::create_dir_all(&copy)?;
    let (lower, base) = (names.join(":"), base.display());
    // One layer alone is no overlay; an empty one under it makes it so.
    std::fs::create_dir_all(place.path("none"))?;
    let none = place.text("", "none");
    let script =
        format!("cd {base} && mount -t overlay overlay -o lowerdir={lower}:{none} {target} && cp -a {target}/. {copy}");
    run("unshare", &["-m", "--propagation", "private", "sh", "-c", &script])?;
    let tree = describe(Path::new(&copy))?;
    std::fs::remove_dir_all(copy)?;
    Ok(tree)
}

fn layout() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    let loaded = archive::load(&place.store, Some(&place.path("layout")), &selection())?;
    assert_eq!(loaded.len(), 1);
    let id = skopeo(&["inspect", "--raw", "--config", &place.text("oci:", "layout:latest")])?;
    assert_eq!(loaded[0].id, Digest::of(id.as_bytes()), "the identifier is the digest of the configuration");
    let image = Image::open(&place.store, &loaded[0].id.to_string(), "a test")?;
    assert_eq!(
        (image.config.cmd.as_slice(), image.config.env.last().map(String::as_str)),
        (&["sh".to_owned()][..], Some("A=1"))
    );
    assert_eq!(image.config.working_dir, "/opt");
    run("umoci", &["unpack", "--image", &place.text("", "layout:latest"), &place.text("", "bundle")])?;
    let mut theirs = describe(&place.path("bundle/rootfs"))?;
    let mut ours = merged(&place, &image)?;
    assert_eq!(
        ours.keys().map(String::as_str).collect::<Vec<_>>(),
        ["/", "/etc", "/etc/hostname", "/etc/link", "/opt", "/opt/c"]
    );
    // The root has no entry in any layer.
    ours.remove("/");
    theirs.remove("/");
    let found = differences(&ours, &theirs);
    // umoci touches a directory when it removes from it; the archive's time of /etc is ours.
    let found: Vec<_> = found.iter().filter(|text| !text.starts_with("/etc:")).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("{found:#?}").into()) }
}

fn by_skopeo() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    let from = place.text("oci:", "layout:latest");
    let mut ids = Vec::new();
    for (to, path) in [
        (place.text("docker-archive:", "docker.tar:example.org/a/b:1"), "docker.tar"),
        (place.text("oci-archive:", "oci.tar:example.org/a/b:1"), "oci.tar"),
    ] {
        skopeo(&["copy", &from, &to])?;
        let loaded = archive::load(&place.store, Some(&place.path(path)), &selection())?;
        assert_eq!(
            loaded[0].names.iter().map(|name| name.familiar()).collect::<Vec<_>>(),
            ["example.org/a/b:1"],
            "{path}"
        );
        ids.push(loaded[0].id);
        assert_eq!(place.store.find("example.org/a/b:1")?, loaded[0].id);
    }
    // The layout has what skopeo copied to the OCI archive; docker's form has a configuration of its own.
    let layout = archive::load(&place.store, Some(&place.path("layout")), &selection())?;
    assert_eq!(ids[1], layout[0].id);
    let layers = |id: &Digest| place.store.image(&id.to_string()).map(|image| image.config.rootfs.diff_ids);
    assert_eq!(layers(&ids[0])?, layers(&ids[1])?, "the same layers, compressed or not");
    let unpacked = std::fs::read_dir(place.store.layers_directory())?.count();
    assert_eq!(unpacked, 2 * layers(&ids[0])?.len(), "each is unpacked once");
    // As what a container is made from, without a name.
    let image = Image::open(&place.store, &place.text("docker-archive:", "docker.tar"), "a test")?;
    assert_eq!(image.id, Some(ids[0]));
    assert!(Image::open(&place.store, &place.text("oci-archive:", "oci.tar:nothing:1"), "a test").is_err());
    Ok(())
}

fn saved() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    let id = archive::load(&place.store, Some(&place.path("layout")), &selection())?[0].id;
    place.store.tag(&id.to_string(), &"example.org/a/b:1".parse()?)?;
    let image = place.store.image(&id.to_string())?;
    for (format, transport) in [(Format::Docker, "docker-archive"), (Format::Oci, "oci-archive")] {
        let name = format!("{transport}.tar");
        let mut file = std::fs::File::create(place.path(&name))?;
        archive::save(&place.store, &["example.org/a/b:1".to_owned()], format, &mut file)?;
        let from = place.text(&format!("{transport}:"), &name);
        let config = skopeo(&["inspect", "--raw", "--config", &from])?;
        assert_eq!(Digest::of(config.as_bytes()), id, "{transport}");
        // All of it, checked by skopeo on the way.
        let to = place.text("oci:", &format!("{transport}-copy:latest"));
        skopeo(&["copy", &from, &to])?;
        let again = archive::load(&place.store, Some(&place.path(&format!("{transport}-copy"))), &selection())?;
        assert_eq!(place.store.image(&again[0].id.to_string())?.config.rootfs, image.config.rootfs);
    }
    let listed = skopeo(&["list-tags", &place.text("docker-archive:", "docker-archive.tar")])?;
    assert!(listed.contains("example.org/a/b:1"), "{listed}");
    Ok(())
}

fn platforms() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    let image = place.text("", "layout:latest");
    run("umoci", &["config", "--image", &image, "--tag", "other", "--architecture", "s390x"])?;
    // An index of both, as build tools make it.
    let path = place.path("layout/index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let mut manifests = Vec::new();
    for entry in index["manifests"].as_array().ok_or("no manifests")? {
        let mut entry = entry.clone();
        let other = entry["annotations"]["org.opencontainers.image.ref.name"] == "other";
        let architecture = if other { "s390x" } else { own_platform().architecture.leak() };
        entry["platform"] = serde_json::json!({"os": "linux", "architecture": architecture});
        manifests.push(entry);
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let both = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).to_string();
    let digest = Digest::of(both.as_bytes());
    place.write(&format!("layout/blobs/sha256/{}", digest.hex()), &both)?;
    index["manifests"] =
        serde_json::json!([{"mediaType": media_type, "digest": digest.to_string(), "size": both.len()}]);
    std::fs::write(&path, index.to_string())?;
    let load = |architecture: &str| {
        let mut selection = selection();
        selection.platform.architecture = architecture.to_owned();
        archive::load(&place.store, Some(&place.path("layout")), &selection)
    };
    let other = load("s390x")?[0].id;
    assert_eq!(place.store.config(&other)?.architecture, "s390x");
    assert_eq!(
        place.store.config(&load(&own_platform().architecture)?[0].id)?.architecture,
        own_platform().architecture
    );
    assert!(matches!(load("riscv64"), Err(ImageError::Platform { has, .. }) if has.contains("linux/s390x")));
    Ok(())
}

/// Loading must fail, and the store be as empty as before.
fn refuses(place: &Place, path: &str) -> Outcome<ImageError> {
    match archive::load(&place.store, Some(&place.path(path)), &selection()) {
        Ok(loaded) => Err(format!("{path} was loaded: {loaded:?}").into()),
        Err(error) => {
            let left = place.leftovers()?;
            if left.is_empty() { Ok(error) } else { Err(format!("{path} left {left:?}").into()) }
        }
    }
}

fn damaged() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    skopeo(&["copy", &place.text("oci:", "layout:latest"), &place.text("docker-archive:", "whole.tar:a:1")])?;
    let whole = std::fs::read(place.path("whole.tar"))?;
    for part in [0, 1, 3, 7, 9] {
        place.write("cut.tar", &whole[..whole.len() * part / 10])?;
        refuses(&place, "cut.tar")?;
    }
    place.write("garbage.tar", vec![b'x'; 4096])?;
    refuses(&place, "garbage.tar")?;
    run("tar", &["-c", "-f", &place.text("", "other.tar"), "-C", &place.text("", "lower"), "."])?;
    let error = refuses(&place, "other.tar")?;
    assert!(error.to_string().contains("neither index.json"), "{error}");
    Ok(())
}

/// The layout's first layer.
fn first_layer(place: &Place) -> Outcome<String> {
    let manifest = skopeo(&["inspect", "--raw", &place.text("oci:", "layout:latest")])?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
    let digest = manifest["layers"][0]["digest"].as_str().ok_or("no layer")?;
    Ok(format!("layout/blobs/sha256/{}", digest.trim_start_matches("sha256:")))
}

fn lies() -> Outcome {
    let place = Place::new()?;
    place.layout()?;
    let name = first_layer(&place)?;
    let layer = std::fs::read(place.path(&name))?;
    place.write(&name, &layer[..layer.len() - 1])?;
    assert!(matches!(refuses(&place, "layout")?, ImageError::Size { .. }));
    let mut changed = layer.clone();
    changed[layer.len() / 2] ^= 1;
    place.write(&name, &changed)?;
    assert!(matches!(refuses(&place, "layout")?, ImageError::Digest { .. }));
    std::fs::remove_file(place.path(&name))?;
    assert!(refuses(&place, "layout")?.to_string().contains("cannot open"));
    place.write(&name, &layer)?;
    archive::load(&place.store, Some(&place.path("layout")), &selection())?;
    Ok(())
}

fn outside() -> Outcome {
    let place = Place::new()?;
    place.write("image/victim", "untouched")?;
    place.write("image/layer/f", "stolen")?;
    let (archive, from) = (place.text("", "layer.tar"), place.text("", "image/layer"));
    run("tar", &["-c", "-P", "--transform", "s,.*f,../../../victim,", "-f", &archive, "-C", &from, "./f"])?;
    let layer = std::fs::read(place.path("layer.tar"))?;
    let config = serde_json::json!({
        "architecture": own_platform().architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    place.write("docker/layer.tar", &layer)?;
    place.write("docker/config.json", config.to_string())?;
    place
        .write("docker/manifest.json", r#"[{"Config":"config.json","RepoTags":["evil:1"],"Layers":["layer.tar"]}]"#)?;
    run("tar", &["-c", "-f", &place.text("", "evil.tar"), "-C", &place.text("", "docker"), "."])?;
    let error = refuses(&place, "evil.tar")?;
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("points outside"), "{error}: {cause}");
    assert_eq!(std::fs::read_to_string(place.path("image/victim"))?, "untouched");
    // Names in manifest.json are looked up in the archive, and never on this machine.
    let evil = r#"[{"Config":"/etc/hostname","RepoTags":["evil:1"],"Layers":["../../etc/passwd"]}]"#;
    place.write("docker/manifest.json", evil)?;
    run("tar", &["-c", "-f", &place.text("", "evil.tar"), "-C", &place.text("", "docker"), "."])?;
    assert!(refuses(&place, "evil.tar")?.to_string().contains("does not hold"));
    Ok(())
}

fn import() -> Outcome {
    let place = Place::new()?;
    place.write("tree/f", vec![b'x'; 100_000])?;
    run("tar", &["-c", "-f", &place.text("", "whole.tar"), "-C", &place.text("", "tree"), "."])?;
    let whole = std::fs::read(place.path("whole.tar"))?;
    let description = Description::of(Some("a:1".parse()?));
    for length in [0, 300, 50_000, 102_000] {
        place.write("cut.tar", &whole[..length])?;
        let path = place.path("cut.tar");
        let outcome = create::import(&place.store, RootSource::Archive(&path), &description);
        assert!(matches!(outcome, Err(ImageError::Archive { .. })), "{length}: {outcome:?}");
        assert!(place.leftovers()?.is_empty(), "{:?}", place.leftovers()?);
    }
    create::import(&place.store, RootSource::Archive(&place.path("whole.tar")), &description)?;
    Ok(())
}
