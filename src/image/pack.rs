//! From a directory to a layer's archive: the same directory gives the same bytes. A container's changes come out with
//! overlayfs's whiteouts turned back into the archive's.
//!
//! The tree may be a container's, which may change it meanwhile: it is walked by descriptors and no link is followed.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

use super::unpack::whiteout;
use crate::fs::FileError;

/// The deepest directory that is packed, as it is the deepest that is unpacked.
const MOST_DEPTH: usize = 256;

/// What a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// A whole root file system.
    Whole,
    /// The upper directory of an overlay: what a container changed.
    Changes,
    /// The same of a container in a user namespace, whose overlay keeps its notes in other attributes.
    UserChanges,
    /// Files that become no layer: any name is only a name.
    Files,
}

impl Tree {
    /// The attribute that tells of an opaque directory. The other one may be there too, copied up from a layer with the
    /// directory that it is of, and says nothing then.
    pub(super) fn opaque_attribute(self) -> Option<&'static str> {
        let [trusted, user] = whiteout::OPAQUE_ATTRIBUTES;
        match self {
            Self::Whole | Self::Files => None,
            Self::Changes => Some(trusted),
            Self::UserChanges => Some(user),
        }
    }
}

/// Packs a directory.
///
/// # Errors
/// When it cannot be read, is too deep, or the archive cannot be written.
pub fn pack(directory: &Path, tree: Tree, to: &mut dyn Write) -> Result<(), FileError> {
    let opened = File::open(directory).map_err(FileError::new("open", directory))?;
    let mut packer = Packer { to, tree, ids: None, device: None, links: BTreeMap::new() };
    let packed = packer.directory(opened.into(), &[]).and_then(|()| packer.to.write_all(&[0; 1024]));
    packed.map_err(FileError::new("pack", directory))
}

