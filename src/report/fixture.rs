//! A made-up run for the tests of this module: the same numbers every time, shaped like a real one.
//!
//! The summary rows are made here too, by simple order statistics: the report is tested on given rows, not on how
//! `record` finds them.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::record::enforcement::EnforcementSample;
use crate::record::metric;
use crate::record::summary::SummaryRow;
use crate::record::{
    BlockRecord, CaseRecord, CheckRow, EnforcementRow, Fingerprint, Flags, HistogramRow, PhaseRow, RunMeta, RunRecord,
    SCHEMA_VERSION, Sample, Skip, Verdict,
};

/// Measured blocks.
pub(super) const BLOCKS: u32 = 12;
const WARMUP: u32 = 2;
/// Starts of a case in one block.
pub(super) const STARTS: u32 = 10;
const BLOCK_NS: u64 = 1_500_000_000;

/// Numbers that look random and are not: SplitMix64.
pub(super) struct Draw(u64);

impl Draw {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Around 1, skewed to the right with now and then a far value, as latencies are.
    fn latency(&mut self) -> f64 {
        let mild = 1.0 + 0.05 * (self.next() + self.next() + self.next() - 1.5);
        let rare = self.next();
        if rare > 0.985 { mild * (1.3 + self.next()) } else { mild + 0.04 * rare * rare }
    }

    /// Around 1, even to both sides.
    fn level(&mut self) -> f64 {
        1.0 + 0.03 * (self.next() + self.next() - 1.0)
    }
}

/// A case by its id; the baseline is given.
pub(super) fn case(id: &str, baseline: Option<&str>) -> CaseRecord {
    let parts: Vec<&str> = id.split('/').collect();
    CaseRecord {
        id: id.to_owned(),
        experiment: parts[0].to_owned(),
        runtime: parts[1].to_owned(),
        network: parts[2].to_owned(),
        parameters: BTreeMap::new(),
        baseline: baseline.map(str::to_owned),
    }
}

/// The start-up phases of a case with their usual time in µs.
fn phases_of(runtime: &str, network: &str) -> Vec<(&'static str, f64)> {
    if runtime == "floor" {
        return vec![("clone", 620.0), ("exec", 240.0), ("run", 180.0)];
    }
    let network_us = match network {
        "bridge" => 640.0,
        "none" => 60.0,
        "container" => 25.0,
        _ => 4.0,
    };
    let mut phases =
        vec![("cgroup", 190.0), ("clone", if network == "none" || network == "bridge" { 610.0 } else { 240.0 })];
    phases.push(("network", network_us));
    phases.extend([
        ("overlay", 210.0),
        ("proc", 70.0),
        ("sys", 45.0),
        ("dev", 160.0),
        ("mqueue", 22.0),
        ("pivot", 55.0),
        ("hostname", 6.0),
        ("confine", 80.0),
        ("exec", 260.0),
        ("run", 190.0),
    ]);
    phases
}

/// The main job's run: five start-up cases, twelve network cases, a few disturbances, a skip.
pub(super) fn run() -> RunRecord {
    let mut cases = vec![case("startup/floor/none/c1", None)];
    for network in ["host", "none", "bridge", "container"] {
        cases.push(case(&format!("startup/builtin/{network}/c1"), Some("startup/floor/none/c1")));
    }
    for network in ["host", "bridge"] {
        for path in ["egress", "ingress"] {
            for test in ["tcp_stream", "tcp_rr", "tcp_crr"] {
                let host = format!("network/builtin/host/{path}/{test}");
                let baseline = (network != "host").then_some(host.as_str());
                cases.push(case(&format!("network/builtin/{network}/{path}/{test}"), baseline));
            }
        }
    }
    run_of(cases, BLOCKS, STARTS)
}

/// A run of given cases.
pub(super) fn run_of(cases: Vec<CaseRecord>, blocks: u32, starts: u32) -> RunRecord {
    let mut run = RunRecord {
        meta: meta(),
        fingerprint: fingerprint(),
        cases,
        skips: vec![Skip {
            case: "network/builtin/macvlan/*".to_owned(),
            reason: "the kernel has no macvlan driver (CONFIG_MACVLAN is not set)".to_owned(),
        }],
        blocks: Vec::new(),
        samples: Vec::new(),
        phases: Vec::new(),
        histograms: Vec::new(),
        enforcement_samples: Vec::new(),
        enforcement: Vec::new(),
    };
    let mut draw = Draw(42);
    for block in 0..WARMUP + blocks {
        let warmup = block < WARMUP;
        let start_ns = 40_000_000 + u64::from(block) * BLOCK_NS;
        let mut order: Vec<String> = run.cases.iter().map(|case| case.id.clone()).collect();
        order.rotate_left(block as usize % run.cases.len().max(1));
        let flags = Flags { warmup, steal: block == 7, pressure: block == 7 || block == 9, ..Flags::default() };
        let cases = run.cases.clone();
        for (index, id) in order.iter().enumerate() {
            let Some(case) = cases.iter().find(|case| case.id == *id) else { continue };
            let at = start_ns + index as u64 * (BLOCK_NS / cases.len() as u64);
            measure(&mut run, case, Place { block, at, flags, starts }, &mut draw);
        }
        run.blocks.push(BlockRecord { block, warmup, order, start_ns, duration_ns: BLOCK_NS - 30_000_000 });
    }
    run.meta.duration_ns = u64::from(WARMUP + blocks) * BLOCK_NS;
    run
}

