//! Archives made by hand, good and malicious, unpacked without root where root is not what is tested.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;

/// An archive in the making, entry by entry, with whatever names.
#[derive(Default)]
struct Made(Vec<u8>);

impl Made {
    fn entry(mut self, kind: tar::EntryType, name: &[u8], target: &[u8], data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..target.len()].copy_from_slice(target);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(tar::EntryType::Regular, name.as_bytes(), b"", data.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(tar::EntryType::Directory, name.as_bytes(), b"", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, name.as_bytes(), target.as_bytes(), b"")
    }

    fn globals(self, records: &[u8]) -> Self {
        self.entry(tar::EntryType::XGlobalHeader, b"pax", b"", records)
    }

    fn pax(self, records: &[u8]) -> Self {
        self.entry(tar::EntryType::XHeader, b"pax", b"", records)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A directory to unpack into, inside one that must stay as it is.
struct Place {
    outside: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(outside.path().join("secret"), "untouched").unwrap();
        Self { outside, root }
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_with(archive, |_| {})
    }

    fn unpack_with(&self, archive: &[u8], change: impl FnOnce(&mut Options)) -> Result<Unpacked, UnpackError> {
        let mut options =
            Options { rights: Rights::User, end_marker: true, ..Options::layer(Limits::default(), vec![]) };
        change(&mut options);
        let outcome = unpack(archive, &File::open(&self.root).unwrap(), &options);
        // Whatever the archive says, nothing beside the root is touched.
        let beside: Vec<_> =
            std::fs::read_dir(self.outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "{beside:?}");
        assert_eq!(std::fs::read_to_string(self.outside.path().join("secret")).unwrap(), "untouched");
        outcome
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.join(name)).unwrap()
    }
}

fn error(archive: &[u8]) -> String {
    Place::new().unpack(archive).unwrap_err().to_string()
}

