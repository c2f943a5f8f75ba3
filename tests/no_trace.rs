//! Nothing is left behind: after many starts, and after the harness was killed at any moment.
//!
//! The whole machine is compared before and after, so these tests are a binary of their own and run one by one. The
//! kernel takes network namespaces down in the background; their end is waited for.
//!
//! The kills come at random moments. Their seed is printed, and stands in the error; `NO_TRACE_SEED=N` draws the same
//! moments again.

#[path = "privileged/harness.rs"]
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::Case;
use isobench::lab::Lab;
use isobench::lab::disk::Disk;
use isobench::runtime::{Network, StartRequest, by_kind};
use isobench::scenario::RuntimeKind;
use isobench::sys::loopdev;
use isobench::sys::netns::NetNs;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;

fn main() {
    let tests = vec![
        Case::new("no_trace::of_two_hundred_starts", of_two_hundred_starts),
        Case::new("no_trace::of_fifty_kills", of_fifty_kills),
        Case::new("no_trace::of_a_run_that_broke", of_a_run_that_broke),
        Case::new("no_trace::rules_are_compared_in_all_of_these", rules_are_compared)
            .needs(has_nft(), "needs nftables"),
    ];
    harness::run(tests, Some(1)).exit()
}

const BINARY: &str = env!("CARGO_BIN_EXE_isobench");

fn has_nft() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join("nft").is_file())
}

/// What a machine holds that a container could leave behind.
#[derive(Debug)]
struct Machine {
    mounts: Vec<String>,
    links: BTreeSet<String>,
    /// As `nft` lists them; not known without it.
    rules: Option<String>,
    cgroups: BTreeSet<String>,
    disks: BTreeSet<String>,
    /// The disks that are loop devices over a file.
    loops: BTreeSet<String>,
    processes: BTreeSet<String>,
    descriptors: usize,
    namespaces: BTreeMap<String, usize>,
    network_namespaces: u64,
}

fn entries(path: &str) -> BTreeSet<String> {
    let names = fs::read_dir(path).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Every directory of ours under the cgroup mounts; the machine's own services make and remove theirs.
fn cgroups() -> BTreeSet<String> {
    fn walk(directory: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path().display().to_string();
                if path.contains("/isobench") {
                    into.insert(path);
                }
                walk(&entry.path(), into);
            }
        }
    }
    let mut all = BTreeSet::new();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mountinfo.lines().filter(|line| line.contains(" - cgroup")) {
        if let Some(point) = line.split(' ').nth(4) {
            walk(Path::new(point), &mut all);
        }
    }
    all
}

/// Programs of ours, by pid; kernel threads and the machine's own services come and go.
fn processes() -> BTreeSet<String> {
    let own = std::process::id().to_string();
    let is_ours = |pid: &String| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pid.parse::<u32>().is_ok() && *pid != own && name.starts_with("isobench")
    };
    entries("/proc").into_iter().filter(is_ours).collect()
}

/// How many different namespaces of each kind processes are in.
fn namespaces() -> BTreeMap<String, usize> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pid in entries("/proc").iter().filter(|name| name.parse::<u32>().is_ok()) {
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
            if let Ok(link) = fs::read_link(format!("/proc/{pid}/ns/{kind}")) {
                seen.entry(kind.to_owned()).or_default().insert(link.display().to_string());
            }
        }
    }
    seen.into_iter().map(|(kind, links)| (kind, links.len())).collect()
}

