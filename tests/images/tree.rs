//! What a directory holds, for comparison.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::tools::Outcome;

/// Each path with all that an archive says of it: kind, mode, owner, time, content or target, attributes, and which
/// paths are the same file.
pub fn describe(root: &Path) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    walk(root, Path::new(""), &mut found, &mut inodes)?;
    Ok(found)
}

fn walk(
    root: &Path,
    inside: &Path,
    found: &mut BTreeMap<String, String>,
    inodes: &mut BTreeMap<u64, String>,
) -> Outcome {
    let path = root.join(inside);
    let metadata = path.symlink_metadata()?;
    let name = format!("/{}", inside.display());
    let kind = metadata.file_type();
    let content = if kind.is_symlink() {
        format!("-> {}", std::fs::read_link(&path)?.display())
    } else if kind.is_file() {
        // A sparse file of gigabytes is not read.
        let length = metadata.len();
        let content = if length < 64 << 20 { std::fs::read(&path)? } else { Vec::new() };
        let digest = isobench::image::digest::Digest::of(&content);
        format!("{length} bytes {} blocks<{}", digest.short(), metadata.blocks().next_multiple_of(64))
    } else if kind.is_char_device() || kind.is_block_device() {
        let letter = if kind.is_char_device() { 'c' } else { 'b' };
        format!("{letter}{:#x}", metadata.rdev())
    } else {
        format!("{kind:?}")
    };
    let same = match metadata.nlink() {
        2.. if !kind.is_dir() => format!(" = {}", inodes.entry(metadata.ino()).or_insert_with(|| name.clone())),
        _ => String::new(),
    };
    let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
    let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
    let attributes = attributes(&path)?;
    found.insert(name, format!("{mode:o} {uid}:{gid} {time} {content}{same}{attributes}"));
    if kind.is_dir() {
        let mut names: Vec<_> =
            std::fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect::<Outcome<_>>()?;
        names.sort();
        for name in names {
            walk(root, &inside.join(name), found, inodes)?;
        }
    }
    Ok(())
}

fn attributes(path: &Path) -> Outcome<String> {
    let mut names = vec![0; 64 << 10];
    let count = rustix::fs::llistxattr(path, &mut names)?;
    let mut text = String::new();
    // The mark that overlays of user namespaces go by shows in all others.
    let is_mark = |name: &[u8]| name.is_empty() || name == b"user.overlay.opaque";
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !is_mark(name)) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value)?;
        text.push_str(&format!(" {}={:?}", String::from_utf8_lossy(name), &value[..length]));
    }
    Ok(text)
}

/// The paths that differ, each with both sides.
pub fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differ = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    differ.map(|name| format!("{name}: ours {:?}, theirs {:?}", ours.get(name), theirs.get(name))).collect()
}
