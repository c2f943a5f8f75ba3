//! What can be read about this host without trying it: privileges, cgroups, kernel interfaces.

use std::path::Path;

use nix::unistd::geteuid;
use procfs::process::Process;

use super::Finding;
use crate::cgroup::{Controller, Layout};

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
        Finding { area: "kernel interfaces", name: name.to_owned(), works, detail, without }
    }));
    findings
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
    let controllers = Controller::ALL.map(|controller| {
        let v2 = layout.v2.as_ref().filter(|(_, names)| names.iter().any(|name| name == v2_name(controller)));
        let (works, detail) = match (layout.v1.get(&controller), v2) {
            (Some(path), _) => (true, format!("v1 at {}", path.display())),
            (None, Some((path, _))) => (true, format!("v2 at {}", path.display())),
            (None, None) => (false, "in no mounted hierarchy".to_owned()),
        };
        let name = controller.as_str().to_owned();
        Finding { area, name, works, detail, without: "cases about this controller; containers run without it" }
    });
    let version = layout.version();
    let mounted = !layout.v1.is_empty() || layout.v2.is_some();
    let mut findings = vec![Finding {
        area,
        name: "version".to_owned(),
        works: mounted,
        detail: version.to_string(),
        without: "containers run without limits and accounting",
    }];
    findings.extend(controllers);
    findings
}

/// The controller's name on cgroup v2, where it has one.
fn v2_name(controller: Controller) -> &'static str {
    match controller {
        Controller::Blkio => "io",
        Controller::Cpuacct => "cpu",
        other => other.as_str(),
    }
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
}
