//! The host's fingerprint: the facts that decide whether two runs can be compared. Called once, at a run's start.
//!
//! Only what the kernel tells is written down. A file that this kernel lacks, or that may not be read, leaves its fact
//! out: absence means "not known", never a default.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use procfs::process::MountInfos;
use procfs::{CGroupControllers, CpuInfo, FromRead, Meminfo};

use super::Fingerprint;

/// Sysctls that change what isolation and networking cost.
const SYSCTLS: [&str; 10] = [
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.sched_autogroup_enabled",
    "kernel.unprivileged_userns_clone",
    "net.core.default_qdisc",
    "net.core.optmem_max",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

impl Fingerprint {
    /// The facts of this host, and how isobench itself was built.
    #[must_use]
    pub fn collect() -> Self {
        let mut facts = host_facts(&Root(PathBuf::from("/")));
        facts.insert("isobench".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        facts.insert("build".to_owned(), env!("ISOBENCH_BUILD").to_owned());
        if let Ok(names) = nix::sys::utsname::uname() {
            facts.insert("architecture".to_owned(), names.machine().to_string_lossy().into_owned());
        }
        Self { facts }
    }
}

/// Where /proc and /sys are; the tests give a directory of their own.
struct Root(PathBuf);

impl Root {
    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// A file's text without its line end; `None` when it cannot be read or is empty.
    fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(path)).ok()?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then_some(text)
    }

    fn parsed<T: FromRead>(&self, path: &str) -> Option<T> {
        T::from_file(self.path(path)).ok()
    }

    /// The names in a directory, sorted; none when it is not there.
    fn names(&self, path: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

fn host_facts(root: &Root) -> BTreeMap<String, String> {
    let cpu: Option<CpuInfo> = root.parsed("proc/cpuinfo");
    let memory: Option<Meminfo> = root.parsed("proc/meminfo");
    let facts = [
        ("kernel", kernel(root)),
        ("cpu_model", cpu.as_ref().and_then(|cpu| cpu.model_name(0)).map(str::to_owned)),
        ("cpus", cpus(root).map(|count| count.to_string())),
        ("cpu_microcode", cpu.as_ref().and_then(|cpu| cpu.get_field(0, "microcode")).map(str::to_owned)),
        ("cpu_smt", root.text("sys/devices/system/cpu/smt/active").as_deref().and_then(on_or_off)),
        ("cpu_governor", governor(root)),
        ("cpu_turbo", turbo(root)),
        ("cpu_mitigations", mitigations(root)),
        ("virtualisation", virtualisation(root, cpu.as_ref())),
        ("machine", machine(root)),
        ("memory_bytes", memory.as_ref().map(|memory| memory.mem_total.to_string())),
        ("swap_bytes", memory.as_ref().map(|memory| memory.swap_total.to_string())),
        ("transparent_hugepages", chosen(root, "sys/kernel/mm/transparent_hugepage/enabled")),
        ("clocksource", root.text("sys/devices/system/clocksource/clocksource0/current_clocksource")),
        ("cgroup", cgroup(root)),
        ("lsm", root.text("sys/kernel/security/lsm")),
    ];
    let known = facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?)));
    let sysctls = SYSCTLS.iter().filter_map(|name| {
        let fact = root.text(&format!("proc/sys/{}", name.replace('.', "/")))?;
        Some((format!("sysctl {name}"), fact))
    });
    known.chain(sysctls).collect()
}

/// Release and version: the version tells two builds of one release apart, and whether the kernel is preemptible.
fn kernel(root: &Root) -> Option<String> {
    let release = root.text("proc/sys/kernel/osrelease")?;
    Some(match root.text("proc/sys/kernel/version") {
        Some(version) => format!("{release} {version}"),
        None => release,
    })
}

/// CPUs online, from a list as in `0-3,6`.
fn cpus(root: &Root) -> Option<u32> {
    let list = root.text("sys/devices/system/cpu/online")?;
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (last.parse::<u32>().ok()? + 1).checked_sub(first.parse().ok()?)
        })
        .sum()
}

fn on_or_off(text: &str) -> Option<String> {
    match text {
        "0" => Some("off".to_owned()),
        "1" => Some("on".to_owned()),
        _ => None,
    }
}

/// The governors in use, usually one for all CPUs.
fn governor(root: &Root) -> Option<String> {
    let cpus = root.names("sys/devices/system/cpu");
    let governors: BTreeSet<String> = cpus
        .iter()
        .filter_map(|cpu| root.text(&format!("sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor")))
        .collect();
    joined(&governors)
}

