//! Archives of GNU tar, unpacked by us and by it.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use isobench::image::pack::{self, Tree};
use isobench::image::unpack::{self, Limits, Options};

use crate::harness::Case;
use crate::tools::{Outcome, Place, case, run};
use crate::tree::{describe, differences};

pub fn cases() -> Vec<Case> {
    vec![
        case("tar::gnu_and_pax_archives_unpack_as_tar_unpacks_them", &["tar"], forms),
        case("tar::compressed_archives_unpack_as_tar_unpacks_them", &["tar", "gzip", "zstd"], compressed),
        case("tar::sparse_files_keep_their_holes_in_all_forms", &["tar"], sparse),
        case("tar::whiteouts_and_opaque_directories_become_overlays", &["tar"], whiteouts),
        case("tar::an_implied_directory_is_like_the_one_below", &["tar"], implied),
        case("tar::attributes_of_overlayfs_are_not_taken", &["tar"], overlay_attributes),
        case("tar::what_we_pack_is_unpacked_the_same_by_tar", &["tar"], packed),
        case("tar::a_containers_changes_become_whiteouts_and_back", &["tar"], changes),
        case("tar::memory_does_not_grow_with_the_archive", &["tar"], memory),
    ]
}

/// A tree with one of everything.
fn tree(place: &Place) -> Outcome {
    place.write("tree/bin/program", "#!/bin/sh\n")?;
    std::fs::set_permissions(place.path("tree/bin/program"), PermissionsExt::from_mode(0o4755))?;
    place.write("tree/bin/big", vec![7; 700_001])?;
    std::fs::hard_link(place.path("tree/bin/big"), place.path("tree/bin/second-name"))?;
    symlink("/absolute/target", place.path("tree/bin/link"))?;
    symlink("x".repeat(300), place.path("tree/bin/long-link"))?;
    let long = format!("tree/{}/{}", "d".repeat(200), "f".repeat(250));
    place.write(&long, "long names\n")?;
    place.write("tree/names/\u{e9}\n\"quoted\" \\", "odd\n")?;
    place.write("tree/names/bytes", "")?;
    std::fs::create_dir_all(place.path("tree/empty"))?;
    std::fs::set_permissions(place.path("tree/empty"), PermissionsExt::from_mode(0o1777))?;
    let at = |name: &str| place.text("", &format!("tree/{name}"));
    run("mkfifo", &["-m", "640", &at("pipe")])?;
    run("mknod", &["-m", "600", &at("null"), "c", "1", "3"])?;
    run("mknod", &["-m", "600", &at("disk"), "b", "7", "300"])?;
    std::os::unix::fs::chown(place.path("tree/names/bytes"), Some(1234), Some(3_000_000))?;
    std::os::unix::fs::lchown(place.path("tree/bin/link"), Some(12), Some(13))?;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(place.path("tree/names/bytes"), "user.note", b"a\0b=", flags)?;
    rustix::fs::setxattr(place.path("tree/empty"), "trusted.note", b"x", flags)?;
    // A program that may listen on low ports, and only that: CAP_NET_BIND_SERVICE.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(place.path("tree/bin/big"), "security.capability", &capability, flags)?;
    for name in ["tree/bin", "tree/names", "tree/empty", "tree"] {
        File::open(place.path(name))?
            .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 0))?;
    }
    Ok(())
}

/// Unpacks by us.
fn unpack(archive: &Path, to: &Path) -> Outcome<unpack::Unpacked> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    let options = Options { end_marker: true, ..Options::layer(Limits::default(), Vec::new()) };
    Ok(unpack::unpack(File::open(archive)?, &File::open(to)?, &options)?)
}

/// Unpacks by GNU tar.
fn unpack_by_tar(archive: &Path, to: &Path) -> Outcome {
    std::fs::create_dir(to)?;
    let (archive, to) = (archive.to_str().unwrap_or_default(), to.to_str().unwrap_or_default());
    run("tar", &["-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-f", archive, "-C", to])?;
    Ok(())
}

fn same(place: &Place, archive: &str) -> Outcome {
    let (ours, theirs) = (format!("{archive}-ours"), format!("{archive}-theirs"));
    unpack(&place.path(archive), &place.path(&ours))?;
    unpack_by_tar(&place.path(archive), &place.path(&theirs))?;
    let found = differences(&describe(&place.path(&ours))?, &describe(&place.path(&theirs))?);
    if found.is_empty() { Ok(()) } else { Err(format!("{archive}: {found:#?}").into()) }
}

