//! What can be read about this host without trying it: privileges, cgroups, kernel interfaces, what the machine has.

use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{Pid, geteuid};
use procfs::process::Process;
use procfs::{Current, Meminfo};

use super::Finding;
use crate::cgroup::{Controller, Hierarchy, Layout};
use crate::units::human;

/// The capabilities that isobench uses: number in `linux/capability.h`, name, what is without it.
const CAPABILITIES: [(u32, &str, &str); 10] = [
    (21, "CAP_SYS_ADMIN", "no run: namespaces and mounts cannot be made"),
    (12, "CAP_NET_ADMIN", "no run: network devices, addresses and nf_tables rules cannot be made"),
    (18, "CAP_SYS_CHROOT", "no container can be started"),
    (27, "CAP_MKNOD", "no container can be started: its /dev cannot be filled"),
    (7, "CAP_SETUID", "no container can be started as another user"),
    (6, "CAP_SETGID", "no container can be started as another group"),
    (8, "CAP_SETPCAP", "no container can be started: its capabilities cannot be bounded"),
    (5, "CAP_KILL", "processes of other users in a container cannot be ended"),
    (19, "CAP_SYS_PTRACE", "namespaces of other processes cannot be looked at"),
    (24, "CAP_SYS_RESOURCE", "resource limits can only be lowered, for ourselves and for containers"),
];

const INTERFACES_AREA: &str = "kernel interfaces";
const MACHINE_AREA: &str = "machine";

/// A memory limit is 4 MiB at least, and a case about swap needs twice its limit.
const LEAST_SWAP: u64 = 8 << 20;

/// Kernel interfaces: name, path, what is without it.
const INTERFACES: [(&str, &str, &str); 3] = [
    ("psi", "/proc/pressure/cpu", "samples taken under CPU pressure from outside are not flagged"),
    (
        "seccomp",
        "/proc/sys/kernel/seccomp/actions_avail",
        "no container can be started: its system calls cannot be filtered",
    ),
    ("loop devices", "/dev/loop-control", "block I/O cases that need a device of their own"),
];

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = privileges();
    findings.extend(cgroups());
    findings.extend(INTERFACES.map(|(name, path, without)| {
        let works = Path::new(path).exists();
        let detail = if works { path.to_owned() } else { format!("there is no {path}") };
        Finding { area: INTERFACES_AREA, name: name.to_owned(), works, detail, without }
    }));
    findings.push(bfq(&schedulers()));
    findings.push(two_cpus(allowed_cpus()));
    findings.push(swap(Meminfo::current().map_or(0, |memory| memory.swap_free)));
    findings
}

/// What `queue/scheduler` of each disk says.
fn schedulers() -> Vec<String> {
    let disks = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks.filter_map(|disk| std::fs::read_to_string(disk.path().join("queue/scheduler")).ok()).collect()
}

/// Every disk lists the schedulers that the kernel has loaded.
fn bfq(schedulers: &[String]) -> Finding {
    let is_bfq = |name: &str| name.trim_matches(['[', ']']) == "bfq";
    let works = schedulers.iter().any(|names| names.split_whitespace().any(is_bfq));
    let detail = if works { "" } else { "in no disk's queue/scheduler" }.to_owned();
    let without = "blkio cases with setting = \"weight\", interference cases with limit = \"weight\"";
    Finding { area: INTERFACES_AREA, name: "bfq".to_owned(), works, detail, without }
}

fn allowed_cpus() -> usize {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).count()
}

fn two_cpus(allowed: usize) -> Finding {
    let without = "interference cases, network cases unless pin = false, cpu cases about more than one CPU";
    let detail = format!("{allowed} may be used");
    Finding { area: MACHINE_AREA, name: "two CPUs".to_owned(), works: allowed >= 2, detail, without }
}

fn swap(free: u64) -> Finding {
    let detail = format!("{} free", human(free as f64, "bytes"));
    let without = "memory cases with setting = \"swap\": each needs twice its limit of free swap";
    Finding { area: MACHINE_AREA, name: "swap".to_owned(), works: free >= LEAST_SWAP, detail, without }
}

