//! From the limits and devices of a [`Config`](super::config::Config) to what the control groups, the process and
//! `/dev` get: device paths become numbers, names of process limits become the kernel's.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::time::Duration;

use super::config::{Device, Limits};
use super::spec::{DeviceNode, Rlimit};
use crate::cgroup;
use crate::cgroup::blkio::{Throttle, ThrottleKind};
use crate::cgroup::cpu::Quota;
use crate::cgroup::devices::{Kind, Rule};
use crate::units::Limit;

/// The period of a CPU quota where none is given, in µs.
pub const DEFAULT_PERIOD_US: u64 = 100_000;

/// Why a limit cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// A device's path cannot be looked at.
    #[error("cannot use the device {path}")]
    Device {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A path is a file or a directory.
    #[error("{path} is no {wanted}")]
    NotADevice {
        /// The path.
        path: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A node would lie elsewhere than in `/dev`.
    #[error("the device {0} does not lie under /dev in the container")]
    Outside(String),
    /// A device rule is none.
    #[error(
        "`{0}` is no device rule; write a type (a, b or c), major:minor (numbers or *) and letters of rwm, as in `c 10:200 rwm`"
    )]
    Rule(String),
    /// A process limit is not known.
    #[error("`{0}` is no limit of a process; the names are {names}", names = rlimit_names())]
    Rlimit(String),
}

/// What the control groups of a container get. Device rules are apart: [`device_rules`].
///
/// As docker has it: where memory is limited and memory with swap is not, the latter is twice the former, if the kernel
/// counts swap.
///
/// # Errors
/// When a throttle's path is no block device.
pub fn compile(limits: &Limits) -> Result<cgroup::Limits, LimitsError> {
    compile_for(limits, counts_swap)
}

/// What the groups of a running container get when its limits change: what was limited and no longer is has no limit, or
/// the kernel's usual weight. A set of CPUs or memory nodes stays as it was.
///
/// # Errors
/// As [`compile`].
pub fn compile_change(before: &Limits, after: &Limits) -> Result<cgroup::Limits, LimitsError> {
    const USUAL_SHARES: u64 = 1024;
    const USUAL_BLKIO_WEIGHT: u64 = 100;
    let (old, new) = (compile(before)?, compile(after)?);
    let lifted = |new: Option<Limit>, old: Option<Limit>| new.or(old.map(|_| Limit::Max));
    Ok(cgroup::Limits {
        memory: lifted(new.memory, old.memory),
        memory_and_swap: lifted(new.memory_and_swap, old.memory_and_swap),
        memory_soft: lifted(new.memory_soft, old.memory_soft),
        pids: lifted(new.pids, old.pids),
        cpu_quota: new.cpu_quota.or(old.cpu_quota.map(|_| Quota::UNLIMITED)),
        cpu_shares: new.cpu_shares.or(old.cpu_shares.map(|_| USUAL_SHARES)),
        blkio_weight: new.blkio_weight.or(old.blkio_weight.map(|_| USUAL_BLKIO_WEIGHT)),
        ..new
    })
}

/// Whether groups have a limit of memory and swap together. On v1 that is up to how the kernel was started.
fn counts_swap() -> bool {
    let place = cgroup::Layout::detect().ok().and_then(|layout| layout.place(cgroup::Controller::Memory));
    place.is_none_or(|place| {
        place.hierarchy != cgroup::Hierarchy::V1 || place.path.join(cgroup::memory::MEMSW_LIMIT).exists()
    })
}

fn compile_for(limits: &Limits, counts_swap: impl FnOnce() -> bool) -> Result<cgroup::Limits, LimitsError> {
    let with_swap = |bytes: i64| u64::try_from(bytes).map_or(Limit::Max, Limit::Value);
    let memory_and_swap = match (limits.memory_swap, limits.memory) {
        (Some(both), _) => Some(with_swap(both)),
        (None, Some(memory)) => counts_swap().then(|| Limit::Value(memory.saturating_mul(2))),
        (None, None) => None,
    };
    let period = Duration::from_micros(limits.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US));
    let quota = limits.cpu_quota_us.map(|quota| Quota { quota: Duration::from_micros(quota), period });
    Ok(cgroup::Limits {
        memory: limits.memory.map(Limit::Value),
        memory_and_swap,
        memory_soft: limits.memory_reservation.map(Limit::Value),
        memory_oom_wait: limits.oom_kill_disable,
        cpu_shares: limits.cpu_shares,
        cpu_quota: quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        blkio_throttles: throttles(limits)?,
        blkio_weight: limits.blkio_weight,
        pids: limits.pids.map(with_swap),
        ..cgroup::Limits::default()
    })
}

