//! Capabilities by name, and the sets that a container starts with.

use std::sync::OnceLock;

/// The names of the capabilities, in the order of their numbers (`linux/capability.h`).
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit N is capability N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

/// The fourteen that docker gives by default.
pub const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

impl CapabilitySet {
    /// The set of these names; names without `CAP_`, in capitals. Unknown ones are left out.
    #[must_use]
    pub fn of(names: &[&str]) -> Self {
        let bits = names.iter().filter_map(|name| NAMES.iter().position(|known| known == name));
        Self(bits.fold(0, |set, bit| set | 1 << bit))
    }

    /// Docker's default set.
    #[must_use]
    pub fn docker_default() -> Self {
        Self::of(&DEFAULT)
    }

    /// Whether it has the capability of this name.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.0 & Self::of(&[name]).0 != 0
    }
}

/// What this process may do itself, and so may give: bit N is capability N.
#[must_use]
pub fn own() -> u64 {
    static OWN: OnceLock<u64> = OnceLock::new();
    *OWN.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
        permitted.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
    })
}

/// The highest capability that this kernel knows.
#[must_use]
pub fn last() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        let known = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
        known.and_then(|text| text.trim().parse().ok()).unwrap_or(NAMES.len() as u32 - 1)
    })
}

/// What this process may do now: the effective set in `/proc/self/status`, or nothing if that cannot be read.
#[must_use]
pub fn effective() -> CapabilitySet {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    CapabilitySet(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        // From linux/capability.h: CAP_SYS_ADMIN 21, CAP_SYS_RESOURCE 24, CAP_MKNOD 27, CAP_BPF 39.
        assert_eq!(CapabilitySet::of(&["SYS_ADMIN"]).0, 1 << 21);
        assert_eq!(CapabilitySet::of(&["SYS_RESOURCE", "MKNOD", "BPF"]).0, 1 << 24 | 1 << 27 | 1 << 39);
        // The mask that `docker run` shows as CapEff.
        assert_eq!(CapabilitySet::docker_default().0, 0xa804_25fb);
    }
}
