//! What an image has in a directory, copied into a volume.
//!
//! The image's layers are stacked by the kernel, read-only, in a mount namespace that only one thread has, and the
//! directory is looked up inside that root. So whiteouts and links mean here what they will mean in the container. It
//! goes through a pipe as an archive, with owners, modes, attributes and links; memory does not grow with it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{FillError, Seed};
use crate::container::plan::STAGING;
use crate::fs::{FileError, create_dirs};
use crate::image::RootFs;
use crate::image::pack::{Tree, pack};
use crate::image::unpack::{self, Limits, Options, Rights};

/// How often a path with `..` is looked up again: the kernel gives up when anything on the machine is renamed or mounted
/// meanwhile.
const MOST_TRIES: usize = 1000;

/// Copies into an empty directory; where the image has no directory there, nothing.
pub(super) fn copy_up(seed: Seed<'_>, volume: &Path) -> Result<(), FillError> {
    thread::scope(|scope| {
        let copying = thread::Builder::new().name("copy-up".to_owned());
        let copying = copying.spawn_scoped(scope, || match look_up(seed)? {
            Some(directory) => copy(&directory, volume),
            None => Ok(()),
        });
        let panicked = || FillError::Thread(io::Error::other("a thread panicked"));
        copying.map_err(FillError::Thread)?.join().map_err(|_| panicked())?
    })
}

/// The directory in the image. It changes the calling thread's mounts and working directory.
fn look_up(seed: Seed<'_>) -> Result<Option<OwnedFd>, FileError> {
    create_dirs(STAGING)?;
    let root = stack(seed.root)?;
    let relative = seed.target.trim_start_matches('/');
    let path = if relative.is_empty() { "." } else { relative };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut opened = Err(rustix::io::Errno::AGAIN);
    for _ in 0..MOST_TRIES {
        opened = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve);
        if !matches!(opened, Err(rustix::io::Errno::AGAIN)) {
            break;
        }
    }
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(FileError::new("open in the image", seed.target)(errno.into())),
    }
}

/// Mounts the layers over each other; the root of it.
fn stack(layers: &RootFs) -> Result<File, FileError> {
    let failed = |act| move |errno: nix::Error| FileError::new(act, STAGING)(errno.into());
    // This thread's working directory becomes its own with its mounts.
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace for"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(failed("separate the mounts of"))?;
    mount(Some("tmpfs"), STAGING, Some("tmpfs"), MsFlags::MS_NODEV, Some("size=64k,mode=700"))
        .map_err(failed("mount tmpfs on"))?;
    let [root, empty] = ["root", "empty"].map(|name| Path::new(STAGING).join(name));
    for directory in [&root, &empty] {
        std::fs::create_dir(directory).map_err(FileError::new("make the directory", directory))?;
    }
    let (base, names) = match layers.shortened() {
        Some((base, names)) => (base, names),
        None => (Path::new("/"), layers.layers.iter().map(std::path::PathBuf::as_path).collect()),
    };
    std::env::set_current_dir(base).map_err(FileError::new("change directory to", base))?;
    // An overlay without an upper layer has at least two.
    let names = names.into_iter().chain([empty.as_path()]).map(|name| name.to_string_lossy().into_owned());
    let options = format!("lowerdir={}", names.collect::<Vec<_>>().join(":"));
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some("overlay"), &root, Some("overlay"), flags, Some(options.as_str()))
        .map_err(failed("mount an overlay of the image's layers in"))?;
    File::open(&root).map_err(FileError::new("open", root))
}

fn copy(directory: &OwnedFd, volume: &Path) -> Result<(), FillError> {
    let own = |act, error: rustix::io::Errno| FileError::new(act, volume)(error.into());
    let into = File::open(volume).map_err(FileError::new("open", volume))?;
    let (reader, writer) = io::pipe().map_err(FillError::Thread)?;
    let from = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let all = Limits { bytes: u64::MAX >> 1, entries: u64::MAX >> 1, ..Limits::default() };
    let options = Options {
        limits: all,
        rights: Rights::Root,
        below: Vec::new(),
        end_marker: true,
        whiteouts: false,
        copy: None,
    };
    let (packed, unpacked) = thread::scope(|scope| {
        let packing = scope.spawn(move || -> Result<(), FileError> {
            let mut writer = BufWriter::with_capacity(64 << 10, writer);
            pack(Path::new(&from), Tree::Whole, &mut writer)?;
            writer.flush().map_err(FileError::new("pack", from))
        });
        let unpacked = unpack::unpack(reader, &into, &options);
        let panicked = FileError::new("pack", volume)(io::Error::other("a thread panicked"));
        (packing.join().unwrap_or(Err(panicked)), unpacked)
    });
    match (packed, unpacked) {
        (Ok(()), Ok(_)) => {}
        // A reader that gave up breaks the pipe.
        (Err(error), Err(_)) if error.source.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        (_, Err(error)) => return Err(error.into()),
        (Err(error), Ok(_)) => return Err(error.into()),
    }
    let stat = rustix::fs::fstat(directory).map_err(|error| own("look at what is copied into", error))?;
    let (user, group) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&into, Some(user), Some(group)).map_err(|error| own("change the owner of", error))?;
    rustix::fs::fchmod(&into, Mode::from_raw_mode(stat.st_mode & 0o7777))
        .map_err(|error| own("set the mode of", error))?;
    Ok(())
}