#[test]
fn files_directories_and_links() {
    let place = Place::new();
    let archive = Made::default()
        .directory("./")
        .directory("a/")
        .file("a/f", "hello")
        .symlink("a/l", "f")
        .hard_link("a/h", "a/f")
        .file("implied/deep/f", "x")
        .end();
    let unpacked = place.unpack(&archive).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (6, 6));
    assert_eq!(
        (place.read("a/f"), place.read("a/l"), place.read("implied/deep/f")),
        ("hello".into(), "hello".into(), "x".into())
    );
    let inode = |name: &str| place.root.join(name).symlink_metadata().unwrap().ino();
    assert_eq!(inode("a/f"), inode("a/h"));
    // A directory keeps the time that it was given, though files came into it after.
    for name in ["", "a", "a/f", "a/l", "implied", "implied/deep"] {
        let path = place.root.join(name);
        assert_eq!(path.symlink_metadata().unwrap().mtime(), 1_000_000_000, "{name}");
    }
    assert_eq!(place.root.join("implied").metadata().unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_directory_that_is_come_back_to_keeps_its_time() {
    let place = Place::new();
    let archive = Made::default().directory("a/").directory("b/").file("a/late", "").file("b/late", "").end();
    place.unpack(&archive).unwrap();
    for name in ["a", "b"] {
        assert_eq!(place.root.join(name).metadata().unwrap().mtime(), 1_000_000_000, "{name}");
    }
}

#[test]
fn dot_dot_is_an_error() {
    for name in ["../secret", "a/../../secret", "a/..", ".."] {
        let text = error(&Made::default().directory("a/").file(name, "stolen").end());
        assert!(text.contains("points outside"), "{name}: {text}");
    }
    let text = error(&Made::default().hard_link("h", "../secret").end());
    assert!(text.contains("points outside"), "{text}");
}

#[test]
fn an_absolute_name_is_taken_from_the_root() {
    let place = Place::new();
    place.unpack(&Made::default().file("/etc/isobench-test", "x").end()).unwrap();
    assert_eq!(place.read("etc/isobench-test"), "x");
    assert!(!Path::new("/etc/isobench-test").exists());
}

#[test]
fn a_link_out_is_kept_as_text_and_writing_through_it_stays_inside() {
    let place = Place::new();
    let outside = place.outside.path().to_str().unwrap().to_owned();
    let archive = Made::default().symlink("up", "../..").symlink("abs", &outside).file("up/secret", "inside").end();
    place.unpack(&archive).unwrap();
    // The kernel takes the layer for the root: `..` of the root is the root.
    assert_eq!(place.read("secret"), "inside");
    assert_eq!(std::fs::read_link(place.root.join("abs")).unwrap(), Path::new(&outside));
    let text = error(&Made::default().symlink("abs", "/isobench/nowhere").file("abs/passwd", "x").end());
    assert!(text.contains("leads nowhere"), "{text}");
}

#[test]
fn a_file_that_takes_a_links_place_does_not_follow_it() {
    let place = Place::new();
    let secret = place.outside.path().join("secret");
    place.unpack(&Made::default().symlink("f", secret.to_str().unwrap()).file("f", "mine").end()).unwrap();
    assert_eq!(place.read("f"), "mine");
    let hard = Made::default().symlink("s", secret.to_str().unwrap()).hard_link("h", "s").file("h", "mine").end();
    Place::new().unpack(&hard).unwrap();
}

#[test]
fn dev_as_a_symbolic_link_is_followed_inside_only() {
    let place = Place::new();
    let archive = Made::default().symlink("dev", "/").file("dev/shm-isobench-test", "x").end();
    place.unpack(&archive).unwrap();
    assert_eq!(place.read("shm-isobench-test"), "x");
    assert!(!Path::new("/shm-isobench-test").exists());
}

#[test]
fn what_aufs_kept_for_itself_is_left_out() {
    let place = Place::new();
    let archive = Made::default()
        .directory(".wh..wh.plnk/")
        .file(".wh..wh.plnk/1.2", "left out")
        .file("a/.wh..wh.orph/deep/f", "left out")
        .file("f", "kept")
        .end();
    place.unpack(&archive).unwrap();
    let names: Vec<_> = std::fs::read_dir(&place.root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((names, place.read("f").as_str()), (vec!["f".into()], "kept"));
}

#[test]
fn the_last_of_duplicate_entries_holds() {
    let place = Place::new();
    let archive = Made::default()
        .file("f", "first")
        .file("f", "second")
        .directory("d/")
        .file("d/f", "")
        .file("d", "a file now")
        .file("e", "")
        .directory("e/")
        .file("e/f", "below")
        .end();
    place.unpack(&archive).unwrap();
    assert_eq!(
        (place.read("f"), place.read("d"), place.read("e/f")),
        ("second".into(), "a file now".into(), "below".into())
    );
}

#[test]
fn a_directory_is_taken_away_under_the_feet_of_an_alias() {
    // `a/l` is the root, so `a/l/a` is the directory that `a/l` stands in.
    let archive =
        Made::default().directory("a/").symlink("a/l", "/").file("a/l/a", "a file now").file("a/l/b", "x").end();
    let place = Place::new();
    place.unpack(&archive).unwrap();
    assert_eq!((place.read("a"), place.read("b")), ("a file now".into(), "x".into()));
}

#[test]
fn a_device_takes_root() {
    let place = Place::new();
    let outcome = place.unpack(&Made::default().entry(tar::EntryType::Char, b"null", b"", b"").end());
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::fs::FileTypeExt;
        let metadata = place.root.join("null").symlink_metadata().unwrap();
        assert!(outcome.is_ok() && metadata.file_type().is_char_device(), "{outcome:?}");
    } else {
        assert!(outcome.unwrap_err().to_string().starts_with("cannot make the device"));
    }
}

#[test]
fn a_cut_archive_is_an_error_wherever_it_is_cut() {
    let whole = Made::default().directory("a/").file("a/f", &"x".repeat(1500)).file("g", "y").end();
    // The last block may be missing where a digest tells; here the end must be marked.
    for length in (0..whole.len() - 1).step_by(100) {
        let outcome = Place::new().unpack(&whole[..length]);
        assert!(matches!(outcome, Err(UnpackError::CutShort(_))), "{length}: {outcome:?}");
    }
    let unmarked = &whole[..whole.len() - 1024];
    assert!(Place::new().unpack_with(unmarked, |options| options.end_marker = false).is_ok());
}

#[test]
fn compressed_archives() {
    let plain = Made::default().file("f", "x").end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for packed in [&gzip, &zstd] {
        let place = Place::new();
        let digests = place.unpack(packed).unwrap().digests;
        assert_eq!(place.read("f"), "x");
        assert_eq!(digests.stored, (crate::image::digest::Digest::of(packed), packed.len() as u64));
        assert_eq!(digests.plain, (crate::image::digest::Digest::of(&plain), plain.len() as u64));
        let cut = Place::new().unpack(&packed[..packed.len() - 5]).unwrap_err();
        assert!(matches!(cut, UnpackError::Compression(..)), "{cut:?}");
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert!(Place::new().unpack(&damaged).is_err());
    }
}

#[test]
fn a_window_that_takes_too_much_memory_is_refused() {
    let packed = |log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&Made::default().file("f", "x").end()).unwrap();
        encoder.finish().unwrap()
    };
    Place::new().unpack(&packed(27)).unwrap();
    let outcome = Place::new().unpack(&packed(28));
    assert!(matches!(outcome, Err(UnpackError::Compression(..))), "{outcome:?}");
}

