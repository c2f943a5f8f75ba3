//! Copies in a directory that stands for a container's root, beside a secret that no path may reach.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;

struct Place {
    directory: tempfile::TempDir,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(directory.path().join("outside")).unwrap();
        std::fs::write(inside.join("etc/f"), "inside").unwrap();
        let fd = File::open(&inside).unwrap().into();
        let root = Root { fd, confined: true, ids: None, _namespace: None, _image: None };
        Self { directory, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn link(&self, target: &str, path: &str) {
        symlink(target, self.path("root").join(path)).unwrap();
    }

    fn read(&self, path: &str, follow: bool) -> Result<Vec<u8>, FilesError> {
        let mut archive = Vec::new();
        self.root.read(Path::new(path), follow, &base_name(Path::new(path)), &mut archive).map(|()| archive)
    }

    fn untouched(&self) {
        assert_eq!(std::fs::read(self.path("secret")).unwrap(), b"secret");
        assert_eq!(std::fs::read_dir(self.path("outside")).unwrap().count(), 0);
        let mut names: Vec<_> =
            std::fs::read_dir(self.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["outside", "root", "secret"]);
    }
}

/// The names and contents of an archive's files.
fn listed(archive: &[u8]) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (name, content)
    });
    entries.collect()
}

fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        // Names as they are: the library refuses `..`.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let data = if *kind == tar::EntryType::Regular { content.as_bytes() } else { b"" };
        if *kind != tar::EntryType::Regular {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn links_of_a_container_lead_nowhere_else() {
    let place = Place::new();
    place.link("../../../secret", "up");
    place.link(place.path("secret").to_str().unwrap(), "absolute");
    place.link("/", "all");
    for path in ["up", "absolute", "../secret", "etc/../../secret", "all/../../secret"] {
        let read = place.read(path, true);
        assert!(matches!(read, Err(FilesError::Missing(_))), "{path}: {read:?}");
    }
    // Behind the link is the container's own root.
    assert_eq!(listed(&place.read("all/etc/f", false).unwrap()), [("f".to_owned(), "inside".to_owned())]);
    // A link is itself a file.
    assert_eq!(listed(&place.read("up", false).unwrap()).len(), 1);
    place.untouched();
}

#[test]
fn a_link_is_followed_if_asked_and_from_the_root() {
    let place = Place::new();
    place.link("/etc/f", "l");
    place.link("l", "m");
    assert_eq!(listed(&place.read("/m", true).unwrap()), [("m".to_owned(), "inside".to_owned())]);
    place.link("loop", "loop");
    assert!(place.read("/loop", true).is_err());
}

#[test]
fn a_write_through_links_stays_inside() {
    let place = Place::new();
    place.link("../outside", "out");
    place.link(place.path("outside").to_str().unwrap(), "away");
    for directory in ["out", "away"] {
        let file = archive(&[("f", tar::EntryType::Regular, "x")]);
        assert!(place.root.write(Path::new(directory), file.as_slice(), false).is_err(), "{directory}");
    }
    for hostile in [
        &[("../outside/f", tar::EntryType::Regular, "x")][..],
        &[("l", tar::EntryType::Symlink, "../outside"), ("l/f", tar::EntryType::Regular, "x")],
        &[("h", tar::EntryType::Link, "../secret"), ("h", tar::EntryType::Regular, "x")],
        &[
            ("d/", tar::EntryType::Directory, ""),
            ("d", tar::EntryType::Symlink, "/"),
            ("d/x", tar::EntryType::Regular, "x"),
        ],
    ] {
        assert!(place.root.write(Path::new("/"), archive(hostile).as_slice(), true).is_err(), "{hostile:?}");
        place.untouched();
    }
    // An absolute name is the root's own.
    place.root.write(Path::new("/"), archive(&[("/etc/g", tar::EntryType::Regular, "x")]).as_slice(), false).unwrap();
    assert_eq!(std::fs::read(place.path("root/etc/g")).unwrap(), b"x");
    place.untouched();
}

#[test]
fn a_directory_that_becomes_a_link_and_back_is_never_left() {
    let place = Place::new();
    let (here, there) = (place.path("root/d"), place.path("root/e"));
    std::fs::create_dir(&here).unwrap();
    symlink("../outside", &there).unwrap();
    let stop = AtomicBool::new(false);
    let file = archive(&[("f", tar::EntryType::Regular, "x")]);
    // Until both have been met often, however the threads are scheduled.
    let (mut made, mut refused) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &here, CWD, &there, RenameFlags::EXCHANGE).unwrap();
            }
        });
        while (made < 500 || refused < 500) && Instant::now() < deadline {
            match place.root.write(Path::new("/d"), file.as_slice(), false) {
                Ok(()) => made += 1,
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(made >= 500 && refused >= 500, "it was no race: {made} made, {refused} refused");
    place.untouched();
}

#[test]
fn what_is_there_is_replaced_by_its_like_only() {
    let place = Place::new();
    let file = archive(&[("etc", tar::EntryType::Regular, "x")]);
    assert!(place.root.write(Path::new("/"), file.as_slice(), false).is_err());
    let directory = archive(&[("f/", tar::EntryType::Directory, "")]);
    assert!(place.root.write(Path::new("/etc"), directory.as_slice(), false).is_err());
    assert_eq!(std::fs::read(place.path("root/etc/f")).unwrap(), b"inside");
    let twice = archive(&[("f", tar::EntryType::Regular, "a"), ("f", tar::EntryType::Regular, "b")]);
    place.root.write(Path::new("/etc"), twice.as_slice(), false).unwrap();
    assert_eq!(std::fs::read(place.path("root/etc/f")).unwrap(), b"b");
}

#[test]
fn owners_and_special_bits() {
    let place = Place::new();
    let file = archive(&[("f", tar::EntryType::Regular, "x")]);
    let made = |root: &Root, directory: &Path, keep| {
        root.write(directory, file.as_slice(), keep).unwrap();
        let inside = if root.confined { place.path("root").join("etc/f") } else { directory.join("f") };
        let data = std::fs::metadata(inside).unwrap();
        (data.uid(), data.permissions().mode() & 0o7777)
    };
    let host = Root::of_host().unwrap();
    let outside = place.path("outside");
    assert_eq!(made(&place.root, Path::new("/etc"), false), (0, 0o4755));
    assert_eq!(made(&place.root, Path::new("/etc"), true), (7, 0o4755));
    assert_eq!(made(&host, &outside, false), (0, 0o755), "no set-user-id program comes to the host unasked");
    assert_eq!(made(&host, &outside, true), (7, 0o4755));
    let device = archive(&[("null", tar::EntryType::Char, "")]);
    assert!(host.write(&outside, device.as_slice(), false).is_err());
}
