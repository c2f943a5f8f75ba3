//! `isobench container stats`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::super::template::Format;
use super::super::{CliError, Ended, columns, output, signals};
use super::shown;
use crate::cgroup::memory::working_set;
use crate::cgroup::{Controller, Layout, View};
use crate::container::store::{Store, Stored};

/// The arguments of `isobench container stats`.
#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Names or identifiers of containers; none: all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
    /// Show also those that do not run
    #[arg(short, long)]
    all: bool,
    /// `json`, a template as in '{{.Name}}: {{.CPUPerc}}', or 'table TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the figures once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten identifiers
    #[arg(long)]
    no_trunc: bool,
}

const TABLE: &str =
    "table {{.ID}}\\t{{.Name}}\\t{{.CPUPerc}}\\t{{.MemUsage}}\\t{{.MemPerc}}\\t{{.NetIO}}\\t{{.BlockIO}}\\t{{.PIDs}}";

/// How long CPU time is counted for, and how often the figures are shown.
const EVERY: Duration = Duration::from_secs(1);

/// What a container had used at a time.
struct Sample {
    at: Instant,
    usage: crate::cgroup::limits::Usage,
    memory: u64,
    /// Bytes received and sent by its interfaces.
    network: Option<(u64, u64)>,
}

pub(super) fn run(store: &Store, args: &StatsArgs) -> Result<Ended, CliError> {
    let layout = Layout::detect()?;
    let format = Format::parse(args.format.as_deref().unwrap_or(TABLE))?;
    let stop = signals::stop_flag().map_err(CliError::Signals)?;
    let total = memory_of_host();
    let mut before = samples(&chosen(store, args)?, &layout);
    loop {
        let until = Instant::now() + EVERY;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(SLICE.min(until.saturating_duration_since(Instant::now())));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(Ended::Pass);
        }
        let chosen = chosen(store, args)?;
        let now = samples(&chosen, &layout);
        let rows: Vec<Value> = (chosen.iter())
            .map(|stored| {
                let id = &stored.config.id;
                row(stored, before.get(id), now.get(id), total, args.no_trunc)
            })
            .collect();
        show(&format.render(&rows, &titles())?, args.no_stream)?;
        if args.no_stream {
            return Ok(Ended::Pass);
        }
        before = now;
    }
}

/// How long a wait may last before the user's wish to stop is looked at again.
const SLICE: Duration = Duration::from_millis(50);

/// A terminal is cleared first.
fn show(text: &str, once: bool) -> Result<(), CliError> {
    if !once && std::io::stdout().is_terminal() {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(b"\x1b[2J\x1b[H").map_err(CliError::Output)?;
    }
    output::print(text)
}

/// The containers that were named, or all that run.
fn chosen(store: &Store, args: &StatsArgs) -> Result<Vec<Stored>, CliError> {
    if !args.containers.is_empty() {
        return args.containers.iter().map(|name| Ok(store.find(name)?)).collect();
    }
    let mut found: Vec<Stored> = Vec::new();
    for (stored, state) in store.all()?.into_iter().flatten() {
        if args.all || shown::settled(state).status.is_up() {
            found.push(stored);
        }
    }
    found.sort_by(|a, b| b.config.created.cmp(&a.config.created));
    Ok(found)
}

/// What each has used, by its identifier; one that does not run is left out.
fn samples(containers: &[Stored], layout: &Layout) -> BTreeMap<String, Sample> {
    let sample = |stored: &Stored| -> Option<Sample> {
        let view = View::existing(&stored.config.id, layout)?;
        let at = Instant::now();
        let usage = view.usage().ok()?;
        let memory = view.place(Controller::Memory).and_then(|place| working_set(place).ok()).unwrap_or(0);
        let pid = stored.state().ok()?.init.filter(|init| init.is_alive())?.pid;
        Some(Sample { at, usage, memory, network: network(pid) })
    };
    containers.iter().filter_map(|stored| Some((stored.config.id.clone(), sample(stored)?))).collect()
}

/// Bytes that the interfaces of a process's network received and sent, without loopback.
fn network(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(sum_of_interfaces(&text))
}

fn sum_of_interfaces(text: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for (name, figures) in text.lines().filter_map(|line| line.split_once(':')) {
        if name.trim() == "lo" {
            continue;
        }
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        if let [received, _, _, _, _, _, _, _, sent, ..] = figures[..] {
            sums = (sums.0 + received, sums.1 + sent);
        }
    }
    sums
}

/// The memory of the machine, in bytes.
fn memory_of_host() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    total.map_or(0, |kib: u64| kib * 1024)
}

fn titles() -> Value {
    json!({
        "ID": "CONTAINER ID", "Container": "CONTAINER", "Name": "NAME", "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
    })
}

fn row(stored: &Stored, before: Option<&Sample>, now: Option<&Sample>, total: u64, whole: bool) -> Value {
    let config = &stored.config;
    let id = if whole { config.id.as_str() } else { config.short_id() };
    let limit = config.limits.memory.filter(|limit| *limit > 0).unwrap_or(total).min(total);
    let limit = if now.is_some() { limit } else { 0 };
    let memory = now.map_or(0, |now| now.memory);
    let share = if limit > 0 { memory as f64 * 100.0 / limit as f64 } else { 0.0 };
    let block = now.and_then(|now| now.usage.blkio).unwrap_or_default();
    let pair = |(a, b): (u64, u64)| format!("{} / {}", columns::size(a), columns::size(b));
    json!({
        "ID": id,
        "Container": id,
        "Name": config.name,
        "CPUPerc": format!("{:.2}%", before.zip(now).map_or(0.0, |(before, now)| busy(before, now))),
        "MemUsage": format!("{} / {}", binary(memory), binary(limit)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": pair(now.and_then(|now| now.network).unwrap_or((0, 0))),
        "BlockIO": pair((block.read_bytes, block.write_bytes)),
        "PIDs": now.and_then(|now| now.usage.pids).unwrap_or(0).to_string(),
    })
}

/// CPU time over the time between, in percent of one CPU.
fn busy(before: &Sample, now: &Sample) -> f64 {
    let used = now.usage.cpu_ns.unwrap_or(0).saturating_sub(before.usage.cpu_ns.unwrap_or(0));
    let between = now.at.saturating_duration_since(before.at).as_nanos();
    if between == 0 { 0.0 } else { used as f64 * 100.0 / between as f64 }
}

/// Bytes in four significant digits and binary units, as in `4.262MiB`.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        ..9.9995 => 3,
        ..99.995 => 2,
        ..999.95 => 1,
        _ => 0,
    };
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory_as_docker_writes_them() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.5KiB"), (4_468_736, "4.262MiB"), (16_533_000_000, "15.4GiB")]
        {
            assert_eq!(binary(bytes), text);
        }
    }

    #[test]
    fn traffic_is_summed_without_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 50 1 0\n  eth1:1 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(sum_of_interfaces(text), (101, 52));
    }
}
