//! Limits of a container's control groups: what `run`, `create` and `update` share, and what is only for a new one.

use clap::Args;

use super::values::{OptionsError, bytes, chain, number, wrong};
use crate::cgroup::cpuset;
use crate::container::config::{Device, Limits};
use crate::container::limits::{DEFAULT_PERIOD_US, is_access, parse_rule, rlimit};

/// Docker's least memory, in bytes: with less, nothing starts.
const LEAST_MEMORY: u64 = 6 << 20;

/// Limits that can be changed while a container runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(in crate::cli) struct LimitOptions {
    /// The most memory, as in 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// The most memory and swap together, -1 for no limit [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// The memory to which it is pushed back when the host is short
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// The relative weight of CPU time, 2 to 262144 [usual: 1024]
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<String>,
    /// How many CPUs' time, as in 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// The period of the CPU quota, in µs [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// CPU time a period, in µs; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// The CPUs that it may use, as in 0-2,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// The relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<String>,
    /// The most tasks, -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,
}

impl LimitOptions {
    /// Changes the limits that were given, and leaves the others as they are. Nothing is changed on an error.
    ///
    /// # Errors
    /// What is wrong with a value, or with what they come to together.
    pub(in crate::cli) fn apply(&self, limits: &mut Limits) -> Result<(), OptionsError> {
        let mut changed = limits.clone();
        self.memory_limits(&mut changed)?;
        self.cpu_limits(&mut changed)?;
        if let Some(text) = &self.blkio_weight {
            let weight = number("--blkio-weight", text, 0..=1000)?;
            if (1..10).contains(&weight) {
                return Err(wrong("--blkio-weight", text, "write a whole number from 10 to 1000, or 0 for none"));
            }
            changed.blkio_weight = Some(weight).filter(|weight| *weight > 0);
        }
        if let Some(text) = &self.pids_limit {
            let most = number("--pids-limit", text, -1..=i64::from(u32::MAX))?;
            changed.pids = Some(if most == 0 { -1 } else { most });
        }
        *limits = changed;
        Ok(())
    }

    fn memory_limits(&self, limits: &mut Limits) -> Result<(), OptionsError> {
        const SWAP: &str = "--memory-swap";
        const RESERVATION: &str = "--memory-reservation";
        let given = |flag, text: &Option<String>| text.as_ref().map(|text| bytes(flag, text)).transpose();
        if let Some(memory) = given("--memory", &self.memory)? {
            if (1..LEAST_MEMORY).contains(&memory) {
                let text = self.memory.clone().unwrap_or_default();
                return Err(wrong("--memory", text, "a container needs at least 6m"));
            }
            limits.memory = Some(memory).filter(|memory| *memory > 0);
        }
        if let Some(text) = &self.memory_swap {
            limits.memory_swap = match text.as_str() {
                "-1" => Some(-1),
                // Units::parse_bytes keeps below 2^63.
                text => Some(bytes(SWAP, text)?.cast_signed()).filter(|swap| *swap > 0),
            };
        }
        if let Some(reservation) = given(RESERVATION, &self.memory_reservation)? {
            limits.memory_reservation = Some(reservation).filter(|reservation| *reservation > 0);
        }
        match (limits.memory, limits.memory_swap) {
            (None, Some(swap)) if swap > 0 => {
                return Err(OptionsError::Conflict(format!(
                    "{SWAP} limits memory and swap together: give --memory too"
                )));
            }
            (Some(memory), Some(swap)) if swap > 0 && swap.cast_unsigned() < memory => {
                let expected = format!("it is memory and swap together, so at least --memory, which is {memory}");
                return Err(wrong(SWAP, swap.to_string(), expected));
            }
            _ => {}
        }
        match (limits.memory, limits.memory_reservation) {
            (Some(memory), Some(reservation)) if reservation > memory => {
                Err(wrong(RESERVATION, reservation.to_string(), format!("it is more than --memory, which is {memory}")))
            }
            _ => Ok(()),
        }
    }

