//! A small run with something of everything, for the tests of this layer and of those above.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::enforcement::{EnforcementSample, Judged, judge};
use super::{
    BlockRecord, CaseRecord, Fingerprint, Flags, HistogramRow, PhaseRow, RunMeta, RunRecord, SCHEMA_VERSION, Sample,
    Skip,
};

/// A run of this many measured blocks, after one warm-up block, without any rows yet.
pub(crate) fn empty_run(blocks: u32) -> RunRecord {
    let meta = RunMeta {
        schema_version: SCHEMA_VERSION,
        isobench_version: "0.1.0".to_owned(),
        name: "bridge-vs-host".to_owned(),
        question: "What does a \"bridged\" container pay?".to_owned(),
        scenario_toml: "[scenario]\nname = \"bridge-vs-host\"\n".to_owned(),
        overrides: vec!["run.blocks=3".to_owned()],
        quick: true,
        seed: u64::MAX,
        started_utc: "2025-01-02T03:04:05Z".to_owned(),
        duration_ns: 12_345_678_901,
        interrupted: false,
    };
    let block = |block| BlockRecord { block, warmup: block == 0, order: Vec::new(), start_ns: 0, duration_ns: 1 };
    RunRecord {
        meta,
        fingerprint: Fingerprint::default(),
        cases: Vec::new(),
        skips: Vec::new(),
        blocks: (0..=blocks).map(block).collect(),
        samples: Vec::new(),
        phases: Vec::new(),
        histograms: Vec::new(),
        enforcement_samples: Vec::new(),
        enforcement: Vec::new(),
    }
}

/// A case of the network experiment.
pub(crate) fn case(id: &str, baseline: Option<&str>) -> CaseRecord {
    CaseRecord {
        id: id.to_owned(),
        experiment: "network".to_owned(),
        runtime: "builtin".to_owned(),
        network: "bridge".to_owned(),
        parameters: BTreeMap::from([("test".to_owned(), "tcp_stream".to_owned())]),
        baseline: baseline.map(str::to_owned),
    }
}

/// A sample; block 0 is the warm-up.
pub(crate) fn sample(case: &str, metric: &str, block: u32, iteration: u32, value: f64) -> Sample {
    Sample {
        case: case.to_owned(),
        metric: metric.to_owned(),
        unit: super::metric::find(metric).map_or("ns", |metric| metric.unit).to_owned(),
        block,
        iteration,
        value,
        start_ns: u64::from(block) * 1_000_000 + u64::from(iteration),
        flags: Flags { warmup: block == 0, ..Flags::default() },
    }
}

/// The histogram of these values.
pub(crate) fn histogram(case: &str, block: u32, values: impl IntoIterator<Item = u64>) -> HistogramRow {
    let mut histogram = Histogram::new(3).unwrap();
    values.into_iter().for_each(|value| histogram.record(value).unwrap());
    let flags = Flags { warmup: block == 0, ..Flags::default() };
    let (case, metric, unit) = (case.to_owned(), "rtt".to_owned(), "ns".to_owned());
    HistogramRow { case, metric, unit, block, iteration: 0, histogram, flags }
}

/// Every kind of row, and texts that a careless writer would break.
pub(crate) fn full_run() -> RunRecord {
    let mut run = empty_run(2);
    run.fingerprint.facts.insert("kernel".to_owned(), "6.1, \"custom\"".to_owned());
    run.cases = vec![case("network/host", None), case("network/bridge", Some("network/host"))];
    run.skips.push(Skip { case: "network/ipvlan/*".to_owned(), reason: "the kernel has no ipvlan, here".to_owned() });
    for block in 0..3 {
        for (id, value) in [("network/host", 0.1 + 0.2), ("network/bridge", 1e-300)] {
            run.samples.push(sample(id, "throughput", block, 0, value + f64::from(block)));
            run.histograms.push(histogram(id, block, [1_000, 2_000, 1 << 40]));
            let (case, phase) = (id.to_owned(), "mount, overlay".to_owned());
            run.phases.push(PhaseRow { case, block, iteration: 0, phase, start_ns: u64::MAX, duration_ns: 0 });
        }
    }
    run.samples[3].flags = Flags { steal: true, outlier: true, ..Flags::default() };
    let seen = EnforcementSample {
        case: "network/host".to_owned(),
        controller: "memory".to_owned(),
        setting: "limit".to_owned(),
        unit: "bytes".to_owned(),
        block: 1,
        iteration: 0,
        requested: 100.0,
        achieved: 99.5,
        accounted: None,
        tolerance_pct: 1.0,
        start_ns: 5,
        judged: Judged::Achieved,
        flags: Flags::default(),
    };
    let other = EnforcementSample { setting: "swap".to_owned(), achieved: 90.0, accounted: Some(99.0), ..seen.clone() };
    run.enforcement_samples = vec![seen, other];
    run.enforcement = judge(&run.enforcement_samples, run.meta.seed);
    run
}
