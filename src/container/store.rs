//! Where containers that outlive their command are kept: a directory each.
//!
//! | file | holds |
//! |---|---|
//! | `config.json` | [`Config`] |
//! | `state.json` | [`State`]; missing until it is started, since to replace a file costs some file systems a flush |
//! | `lock` | locked by whoever changes the state |
//! | `upper/`, `work/` | the writable layer |
//! | `log.json`, `log.json.1`, … | its output, the oldest with the highest number |
//! | `hosts`, `hostname`, `resolv.conf` | what it sees of these names under `/etc` |
//! | `socket` | where its monitor listens |
//!
//! A directory is made under a name that begins with `.`, and renamed once it is whole; a name is a symbolic link in
//! `names/` to the identifier, which only one container can make. So a process can be killed at any time: what it did
//! not finish is not seen, and [`Store::sweep`] takes it away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::config::{Config, SCHEMA};
use super::state::{State, Status};
use crate::fs::{FileError, Lock, create_dirs, read_text, remove_if_there, write_atomic_through};

/// Where everything of the containers is, unless the variable `ISOBENCH_ROOT` names another directory.
const DEFAULT_ROOT: &str = "/var/lib/isobench";

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// No container is called so.
    #[error("no such container: {0}")]
    NotFound(String),
    /// More than one container's identifier begins so.
    #[error("`{0}` is the beginning of more than one container's identifier")]
    Ambiguous(String),
    /// A name is another container's.
    #[error("the container name `{name}` is in use by container {id}; remove or rename that one to use the name again")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// A text cannot be a name.
    #[error(
        "`{0}` cannot be a container's name: it is a letter or digit, and then letters, digits, `_`, `.` and `-`, at least two in all"
    )]
    Name(String),
    /// A file of a container is damaged or was written by another version.
    #[error("{} cannot be understood: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A container is not in a state for what was asked.
    #[error("cannot {act} container {id}: it is {status}{advice}")]
    Status {
        /// What was asked.
        act: &'static str,
        /// The container.
        id: String,
        /// What it is doing.
        status: &'static str,
        /// What would be right; begins with `; ` where there is any.
        advice: &'static str,
    },
}

/// All containers of this machine.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A container in the store. It may be removed by others at any time.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What it is to be.
    pub config: Config,
    /// Its directory.
    pub directory: PathBuf,
}

/// A container that was read with its state, or could not be.
pub type Read = Result<(Stored, State), StoreError>;

/// A container whose state no one else changes.
#[derive(Debug)]
pub struct Locked {
    directory: PathBuf,
    _lock: Lock,
}

/// The files of a container that is out of sight. Where they are not purged, [`Store::sweep`] does it.
#[derive(Debug)]
#[must_use]
pub struct Hidden(PathBuf);

impl Hidden {
    /// Removes them.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn purge(self) -> Result<(), StoreError> {
        Ok(remove_tree(&self.0)?)
    }
}