/// Packs what stands in an open directory under a name, as files that become no layer; in the archive it is called
/// `called`. A directory without a name there brings only what is in it. Mounts are passed over where `within` says so:
/// what they are mounted on is packed without what is in it.
///
/// `ids` are the host's ids that stand for those from 0 on, and how many; they come out as what they stand for.
///
/// # Errors
/// When it cannot be read, is too deep, or the archive cannot be written.
pub fn pack_files(
    place: BorrowedFd<'_>,
    name: &CStr,
    called: &[u8],
    ids: Option<(u32, u32)>,
    within: bool,
    to: &mut dyn Write,
) -> io::Result<()> {
    let device = if within { Some(fstatat(place, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_dev) } else { None };
    let mut packer = Packer { to, tree: Tree::Files, ids, device, links: BTreeMap::new() };
    if called.is_empty() || called == b"." {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        packer.directory(openat(place, name, flags, Mode::empty())?, called)?;
    } else {
        packer.entry(place, &name.to_owned(), called)?;
    }
    packer.to.write_all(&[0; 1024])
}

struct Packer<'a> {
    to: &'a mut dyn Write,
    tree: Tree,
    /// Which ids stand for those from 0 on, and how many.
    ids: Option<(u32, u32)>,
    /// The file system that is not left.
    device: Option<u64>,
    /// The first name of a file that has several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    /// An open directory of this path and all in it, by name.
    fn directory(&mut self, fd: OwnedFd, path: &[u8]) -> io::Result<()> {
        let stat = fstat(&fd)?;
        if !path.is_empty() {
            let mut name = path.to_vec();
            name.push(b'/');
            self.header(&name, tar::EntryType::Directory, &stat, 0, b"", &attributes(fd.as_fd())?)?;
        }
        if path.split(|byte| *byte == b'/').count() > MOST_DEPTH {
            return Err(io::Error::other(format!("there are more than {MOST_DEPTH} directories within each other")));
        }
        if self.device.is_some_and(|device| device != stat.st_dev) {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in Dir::from_fd(fd.try_clone()?)?.iter() {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        if let Some(attribute) = self.tree.opaque_attribute()
            && is_opaque(fd.as_fd(), attribute)?
        {
            self.whiteout(&under(path, whiteout::OPAQUE))?;
        }
        names.iter().try_for_each(|name| self.entry(fd.as_fd(), name, &under(path, name.to_bytes())))
    }

    fn entry(&mut self, here: BorrowedFd<'_>, name: &CString, path: &[u8]) -> io::Result<()> {
        let stat = fstatat(here, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if matches!(self.tree, Tree::Changes | Tree::UserChanges) && whiteout::is(&stat) {
            let hidden = [whiteout::PREFIX, name.to_bytes()].concat();
            let directory = path.len() - name.to_bytes().len();
            return self.whiteout(&[&path[..directory], &hidden].concat());
        }
        if self.tree != Tree::Files && name.to_bytes().starts_with(whiteout::PREFIX) {
            let shown = String::from_utf8_lossy(path).into_owned();
            return Err(io::Error::other(format!("`{shown}` has a name that says in a layer what it hides")));
        }
        let open = |flags| openat(here, name.as_c_str(), flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        if kind == SFlag::S_IFDIR {
            return self.directory(open(OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, path);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                return self.header(path, tar::EntryType::Link, &stat, 0, &first, &[]);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        match kind {
            // Not blocking, should a pipe have taken the file's place.
            SFlag::S_IFREG => self.file(open(OFlag::O_RDONLY | OFlag::O_NONBLOCK)?, path),
            SFlag::S_IFLNK => {
                use std::os::unix::ffi::OsStrExt;
                let target = readlinkat(here, name.as_c_str())?;
                let xattrs = link_attributes(here, name)?;
                self.header(path, tar::EntryType::Symlink, &stat, 0, target.as_os_str().as_bytes(), &xattrs)
            }
            SFlag::S_IFCHR => self.header(path, tar::EntryType::Char, &stat, 0, b"", &[]),
            SFlag::S_IFBLK => self.header(path, tar::EntryType::Block, &stat, 0, b"", &[]),
            SFlag::S_IFIFO => self.header(path, tar::EntryType::Fifo, &stat, 0, b"", &[]),
            // A socket means nothing without its process; docker leaves it out too.
            _ => Ok(()),
        }
    }

    fn file(&mut self, fd: OwnedFd, path: &[u8]) -> io::Result<()> {
        let stat = fstat(&fd)?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Ok(()); // it was replaced meanwhile
        }
        let size = stat.st_size.cast_unsigned();
        self.header(path, tar::EntryType::Regular, &stat, size, b"", &attributes(fd.as_fd())?)?;
        // A file that grows is cut, one that shrinks is filled up: the header is written.
        let copied = io::copy(&mut File::from(fd).take(size), &mut self.to)?;
        let missing = size - copied;
        io::copy(&mut io::repeat(0).take(missing + size.next_multiple_of(512) - size), &mut self.to)?;
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        self.named(header, path, b"", &[])
    }

    fn header(
        &mut self,
        path: &[u8],
        kind: tar::EntryType,
        stat: &FileStat,
        size: u64,
        target: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        let mut records = Vec::new();
        let inside = |id: u32| match self.ids {
            Some((first, count)) if (first..first.saturating_add(count)).contains(&id) => id - first,
            _ => id,
        };
        let (uid, gid) = (inside(stat.st_uid), inside(stat.st_gid));
        for (name, value) in xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        // Octal digits end there; what is more goes into pax records.
        for (name, value, most) in
            [("uid", uid.into(), 0o7_777_777), ("gid", gid.into(), 0o7_777_777), ("size", size, 0o77_777_777_777)]
        {
            let shown = if value > most { 0 } else { value };
            match name {
                "uid" => header.set_uid(shown),
                "gid" => header.set_gid(shown),
                _ => header.set_size(shown),
            }
            if value > most {
                record(&mut records, name.as_bytes(), value.to_string().as_bytes());
            }
        }
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        if stat.st_mtime_nsec != 0 || stat.st_mtime < 0 {
            record(&mut records, b"mtime", time(stat).as_bytes());
        }
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            let number = |part| u32::try_from(part).map_err(io::Error::other);
            header.set_device_major(number(major(stat.st_rdev))?)?;
            header.set_device_minor(number(minor(stat.st_rdev))?)?;
        }
        self.named(header, path, target, &records)
    }

    /// Writes a header with its name and target; what does not fit goes into pax records before it.
    fn named(&mut self, mut header: tar::Header, path: &[u8], target: &[u8], records: &[u8]) -> io::Result<()> {
        let mut records = records.to_vec();
        let old = header.as_old_mut();
        for (field, value, name) in [(&mut old.name, path, "path"), (&mut old.linkname, target, "linkpath")] {
            let fits = value.len().min(field.len());
            field[..fits].copy_from_slice(&value[..fits]);
            if value.len() > field.len() || (name == "path" && !value.is_ascii()) {
                record(&mut records, name.as_bytes(), value);
            }
        }
        if !records.is_empty() {
            let mut extended = tar::Header::new_ustar();
            extended.set_entry_type(tar::EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(records.len() as u64);
            extended.as_old_mut().name[..3].copy_from_slice(b"pax");
            extended.set_cksum();
            self.to.write_all(extended.as_bytes())?;
            records.resize(records.len().next_multiple_of(512), 0);
            self.to.write_all(&records)?;
        }
        header.set_cksum();
        self.to.write_all(header.as_bytes())
    }
}

fn under(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Appends `LENGTH NAME=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(&[name, b"=", value, b"\n"].concat());
}

fn time(stat: &FileStat) -> String {
    let (seconds, ns) = (stat.st_mtime, stat.st_mtime_nsec);
    if seconds < 0 && ns > 0 {
        // The fraction is written after the minus sign, so it counts backwards.
        let whole = seconds + 1;
        let sign = if whole == 0 { "-" } else { "" };
        return format!("{sign}{whole}.{:09}", 1_000_000_000 - ns);
    }
    format!("{seconds}.{ns:09}")
}

/// An attribute's name and value.
type Attribute = (Vec<u8>, Vec<u8>);

/// The extended attributes of an open file that a layer can bring.
fn attributes(fd: BorrowedFd<'_>) -> io::Result<Vec<Attribute>> {
    read_attributes(&format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Those of a link, which cannot be opened.
fn link_attributes(here: BorrowedFd<'_>, name: &CString) -> io::Result<Vec<Attribute>> {
    let mut path = format!("/proc/self/fd/{}/", here.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let list = |buffer: &mut [u8]| rustix::fs::llistxattr(path.as_slice(), buffer);
    collect(list, |attribute, buffer| rustix::fs::lgetxattr(path.as_slice(), attribute, buffer))
}

fn read_attributes(path: &str) -> io::Result<Vec<Attribute>> {
    let list = |buffer: &mut [u8]| rustix::fs::listxattr(path, buffer);
    collect(list, |attribute, buffer| rustix::fs::getxattr(path, attribute, buffer))
}

/// Some overlays write no content or place of a file that they changed, but attributes that lead to a lower layer. Its
/// archive would be of something else. Ours are mounted without that.
fn refuse_borrowed(attribute: &[u8]) -> io::Result<()> {
    if [&b"trusted.overlay.redirect"[..], b"trusted.overlay.metacopy"].contains(&attribute) {
        let name = String::from_utf8_lossy(attribute);
        return Err(io::Error::other(format!(
            "a file has the attribute {name}: its content is not all in this directory"
        )));
    }
    Ok(())
}

/// The kernel's limits on the names of a file's attributes together and on a value, in bytes.
const MOST_ATTRIBUTES: usize = 64 << 10;

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Vec<Attribute>> {
    // Most files have none, or few.
    let mut names = vec![0; 256];
    let mut listed = list(&mut names);
    if listed == Err(rustix::io::Errno::RANGE) {
        names = vec![0; MOST_ATTRIBUTES];
        listed = list(&mut names);
    }
    let count = match listed {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut found = Vec::new();
    let mut value = vec![0; MOST_ATTRIBUTES];
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        refuse_borrowed(name)?;
        if [&b"trusted.overlay."[..], b"user.overlay.", b"security.selinux"].iter().any(|own| name.starts_with(own)) {
            continue;
        }
        match get(name, &mut value) {
            Ok(length) => found.push((name.to_vec(), value[..length].to_vec())),
            Err(rustix::io::Errno::NODATA) => {} // it was removed meanwhile
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

fn is_opaque(directory: BorrowedFd<'_>, attribute: &str) -> io::Result<bool> {
    whiteout::is_opaque(&[attribute], |attribute, value| rustix::fs::fgetxattr(directory, attribute, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_would_become_a_whiteout_is_refused() {
        for name in [".wh.a", ".wh..wh..opq"] {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(name), "").unwrap();
            for tree in [Tree::Whole, Tree::Changes, Tree::UserChanges] {
                let error = pack(directory.path(), tree, &mut Vec::new()).unwrap_err();
                assert!(error.source.to_string().contains(name), "{error}: {}", error.source);
            }
        }
    }

    #[test]
    fn what_is_not_all_in_the_directory_is_refused() {
        for attribute in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
            assert!(refuse_borrowed(attribute.as_bytes()).is_err(), "{attribute}");
        }
        for attribute in ["trusted.overlay.opaque", "trusted.overlay.origin", "user.overlay.redirect", "user.x"] {
            assert!(refuse_borrowed(attribute.as_bytes()).is_ok(), "{attribute}");
        }
    }
}
