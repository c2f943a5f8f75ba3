//! A store of containers that lasts as long as a test, and the program on it.

use std::error::Error;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The image of every test: busybox as a shell, the user `app` (1234) of the group `app` (2345), /data.
pub const IMAGE: &str = "box";
/// The same with USR1 as its stop signal.
pub const STOPPED_BY_USR1: &str = "box:usr1";

/// How long anything may take before it counts as hanging; nothing here takes a tenth of it but what waits by itself.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_isobench");

/// Debian's static busybox.
pub fn busybox() -> Option<&'static Path> {
    ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists())
}

/// The images, once they are made. Tests run side by side, so making them is guarded.
static IMAGES: Mutex<Option<PathBuf>> = Mutex::new(None);

fn images() -> Outcome<PathBuf> {
    let mut images = IMAGES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(images) = &*images {
        return Ok(images.clone());
    }
    let tree = tempfile::Builder::new().prefix("isobench-tree-").tempdir()?;
    make_tree(tree.path())?;
    let made = tempfile::Builder::new().prefix("isobench-images-").tempdir()?;
    for (name, changes) in [(IMAGE, &[][..]), (STOPPED_BY_USR1, &["-c", "STOPSIGNAL USR1"])] {
        let mut command = Command::new(PROGRAM);
        command.args(["image", "import"]).args(changes).arg(tree.path()).arg(name).env("ISOBENCH_IMAGES", made.path());
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("import: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
    }
    Ok(images.insert(made.keep()).clone())
}

fn make_tree(tree: &Path) -> Outcome {
    std::fs::set_permissions(tree, PermissionsExt::from_mode(0o755))?;
    for directory in ["bin", "etc", "data", "tmp"] {
        std::fs::create_dir(tree.join(directory))?;
    }
    let busybox = busybox().ok_or("no busybox")?;
    std::fs::copy(busybox, tree.join("bin/busybox"))?;
    let applets = Command::new(busybox).arg("--list").output()?.stdout;
    for applet in String::from_utf8(applets)?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    std::fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1234:2345::/data:/bin/sh\n")?;
    std::fs::write(tree.join("etc/group"), "root:x:0:\napp:x:2345:\n")?;
    std::fs::write(tree.join("etc/plain"), "no program\n")?;
    Ok(())
}

/// Takes the images away; called once at the end.
pub fn remove_images() {
    if let Some(images) = IMAGES.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = std::fs::remove_dir_all(images);
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Said {
    /// Standard output, without the white space at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

/// A store; what is still in it at the end is removed.
pub struct Place {
    root: tempfile::TempDir,
    images: PathBuf,
}

impl Place {
    pub fn new() -> Outcome<Self> {
        Ok(Self { images: images()?, root: tempfile::Builder::new().prefix("isobench-containers-").tempdir()? })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `isobench container …`, without input.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.words(&[&["container"], arguments].concat())
    }

    /// `isobench …`, without input.
    pub fn words(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("ISOBENCH_ROOT", self.root()).env("ISOBENCH_IMAGES", &self.images);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn say(&self, arguments: &[&str]) -> Outcome<Said> {
        end(self.command(arguments).spawn()?)
    }

    /// What a command wrote that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Outcome<String> {
        let said = self.say(arguments)?;
        if said.code != Some(0) {
            return Err(format!("{arguments:?}: {said:?}").into());
        }
        Ok(said.text())
    }

    /// Runs a command with input.
    pub fn feed(&self, arguments: &[&str], input: Vec<u8>) -> Outcome<Said> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().ok_or("no input")?;
        let feeding = std::thread::spawn(move || stdin.write_all(&input));
        let said = end(child)?;
        // Who ends early does not read everything.
        let _ = feeding.join();
        Ok(said)
    }

    /// Runs a script in a container that is removed at once.
    pub fn script(&self, options: &[&str], script: &str) -> Outcome<Said> {
        let all = [&["run", "--rm", "--network", "none"], options, &[IMAGE, "sh", "-c", script]].concat();
        self.say(&all)
    }

    /// Starts a container in the background that runs a script.
    pub fn up(&self, name: &str, options: &[&str], script: &str) -> Outcome<String> {
        let all = [&["run", "-d", "--network", "none", "--name", name], options, &[IMAGE, "sh", "-c", script]];
        self.ok(&all.concat())
    }

    /// A value of `inspect`.
    pub fn shown(&self, name: &str, template: &str) -> Outcome<String> {
        self.ok(&["inspect", "-f", template, name])
    }

    /// The pid of its first process, on the host.
    pub fn pid(&self, name: &str) -> Outcome<u32> {
        match self.shown(name, "{{.State.Pid}}")?.parse()? {
            0 => Err(format!("{name} does not run").into()),
            pid => Ok(pid),
        }
    }

    /// Waits until a command says what it should.
    pub fn until(&self, arguments: &[&str], expected: &str) -> Outcome {
        let mut last = String::new();
        let found = until(|| {
            let said = self.say(arguments)?;
            last = format!("{} {}", said.text(), said.stderr);
            Ok(said.text() == expected)
        });
        found.map_err(|error| format!("{arguments:?} never said `{expected}`, but `{last}`: {error}").into())
    }

    /// What is left of containers: directories and names of the store, mounts of it, groups of these identifiers.
    pub fn left(&self, ids: &[String]) -> Outcome<Vec<String>> {
        let mut left = Vec::new();
        for directory in ["containers", "names"] {
            for entry in std::fs::read_dir(self.root().join(directory))? {
                left.push(entry?.path().display().to_string());
            }
        }
        let root = self.root().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        left.extend(mounts.lines().filter(|line| line.contains(&root)).map(str::to_owned));
        groups(Path::new("/sys/fs/cgroup"), ids, &mut left);
        Ok(left)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ids = self.ok(&["ls", "-aq", "--no-trunc"]).unwrap_or_default();
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            let _ = self.say(&[&["rm", "-f", "-v"], &ids[..]].concat());
        }
    }
}

/// Control groups that are called after one of these.
fn groups(directory: &Path, ids: &[String], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if ids.iter().any(|id| entry.file_name().to_string_lossy().contains(&id[..12])) {
                found.push(entry.path().display().to_string());
            }
            groups(&entry.path(), ids, found);
        }
    }
}

/// Waits for the end of a command, and kills it when it hangs.
pub fn end(child: Child) -> Outcome<Said> {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into()?);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        return Err(format!("a command hung for {PATIENCE:?}").into());
    };
    let output = output?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Said { code: output.status.code(), stdout: output.stdout, stderr })
}

/// Waits for a state.
pub fn until(mut reached: impl FnMut() -> Outcome<bool>) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !reached()? {
        if Instant::now() > deadline {
            return Err("waited in vain".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The file of a process's control group: of a version 1 controller, or of version 2.
pub fn group_file(pid: u32, controller: &str, v1: &str, v2: &str) -> Outcome<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let parts = |line: &str| -> Option<(String, String)> {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some((controllers.to_owned(), path.to_owned()))
    };
    let lines: Vec<(String, String)> = groups.lines().filter_map(parts).collect();
    let of_v1 = lines.iter().find(|(controllers, _)| controllers.split(',').any(|name| name == controller));
    let path = match of_v1 {
        Some((_, path)) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
        None => {
            let (_, path) = lines.iter().find(|(name, _)| name.is_empty()).ok_or("no group")?;
            format!("/sys/fs/cgroup{path}/{v2}")
        }
    };
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(text.trim_end().to_owned())
}

/// A field of /proc/PID/status.
pub fn status(pid: u32, field: &str) -> Outcome<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.ok_or("no such field")?.trim().to_owned())
}