    fn cpu_limits(&self, limits: &mut Limits) -> Result<(), OptionsError> {
        if let Some(text) = &self.cpu_shares {
            let shares = number("--cpu-shares", text, 0..=262_144_u64)?;
            if shares == 1 {
                return Err(wrong("--cpu-shares", text, "write a whole number from 2 to 262144, or 0 for none"));
            }
            limits.cpu_shares = Some(shares).filter(|shares| *shares > 0);
        }
        if self.cpus.is_some() && (self.cpu_period.is_some() || self.cpu_quota.is_some()) {
            let told = "--cpus is a quota and a period: it cannot be used with --cpu-quota or --cpu-period";
            return Err(OptionsError::Conflict(told.to_owned()));
        }
        if let Some(text) = &self.cpus {
            limits.cpu_quota_us = quota_of(text)?;
            limits.cpu_period_us = limits.cpu_quota_us.map(|_| DEFAULT_PERIOD_US);
        }
        if let Some(text) = &self.cpu_period {
            limits.cpu_period_us = Some(number("--cpu-period", text, 1000..=1_000_000)?);
        }
        if let Some(text) = &self.cpu_quota {
            let quota = number("--cpu-quota", text, -1..=i64::MAX)?;
            if (1..1000).contains(&quota) {
                return Err(wrong("--cpu-quota", text, "the least quota is 1000 µs; -1 is none"));
            }
            limits.cpu_quota_us = u64::try_from(quota).ok().filter(|quota| *quota > 0);
        }
        if let Some(text) = &self.cpuset_cpus {
            limits.cpuset_cpus = set("--cpuset-cpus", text, "/sys/devices/system/cpu/online")?;
        }
        if let Some(text) = &self.cpuset_mems {
            limits.cpuset_mems = set("--cpuset-mems", text, "/sys/devices/system/node/online")?;
        }
        Ok(())
    }
}

/// CPU time in µs in the default period, of a decimal number of CPUs.
fn quota_of(text: &str) -> Result<Option<u64>, OptionsError> {
    let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let expected = || wrong("--cpus", text, format!("write a number from 0.01 to {most}, as many as there are here"));
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let cpus: f64 = text.parse().ok().filter(|_| decimal).ok_or_else(expected)?;
    if cpus == 0.0 {
        return Ok(None);
    }
    // Half a µs is within what the kernel rounds.
    let quota = (cpus * DEFAULT_PERIOD_US as f64).round() as u64;
    if quota < 1000 || cpus > most as f64 { Err(expected()) } else { Ok(Some(quota)) }
}

/// A list of numbers that are all online; an empty one is none.
fn set(flag: &'static str, text: &str, online: &str) -> Result<Option<String>, OptionsError> {
    if text.is_empty() {
        return Ok(None);
    }
    let list = cpuset::members(text).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| wrong(flag, text, "write numbers and ranges, as in 0-2,5"))?;
    let there = std::fs::read_to_string(online).ok();
    // Without sysfs the kernel is the judge.
    if let Some(there) = there.as_deref().map(str::trim)
        && let Some(known) = cpuset::members(there)
        && let Some(missing) = list.iter().find(|number| !known.contains(number))
    {
        return Err(wrong(flag, text, format!("{missing} is not online here; there are {there}")));
    }
    Ok(Some(text.to_owned()))
}

/// Limits that a container is made with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct FixedLimitOptions {
    /// Do not end its processes when it is out of memory (cgroup v1)
    #[arg(long)]
    oom_kill_disable: bool,
    /// The most bytes a second read from a device, as in /dev/sda:10m
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// The most bytes a second written to a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// The most read operations a second on a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<String>,
    /// The most write operations a second on a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<String>,
    /// A device of the host, as in /dev/fuse or /dev/sdc:/dev/xvdc:r
    #[arg(long = "device", value_name = "HOST[:CONTAINER[:rwm]]")]
    devices: Vec<String>,
    /// A further device rule, as in 'c 42:* rmw'
    #[arg(long = "device-cgroup-rule", value_name = "RULE")]
    device_rules: Vec<String>,
    /// A limit of each process, as in nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
}

impl FixedLimitOptions {
    pub(super) fn apply(&self, limits: &mut Limits) -> Result<(), OptionsError> {
        limits.oom_kill_disable = self.oom_kill_disable;
        limits.device_read_bps = rates("--device-read-bps", &self.device_read_bps, bytes)?;
        limits.device_write_bps = rates("--device-write-bps", &self.device_write_bps, bytes)?;
        let operations = |flag, text: &str| number(flag, text, 0..=u64::from(u32::MAX));
        limits.device_read_iops = rates("--device-read-iops", &self.device_read_iops, operations)?;
        limits.device_write_iops = rates("--device-write-iops", &self.device_write_iops, operations)?;
        // What would fail at the start is told now.
        crate::container::limits::compile(limits).map_err(|error| {
            OptionsError::Conflict(format!("a limit of a device's rate cannot be had: {}", chain(&error)))
        })?;
        Ok(())
    }