fn privileges() -> Vec<Finding> {
    let area = "privileges";
    let euid = geteuid();
    let mut findings = vec![Finding {
        area,
        name: "root".to_owned(),
        works: euid.is_root(),
        detail: format!("effective user id {euid}"),
        without: "no run: only validate, list, report and --dry-run work",
    }];
    let effective = match Process::myself().and_then(|process| process.status()) {
        Ok(status) => status.capeff,
        Err(error) => {
            let detail = format!("cannot read /proc/self/status: {error}");
            let without = "which capabilities there are is not known";
            findings.push(Finding { area, name: "capabilities".to_owned(), works: false, detail, without });
            return findings;
        }
    };
    findings.extend(CAPABILITIES.map(|(number, name, without)| {
        let works = effective & (1 << number) != 0;
        let detail = if works { "" } else { "not in the effective set" }.to_owned();
        Finding { area, name: name.to_owned(), works, detail, without }
    }));
    findings
}

fn cgroups() -> Vec<Finding> {
    let area = "cgroups";
    let layout = match Layout::detect() {
        Ok(layout) => layout,
        Err(error) => {
            let without = "containers run without limits and accounting";
            let detail = error.to_string();
            return vec![Finding { area, name: "hierarchies".to_owned(), works: false, detail, without }];
        }
    };
    let version = layout.version();
    let mounted = !layout.v1.is_empty() || layout.v2.is_some();
    let mut findings = vec![Finding {
        area,
        name: "version".to_owned(),
        works: mounted,
        detail: version.to_string(),
        without: "containers run without limits and accounting",
    }];
    findings.extend(Controller::ALL.map(|one| controller(&layout, one)));
    findings
}

fn controller(layout: &Layout, controller: Controller) -> Finding {
    let (works, detail) = match layout.place(controller) {
        Some(place) => {
            let version = if place.hierarchy == Hierarchy::V1 { "v1" } else { "v2" };
            (true, format!("{version} at {}", place.path.display()))
        }
        None => (false, "in no mounted hierarchy".to_owned()),
    };
    let (area, name) = ("cgroups", controller.as_str().to_owned());
    Finding { area, name, works, detail, without: "cases about this controller; containers run without it" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_and_capability_is_reported_whatever_the_host() {
        let findings = findings();
        for controller in Controller::ALL {
            assert!(findings.iter().any(|finding| finding.area == "cgroups" && finding.name == controller.as_str()));
        }
        for (_, name, _) in CAPABILITIES {
            assert!(findings.iter().any(|finding| finding.name == name));
        }
        assert!(findings.iter().all(|finding| !finding.without.is_empty()));
        assert!(findings.iter().all(|finding| finding.works || !finding.detail.is_empty()));
    }
    /// The kernel lists neither `devices` (BPF programs) nor `freezer` (`cgroup.freeze`) among v2's controllers.
    #[test]
    fn every_controller_works_where_v2_has_all() {
        let names = ["cpuset", "cpu", "io", "memory", "pids"].map(str::to_owned).to_vec();
        let layout = Layout { v2: Some(("/sys/fs/cgroup".into(), names)), ..Layout::default() };
        for one in Controller::ALL {
            let finding = controller(&layout, one);
            assert_eq!((finding.works, finding.detail.as_str()), (true, "v2 at /sys/fs/cgroup"), "{one}");
        }
        assert!(!controller(&Layout::default(), Controller::Devices).works);
    }

    #[test]
    fn a_controller_is_where_it_is_mounted() {
        let v1 = [(Controller::Memory, "/cg/memory".into())].into();
        let layout = Layout { v1, v2: Some(("/cg/unified".into(), vec!["pids".to_owned()])) };
        let details =
            [Controller::Memory, Controller::Pids, Controller::Cpu].map(|one| controller(&layout, one).detail);
        assert_eq!(details, ["v1 at /cg/memory", "v2 at /cg/unified", "in no mounted hierarchy"]);
    }

    #[test]
    fn bfq_is_found_in_use_or_not() {
        let works = |lines: &[&str]| bfq(&lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>()).works;
        assert!(works(&["none\n", "[none] mq-deadline bfq\n"]) && works(&["none [bfq]\n"]));
        assert!(!works(&["[none] mq-deadline kyber\n"]) && !works(&[]));
    }

    #[test]
    fn what_the_machine_is_short_of_is_said_with_its_cases() {
        assert_eq!([0, 1, 2].map(|count| two_cpus(count).works), [false, false, true]);
        assert_eq!(two_cpus(1).detail, "1 may be used");
        assert!(two_cpus(1).without.contains("interference"));
        assert_eq!([0, LEAST_SWAP].map(|free| swap(free).works), [false, true]);
        assert!(swap(0).without.contains("setting = \"swap\""));
    }
}