fn throttles(limits: &Limits) -> Result<Vec<Throttle>, LimitsError> {
    let mut throttles = Vec::new();
    for (kind, rates) in [
        (ThrottleKind::ReadBps, &limits.device_read_bps),
        (ThrottleKind::WriteBps, &limits.device_write_bps),
        (ThrottleKind::ReadIops, &limits.device_read_iops),
        (ThrottleKind::WriteIops, &limits.device_write_iops),
    ] {
        for (path, rate) in rates {
            let Numbers { kind: Kind::Block, major, minor } = numbers(path)? else {
                return Err(LimitsError::NotADevice { path: path.clone(), wanted: "block device" });
            };
            throttles.push(Throttle { kind, major: major.into(), minor: minor.into(), rate: *rate });
        }
    }
    Ok(throttles)
}

/// A device by its numbers.
struct Numbers {
    kind: Kind,
    major: u32,
    minor: u32,
}

fn numbers(path: &str) -> Result<Numbers, LimitsError> {
    let metadata = std::fs::metadata(path).map_err(|source| LimitsError::Device { path: path.to_owned(), source })?;
    let file_type = metadata.file_type();
    let kind = match (file_type.is_block_device(), file_type.is_char_device()) {
        (true, _) => Kind::Block,
        (_, true) => Kind::Char,
        _ => return Err(LimitsError::NotADevice { path: path.to_owned(), wanted: "device" }),
    };
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    Ok(Numbers { kind, major, minor })
}

/// The rules that let a container use its devices, and its further rules.
///
/// # Errors
/// When a device is none, or a rule cannot be understood.
pub fn device_rules(devices: &[Device], further: &[String]) -> Result<Vec<Rule>, LimitsError> {
    let mut rules = Vec::new();
    for device in devices {
        let Numbers { kind, major, minor } = numbers(&device.host)?;
        rules.push(rule(kind, Some(major), Some(minor), &device.access));
    }
    for text in further {
        rules.extend(parse_rule(text)?);
    }
    Ok(rules)
}

/// Reads a rule such as `c 10:200 rwm`; type `a` is one rule for each kind of device.
///
/// # Errors
/// When it is none.
pub fn parse_rule(text: &str) -> Result<Vec<Rule>, LimitsError> {
    let parse = || {
        let mut words = text.split(' ');
        let (kinds, device, access) = (words.next()?, words.next()?, words.next()?);
        let kinds: &[Kind] = match kinds {
            "a" => &[Kind::Char, Kind::Block],
            "b" => &[Kind::Block],
            "c" => &[Kind::Char],
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        let (major, minor) = (device_number(major)?, device_number(minor)?);
        let whole = words.next().is_none() && is_access(access);
        whole.then(|| kinds.iter().map(|kind| rule(*kind, major, minor, access)).collect())
    };
    parse().ok_or_else(|| LimitsError::Rule(text.to_owned()))
}

/// `Some(None)` for every number.
fn device_number(text: &str) -> Option<Option<u32>> {
    if text == "*" {
        return Some(None);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().map(Some)
}

/// Whether a text is letters of `rwm`, each at most once.
#[must_use]
pub fn is_access(text: &str) -> bool {
    let once = |letter| text.matches(letter).count() <= 1;
    !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter) && once(letter))
}

fn rule(kind: Kind, major: Option<u32>, minor: Option<u32>, access: &str) -> Rule {
    let has = |letter| access.contains(letter);
    Rule { allow: true, kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') }
}

/// The nodes of a container's devices.
///
/// # Errors
/// When a device is none, or its node would lie elsewhere than in `/dev`.
pub fn device_nodes(devices: &[Device]) -> Result<Vec<DeviceNode>, LimitsError> {
    let node = |device: &Device| {
        let Numbers { kind, major, minor } = numbers(&device.host)?;
        let name = device.container.strip_prefix("/dev/").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| LimitsError::Outside(device.container.clone()))?.to_owned();
        Ok(DeviceNode { name, kind, major, minor })
    };
    devices.iter().map(node).collect()
}

/// The limits of setrlimit(2) by docker's names.
const RLIMITS: [(&str, u32); 16] = [
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

fn rlimit_names() -> String {
    RLIMITS.map(|(name, _)| name).join(", ")
}

/// The number of a limit of setrlimit(2), by its name in small letters without `RLIMIT_`.
///
/// # Errors
/// When there is none of this name.
pub fn rlimit(name: &str) -> Result<u32, LimitsError> {
    let known = RLIMITS.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number).ok_or_else(|| LimitsError::Rlimit(name.to_owned()))
}