/// intel_pstate says when turbo is off, the other drivers when it is on.
fn turbo(root: &Root) -> Option<String> {
    match root.text("sys/devices/system/cpu/intel_pstate/no_turbo").as_deref() {
        Some("0") => Some("on".to_owned()),
        Some("1") => Some("off".to_owned()),
        _ => root.text("sys/devices/system/cpu/cpufreq/boost").as_deref().and_then(on_or_off),
    }
}

/// What the CPU is affected by, apart by whether the kernel does something about it.
fn mitigations(root: &Root) -> Option<String> {
    let directory = "sys/devices/system/cpu/vulnerabilities";
    let mut groups: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for name in root.names(directory) {
        let Some(state) = root.text(&format!("{directory}/{name}")) else { continue };
        let group = match state.as_str() {
            state if state.starts_with("Not affected") => "not affected",
            state if state.starts_with("Mitigation") => "mitigated",
            state if state.starts_with("Vulnerable") => "vulnerable",
            _ => "unknown",
        };
        groups.entry(group).or_default().insert(name);
    }
    if groups.is_empty() {
        return None;
    }
    let affected: Vec<String> = ["mitigated", "vulnerable", "unknown"]
        .iter()
        .filter_map(|group| Some(format!("{group}: {}", joined(groups.get(group)?)?)))
        .collect();
    Some(if affected.is_empty() { "not affected".to_owned() } else { affected.join("; ") })
}

/// The CPUID bit that a hypervisor sets for its guests, and Xen's own word. Without either nothing is known: other
/// architectures have no such bit.
fn virtualisation(root: &Root, cpu: Option<&CpuInfo>) -> Option<String> {
    root.text("sys/hypervisor/type").or_else(|| {
        let flags = cpu?.flags(0)?;
        flags.contains(&"hypervisor").then(|| "hypervisor".to_owned())
    })
}