#[derive(Clone, Copy)]
struct Place {
    block: u32,
    at: u64,
    flags: Flags,
    starts: u32,
}

fn measure(run: &mut RunRecord, case: &CaseRecord, place: Place, draw: &mut Draw) {
    match case.experiment.as_str() {
        "startup" => startup(run, case, place, draw),
        _ => network(run, case, place, draw),
    }
}

fn push(run: &mut RunRecord, case: &CaseRecord, place: Place, iteration: u32, name: &str, value: f64) {
    let unit = metric::find(name).map_or("count", |metric| metric.unit).to_owned();
    let start_ns = place.at + u64::from(iteration) * 4_000_000;
    let Place { block, flags, .. } = place;
    run.samples.push(Sample {
        case: case.id.clone(),
        metric: name.to_owned(),
        unit,
        block,
        iteration,
        value,
        start_ns,
        flags,
    });
}

fn startup(run: &mut RunRecord, case: &CaseRecord, place: Place, draw: &mut Draw) {
    let cold = if place.flags.warmup { 1.35 } else { 1.0 };
    let disturbed = if place.flags.steal { 1.25 } else { 1.0 };
    let mut whole_block = 0.0;
    for iteration in 0..place.starts {
        let slow = draw.latency() * cold * disturbed;
        let mut at = place.at + u64::from(iteration) * 4_000_000;
        let (mut ready, mut exit) = (0.0, 0.0);
        for (phase, us) in phases_of(&case.runtime, &case.network) {
            let duration_ns = (us * 1000.0 * slow * draw.level()) as u64;
            run.phases.push(PhaseRow {
                case: case.id.clone(),
                block: place.block,
                iteration,
                phase: phase.to_owned(),
                start_ns: at,
                duration_ns,
            });
            at += duration_ns;
            exit += duration_ns as f64;
            if phase != "run" {
                ready += duration_ns as f64;
            }
        }
        push(run, case, place, iteration, "ready", ready);
        push(run, case, place, iteration, "exit", exit);
        push(run, case, place, iteration, "teardown", exit * 0.21 * draw.level());
        whole_block += exit * 1.21;
    }
    push(run, case, place, 0, "start_rate", f64::from(place.starts) / whole_block * 1e9);
}

fn network(run: &mut RunRecord, case: &CaseRecord, place: Place, draw: &mut Draw) {
    let bridged = case.network != "host";
    let inwards = case.id.contains("ingress");
    let factor = |cost: f64| if bridged { cost } else { 1.0 } * if inwards { 1.003 } else { 1.0 };
    let test = case.id.rsplit('/').next().unwrap_or("");
    match test {
        "tcp_stream" => {
            let cpu = 0.29 * factor(if inwards { 1.19 } else { 1.13 }) * draw.level();
            push(run, case, place, 0, "throughput", 43.6e9 * factor(if inwards { 0.88 } else { 0.94 }) * draw.level());
            push(run, case, place, 0, "cpu_per_byte", cpu);
            push(run, case, place, 0, "retransmits", if bridged && place.block.is_multiple_of(5) { 2.0 } else { 0.0 });
        }
        "tcp_rr" => {
            let mut histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
            for _ in 0..1500 {
                let value = 11_800.0 * factor(1.24) * draw.latency().powi(3);
                histogram.record(value as u64).expect("the histogram grows by itself");
            }
            push(run, case, place, 0, "rtt", histogram.value_at_quantile(0.5) as f64);
            run.histograms.push(HistogramRow {
                case: case.id.clone(),
                metric: "rtt".to_owned(),
                unit: "ns".to_owned(),
                block: place.block,
                iteration: 0,
                histogram,
                flags: place.flags,
            });
        }
        // Within the noise of the host's: the report has to say so.
        _ => {
            push(run, case, place, 0, "connects", 14_200.0 * factor(if inwards { 0.91 } else { 0.998 }) * draw.level())
        }
    }
}