impl Store {
    /// The store of this machine, which is made if it is missing.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn of_machine() -> Result<Self, StoreError> {
        Self::open(root_of_machine())
    }

    /// The store of this machine, if there is one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn existing() -> Result<Option<Self>, StoreError> {
        let root = root_of_machine();
        if root.join("containers").is_dir() { Self::open(root).map(Some) } else { Ok(None) }
    }

    /// The store in a directory.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into() };
        for directory in [store.containers(), store.names(), store.volumes()] {
            if !directory.is_dir() {
                create_dirs(&directory)?;
            }
        }
        // Set-user-id programs of images are beneath it.
        close(&store.containers())?;
        close(&store.volumes())?;
        Ok(store)
    }

    /// The directory that everything is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the containers.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// The directory of the volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The directory of a container.
    #[must_use]
    pub fn directory(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Makes a container: its name is taken, its directory written. Its writable layer is empty.
    ///
    /// # Errors
    /// When the name is taken or is none, or the directory cannot be written; nothing is left then.
    pub fn create(&self, config: Config) -> Result<Stored, StoreError> {
        self.take_name(&config.name, &config.id)?;
        let made = self.make_directory(&config);
        if made.is_err() {
            let _ = remove_if_there(self.names().join(&config.name));
        }
        Ok(Stored { directory: made?, config })
    }

    fn make_directory(&self, config: &Config) -> Result<PathBuf, StoreError> {
        let fresh = self.containers().join(format!(".{}", config.id));
        let place = self.directory(&config.id);
        let write = || -> Result<(), StoreError> {
            for directory in [fresh.clone(), fresh.join("upper"), fresh.join("work")] {
                std::fs::create_dir(&directory).map_err(FileError::new("make the directory", &directory))?;
            }
            let upper = fresh.join("upper");
            // The root of the container, whatever the umask.
            std::fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .map_err(FileError::new("set the mode of", &upper))?;
            let path = fresh.join("config.json");
            std::fs::write(&path, json(config)).map_err(FileError::new("write", path))?;
            std::fs::rename(&fresh, &place).map_err(FileError::new("make the directory", &place))?;
            Ok(())
        };
        let written = write();
        if written.is_err() {
            let _ = std::fs::remove_dir_all(&fresh);
        }
        written.map(|()| place)
    }

    /// Takes a name for a container. One whose holder is gone is free.
    fn take_name(&self, name: &str, id: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let link = self.names().join(name);
        loop {
            match std::os::unix::fs::symlink(id, &link) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(FileError::new("take the name", link)(error).into()),
            }
            let Some(holder) = self.holder(name) else { continue };
            // The holder may be about to appear; if its maker died it never does, and `sweep` takes the name away.
            if holder == id {
                return Ok(());
            }
            return Err(StoreError::NameTaken { name: name.to_owned(), id: short(&holder).to_owned() });
        }
    }

    /// Whose name that is.
    fn holder(&self, name: &str) -> Option<String> {
        let target = std::fs::read_link(self.names().join(name)).ok()?;
        target.into_os_string().into_string().ok()
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When the name is taken or is none.
    pub fn rename(&self, container: &Stored, name: &str) -> Result<(), StoreError> {
        let old = &container.config.name;
        if old == name {
            return Err(StoreError::NameTaken { name: name.to_owned(), id: short(&container.config.id).to_owned() });
        }
        let _lock = container.lock()?;
        self.take_name(name, &container.config.id)?;
        let renamed = Config { name: name.to_owned(), ..container.config.clone() };
        if let Err(error) = container.write_config(&renamed) {
            let _ = remove_if_there(self.names().join(name));
            return Err(error);
        }
        Ok(remove_if_there(self.names().join(old))?)
    }

    /// The container of an identifier, of the beginning of one, or of a name; a whole identifier and a name come first.
    ///
    /// # Errors
    /// When there is none or more than one, or its files are damaged.
    pub fn find(&self, text: &str) -> Result<Stored, StoreError> {
        let none = || StoreError::NotFound(text.to_owned());
        let plain = !text.is_empty() && !text.contains(['/', '\0']) && !text.starts_with('.');
        if !plain {
            return Err(none());
        }
        if let Some(id) = self.holder(text) {
            return self.stored(&id)?.ok_or_else(none);
        }
        if !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(none());
        }
        if let Some(stored) = self.stored(text)? {
            return Ok(stored);
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(id), None) => self.stored(&id)?.ok_or_else(none),
            (None, _) => Err(none()),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous(text.to_owned())),
        }
    }

    /// The container of an identifier; `None` when there is none.
    fn stored(&self, id: &str) -> Result<Option<Stored>, StoreError> {
        let directory = self.directory(id);
        match read_json(&directory.join("config.json")) {
            Err(StoreError::File(error)) if error.is_not_found() => Ok(None),
            read => read.map(|config| Some(Stored { config, directory })),
        }
    }

    /// The identifiers of all containers, in no order.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn ids(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.containers();
        let entries = std::fs::read_dir(&directory).map_err(FileError::new("list", &directory))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    /// Every container with its state, in no order. One that is removed meanwhile is left out; one whose files are
    /// damaged is an error in its place.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn all(&self) -> Result<Vec<Read>, StoreError> {
        let read = |id: String| -> Option<Read> {
            let stored = self.stored(&id).transpose()?;
            match stored.and_then(|stored| Ok((stored.state()?, stored))) {
                Err(StoreError::File(error)) if error.is_not_found() => None,
                read => Some(read.map(|(state, stored)| (stored, state))),
            }
        };
        Ok(self.ids()?.into_iter().filter_map(read).collect())
    }

    /// Takes a container and its name out of sight; its files are still to be removed.
    ///
    /// # Errors
    /// When it cannot be hidden; it can be tried again.
    pub fn hide(&self, container: &Stored) -> Result<Hidden, StoreError> {
        let id = &container.config.id;
        // Out of sight first, in one step: half a container is never seen.
        let hidden = self.containers().join(format!(".removed-{id}"));
        match std::fs::rename(&container.directory, &hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::new("remove", &container.directory)(error).into());
            }
            _ => {}
        }
        if self.holder(&container.config.name).as_deref() == Some(id) {
            remove_if_there(self.names().join(&container.config.name))?;
        }
        Ok(Hidden(hidden))
    }

    /// Takes away what a killed process left half made or half removed: directories that are not seen and names that
    /// lead nowhere, older than a minute. Returns how many.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn sweep(&self) -> Result<u32, StoreError> {
        let mut swept = 0;
        for directory in [self.containers(), self.names()] {
            for entry in std::fs::read_dir(&directory).map_err(FileError::new("list", &directory))?.flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let dead = match std::fs::read_link(&path) {
                    Ok(id) => !self.containers().join(id).is_dir(),
                    Err(_) => name.starts_with('.'),
                };
                let old = entry.metadata().and_then(|data| data.modified()).is_ok_and(|at| {
                    SystemTime::now().duration_since(at).is_ok_and(|age| age.as_secs() >= MAKING_TAKES)
                });
                if !dead || !(old || name.starts_with(".removed-")) {
                    continue;
                }
                swept += 1;
                if path.is_symlink() { remove_if_there(&path)? } else { remove_tree(&path)? }
            }
        }
        Ok(swept)
    }
}