/// The maker's name and the machine's, which on a cloud tell the instance type.
fn machine(root: &Root) -> Option<String> {
    let parts = ["sys_vendor", "product_name"].iter().filter_map(|name| root.text(&format!("sys/class/dmi/id/{name}")));
    let text = parts.collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

/// The word in brackets of a list such as `always [madvise] never`.
fn chosen(root: &Root, path: &str) -> Option<String> {
    let text = root.text(path)?;
    text.split(' ').find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
}

/// The layout as in `v1 (cpu memory)`, `v2 (cpu memory)` or `hybrid (v1: cpu memory; v2: none)`.
fn cgroup(root: &Root) -> Option<String> {
    let mounts: MountInfos = root.parsed("proc/self/mountinfo")?;
    // The options of a v1 hierarchy also hold words such as `rw` and `xattr`; /proc/cgroups says which are controllers.
    let known: BTreeSet<String> = root
        .parsed::<CGroupControllers>("proc/cgroups")
        .map(|list| list.0.into_iter().map(|controller| controller.name).collect())
        .unwrap_or_default();
    let old: Vec<_> = mounts.iter().filter(|mount| mount.fs_type == "cgroup").collect();
    let v1: BTreeSet<String> = old
        .iter()
        .flat_map(|mount| mount.super_options.keys())
        .filter(|option| known.contains(*option))
        .cloned()
        .collect();
    let v2 =
        mounts.iter().find(|mount| mount.fs_type == "cgroup2").map(|mount| v2_controllers(root, &mount.mount_point));
    let list = |controllers: &BTreeSet<String>| joined(controllers).unwrap_or_else(|| "none".to_owned());
    match (old.is_empty(), v2) {
        (true, None) => None,
        (true, Some(v2)) => Some(format!("v2 ({})", list(&v2))),
        (false, None) => Some(format!("v1 ({})", list(&v1))),
        (false, Some(v2)) => Some(format!("hybrid (v1: {}; v2: {})", list(&v1), list(&v2))),
    }
}

fn v2_controllers(root: &Root, mount_point: &Path) -> BTreeSet<String> {
    let file = mount_point.strip_prefix("/").unwrap_or(mount_point).join("cgroup.controllers");
    let text = file.to_str().and_then(|file| root.text(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn joined(words: &BTreeSet<String>) -> Option<String> {
    (!words.is_empty()).then(|| words.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The facts of a host whose /proc and /sys hold these files.
    fn facts_of(files: &[(&str, &str)]) -> BTreeMap<String, String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        host_facts(&Root(dir.path().to_owned()))
    }

    fn fact(files: &[(&str, &str)], name: &str) -> Option<String> {
        facts_of(files).remove(name)
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_left_out() {
        assert!(facts_of(&[]).is_empty());
        assert!(
            facts_of(&[("proc/cpuinfo", ""), ("sys/devices/system/cpu/online", "x"), ("proc/cgroups", "")]).is_empty()
        );
    }

    #[test]
    fn this_host_tells_something() {
        let facts = Fingerprint::collect().facts;
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert!(facts["kernel"].starts_with(release.trim()), "{facts:?}");
        assert!(facts["memory_bytes"].parse::<u64>().unwrap() > 1 << 20);
        assert_eq!(facts["isobench"], env!("CARGO_PKG_VERSION"));
        assert!(facts["build"].starts_with("rustc 1."), "{}", facts["build"]);
        assert_eq!(facts["architecture"], std::env::consts::ARCH);
    }

    #[test]
    fn plain_facts() {
        let facts = facts_of(&[
            ("proc/sys/kernel/osrelease", "6.1.0-9-amd64\n"),
            ("proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC\n"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nmodel name\t: Some CPU\nmicrocode\t: 0x1\nflags\t\t: fpu hypervisor lahf_lm\n\n",
            ),
            ("sys/devices/system/cpu/online", "0-3,6,8-9\n"),
            ("sys/devices/system/cpu/smt/active", "1\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ("sys/class/dmi/id/sys_vendor", "Maker\n"),
            ("sys/class/dmi/id/product_name", "m5.large\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
        ]);
        assert_eq!(facts["kernel"], "6.1.0-9-amd64 #1 SMP PREEMPT_DYNAMIC");
        assert_eq!((facts["cpu_model"].as_str(), facts["cpus"].as_str()), ("Some CPU", "7"));
        assert_eq!((facts["virtualisation"].as_str(), facts["cpu_smt"].as_str()), ("hypervisor", "on"));
        assert_eq!(facts["transparent_hugepages"], "madvise");
        assert_eq!((facts["machine"].as_str(), facts["cpu_microcode"].as_str()), ("Maker m5.large", "0x1"));
        assert_eq!(facts["sysctl net.ipv4.tcp_rmem"], "4096 131072 6291456");
    }

    #[test]
    fn cgroup_layouts() {
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                  35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n";
        let v2 = "41 23 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let known = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\nmemory\t4\t17\t1\nrdma\t0\t1\t1\n";
        let hybrid = format!("{v1}{v2}");
        let layout = |mounts: &str, controllers: &str| {
            let file = ("sys/fs/cgroup/unified/cgroup.controllers", controllers);
            fact(&[("proc/self/mountinfo", mounts), ("proc/cgroups", known), file], "cgroup")
        };
        assert_eq!(layout(v1, "").as_deref(), Some("v1 (cpu cpuacct memory)"));
        assert_eq!(layout(v2, "cpu io memory\n").as_deref(), Some("v2 (cpu io memory)"));
        assert_eq!(layout(&hybrid, "\n").as_deref(), Some("hybrid (v1: cpu cpuacct memory; v2: none)"));
        assert_eq!(layout("22 27 0:21 / /proc rw - proc proc rw\n", ""), None);
    }

    #[test]
    fn mitigations_are_told_in_groups() {
        let directory = "sys/devices/system/cpu/vulnerabilities";
        let file = |name: &str| format!("{directory}/{name}");
        let (a, b, c, d) = (file("meltdown"), file("spectre_v1"), file("spectre_v2"), file("srbds"));
        let affected = [
            (a.as_str(), "Mitigation: PTI"),
            (&b, "Vulnerable: no"),
            (&c, "Mitigation: Retpolines"),
            (&d, "Not affected"),
        ];
        assert_eq!(
            fact(&affected, "cpu_mitigations").as_deref(),
            Some("mitigated: meltdown spectre_v2; vulnerable: spectre_v1")
        );
        assert_eq!(fact(&[(&d, "Not affected\n")], "cpu_mitigations").as_deref(), Some("not affected"));
    }

    #[test]
    fn frequency_control() {
        let governors = [
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
        ];
        assert_eq!(fact(&governors, "cpu_governor").as_deref(), Some("performance"));
        let turbo = |path: &str, text: &str| fact(&[(path, text)], "cpu_turbo");
        assert_eq!(turbo("sys/devices/system/cpu/intel_pstate/no_turbo", "1\n").as_deref(), Some("off"));
        assert_eq!(turbo("sys/devices/system/cpu/cpufreq/boost", "1\n").as_deref(), Some("on"));
        assert_eq!(turbo("sys/devices/system/cpu/cpufreq/boost", "?\n"), None);
    }
}