fn forms() -> Outcome {
    let place = Place::new()?;
    tree(&place)?;
    let from = place.text("", "tree");
    for (form, attributes) in [("gnu", false), ("posix", true), ("posix", false)] {
        let name = format!("{form}-{attributes}.tar");
        let archive = place.text("", &name);
        let mut arguments = vec!["-c", "--numeric-owner", "--format", form, "-f", &archive, "-C", &from];
        if attributes {
            arguments.extend(["--xattrs", "--xattrs-include=*"]);
        }
        arguments.push(".");
        run("tar", &arguments)?;
        same(&place, &name)?;
    }
    Ok(())
}

fn compressed() -> Outcome {
    let place = Place::new()?;
    tree(&place)?;
    let from = place.text("", "tree");
    for (option, name) in [("--gzip", "a.tar.gz"), ("--zstd", "a.tar.zst")] {
        run("tar", &["-c", option, "--numeric-owner", "-f", &place.text("", name), "-C", &from, "."])?;
        same(&place, name)?;
    }
    Ok(())
}

fn sparse() -> Outcome {
    let place = Place::new()?;
    std::fs::create_dir(place.path("tree"))?;
    let mut file = File::create(place.path("tree/sparse"))?;
    // More pieces than fit into one header, and a hole at the end.
    for piece in 0..40 {
        file.seek(SeekFrom::Start(piece * (1 << 20)))?;
        file.write_all(&[u8::try_from(piece)? + 1; 5000])?;
    }
    file.set_len(60 << 20)?;
    File::create(place.path("tree/hole"))?.set_len(1 << 30)?;
    place.write("tree/after", "still in step\n")?;
    let from = place.text("", "tree");
    for form in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=1.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=0.0"],
    ] {
        let name = format!("sparse-{}.tar", form.last().unwrap_or(&"").trim_start_matches('-'));
        let archive = place.text("", &name);
        let arguments = [&["-c", "--sparse", "-f", archive.as_str(), "-C", &from], form, &["."]].concat();
        run("tar", &arguments)?;
        same(&place, &name)?;
        let blocks = place.path(&format!("{name}-ours/hole")).metadata()?.blocks();
        assert_eq!(blocks, 0, "{name}: a hole takes no space");
    }
    Ok(())
}

fn whiteouts() -> Outcome {
    let place = Place::new()?;
    place.write("tree/a/.wh.gone", "")?;
    place.write("tree/b/.wh..wh..opq", "")?;
    place.write("tree/b/kept", "")?;
    run("tar", &["-c", "-f", &place.text("", "a.tar"), "-C", &place.text("", "tree"), "."])?;
    unpack(&place.path("a.tar"), &place.path("ours"))?;
    let tree = describe(&place.path("ours"))?;
    assert!(tree["/a/gone"].contains(" c0x0"), "{tree:?}");
    assert!(tree["/b"].contains("trusted.overlay.opaque=[121]"), "{tree:?}");
    assert_eq!(tree.keys().map(String::as_str).collect::<Vec<_>>(), ["/", "/a", "/a/gone", "/b", "/b/kept"]);
    Ok(())
}

fn implied() -> Outcome {
    let place = Place::new()?;
    place.write("below/a/b/x", "")?;
    std::fs::set_permissions(place.path("below/a"), PermissionsExt::from_mode(0o2750))?;
    std::os::unix::fs::chown(place.path("below/a"), Some(7), Some(8))?;
    std::fs::set_permissions(place.path("below/a"), PermissionsExt::from_mode(0o2750))?;
    place.write("tree/a/b/y", "")?;
    run("tar", &["-c", "-f", &place.text("", "a.tar"), "-C", &place.text("", "tree"), "a/b/y"])?;
    std::fs::create_dir(place.path("ours"))?;
    let options = Options::layer(Limits::default(), vec![place.path("below")]);
    unpack::unpack(File::open(place.path("a.tar"))?, &File::open(place.path("ours"))?, &options)?;
    let metadata = place.path("ours/a").metadata()?;
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o2750, 7, 8));
    let below = place.path("below/a").metadata()?;
    assert_eq!(metadata.mtime(), below.mtime());
    Ok(())
}