/// No container takes longer to be made, in seconds.
const MAKING_TAKES: u64 = 60;

fn remove_tree(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path)(error)),
        _ => Ok(()),
    }
}

impl Stored {
    /// Its state as it was written last. What has ended without being seen shows in [`State::is_alive`].
    ///
    /// # Errors
    /// When it is gone or damaged.
    pub fn state(&self) -> Result<State, StoreError> {
        read_state(&self.directory)
    }

    /// Waits until no one else changes the container, and keeps it so.
    ///
    /// # Errors
    /// When it is gone.
    pub fn lock(&self) -> Result<Locked, StoreError> {
        let path = self.directory.join("lock");
        let lock = match Lock::exclusive(&path) {
            Err(error) if error.is_not_found() => {
                return Err(StoreError::NotFound(self.config.short_id().to_owned()));
            }
            lock => lock?,
        };
        // Who waited for a removal finds a container that is gone.
        if !self.directory.join("config.json").exists() {
            return Err(StoreError::NotFound(self.config.short_id().to_owned()));
        }
        Ok(Locked { directory: self.directory.clone(), _lock: lock })
    }

    /// Writes its configuration anew, for one that is locked.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<(), StoreError> {
        let path = self.directory.join("config.json");
        Ok(write_atomic_through(&self.directory, &path, &json(config))?)
    }

    /// The upper directory of its root's overlay.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// The file that its output goes to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("log.json")
    }

    /// That its state does not allow what was asked.
    #[must_use]
    pub fn refuse(&self, act: &'static str, status: Status, advice: &'static str) -> StoreError {
        StoreError::Status { act, id: self.config.short_id().to_owned(), status: status.as_str(), advice }
    }
}

impl Locked {
    /// Its state.
    ///
    /// # Errors
    /// When it is gone or damaged.
    pub fn state(&self) -> Result<State, StoreError> {
        read_state(&self.directory)
    }

    /// Writes its state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &State) -> Result<(), StoreError> {
        Ok(write_atomic_through(&self.directory, self.directory.join("state.json"), &json(state))?)
    }
}

fn root_of_machine() -> PathBuf {
    std::env::var_os("ISOBENCH_ROOT").map_or_else(|| DEFAULT_ROOT.into(), PathBuf::from)
}

/// Lets only root enter a directory.
fn close(directory: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o700)).map_err(FileError::new("close", directory))
}

/// What tells this boot of the machine from all others.
///
/// # Errors
/// When /proc is not mounted.
pub fn boot() -> Result<String, FileError> {
    Ok(read_text("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Docker's rule for names.
fn check_name(name: &str) -> Result<(), StoreError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && name.len() >= 2 && name.len() <= 255 && name.chars().all(good) {
        Ok(())
    } else {
        Err(StoreError::Name(name.to_owned()))
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    // Both forms have string keys only, which is all that JSON asks for.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The state in a container's directory; that of one that was never started is not written.
fn read_state(directory: &Path) -> Result<State, StoreError> {
    match read_json(&directory.join("state.json")) {
        Err(StoreError::File(error)) if error.is_not_found() && directory.join("config.json").exists() => {
            Ok(State::created(boot()?))
        }
        read => read,
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema: u32,
    }
    let text = read_text(path)?;
    let damaged = |problem: String| StoreError::Damaged { path: path.to_owned(), problem };
    match serde_json::from_str(&text) {
        Ok(value) => Ok(value),
        Err(error) => Err(damaged(match serde_json::from_str::<Version>(&text) {
            Ok(Version { schema }) if schema != SCHEMA => {
                format!("it is of version {schema}, and this program reads version {SCHEMA}")
            }
            _ => error.to_string(),
        })),
    }
}
