//! Containers by hand, as whole processes, beside the tools that people know: `crun run`, `bwrap`, `nsenter`.
//!
//! `cargo bench --bench containers`; needs root, Debian's static busybox, and each tool that is to be compared: one that
//! is missing is named and left out. The sides take turns, and the ratio is that of the medians.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use isobench::stats::quantile::median;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// One side: its name and its command.
type Side<'a> = (&'a str, Box<dyn Fn() -> Command + 'a>);

fn main() -> Outcome {
    let once = std::env::args().any(|argument| argument == "--test");
    let Some(busybox) = find("busybox") else {
        println!("skipped: busybox is not installed");
        return Ok(());
    };
    let bench = Bench::new(&busybox)?;
    let turns = if once { 1 } else { 40 };
    bench.run_beside_others(turns)?;
    bench.exec_beside_nsenter(turns)?;
    bench.many(if once { 3 } else { 500 })
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// A store of its own with one image.
struct Bench {
    directory: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let ids = self.isobench(&["container", "ls", "-aq"]).output();
        let ids = ids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            let arguments = [&["container", "rm", "-f"][..], &ids].concat();
            let _ = self.isobench(&arguments).stdout(Stdio::null()).status();
        }
    }
}

impl Bench {
    fn new(busybox: &Path) -> Outcome<Self> {
        let bench = Self { directory: tempfile::tempdir()? };
        let root = bench.root();
        std::fs::create_dir_all(root.join("bin"))?;
        std::fs::copy(busybox, root.join("bin/busybox"))?;
        for applet in ["true", "sleep", "sh"] {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        for directory in ["proc", "sys", "dev", "etc", "tmp"] {
            std::fs::create_dir(root.join(directory))?;
        }
        let imported = bench.isobench(&["image", "import"]).arg(&root).arg("bench").stdout(Stdio::null()).status()?;
        if !imported.success() {
            return Err("the image cannot be imported".into());
        }
        Ok(bench)
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    fn isobench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isobench"));
        command.args(arguments);
        command.env("ISOBENCH_ROOT", self.directory.path().join("containers"));
        command.env("ISOBENCH_IMAGES", self.directory.path().join("images"));
        command
    }

    fn run_beside_others(&self, turns: usize) -> Outcome {
        let ours: Side<'_> = (
            "isobench container run",
            Box::new(|| self.isobench(&["container", "run", "--rm", "--network", "none", "bench", "true"])),
        );
        let mut sides = vec![ours];
        if find("crun").is_some() && self.write_bundle()? {
            let state = self.directory.path().join("crun");
            sides.push((
                "crun run",
                Box::new(move || {
                    let mut command = Command::new("crun");
                    command.arg("--root").arg(&state).args(["run", "bench"]).current_dir(self.directory.path());
                    command
                }),
            ));
        } else {
            println!("crun is left out: it is not installed, or refuses this machine's control groups");
        }
        if find("bwrap").is_some() {
            sides.push((
                "bwrap --unshare-all",
                Box::new(|| {
                    let mut command = Command::new("bwrap");
                    command.args(["--unshare-all", "--bind"]).arg(self.root()).arg("/");
                    command.args(["--proc", "/proc", "--dev", "/dev", "true"]);
                    command
                }),
            ));
        } else {
            println!("bwrap is left out: it is not installed");
        }
        compare(&sides, turns)
    }

    /// A bundle over the same root, as `crun spec` writes it but for the terminal and the program. Whether crun runs it.
    fn write_bundle(&self) -> Outcome<bool> {
        let directory = self.directory.path();
        if !Command::new("crun").arg("spec").current_dir(directory).status()?.success() {
            return Ok(false);
        }
        let path = directory.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_reader(File::open(&path)?)?;
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["true"]);
        spec["root"]["readonly"] = false.into();
        if let Some(process) = spec["process"].as_object_mut() {
            // It would raise one, which takes a privilege that not every root has.
            process.remove("rlimits");
        }
        std::fs::write(&path, serde_json::to_vec(&spec)?)?;
        let mut trial = Command::new("crun");
        trial.arg("--root").arg(directory.join("crun")).args(["run", "bench"]).current_dir(directory);
        Ok(trial.stderr(Stdio::null()).status()?.success())
    }

    fn exec_beside_nsenter(&self, turns: usize) -> Outcome {
        let run = ["container", "run", "-d", "--name", "target", "--network", "none", "bench", "sleep", "1000000"];
        self.isobench(&run).stdout(Stdio::null()).status()?;
        let inspect = ["container", "inspect", "--format", "{{.State.Pid}}", "target"];
        let pid = String::from_utf8(self.isobench(&inspect).output()?.stdout)?.trim().to_owned();
        let ours: Side<'_> =
            ("isobench container exec", Box::new(|| self.isobench(&["container", "exec", "target", "true"])));
        let nsenter: Side<'_> = (
            "nsenter -a",
            Box::new(|| {
                let mut command = Command::new("nsenter");
                command.args(["-a", "-t", &pid, "true"]);
                command
            }),
        );
        let compared = compare(&[ours, nsenter], turns);
        self.isobench(&["container", "rm", "-f", "target"]).stdout(Stdio::null()).status()?;
        compared
    }

    /// So many containers alive at once: the first starts beside the last, and the list of all.
    fn many(&self, count: usize) -> Outcome {
        let start = || -> Outcome<f64> {
            let run = ["container", "run", "-d", "--network", "none", "bench", "sleep", "1000000"];
            timed(&mut self.isobench(&run))
        };
        let starts = (0..count).map(|_| start()).collect::<Outcome<Vec<f64>>>()?;
        let span = (count / 20).max(1);
        let (first, last) = (&starts[..span], &starts[count - span..]);
        let (first, last) = (median(first).unwrap_or(f64::NAN), median(last).unwrap_or(f64::NAN));
        println!(
            "{count} alive: median of the first {span} starts {first:.2} ms, of the last {span} {last:.2} ms, ratio {:.2}",
            last / first
        );
        let lists = (0..10).map(|_| timed(&mut self.isobench(&["container", "ls"]))).collect::<Outcome<Vec<f64>>>()?;
        println!("container ls of {count}: {:.2} ms", median(&lists).unwrap_or(f64::NAN));
        Ok(())
    }
}

/// How long a command took, in ms.
fn timed(command: &mut Command) -> Outcome<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status()?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    if status.success() { Ok(took) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// Each side once a turn, in an order that turns too; the medians, and ratios of the first side to the others.
fn compare(sides: &[Side<'_>], turns: usize) -> Outcome {
    let mut times = vec![Vec::new(); sides.len()];
    for turn in 0..turns {
        for place in 0..sides.len() {
            let side = (turn + place) % sides.len();
            times[side].push(timed(&mut sides[side].1())?);
        }
    }
    let medians: Vec<f64> = times.iter().map(|times| median(times).unwrap_or(f64::NAN)).collect();
    for ((name, _), middle) in sides.iter().zip(&medians) {
        println!("{name:26} {middle:>8.2} ms   ours to it {:>6.3}", medians[0] / middle);
    }
    Ok(())
}