    pub(super) fn devices(&self) -> Result<Vec<Device>, OptionsError> {
        self.devices.iter().map(|text| device(text)).collect()
    }

    pub(super) fn device_rules(&self) -> Result<Vec<String>, OptionsError> {
        for rule in &self.device_rules {
            parse_rule(rule).map_err(|error| wrong("--device-cgroup-rule", rule, error.to_string()))?;
        }
        Ok(self.device_rules.clone())
    }

    pub(super) fn ulimits(&self) -> Result<Vec<(String, u64, u64)>, OptionsError> {
        let mut ulimits: Vec<(String, u64, u64)> = Vec::new();
        for text in &self.ulimits {
            let one = ulimit(text)?;
            // The last one of a name holds.
            ulimits.retain(|other| other.0 != one.0);
            ulimits.push(one);
        }
        Ok(ulimits)
    }
}

fn rates(
    flag: &'static str,
    texts: &[String],
    parse: impl Fn(&'static str, &str) -> Result<u64, OptionsError>,
) -> Result<Vec<(String, u64)>, OptionsError> {
    let rate = |text: &String| match text.rsplit_once(':') {
        Some((path, rate)) if path.starts_with("/dev/") => Ok((path.to_owned(), parse(flag, rate)?)),
        _ => Err(wrong(flag, text, "write a path under /dev and a rate, as in /dev/sda:1000")),
    };
    texts.iter().map(rate).collect()
}

fn device(text: &str) -> Result<Device, OptionsError> {
    const FLAG: &str = "--device";
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, container] => (host, container, "rwm"),
        [host, container, access] => (host, container, access),
        _ => return Err(wrong(FLAG, text, "write HOST, HOST:CONTAINER or HOST:CONTAINER:rwm")),
    };
    if !is_access(access) {
        return Err(wrong(FLAG, text, format!("`{access}` is not letters of rwm, each once")));
    }
    let device = Device { host: host.to_owned(), container: container.to_owned(), access: access.to_owned() };
    crate::container::limits::device_nodes(std::slice::from_ref(&device))
        .map_err(|error| wrong(FLAG, text, chain(&error)))?;
    Ok(device)
}