/// The kernel's own count of network namespaces, wherever they are held. It counts whole slabs of a CPU as used, so it
/// is right only to a few; see [`SLAB_SLACK`].
fn network_namespaces() -> u64 {
    let slabs = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let line = slabs.lines().find_map(|line| line.strip_prefix("net_namespace"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How far two counts of the same namespaces may lie apart: fewer than any of the tests makes.
const SLAB_SLACK: u64 = 40;

fn rules() -> Result<Option<String>, Box<dyn Error>> {
    if !has_nft() {
        return Ok(None);
    }
    let output = Command::new("nft").args(["list", "ruleset"]).output()?;
    if output.status.success() {
        Ok(Some(String::from_utf8(output.stdout)?))
    } else {
        Err(format!("nft list ruleset: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

impl Machine {
    fn look() -> Result<Self, Box<dyn Error>> {
        let disks = entries("/sys/block");
        let in_use = |name: &&String| Path::new("/sys/block").join(name).join("loop/backing_file").exists();
        Ok(Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")?.lines().map(str::to_owned).collect(),
            links: entries("/sys/class/net"),
            rules: rules()?,
            cgroups: cgroups(),
            loops: disks.iter().filter(in_use).cloned().collect(),
            disks,
            processes: processes(),
            descriptors: entries("/proc/self/fd").len(),
            namespaces: namespaces(),
            network_namespaces: network_namespaces(),
        })
    }

    /// What is there now and was not there before, by name.
    fn added_since(&self, before: &Self) -> Vec<String> {
        fn new<'a>(what: &str, now: impl IntoIterator<Item = &'a String>, before: &[&String]) -> Vec<String> {
            now.into_iter().filter(|one| !before.contains(one)).map(|one| format!("{what} {one}")).collect()
        }
        let mut added = new("mount", &self.mounts, &before.mounts.iter().collect::<Vec<_>>());
        for (what, now, before) in [
            ("link", &self.links, &before.links),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("disk", &self.disks, &before.disks),
            ("loop device in use", &self.loops, &before.loops),
            ("process", &self.processes, &before.processes),
        ] {
            added.extend(new(what, now, &before.iter().collect::<Vec<_>>()));
        }
        if self.rules != before.rules {
            added.push(format!("nft rules {}", self.rules.as_deref().unwrap_or("that nft does not list any more")));
        }
        if self.descriptors > before.descriptors {
            added.push(format!("{} descriptors, {} before", self.descriptors, before.descriptors));
        }
        for (kind, count) in &self.namespaces {
            let count_before = before.namespaces.get(kind).copied().unwrap_or(0);
            if *count > count_before {
                added.push(format!("{count} {kind} namespaces of processes, {count_before} before"));
            }
        }
        if self.network_namespaces > before.network_namespaces + SLAB_SLACK {
            added.push(format!("{} network namespaces, {} before", self.network_namespaces, before.network_namespaces));
        }
        added
    }

    /// Looks whether anything was added; what the kernel takes down in the background gets ten seconds. A dead network
    /// namespace is freed only when the next one dies, so each look lets one die.
    fn holds_nothing_new(&self) -> Result<(), Box<dyn Error>> {
        let begin = Instant::now();
        loop {
            drop(NetNs::new()?);
            let added = Self::look()?.added_since(self);
            if added.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Err(format!("left behind: {added:#?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start(network: &Network) -> Result<(), Box<dyn Error>> {
    let runtime = by_kind(RuntimeKind::Builtin)?;
    let request = StartRequest::new(vec!["stamp".to_owned()], network.clone());
    let mut instance = runtime.start(request)?;
    instance.wait()?;
    Ok(instance.remove()?)
}

fn of_two_hundred_starts() -> Result<(), Box<dyn Error>> {
    // What is made once a process or once a machine (the `self` image, a pidfd of this process) is made here.
    start(&Network::None)?;
    isobench::container::gc::collect()?;
    let before = Machine::look()?;
    {
        let lab = Lab::new()?;
        let bridge = lab.bridge()?;
        let host = Network::Host(lab.host().netns().clone());
        let bridged = Network::Bridge { network: bridge, ports: Vec::new() };
        let request = StartRequest::new(vec!["hold".to_owned()], bridged.clone());
        let partner = by_kind(RuntimeKind::Builtin)?.start(request)?;
        let shared = Network::Container(partner.netns()?);
        for _ in 0..50 {
            for network in [&Network::None, &host, &bridged, &shared] {
                start(network)?;
            }
        }
        partner.remove()?;
    }
    isobench::container::gc::collect()?;
    before.holds_nothing_new()
}

fn rules_are_compared() -> Result<(), Box<dyn Error>> {
    // What `look` takes is what the tests above compare.
    assert!(Machine::look()?.rules.is_some());
    Ok(())
}

/// A little of everything that has to be given back: starts and connections in every mode, and groups with limits on
/// memory, CPU time and a disk of its own.
const KILLED: &str = r#"
[scenario]
name = "killed"
question = "What stays when it is killed?"

[run]
blocks = 1
warmup_blocks = 0

[[experiment]]
kind = "startup"
network = ["host", "none", "bridge", "container"]
concurrency = 2
per_block = 4

[[experiment]]
kind = "network"
network = ["host", "bridge"]
path = ["egress", "ingress"]
test = "tcp_rr"
duration = "20ms"
warmup = "5ms"
baseline = "host"

[[experiment]]
kind = "cpu"
setting = "quota"
percent = 50
period = "10ms"
duration = "100ms"

[[experiment]]
kind = "memory"
setting = "limit"
limit = "4M"

[[experiment]]
kind = "blkio"
setting = "write_iops"
iops = 4000
duration = "200ms"
"#;

fn gc() -> Result<(), Box<dyn Error>> {
    let output = Command::new(BINARY).arg("gc").output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr)?.into()) }
}

/// Takes every loop device that is there, so that a run has to add one, which is the only kind that can stay behind.
fn take_loop_devices() -> Result<Vec<Disk>, Box<dyn Error>> {
    let mut disks = Vec::new();
    while loopdev::present()?.iter().any(|(_, in_use)| !in_use) {
        disks.push(Disk::in_memory(1 << 20)?);
    }
    Ok(disks)
}

fn seed() -> Result<u64, Box<dyn Error>> {
    match std::env::var("NO_TRACE_SEED") {
        Ok(text) => Ok(text.parse().map_err(|error| format!("NO_TRACE_SEED={text}: {error}"))?),
        // The standard library's hash maps are keyed by the kernel's random numbers.
        Err(_) => Ok(std::hash::RandomState::new().build_hasher().finish() & 0xffff_ffff),
    }
}

fn of_fifty_kills() -> Result<(), Box<dyn Error>> {
    let seed = seed()?;
    eprintln!("no_trace: the kills are those of NO_TRACE_SEED={seed}");
    kill_at_random(seed).map_err(|error| format!("NO_TRACE_SEED={seed}: {error}").into())
}

/// Kills the harness at 50 moments of its whole life, from before its first container to its last word.
fn kill_at_random(seed: u64) -> Result<(), Box<dyn Error>> {
    const KILLS: u32 = 50;
    const EARLIEST: Duration = Duration::from_millis(1);
    let scratch = tempfile::tempdir()?;
    let scenario = scratch.path().join("killed.toml");
    fs::write(&scenario, KILLED)?;
    let command = |name: &str| {
        let mut command = Command::new(BINARY);
        command.arg("run").arg(&scenario).arg("--quiet").arg("--out").arg(scratch.path().join(name));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let _taken = take_loop_devices()?;
    gc()?;
    let before = Machine::look()?;
    let life = undisturbed(&mut command("whole"), &scratch.path().join("whole"))?;
    before.holds_nothing_new().map_err(|error| format!("the undisturbed run: {error}"))?;

    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut moments = Vec::new();
    let mut alive = 0;
    for kill in 0..KILLS {
        let part = generator.next_u64() as f64 / u64::MAX as f64;
        let moment = EARLIEST + life.saturating_sub(EARLIEST).mul_f64(part);
        moments.push(moment);
        let mut run = command(&kill.to_string()).spawn()?;
        // This is the stimulus, not a wait for something.
        std::thread::sleep(moment);
        alive += u32::from(run.try_wait()?.is_none());
        run.kill()?;
        run.wait()?;
        gc().map_err(|error| format!("gc after a kill at {moment:?}: {error}"))?;
        if kill % 10 == 9 {
            before.holds_nothing_new().map_err(|error| format!("of the kills at {moments:?}: {error}"))?;
            moments.clear();
        }
    }
    assert!(alive >= KILLS * 4 / 5, "only {alive} runs were still going when they were killed");
    Ok(())
}

/// How long a run lives that nobody kills; it must measure everything that the killed ones are to hold.
fn undisturbed(command: &mut Command, directory: &Path) -> Result<Duration, Box<dyn Error>> {
    let begin = Instant::now();
    let status = command.status()?;
    let life = begin.elapsed();
    assert!(matches!(status.code(), Some(0 | 1 | 3)), "{status}");
    let run: Value = serde_json::from_str(&fs::read_to_string(directory.join("run.json"))?)?;
    assert_eq!(run["skips"], Value::Array(Vec::new()), "{}", run["skips"]);
    Ok(life)
}

/// One scenario's directory cannot be made: the next one is measured all the same, and the parents of all groups go.
fn of_a_run_that_broke() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let scenario = |name: &str| -> Result<_, Box<dyn Error>> {
        let text = format!(
            "[scenario]\nname = \"{name}\"\nquestion = \"?\"\n[run]\nblocks = 1\nwarmup_blocks = 0\n\
             [[experiment]]\nkind = \"startup\"\nnetwork = \"none\"\nper_block = 2\n"
        );
        let path = scratch.path().join(name).with_extension("toml");
        fs::write(&path, text)?;
        Ok(path)
    };
    let out = scratch.path().join("out");
    fs::create_dir(&out)?;
    symlink("/nonexistent/directory", out.join("broken"))?;
    gc()?;
    let before = Machine::look()?;
    let output = Command::new(BINARY)
        .arg("run")
        .args([scenario("broken")?, scenario("whole")?])
        .args(["--quiet", "--format", "json", "--out"])
        .arg(&out)
        .output()?;
    let complaint = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains(&format!("cannot create directory {}", out.join("broken").display())), "{complaint}");
    let said: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&said["exit_code"], &said["runs"][0]["exit_code"]), (&2.into(), &2.into()), "{said}");
    assert_eq!((&said["runs"][1]["scenario"], &said["runs"][1]["exit_code"]), (&"whole".into(), &0.into()), "{said}");
    assert!(out.join("whole/run.json").exists());
    before.holds_nothing_new()
}