/// Summary rows by plain order statistics; intervals from the sorted block medians.
pub(super) fn summary(run: &RunRecord) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    for case in &run.cases {
        for metric in metric::METRICS {
            rows.extend(row(run, case, metric));
        }
    }
    rows
}

fn medians_by_block(run: &RunRecord, case: &str, metric: &str) -> BTreeMap<u32, f64> {
    let mut blocks: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for sample in &run.samples {
        if sample.case == case && sample.metric == metric && !sample.flags.warmup {
            blocks.entry(sample.block).or_default().push(sample.value);
        }
    }
    blocks.into_iter().map(|(block, mut values)| (block, quantile(&mut values, 0.5))).collect()
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

fn row(run: &RunRecord, case: &CaseRecord, metric: &metric::Metric) -> Option<SummaryRow> {
    let mut blocks: Vec<f64> = medians_by_block(run, &case.id, metric.name).into_values().collect();
    if blocks.is_empty() {
        return None;
    }
    let measured = |sample: &&Sample| sample.case == case.id && sample.metric == metric.name && !sample.flags.warmup;
    let mut values: Vec<f64> = run.samples.iter().filter(measured).map(|sample| sample.value).collect();
    let disturbed = run.samples.iter().filter(measured).filter(|sample| sample.flags.disturbed()).count();
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
    let ci =
        |values: &mut Vec<f64>| (values.len() > 1).then(|| (quantile(values, 0.25), quantile(values, 0.75))).unzip();
    let (ci95_low, ci95_high) = ci(&mut blocks);
    let mut ratios: Vec<f64> = case
        .baseline
        .iter()
        .flat_map(|baseline| {
            let own = medians_by_block(run, &case.id, metric.name);
            let theirs = medians_by_block(run, baseline, metric.name);
            own.into_iter().filter_map(move |(block, value)| Some(value / theirs.get(&block)?)).collect::<Vec<_>>()
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    let ratio = (!ratios.is_empty()).then(|| quantile(&mut ratios, 0.5));
    let (ratio_ci95_low, ratio_ci95_high) = ci(&mut ratios);
    let share = disturbed * 100 / n;
    Some(SummaryRow {
        case: case.id.clone(),
        experiment: case.experiment.clone(),
        runtime: case.runtime.clone(),
        network: case.network.clone(),
        metric: metric.name.to_owned(),
        unit: metric.unit.to_owned(),
        better: metric.better.as_str().to_owned(),
        n: n as u64,
        min: quantile(&mut values, 0.0),
        p50: quantile(&mut values, 0.5),
        p90: quantile(&mut values, 0.9),
        p99: (n >= 100).then(|| quantile(&mut values, 0.99)),
        p999: None,
        max: quantile(&mut values, 1.0),
        mean,
        stddev: (n > 1).then(|| variance.sqrt()),
        ci95_low,
        ci95_high,
        ratio_to: case.baseline.clone(),
        ratio,
        ratio_ci95_low,
        ratio_ci95_high,
        flags: if share > 0 { format!("disturbed={share}%") } else { String::new() },
    })
}

/// Checks of every verdict.
pub(super) fn checks() -> Vec<CheckRow> {
    let row = |check: &str, case: &str, metric: &str, value: Option<f64>, bound: &str, verdict| CheckRow {
        check: check.to_owned(),
        case: case.to_owned(),
        metric: metric.to_owned(),
        value,
        bound: bound.to_owned(),
        verdict,
    };
    vec![
        row(
            "1 throughput min_ratio",
            "network/builtin/bridge/egress/tcp_stream",
            "throughput",
            Some(0.9402),
            ">= 0.5",
            Verdict::Pass,
        ),
        row(
            "1 throughput min_ratio",
            "network/builtin/bridge/ingress/tcp_stream",
            "throughput",
            Some(0.8811),
            ">= 0.5",
            Verdict::Pass,
        ),
        row("2 exit max", "startup/builtin/bridge/c1", "exit", Some(2_571_000.0), "<= 2000000", Verdict::Fail),
        row(
            "3 connects min_ratio",
            "network/builtin/bridge/egress/tcp_crr",
            "connects",
            Some(0.9975),
            ">= 0.995",
            Verdict::Inconclusive,
        ),
        row("4 throughput min_ratio", "network/builtin/macvlan/*", "throughput", None, ">= 0.5", Verdict::Skipped),
    ]
}

fn meta() -> RunMeta {
    RunMeta {
        schema_version: SCHEMA_VERSION,
        isobench_version: "0.1.0".to_owned(),
        name: "bridge-vs-host".to_owned(),
        question: "What does a bridged, NATed container pay against the host's own network?".to_owned(),
        scenario_toml: "[scenario]\nname = \"bridge-vs-host\"\nquestion = \"What does a <bridged> container pay?\"\n"
            .to_owned(),
        overrides: vec!["run.blocks=12".to_owned()],
        quick: false,
        seed: 1,
        started_utc: "2026-01-02T03:04:05Z".to_owned(),
        duration_ns: 0,
        interrupted: false,
    }
}

fn fingerprint() -> Fingerprint {
    let facts = [
        ("kernel", "6.18.0"),
        ("architecture", "x86_64"),
        ("cpu_model", "Example CPU @ 2.80GHz"),
        ("cpus", "2"),
        ("memory_bytes", "4115021824"),
        ("cgroup", "v1"),
    ];
    Fingerprint { facts: facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.to_owned())).collect() }
}

/// Enforcement of every verdict, in the shapes that experiments give it.
pub(super) fn enforcement() -> Vec<EnforcementRow> {
    let row = |case: &str, controller: &str, setting: &str, unit: &str, values: (f64, f64), width: f64, tolerance| {
        let (requested, achieved) = values;
        let error_pct = if requested == 0.0 { 100.0 * achieved } else { 100.0 * (achieved - requested) / requested };
        let (low, high) = (error_pct - width, error_pct + width);
        let verdict = match (low.abs().max(high.abs()) <= tolerance, low > tolerance || high < -tolerance) {
            (true, _) => Verdict::Pass,
            (_, true) => Verdict::Fail,
            _ => Verdict::Inconclusive,
        };
        EnforcementRow {
            case: case.to_owned(),
            controller: controller.to_owned(),
            setting: setting.to_owned(),
            requested,
            achieved,
            accounted: Some(achieved * 1.001),
            unit: unit.to_owned(),
            error_pct,
            error_ci95_low: low,
            error_ci95_high: high,
            accounting_error_pct: Some(0.1),
            tolerance_pct: tolerance,
            verdict,
            flags: Flags::default(),
        }
    };
    vec![
        row("cpu/builtin/quota/50", "cpu", "quota", "ratio", (0.5, 0.499), 0.3, 2.0),
        row("cpu/builtin/quota/10", "cpu", "quota", "ratio", (0.1, 0.1019), 0.4, 2.0),
        row("cpu/builtin/quota/150", "cpu", "quota", "ratio", (1.5, 0.75), 1.0, 2.0),
        row("cpu/builtin/shares/2-1", "cpu", "shares/a", "ratio", (0.667, 0.6655), 0.2, 2.0),
        row("cpu/builtin/shares/2-1", "cpu", "shares/b", "ratio", (0.333, 0.3345), 0.4, 2.0),
        row("memory/builtin/limit/64M", "memory", "limit", "bytes", (67_108_864.0, 66_795_520.0), 0.02, 1.0),
        row("devices/builtin/default", "devices", "accesses", "count", (33.0, 32.0), 0.0, 0.0),
        row("devices/builtin/default", "devices", "kmsg/read", "count", (0.0, 1.0), 0.0, 0.0),
        row("pids/builtin/24", "pids", "max", "count", (24.0, 24.0), 0.0, 0.0),
    ]
}

/// A run of these, with raw samples, throttling, and a kill.
pub(super) fn enforced() -> RunRecord {
    let rows = enforcement();
    let mut ids: Vec<&str> = rows.iter().map(|row| row.case.as_str()).collect();
    ids.dedup();
    let cases = ids.iter().map(|id| CaseRecord { network: String::new(), ..case(id, None) }).collect();
    let mut run = run_of(cases, 8, 1);
    (run.samples, run.phases, run.histograms) = (Vec::new(), Vec::new(), Vec::new());
    let mut draw = Draw(7);
    for block in &run.blocks {
        for row in &rows {
            run.enforcement_samples.push(EnforcementSample {
                case: row.case.clone(),
                controller: row.controller.clone(),
                setting: row.setting.clone(),
                unit: row.unit.clone(),
                block: block.block,
                iteration: 0,
                requested: row.requested,
                achieved: row.achieved * if row.controller == "cpu" { draw.level() } else { 1.0 },
                accounted: row.accounted,
                tolerance_pct: row.tolerance_pct,
                start_ns: block.start_ns,
                flags: Flags { warmup: block.warmup, ..Flags::default() },
            });
        }
        let mut start_ns = block.start_ns;
        for (phase, duration_ns) in [("touch", 31_000_000), ("crossing", 40_000), ("kill", 900_000), ("event", 60_000)]
        {
            run.phases.push(PhaseRow {
                case: "memory/builtin/limit/64M".to_owned(),
                block: block.block,
                iteration: 0,
                phase: phase.to_owned(),
                start_ns,
                duration_ns,
            });
            start_ns += duration_ns;
        }
    }
    run.enforcement = rows;
    run
}