fn ulimit(text: &str) -> Result<(String, u64, u64), OptionsError> {
    const FLAG: &str = "--ulimit";
    let expected = || wrong(FLAG, text, "write NAME=SOFT or NAME=SOFT:HARD with numbers, -1 for no limit");
    let (name, values) = text.split_once('=').ok_or_else(expected)?;
    rlimit(name).map_err(|error| wrong(FLAG, text, error.to_string()))?;
    let value = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        text if text.starts_with('+') => Err(expected()),
        text => text.parse().map_err(|_| expected()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    if soft > hard {
        return Err(wrong(FLAG, text, "the soft limit is above the hard one"));
    }
    Ok((name.to_owned(), soft, hard))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitOptions,
        #[command(flatten)]
        fixed: FixedLimitOptions,
    }

    fn parse(line: &str) -> Line {
        Line::parse_from(std::iter::once("x").chain(line.split_whitespace()))
    }

    fn applied(limits: Limits, line: &str) -> Result<Limits, String> {
        let mut limits = limits;
        parse(line).limits.apply(&mut limits).map(|()| limits).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_of_a_line() {
        let made = applied(
            Limits::default(),
            "-m 64m --memory-swap -1 --memory-reservation 32m -c 512 --cpus 0.5 --cpuset-cpus 0 --blkio-weight 100 --pids-limit 0",
        );
        let expected = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(-1),
            memory_reservation: Some(32 << 20),
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            cpuset_cpus: Some("0".to_owned()),
            blkio_weight: Some(100),
            pids: Some(-1),
            ..Limits::default()
        };
        assert_eq!(made.unwrap(), expected);
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let before = applied(Limits::default(), "-m 64m --memory-swap 128m --cpus 0.5").unwrap();
        let after = applied(before.clone(), "--cpu-quota -1 -c 2").unwrap();
        assert_eq!(after, Limits { cpu_quota_us: None, cpu_shares: Some(2), ..before.clone() });
        let told = applied(before, "-m 256m").unwrap_err();
        assert!(told.starts_with("--memory-swap cannot be `134217728`"), "{told}");
    }

    #[test]
    fn wrong_limits_say_what_would_be_right() {
        let lines = [
            "-m 5q",
            "-m 1m",
            "--memory-swap 1g",
            "-m 64m --memory-swap 32m",
            "-m 64m --memory-reservation 65m",
            "-c 1",
            "--cpu-period 10",
            "--cpu-quota 10",
            "--cpus 1 --cpu-quota 1000",
            "--cpuset-cpus x",
            "--blkio-weight 5",
            "--pids-limit -2",
        ];
        let told: Vec<String> = lines.iter().map(|line| applied(Limits::default(), line).unwrap_err() + "\n").collect();
        expect_test::expect![[r#"
            --memory cannot be `5q`: write bytes, or a number with b, k, m or g, as in 512m (powers of 1024)
            --memory cannot be `1m`: a container needs at least 6m
            --memory-swap limits memory and swap together: give --memory too
            --memory-swap cannot be `33554432`: it is memory and swap together, so at least --memory, which is 67108864
            --memory-reservation cannot be `68157440`: it is more than --memory, which is 67108864
            --cpu-shares cannot be `1`: write a whole number from 2 to 262144, or 0 for none
            --cpu-period cannot be `10`: write a whole number from 1000 to 1000000
            --cpu-quota cannot be `10`: the least quota is 1000 µs; -1 is none
            --cpus is a quota and a period: it cannot be used with --cpu-quota or --cpu-period
            --cpuset-cpus cannot be `x`: write numbers and ranges, as in 0-2,5
            --blkio-weight cannot be `5`: write a whole number from 10 to 1000, or 0 for none
            --pids-limit cannot be `-2`: write a whole number from -1 to 4294967295
        "#]]
        .assert_eq(&told.concat());
        assert!(applied(Limits::default(), "--cpuset-cpus 4000").unwrap_err().contains("is not online here"));
        for cpus in ["0.001", "1e1", "-1", "100000", "x"] {
            assert!(quota_of(cpus).is_err(), "{cpus}");
        }
    }

    #[test]
    fn devices() {
        let made =
            parse("--device /dev/null --device /dev/zero:r --device /dev/full:/dev/f --device /dev/tty:/dev/t:rw");
        let made: Vec<String> = (made.fixed.devices().unwrap().iter())
            .map(|device| format!("{} {} {}", device.host, device.container, device.access))
            .collect();
        assert_eq!(
            made,
            ["/dev/null /dev/null rwm", "/dev/zero /dev/zero r", "/dev/full /dev/f rwm", "/dev/tty /dev/t rw"]
        );
        for (bad, why) in [
            ("/dev", "/dev is no device"),
            ("/dev/none", "cannot use the device /dev/none: No such file or directory (os error 2)"),
            ("/dev/null:/x", "the device /x does not lie under /dev in the container"),
            ("/dev/null:/dev/x:rr", "`rr` is not letters of rwm, each once"),
        ] {
            assert_eq!(device(bad).unwrap_err().to_string(), format!("--device cannot be `{bad}`: {why}"));
        }
        let line = Line::parse_from(["x", "--device-cgroup-rule", "c 1:3"]);
        assert!(line.fixed.device_rules().is_err());
    }

    #[test]
    fn rates_and_process_limits() {
        let mut limits = Limits::default();
        assert!(parse("--device-read-bps /dev/null:1m").fixed.apply(&mut limits).is_err());
        assert_eq!(rates("--x", &["/dev/a:1m".to_owned()], bytes).unwrap(), [("/dev/a".to_owned(), 1 << 20)]);
        assert!(rates("--x", &["a:1m".to_owned()], bytes).is_err());
        let made = parse("--ulimit nofile=1:2 --ulimit core=-1 --ulimit nofile=3").fixed.ulimits().unwrap();
        assert_eq!(made, [("core".to_owned(), u64::MAX, u64::MAX), ("nofile".to_owned(), 3, 3)]);
        for bad in ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "nofile=+1"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
