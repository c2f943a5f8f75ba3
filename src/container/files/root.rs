//! How a container's root is reached: a running one's by its first process, a stopped one's by mounting its layers where
//! no one else sees it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{FilesError, Root};
use crate::container::config::Config;
use crate::container::state::Process;
use crate::image::{Image, RootFs};

/// A directory of the host that a container has mounted in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The directory or file of the host.
    pub source: PathBuf,
    /// Where it is inside.
    pub target: PathBuf,
    /// Whether it can only be read.
    pub read_only: bool,
}

impl Root {
    /// Of a running container, with all that is mounted in it. `ids` are those of its user namespace: the host's id for
    /// id 0 inside, and how many follow.
    ///
    /// # Errors
    /// When its first process has ended.
    pub fn running(init: Process, ids: Option<(u32, u32)>) -> Result<Self, FilesError> {
        let path = format!("/proc/{}/root", init.pid);
        let opened = rustix::fs::open(&path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into());
        // Looked at after the opening: so the descriptor is of that process and not of a later one of its pid.
        if !init.is_alive() {
            return Err(FilesError::Ended);
        }
        let fd = opened.map_err(FilesError::system("open", path))?;
        Ok(Self { fd, confined: true, ids, _namespace: None, _image: None })
    }

    /// Of a running container, only its root's own file system: a copy of the mount, which nothing is mounted in.
    ///
    /// # Errors
    /// As for [`Root::running`].
    pub fn running_bare(init: Process, ids: Option<(u32, u32)>) -> Result<Self, FilesError> {
        let namespace = format!("/proc/{}/ns/mnt", init.pid);
        let opened = File::open(&namespace);
        if !init.is_alive() {
            return Err(FilesError::Ended);
        }
        let namespace = opened.map_err(FilesError::system("open", namespace))?;
        let fd = apart(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNS)
                .map_err(FilesError::system("enter", "the container's mounts"))?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            open_tree(rustix::fs::CWD, "/", flags).map_err(FilesError::system("copy the mount of", "the root"))
        })?;
        Ok(Self { fd, confined: true, ids, _namespace: None, _image: None })
    }

    /// Of a container that does not run. Who calls this holds the container's lock while the root is in use, so that it
    /// does not start: its overlay is mounted here, in a namespace that ends with the root.
    ///
    /// # Errors
    /// When the image is gone or the overlay cannot be mounted.
    pub fn stopped(config: &Config, directory: &Path, binds: Vec<Bound>) -> Result<Self, FilesError> {
        let store = crate::image::Store::of_machine()?;
        let name = config.image_id.as_ref().unwrap_or(&config.image);
        let image = Image::open(&store, name, config.short_id())?;
        let (root, directory) = (image.root.clone(), directory.to_owned());
        // On disk the owners are those inside, also of a container in a user namespace: its layers are mapped when they
        // are mounted, all of them. Only the overlay's notes are in other attributes there.
        let features = match config.user_namespace {
            Some(_) => "userxattr",
            None => "redirect_dir=off,metacopy=off",
        };
        let read_only = if config.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let (fd, namespace) = apart(move || {
            let root = mount_overlay(&root, &directory, features, read_only)?;
            for bound in &binds {
                bind(&root, bound)?;
            }
            let namespace = "/proc/thread-self/ns/mnt";
            let kept = File::open(namespace).map_err(FilesError::system("open", namespace))?;
            Ok((root.fd, OwnedFd::from(kept)))
        })?;
        Ok(Self { fd, confined: true, ids: None, _namespace: Some(namespace), _image: Some(image) })
    }
}

/// Does something in a thread that has its own working directory and mounts, and ends with it.
fn apart<T: Send + 'static>(act: impl FnOnce() -> Result<T, FilesError> + Send + 'static) -> Result<T, FilesError> {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .map_err(FilesError::system("leave", "the host's mounts"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(FilesError::system("make private", "the mounts"))?;
        act()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Mounts a container's layers over its own directory, which only this thread sees.
fn mount_overlay(layers: &RootFs, directory: &Path, features: &str, read_only: MsFlags) -> Result<Root, FilesError> {
    let shown = || directory.display().to_string();
    let names: Vec<String> = match layers.shortened() {
        Some((base, names)) => {
            nix::unistd::chdir(base).map_err(FilesError::system("enter", base.display().to_string()))?;
            names.iter().map(|name| name.display().to_string()).collect()
        }
        None => layers.layers.iter().map(|layer| layer.display().to_string()).collect(),
    };
    let options = format!(
        "lowerdir={},upperdir={},workdir={},{features}",
        names.join(":"),
        directory.join("upper").display(),
        directory.join("work").display()
    );
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | read_only;
    mount(Some("overlay"), directory, Some("overlay"), flags, Some(options.as_str()))
        .map_err(FilesError::system("mount the layers of", shown()))?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, 0.into()).map_err(FilesError::system("open", shown()))?;
    Ok(Root { fd, confined: true, ids: None, _namespace: None, _image: None })
}

/// Binds something of the host into the root. Where there is nothing to bind it on, the container has never had it.
fn bind(root: &Root, bound: &Bound) -> Result<(), FilesError> {
    let shown = || bound.target.display().to_string();
    let Ok(target) = root.open(&super::whole(&bound.target), OFlag::O_PATH) else { return Ok(()) };
    // By its descriptor: what was resolved inside the root is what is mounted on.
    let place = format!("/proc/thread-self/fd/{}", target.as_fd().as_raw_fd());
    mount(Some(&bound.source), place.as_str(), None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(FilesError::system("bind", shown()))?;
    if bound.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let target =
            root.open(&super::whole(&bound.target), OFlag::O_PATH).map_err(FilesError::system("open", shown()))?;
        let place = format!("/proc/thread-self/fd/{}", target.as_fd().as_raw_fd());
        mount(None::<&str>, place.as_str(), None::<&str>, flags, None::<&str>)
            .map_err(FilesError::system("make read-only", shown()))?;
    }
    Ok(())
}