#[test]
fn bombs_stop_at_the_limits() {
    let zeros = vec![0; 1 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let big = Made::default().entry(tar::EntryType::Regular, b"big", b"", &zeros).end();
    gzip.write_all(&big).unwrap();
    let gzip = gzip.finish().unwrap();
    let limited = |bytes| Place::new().unpack_with(&gzip, |options| options.limits.bytes = bytes).unwrap_err();
    assert!(matches!(limited(1 << 19), UnpackError::Limit { .. }));
    assert!(matches!(limited(1 << 20), UnpackError::Limit { what: "uncompressed bytes", .. }));
    let many = Made::default().file("a", "").file("b", "").file("c", "").end();
    let outcome = Place::new().unpack_with(&many, |options| options.limits.entries = 2);
    assert!(matches!(outcome, Err(UnpackError::Limit { what: "entries", limit: 2 })));
    let implied = Made::default().file("a/f", "").file("b/f", "").end();
    let outcome = Place::new().unpack_with(&implied, |options| options.limits.entries = 3);
    assert!(matches!(outcome, Err(UnpackError::Limit { what: "entries", limit: 3 })), "directories that are implied");
    Place::new().unpack_with(&implied, |options| options.limits.entries = 4).unwrap();
    let deep = Made::default().file("a/b/c/d", "").end();
    let outcome = Place::new().unpack_with(&deep, |options| options.limits.depth = 3);
    assert!(matches!(outcome, Err(UnpackError::Limit { .. })));
    let outcome = Place::new().unpack_with(&Made::default().pax(&[b'x'; 4096]).file("f", "").end(), |options| {
        options.limits.header = 4000;
    });
    assert!(matches!(outcome, Err(UnpackError::Limit { .. })), "{outcome:?}");
    // What holds for all entries is kept, however many headers bring it.
    let record = b"25 SCHILY.xattr.user.x=a\n";
    let globals = (0..5).fold(Made::default(), |made, _| made.globals(record)).file("f", "").end();
    let limited = |header| Place::new().unpack_with(&globals, |options| options.limits.header = header);
    assert!(matches!(limited(124), Err(UnpackError::Limit { what: "bytes of extended headers", .. })));
    limited(125).unwrap();
    // A hole of 2^60 bytes in a kilobyte of archive.
    let hole = format!("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n{} GNU.sparse.realsize={}\n", 43, 1_u64 << 60);
    let map = format!("{:\0<512}", "0\n");
    let outcome = Place::new().unpack(&Made::default().pax(hole.as_bytes()).file("f", &map).end());
    assert!(matches!(outcome, Err(UnpackError::Limit { what: "bytes in files", .. })), "{outcome:?}");
}

#[test]
fn names_that_cannot_be() {
    let long = "x".repeat(256);
    for (records, why) in
        [("12 path=a\0b\n".to_owned(), "NUL"), (format!("{} path={long}\n", 256 + 10), "longer than 255")]
    {
        let text = error(&Made::default().pax(records.as_bytes()).file("f", "").end());
        assert!(text.contains(why), "{text}");
    }
    let root = error(&Made::default().file("./", "").symlink(".", "/").end());
    assert!(root.contains("stands for the root"), "{root}");
    for name in [".wh.", ".wh..", "a/.wh...", ".wh.a/b", "a/.wh..wh..opq/b"] {
        let text = error(&Made::default().file(name, "").end());
        assert!(text.contains("whiteout"), "{text}");
    }
    let text = error(&Made::default().file("../\x1b[2J\n", "").end());
    assert!(text.contains("`../\\u{1b}[2J\\n`"), "{text}");
}

#[test]
fn names_that_are_only_kept_have_limits_too() {
    // As an archive of images is read, where nothing is made of the names.
    let long = "x".repeat(5000);
    for record in ["path", "linkpath", "GNU.sparse.name"] {
        let records = format!("{} {record}={long}\n", 5000 + record.len() + 7);
        let archive = Made::default().pax(records.as_bytes()).symlink("l", "t").end();
        let mut input = archive.as_slice();
        let entry = TarReader::new(&mut input, Limits::default(), true).next_entry();
        assert!(
            matches!(entry, Err(UnpackError::Name { why, .. }) if why.contains("longer than is allowed")),
            "{record}"
        );
    }
}

#[test]
fn lengths_that_no_file_has() {
    let mut huge = Made::default().file("f", "").end();
    // GNU's binary form of -1, then of 2^63.
    for field in [[0xff; 12], [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]] {
        huge[124..136].copy_from_slice(&field);
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&huge[..512]);
        header.set_cksum();
        huge[..512].copy_from_slice(header.as_bytes());
        assert!(matches!(Place::new().unpack(&huge), Err(UnpackError::Damaged(_))));
    }
    let records = format!("29 size={}\n", u64::MAX);
    let text = error(&Made::default().pax(records.as_bytes()).file("f", "").end());
    assert!(text.contains("larger than any file"), "{text}");
}

#[test]
fn garbage_is_told_from_an_archive() {
    assert!(matches!(Place::new().unpack(&[b'x'; 2048]), Err(UnpackError::Damaged(_))));
    let kind = Made::default().entry(tar::EntryType::new(b'Z'), b"f", b"", b"").end();
    assert!(matches!(Place::new().unpack(&kind), Err(UnpackError::Kind { kind: 'Z', .. })));
    let data = [Made::default().file("a", "").0, vec![0; 512], vec![1; 512]].concat();
    assert!(matches!(Place::new().unpack(&data), Err(UnpackError::Damaged(_))));
}

#[test]
fn a_sparse_file_of_pax_1_0() {
    let records =
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=there\n28 GNU.sparse.realsize=2048\n";
    let data = format!("{:\0<512}{}", "2\n0\n4\n1024\n4\n", "abcdefgh");
    let place = Place::new();
    place.unpack(&Made::default().pax(records).file("GNUSparseFile.1/there", &data).end()).unwrap();
    let content = std::fs::read(place.root.join("there")).unwrap();
    assert_eq!((content.len(), &content[..5], &content[1023..1029]), (2048, &b"abcd\0"[..], &b"\0efgh\0"[..]));
}
