//! `kind = "cpu"`: shares, quota, placement and wake-up latency; the lists that belong to a `setting` multiply.
//!
//! | `setting` | a case is called | its keys |
//! |---|---|---|
//! | `shares` | `cpu/<runtime>/shares/<a:b:...>`, then `/nested` and `/conservation` | `shares`, `nested`, `conservation` |
//! | `quota` | `cpu/<runtime>/quota/<percent>/<period>`, then `/free`; `cpu/<runtime>/quota/max` | `percent`, `period`, `spin` |
//! | `cpuset` | `cpu/<runtime>/cpuset/<cpus>`, and `/t<threads>` where several are listed | `cpus`, `threads` |
//! | `wakeup` | `cpu/<runtime>/wakeup/<a:b:...>` | `shares` |
//!
//! `/d<duration>` is added where the file lists several values of it. A `wakeup` case of one container is alone on its
//! CPU; where the file lists such a one with the same first number, it is the baseline of the others.

use std::time::Duration;

use super::matrix::{Dimension, plain, product};
use super::raw::{Node, Value};
use super::read::{self, Table, Wrong};
use super::{Case, CaseKind, CpuCase, CpuControl, CpuSetting, CpuSpin, RuntimeKind};
use crate::units::Limit;

/// The keys that span the matrix and the rest, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "the runtime of the containers"),
    ("setting", "shares, quota, cpuset, wakeup", "required", "what is asked of the kernel"),
    (
        "shares",
        "\"1024:512\": 1 to 8 numbers, 2 to 262144",
        "\"1024:512\"",
        "shares, wakeup: a container each, on one CPU",
    ),
    ("nested", "true, false", "false", "shares: the first group holds a group of these shares itself"),
    ("conservation", "true, false", "false", "shares: the last container rests, then runs alone"),
    (
        "percent",
        "1 to 25600, or \"max\"",
        "50",
        "quota: CPU time in percent of one CPU; \"max\": a quota is taken back",
    ),
    ("period", "\"1ms\" to \"1s\"", "\"100ms\"", "quota: what the quota counts for"),
    ("spin", "checked, free", "\"checked\"", "quota: whether the threads make the kernel look at the clock"),
    ("cpus", "\"0\" or \"0-2,5\"", "\"0\"", "cpuset: the CPUs that may be used"),
    ("threads", "1 to 64", "4", "cpuset: threads that try to get off them"),
    ("duration", "\"50ms\" to \"1h\"", "\"2s\"", "the measured time of one sample"),
];

/// The smallest quota that the kernel takes.
const LEAST_QUOTA: Duration = Duration::from_millis(1);
/// What a quota counts for unless the file says otherwise.
const DEFAULT_PERIOD: Duration = Duration::from_millis(100);
/// What one container takes to be started, at most; for estimates.
const START: Duration = Duration::from_millis(30);
/// Around each window: settling, a tail, the time that starts are given, the end.
const AROUND: Duration = Duration::from_millis(200);

