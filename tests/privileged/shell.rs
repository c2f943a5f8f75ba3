//! Containers that run shell scripts, so that what a container is can be judged by programs that are not ours.
//!
//! The root is a directory with Debian's static busybox, laid over the `self` image.

use std::error::Error;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use isobench::container::launch::Stdio;
use isobench::container::{Container, ContainerSpec, Network};
use isobench::image::{RootFs, embedded};
use isobench::sys::clock;
use isobench::sys::launch::ExitStatus;

/// Debian's busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

/// Whether the shell can be had.
pub fn present() -> bool {
    Path::new(BUSYBOX).exists()
}

/// What a skipped test says.
pub const NEEDED: &str = "needs busybox-static";

/// What a script did.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The lines of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// The layer with the shell, once it is made. Tests run side by side, so making it is guarded.
static LAYER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A root with a shell.
pub fn root() -> Result<RootFs, Box<dyn Error>> {
    let mut layer = LAYER.lock().unwrap_or_else(PoisonError::into_inner);
    let layer = match &*layer {
        Some(layer) => layer.clone(),
        None => layer.insert(make_layer()?).clone(),
    };
    let mut layers = vec![layer];
    layers.extend(embedded::root_fs()?.layers);
    Ok(RootFs { layers })
}

fn make_layer() -> Result<PathBuf, Box<dyn Error>> {
    let layer = tempfile::Builder::new().prefix("isobench-shell-").tempdir()?.keep();
    std::fs::set_permissions(&layer, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::create_dir(layer.join("bin"))?;
    std::fs::copy(BUSYBOX, layer.join("bin/busybox"))?;
    let applets = std::process::Command::new(BUSYBOX).arg("--list").output()?.stdout;
    for applet in String::from_utf8(applets)?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", layer.join("bin").join(applet))?;
    }
    Ok(layer)
}

/// Takes the shell's layer away; called once at the end.
pub fn remove_layer() {
    if let Some(layer) = LAYER.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = std::fs::remove_dir_all(layer);
    }
}

/// A spec that runs a script.
pub fn spec(script: &str) -> Result<ContainerSpec, Box<dyn Error>> {
    let arguments = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Ok(ContainerSpec::new(root()?, arguments))
}

/// A running script with its streams.
pub struct Running {
    pub container: Container,
    pub stdout: std::io::PipeReader,
    stderr: std::io::PipeReader,
}

/// Starts a container.
pub fn start(spec: &ContainerSpec, network: &Network) -> Result<Running, Box<dyn Error>> {
    let (stdout, stdout_writer) = std::io::pipe()?;
    let (stderr, stderr_writer) = std::io::pipe()?;
    let stdio = Stdio { stdin: None, stdout: Some(stdout_writer.into()), stderr: Some(stderr_writer.into()) };
    let container = Container::start(spec, network, stdio, clock::now_ns())?;
    Ok(Running { container, stdout, stderr })
}

impl Running {
    /// Waits for the script's first output line, which tells that it has come that far.
    pub fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.stdout.read(&mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Ok(String::from_utf8(line)?)
    }

    /// Waits for the end, removes the container.
    pub fn finish(mut self) -> Result<Outcome, Box<dyn Error>> {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout)?;
        self.stderr.read_to_string(&mut stderr)?;
        let reaped = self.container.wait()?;
        self.container.remove()?;
        Ok(Outcome { status: reaped.status, stdout, stderr })
    }
}

/// Runs a script to its end.
pub fn run(script: &str, network: &Network) -> Result<Outcome, Box<dyn Error>> {
    start(&spec(script)?, network)?.finish()
}
