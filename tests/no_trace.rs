//! Nothing is left behind: after many starts, and after the harness was killed at any moment.
//!
//! The whole machine is compared before and after, so these tests are a binary of their own and run one by one. The
//! kernel takes network namespaces down in the background; their end is waited for.

#[path = "privileged/harness.rs"]
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::Case;
use isobench::lab::Lab;
use isobench::runtime::{Network, StartRequest, by_kind};
use isobench::scenario::RuntimeKind;
use isobench::sys::netns::NetNs;

fn main() {
    let tests = vec![
        Case::new("no_trace::of_two_hundred_starts", of_two_hundred_starts),
        Case::new("no_trace::of_fifty_kills", of_fifty_kills),
    ];
    harness::run_one_by_one(tests).exit()
}

/// What a machine holds that a container could leave behind.
#[derive(Debug)]
struct Machine {
    mounts: Vec<String>,
    links: BTreeSet<String>,
    nft: String,
    cgroups: BTreeSet<String>,
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

impl Machine {
    fn look() -> Result<Self, Box<dyn Error>> {
        let nft = Command::new("nft").args(["list", "ruleset"]).output().map(|output| output.stdout);
        let loops = entries("/sys/block").into_iter().filter(|name| name.starts_with("loop"));
        Ok(Self {
            mounts: fs::read_to_string("/proc/self/mountinfo")?.lines().map(str::to_owned).collect(),
            links: entries("/sys/class/net"),
            nft: String::from_utf8(nft.unwrap_or_default())?,
            cgroups: cgroups(),
            loops: loops
                .filter(|name| fs::exists(format!("/sys/block/{name}/loop/backing_file")).unwrap_or(false))
                .collect(),
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
            ("loop device", &self.loops, &before.loops),
            ("process", &self.processes, &before.processes),
        ] {
            added.extend(new(what, now, &before.iter().collect::<Vec<_>>()));
        }
        if self.nft != before.nft {
            added.push(format!("nft rules {}", self.nft));
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

/// Kills the harness at 50 moments spread over its whole life, from before its first container to after its last.
fn of_fifty_kills() -> Result<(), Box<dyn Error>> {
    let binary = env!("CARGO_BIN_EXE_isobench");
    let scratch = tempfile::tempdir()?;
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/smoke.toml");
    let gc = || Command::new(binary).arg("gc").stdout(Stdio::null()).status();
    assert!(gc()?.success());
    let before = Machine::look()?;
    let mut killed = 0;
    for moment in 0..50u64 {
        let mut run = Command::new(binary)
            .args(["run", scenario, "--quick", "--quiet", "--out"])
            .arg(scratch.path().join(moment.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Irregular steps of about 20 ms: this is the stimulus, not a wait for something.
        std::thread::sleep(Duration::from_micros(1500 + moment * 19_731 + moment * moment % 7 * 977));
        killed += u32::from(run.try_wait()?.is_none());
        run.kill()?;
        run.wait()?;
    }
    assert!(killed >= 40, "only {killed} runs were still going when they were killed");
    assert!(gc()?.success());
    before.holds_nothing_new()
}
