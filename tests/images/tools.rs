//! The programs that judge, and images made by them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use isobench::image::store::Store;

use crate::harness::{Body, Case};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A test that takes some programs.
pub fn case(name: &'static str, tools: &[&str], body: Body) -> Case {
    let mut case = Case::new(name, body);
    for tool in tools {
        case = case.needs(present(tool), &format!("needs {tool}"));
    }
    case
}

fn present(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).exists())
}

/// Runs a program to its end; what it wrote to standard output.
pub fn run(program: &str, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments:?} ended with {}: {said}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs skopeo, which then trusts what it is told to.
pub fn skopeo(arguments: &[&str]) -> Outcome<String> {
    run("skopeo", &[&["--insecure-policy"], arguments].concat())
}

/// A directory that is removed at the end, with a store in it.
pub struct Place {
    directory: tempfile::TempDir,
    pub store: Store,
}

impl Place {
    pub fn new() -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("isobench-images-").tempdir()?;
        let store = Store::open(directory.path().join("store"))?;
        Ok(Self { directory, store })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path as text, with something before it.
    pub fn text(&self, before: &str, name: &str) -> String {
        format!("{before}{}", self.path(name).display())
    }

    /// Writes a file, with the directories that it is in.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Outcome {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        Ok(std::fs::write(path, content)?)
    }

    /// An OCI layout `layout` with the image `latest`, by umoci: three layers, of which the second hides a file and the
    /// third a directory of the first.
    pub fn layout(&self) -> Outcome {
        self.write("lower/etc/hostname", "lower\n")?;
        self.write("lower/etc/removed", "gone\n")?;
        self.write("lower/opt/a", "a\n")?;
        self.write("lower/opt/sub/b", "b\n")?;
        std::os::unix::fs::symlink("hostname", self.path("lower/etc/link"))?;
        self.write("upper/c", "c\n")?;
        let layout = self.text("", "layout");
        let image = self.text("", "layout:latest");
        run("umoci", &["init", "--layout", &layout])?;
        run("umoci", &["new", "--image", &image])?;
        let lower = |name: &str| self.text("", &format!("lower/{name}"));
        run("umoci", &["insert", "--image", &image, "--history.created_by", "insert etc", &lower("etc"), "/etc"])?;
        run("umoci", &["insert", "--image", &image, &lower("opt"), "/opt"])?;
        run("umoci", &["insert", "--image", &image, "--whiteout", "/etc/removed"])?;
        run("umoci", &["insert", "--image", &image, "--opaque", &self.text("", "upper"), "/opt"])?;
        run(
            "umoci",
            &["config", "--image", &image, "--config.cmd", "sh", "--config.env", "A=1", "--config.workingdir", "/opt"],
        )?;
        Ok(())
    }

    /// How many bytes and files the store's directories hold that a failed act could have left.
    pub fn leftovers(&self) -> Outcome<Vec<PathBuf>> {
        let mut found = Vec::new();
        let known = ["blobs", "compressed", "images.json", "layers", "leases", "lock", "locks", "records.lock", "tmp"];
        for entry in std::fs::read_dir(self.store.root())? {
            let entry = entry?;
            if !known.iter().any(|name| entry.file_name() == *name) {
                found.push(entry.path());
            }
        }
        for part in ["tmp", "blobs/sha256", "layers", "compressed", "leases"] {
            for entry in std::fs::read_dir(self.store.root().join(part))? {
                found.push(entry?.path());
            }
        }
        Ok(found)
    }
}