/// The process limits of a container: name, soft, hard.
///
/// # Errors
/// When a name is not known.
pub fn rlimits(limits: &[(String, u64, u64)]) -> Result<Vec<Rlimit>, LimitsError> {
    let one =
        |(name, soft, hard): &(String, u64, u64)| Ok(Rlimit { resource: rlimit(name)?, soft: *soft, hard: *hard });
    limits.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_terms() {
        assert_eq!(compile(&Limits::default()).unwrap(), cgroup::Limits::default());
        let limits = Limits {
            memory: Some(64 << 20),
            memory_reservation: Some(32 << 20),
            cpu_quota_us: Some(50_000),
            pids: Some(-1),
            ..Limits::default()
        };
        let compiled = compile_for(&limits, || true).unwrap();
        assert_eq!(compiled.memory_and_swap, Some(Limit::Value(128 << 20)));
        assert_eq!(compiled.memory_soft, Some(Limit::Value(32 << 20)));
        assert_eq!(compiled.pids, Some(Limit::Max));
        let quota = Quota { quota: Duration::from_millis(50), period: Duration::from_millis(100) };
        assert_eq!(compiled.cpu_quota, Some(quota));
        assert_eq!(compile_for(&limits, || false).unwrap().memory_and_swap, None);
        let unlimited = Limits { memory_swap: Some(-1), ..limits };
        assert_eq!(compile(&unlimited).unwrap().memory_and_swap, Some(Limit::Max));
    }

    #[test]
    fn what_is_no_longer_limited_is_lifted() {
        let before = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            cpu_quota_us: Some(50_000),
            cpu_shares: Some(2),
            blkio_weight: Some(10),
            pids: Some(5),
            ..Limits::default()
        };
        let changed = compile_change(&before, &Limits { pids: Some(6), ..Limits::default() }).unwrap();
        let expected = cgroup::Limits {
            memory: Some(Limit::Max),
            memory_and_swap: Some(Limit::Max),
            cpu_quota: Some(Quota::UNLIMITED),
            cpu_shares: Some(1024),
            blkio_weight: Some(100),
            pids: Some(Limit::Value(6)),
            ..cgroup::Limits::default()
        };
        assert_eq!(changed, expected);
        assert_eq!(compile_change(&before, &before).unwrap(), compile(&before).unwrap());
        assert_eq!(compile_change(&Limits::default(), &before).unwrap(), compile(&before).unwrap());
    }

    #[test]
    fn throttles_are_for_block_devices() {
        let on = |path: &str| compile(&Limits { device_read_bps: vec![(path.to_owned(), 1)], ..Limits::default() });
        assert_eq!(on("/dev/null").unwrap_err().to_string(), "/dev/null is no block device");
        assert_eq!(on("/dev").unwrap_err().to_string(), "/dev is no device");
        assert!(matches!(on("/dev/none"), Err(LimitsError::Device { .. })));
    }

    #[test]
    fn devices_are_found_by_their_numbers() {
        let device = Device { host: "/dev/null".into(), container: "/dev/nil".into(), access: "rw".into() };
        let rules = device_rules(std::slice::from_ref(&device), &["b 8:* m".to_owned()]).unwrap();
        assert_eq!(rules.iter().map(Rule::to_string).collect::<Vec<_>>(), ["c 1:3 rw", "b 8:* m"]);
        let node = DeviceNode { name: "nil".into(), kind: Kind::Char, major: 1, minor: 3 };
        assert_eq!(device_nodes(std::slice::from_ref(&device)).unwrap(), [node]);
        let elsewhere = Device { container: "/null".into(), ..device };
        assert!(matches!(device_nodes(&[elsewhere]), Err(LimitsError::Outside(_))));
    }

    #[test]
    fn rules() {
        let both = parse_rule("a *:* rwm").unwrap();
        assert_eq!(both.iter().map(Rule::to_string).collect::<Vec<_>>(), ["c *:* rwm", "b *:* rwm"]);
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c +1:3 r", "c 1:3 rr", "c 1:3 x", "c 1:3 r ", "c 1:99999999999 r"]
        {
            assert!(matches!(parse_rule(bad), Err(LimitsError::Rule(_))), "{bad}");
        }
    }

    #[test]
    fn process_limits() {
        let made = rlimits(&[("nofile".to_owned(), 1, 2)]).unwrap();
        assert_eq!(made, [Rlimit { resource: libc::RLIMIT_NOFILE, soft: 1, hard: 2 }]);
        assert!(rlimit("NOFILE").unwrap_err().to_string().contains("memlock"));
    }
}