fn overlay_attributes() -> Outcome {
    let place = Place::new()?;
    std::fs::create_dir_all(place.path("tree/d"))?;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(place.path("tree/d"), "trusted.overlay.redirect", b"/etc", flags)?;
    rustix::fs::setxattr(place.path("tree/d"), "trusted.kept", b"1", flags)?;
    let (archive, from) = (place.text("", "a.tar"), place.text("", "tree"));
    run("tar", &["-c", "--format=posix", "--xattrs", "--xattrs-include=*", "-f", &archive, "-C", &from, "."])?;
    assert!(run("grep", &["-c", "trusted.overlay.redirect", &archive])?.trim() != "0");
    unpack(&place.path("a.tar"), &place.path("ours"))?;
    let tree = describe(&place.path("ours"))?;
    assert!(tree["/d"].contains("trusted.kept") && !tree["/d"].contains("overlay"), "{tree:?}");
    Ok(())
}

fn packed() -> Outcome {
    let place = Place::new()?;
    tree(&place)?;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    pack::pack(&place.path("tree"), Tree::Whole, &mut first)?;
    pack::pack(&place.path("tree"), Tree::Whole, &mut second)?;
    assert!(first == second, "the same tree gives the same archive");
    place.write("a.tar", &first)?;
    unpack_by_tar(&place.path("a.tar"), &place.path("theirs"))?;
    unpack(&place.path("a.tar"), &place.path("ours"))?;
    let mut original = describe(&place.path("tree"))?;
    for name in ["theirs", "ours"] {
        let mut copy = describe(&place.path(name))?;
        // The root has no entry.
        copy.remove("/");
        original.remove("/");
        let found = differences(&copy, &original);
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
    Ok(())
}

fn changes() -> Outcome {
    let place = Place::new()?;
    place.write("upper/dir/new", "")?;
    run("mknod", &[&place.text("", "upper/gone"), "c", "0", "0"])?;
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(place.path("upper/dir"), "trusted.overlay.opaque", b"y", flags)?;
    let mut archive = Vec::new();
    pack::pack(&place.path("upper"), Tree::Changes, &mut archive)?;
    place.write("a.tar", &archive)?;
    let listing = run("tar", &["-t", "-f", &place.text("", "a.tar")])?;
    assert_eq!(listing.lines().collect::<Vec<_>>(), ["dir/", "dir/.wh..wh..opq", "dir/new", ".wh.gone"]);
    unpack(&place.path("a.tar"), &place.path("ours"))?;
    let tree = describe(&place.path("ours"))?;
    assert!(tree["/gone"].contains(" c0x0") && tree["/dir"].contains("trusted.overlay.opaque"), "{tree:?}");
    Ok(())
}

/// The most memory that the process had at once, in KiB.
fn peak_kib(status: &str) -> Outcome<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn memory() -> Outcome {
    // A process of its own, which imports 64 MiB and 512 MiB of zeros; the larger must not need more.
    let place = Place::new()?;
    std::fs::create_dir(place.path("tree"))?;
    let mut peaks = Vec::new();
    for mib in [64, 512] {
        File::create(place.path("tree/zeros"))?.set_len(mib << 20)?;
        let archive = place.text("", "a.tar");
        run("tar", &["-c", "-f", &archive, "-C", &place.text("", "tree"), "."])?;
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_isobench"))
            .args(["image", "import", &archive, &format!("zeros:{mib}")])
            .env("ISOBENCH_IMAGES", place.store.root())
            .stdout(std::process::Stdio::null())
            .spawn()?;
        // The last reading before its end: the peak only grows.
        let path = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait()?.is_none() {
            if let Ok(status) = std::fs::read_to_string(&path) {
                peak = peak_kib(&status).unwrap_or(peak);
            }
            std::thread::yield_now();
        }
        assert!(child.wait()?.success());
        peaks.push(peak);
    }
    assert!(peaks[1] < peaks[0] + 4096, "KiB at 64 MiB and at 512 MiB: {peaks:?}");
    assert!(peaks[1] < 64 << 10, "{peaks:?} KiB");
    Ok(())
}