/// What a case measures.
pub(super) fn metrics(case: &CpuCase) -> &'static [&'static str] {
    match case.setting {
        CpuSetting::Shares { .. } => &["harness_cpu", "longest_stall", "turn"],
        CpuSetting::Quota { .. } => &["harness_cpu", "longest_stall", "throttled_periods", "cpu_pressure"],
        CpuSetting::Cpuset { .. } => &["harness_cpu", "placement_looks"],
        CpuSetting::Wakeup { .. } => &["harness_cpu", "wakeup_latency"],
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let second = Duration::from_secs(1);
    let runtimes =
        table.list("runtime", &[RuntimeKind::Builtin], |node| match read::name("runtime", RuntimeKind::ALL)(node)? {
            RuntimeKind::Floor => Err(Wrong::new("the floor has no control groups, so no limits", "use \"builtin\"")),
            runtime => Ok(runtime),
        });
    let settings = table.required_list("setting", CpuControl::ALL, read::name("setting", CpuControl::ALL));
    let durations = table.list("duration", &[second * 2], read::duration(second / 20, second * 3600));
    let lists = Lists {
        shares: table.list("shares", &[vec![1024, 512]], read_shares),
        nested: table.list("nested", &[false], read::boolean),
        conservation: table.list("conservation", &[false], read::boolean),
        percents: table.list("percent", &[Limit::Value(50)], read_percent),
        periods: table.list("period", &[DEFAULT_PERIOD], read::duration(LEAST_QUOTA, second)),
        spins: table.list("spin", &[CpuSpin::Checked], read::name("way to spin", CpuSpin::ALL)),
        cpus: table.list("cpus", &["0".to_owned()], read_cpus),
        threads: table.list("threads", &[4], read::whole(1, 64)),
    };
    reject_strangers(&mut table, &settings);
    lists.reject(&mut table, &settings);

    let mut cases = Vec::new();
    for [r, s, d] in product([runtimes.len(), settings.len(), durations.len()]) {
        let suffix = durations.suffix(d, |duration| format!("d{}", plain(*duration)));
        for (name, setting) in lists.expand(*settings.at(s)) {
            let runtime = *runtimes.at(r);
            let id = format!("cpu/{runtime}/{}/{name}{suffix}", settings.at(s));
            let case = CpuCase { runtime, setting, duration: *durations.at(d) };
            cases.push(Case { id, baseline: None, kind: CaseKind::Cpu(case) });
        }
    }
    refer_to_the_lonely(&mut cases);
    table.finish();
    cases
}

/// The keys of every setting.
struct Lists {
    shares: Dimension<Vec<u64>>,
    nested: Dimension<bool>,
    conservation: Dimension<bool>,
    percents: Dimension<Limit>,
    periods: Dimension<Duration>,
    spins: Dimension<CpuSpin>,
    cpus: Dimension<String>,
    threads: Dimension<u32>,
}

impl Lists {
    /// Every case of a setting, with the part of its id after the setting.
    fn expand(&self, control: CpuControl) -> Vec<(String, CpuSetting)> {
        match control {
            CpuControl::Shares => product([self.shares.len(), self.nested.len(), self.conservation.len()])
                .map(|[s, n, c]| {
                    let (nested, conservation) = (*self.nested.at(n), *self.conservation.at(c));
                    let form = [(nested, "/nested"), (conservation, "/conservation")];
                    let form: String = form.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
                    let shares = self.shares.at(s).clone();
                    (format!("{}{form}", joined(&shares)), CpuSetting::Shares { shares, nested, conservation })
                })
                .collect(),
            CpuControl::Quota => product([self.percents.len(), self.periods.len(), self.spins.len()])
                .filter_map(|[p, w, s]| {
                    let (percent, period, spin) = (*self.percents.at(p), *self.periods.at(w), *self.spins.at(s));
                    if percent == Limit::Max {
                        // Without a quota neither of the others means anything: one case, whatever they list.
                        let (period, spin) = (DEFAULT_PERIOD, CpuSpin::Checked);
                        return ((w, s) == (0, 0))
                            .then(|| (percent.to_string(), CpuSetting::Quota { percent, period, spin }));
                    }
                    let free = if spin == CpuSpin::Free { "/free" } else { "" };
                    let name = format!("{percent}/{}{free}", plain(period));
                    Some((name, CpuSetting::Quota { percent, period, spin }))
                })
                .collect(),
            CpuControl::Cpuset => product([self.cpus.len(), self.threads.len()])
                .map(|[c, t]| {
                    let (cpus, threads) = (self.cpus.at(c).clone(), *self.threads.at(t));
                    let name = format!("{cpus}{}", self.threads.suffix(t, |threads| format!("t{threads}")));
                    (name, CpuSetting::Cpuset { cpus, threads })
                })
                .collect(),
            CpuControl::Wakeup => {
                let each = self.shares.iter().map(|(shares, _)| (joined(shares), shares.clone()));
                each.map(|(name, shares)| (name, CpuSetting::Wakeup { shares })).collect()
            }
        }
    }

    /// Combinations that no kernel takes, or that say nothing.
    fn reject(&self, table: &mut Table<'_, '_>, settings: &Dimension<CpuControl>) {
        if settings.contains(&CpuControl::Quota) {
            let small = product([self.percents.len(), self.periods.len()])
                .find(|&[p, w]| quota(*self.percents.at(p), *self.periods.at(w)) < LEAST_QUOTA);
            if let Some([p, w]) = small {
                let (percent, period) = (*self.percents.at(p), *self.periods.at(w));
                let message = format!("{percent} % of {period:?} is less than 1ms, the smallest quota there is");
                let help = "give this percentage an [[experiment]] of its own, with a longer period";
                table.problem(self.percents.span_at(p), message, help);
            }
        }
        if settings.contains(&CpuControl::Shares) {
            let alone = self.shares.iter().find(|(shares, _)| shares.len() < 2);
            if let Some((_, span)) = alone {
                let help = "name two numbers or more; a single one is for setting = \"wakeup\"";
                table.problem(span.clone(), "a share is a part of what several use", help);
            }
            let both = self.nested.contains(&true) && self.conservation.contains(&true);
            if both && let Some((_, span)) = self.conservation.iter().find(|(on, _)| **on) {
                let help = "give each an [[experiment]] of its own";
                table.problem(span.clone(), "`nested` and `conservation` cannot be measured together", help);
            }
        }
    }
}

/// The CPU time of a period; without a limit, all of it.
fn quota(percent: Limit, period: Duration) -> Duration {
    match percent {
        Limit::Value(percent) => period * percent as u32 / 100,
        Limit::Max => period,
    }
}

/// A key that no listed setting reads would be without effect.
fn reject_strangers(table: &mut Table<'_, '_>, settings: &Dimension<CpuControl>) {
    use CpuControl::{Cpuset, Quota, Shares, Wakeup};
    let owners: [(&'static str, &[CpuControl]); 8] = [
        ("shares", &[Shares, Wakeup]),
        ("nested", &[Shares]),
        ("conservation", &[Shares]),
        ("percent", &[Quota]),
        ("period", &[Quota]),
        ("spin", &[Quota]),
        ("cpus", &[Cpuset]),
        ("threads", &[Cpuset]),
    ];
    for (key, owners) in owners {
        let idle = !owners.iter().any(|owner| settings.contains(owner));
        if idle && let Some(entry) = table.entry(key) {
            let names: Vec<&str> = owners.iter().map(|owner| owner.as_str()).collect();
            let message = format!("`{key}` has no effect here");
            table.problem(entry.key_span.clone(), message, format!("it belongs to setting {}", names.join(" and ")));
        }
    }
}

/// Gives each contended wake-up case the uncontended one as its baseline.
fn refer_to_the_lonely(cases: &mut [Case]) {
    let lonely: Vec<(String, CpuCase)> = (cases.iter())
        .filter_map(|case| match &case.kind {
            CaseKind::Cpu(cpu @ CpuCase { setting: CpuSetting::Wakeup { shares }, .. }) if shares.len() == 1 => {
                Some((case.id.clone(), cpu.clone()))
            }
            _ => None,
        })
        .collect();
    for case in cases {
        let CaseKind::Cpu(CpuCase { runtime, setting: CpuSetting::Wakeup { shares }, duration }) = &case.kind else {
            continue;
        };
        let first = CpuSetting::Wakeup { shares: shares[..1].to_vec() };
        let alone = CpuCase { runtime: *runtime, setting: first, duration: *duration };
        let found = lonely.iter().find(|(id, known)| *known == alone && *id != case.id);
        case.baseline = found.map(|(id, _)| id.clone());
    }
}

/// The dimensions of a case beside the runtime, as text.
pub(super) fn parameters(case: &CpuCase) -> Vec<(&'static str, String)> {
    let own = match &case.setting {
        CpuSetting::Shares { shares, nested, conservation } => vec![
            ("setting", CpuControl::Shares.to_string()),
            ("shares", joined(shares)),
            ("nested", nested.to_string()),
            ("conservation", conservation.to_string()),
        ],
        CpuSetting::Quota { percent, period, spin } => vec![
            ("setting", CpuControl::Quota.to_string()),
            ("percent", percent.to_string()),
            ("period", plain(*period)),
            ("spin", spin.to_string()),
        ],
        CpuSetting::Cpuset { cpus, threads } => {
            vec![("setting", CpuControl::Cpuset.to_string()), ("cpus", cpus.clone()), ("threads", threads.to_string())]
        }
        CpuSetting::Wakeup { shares } => {
            vec![("setting", CpuControl::Wakeup.to_string()), ("shares", joined(shares))]
        }
    };
    own.into_iter().chain([("duration", plain(case.duration))]).collect()
}

/// Roughly how long one sample takes.
pub(super) fn estimate(case: &CpuCase) -> Duration {
    let (windows, containers) = match &case.setting {
        CpuSetting::Shares { shares, nested, conservation } => {
            (if *conservation { 3 } else { 1 }, if *nested { 2 * shares.len() } else { shares.len() })
        }
        CpuSetting::Wakeup { shares } => (1, shares.len()),
        CpuSetting::Quota { .. } | CpuSetting::Cpuset { .. } => (1, 1),
    };
    let start = match &case.setting {
        // The quota holds the start back too.
        CpuSetting::Quota { percent: Limit::Value(percent), .. } => {
            START + Duration::from_millis(500) / (*percent).min(100) as u32
        }
        _ => START,
    };
    (case.duration + AROUND) * windows + start * containers as u32
}

/// The shortest window of a quick run that still keeps the tolerance.
///
/// A container gets the CPU in turns of a tick or so (4 ms at 250 Hz); the line through their beginnings needs a dozen,
/// and the work that the lightest does in a quarter of a second of its own is even enough: in half of that, what a
/// hypervisor takes from a few of its turns is 2 %. Where the lightest is so light that it has few turns in any window
/// that one would wait for, the stated tolerance is wider, and the window holds one turn of 1024 : 2. A quota is
/// measured from refill to refill, and needs a few periods; threads that spin freely skip several when they pay for a
/// tick, and need many. Several threads may each carry a slice of 5 ms from one refill to another, which is 1 % of what
/// the window holds at most.
pub(super) fn shortest(case: &CpuCase) -> Duration {
    let least = match &case.setting {
        CpuSetting::Shares { shares, nested, .. } => {
            let sum: u64 = shares.iter().sum();
            let lightest = shares.iter().min().copied().unwrap_or_default().max(1);
            let outer = if *nested { shares.first().copied().unwrap_or_default() as f64 / sum as f64 } else { 1.0 };
            let turns = Duration::from_millis(250).mul_f64(sum as f64 / lightest as f64 / outer);
            if lightest * 20 >= sum { turns } else { Duration::from_millis(2200) }
        }
        CpuSetting::Quota { period, spin: CpuSpin::Free, .. } => (*period * 20).max(Duration::from_millis(300)),
        CpuSetting::Quota { percent: Limit::Value(percent), period, .. } if *percent >= 100 => {
            let threads = *percent as u32 / 100 + 1;
            (*period * 5).max(Duration::from_millis(5) * threads * 100 * 100 / *percent as u32)
        }
        CpuSetting::Quota { period, .. } => (*period * 5).max(Duration::from_millis(300)),
        CpuSetting::Cpuset { .. } | CpuSetting::Wakeup { .. } => Duration::from_millis(300),
    };
    least.min(case.duration)
}

/// Reads `"1024:512"`.
fn read_shares(node: &Node) -> Result<Vec<u64>, Wrong> {
    let help = "write 1 to 8 numbers from 2 to 262144, as in \"1024:512\"";
    let text = match &node.value {
        Value::Integer(number) => number.to_string(),
        _ => read::text(node)?,
    };
    let shares: Option<Vec<u64>> = text.split(':').map(|number| number.trim().parse().ok()).collect();
    shares
        .filter(|shares| shares.len() <= 8 && shares.iter().all(|each| (2..=262_144).contains(each)))
        .ok_or_else(|| Wrong::new(format!("`{text}` are no shares"), help))
}

/// Reads `50` or `"max"`.
fn read_percent(node: &Node) -> Result<Limit, Wrong> {
    match &node.value {
        Value::Integer(_) => read::whole(1, 25_600)(node).map(|percent| Limit::Value(percent.into())),
        Value::String(text) if text == "max" => Ok(Limit::Max),
        _ => Err(Wrong::type_of(node, "a percentage or \"max\"", "50")),
    }
}

/// Reads `"0-2,5"`: a list as the kernel writes it.
fn read_cpus(node: &Node) -> Result<String, Wrong> {
    let text = match &node.value {
        Value::Integer(number) => number.to_string(),
        _ => read::text(node)?,
    };
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        low.parse::<u16>().ok().zip(high.parse::<u16>().ok()).is_some_and(|(low, high)| low <= high)
    };
    if text.split(',').all(range) {
        return Ok(text);
    }
    Err(Wrong::new(format!("`{text}` is no list of CPUs"), "write numbers and ranges, as in \"0-2,5\""))
}

fn joined(shares: &[u64]) -> String {
    shares.iter().map(u64::to_string).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests;
