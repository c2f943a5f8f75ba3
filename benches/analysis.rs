//! The code that turns samples into figures: bootstrap intervals and histograms. Needs no root.
//!
//! `cargo bench --bench analysis`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hdrhistogram::Histogram;

use isobench::stats::blocks::{Blocks, PairedRatios};
use isobench::stats::bootstrap::Bootstrap;
use isobench::stats::histogram;

/// 30 blocks of ten samples with a spread like that of a start-up time.
fn samples(shift: f64) -> Vec<(u32, f64)> {
    let noise = |index: u32| f64::from(index.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
    (0..300).map(|index| (index / 10, 2e6 + shift + 4e5 * noise(index))).collect()
}

fn bootstrap(c: &mut Criterion) {
    let (case, baseline) = (Blocks::of_samples(samples(5e5)), Blocks::of_samples(samples(0.0)));
    let bootstrap = Bootstrap::new(1);
    c.bench_function("bootstrap/median of 30 blocks", |b| b.iter(|| black_box(&case).median_interval(&bootstrap)));
    c.bench_function("bootstrap/ratio of 30 blocks", |b| {
        b.iter(|| PairedRatios::new(&black_box(&case).medians(), &baseline.medians()).median_interval(&bootstrap));
    });
}

fn histograms(c: &mut Criterion) {
    let mut one = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds");
    for index in 0..100_000u64 {
        one.record(10_000 + (index.wrapping_mul(2_654_435_761) >> 12) % 200_000).expect("in bounds");
    }
    c.bench_function("histogram/record", |b| {
        let mut into = one.clone();
        let mut value = 1;
        b.iter(|| {
            value = (value * 48_271) % 2_147_483_647;
            into.record(value).expect("in bounds");
        });
    });
    c.bench_function("histogram/to text and back", |b| {
        b.iter(|| {
            histogram::to_text(black_box(&one)).and_then(|text| histogram::from_text(&text)).expect("a round trip")
        });
    });
    c.bench_function("histogram/merge 30", |b| b.iter(|| histogram::merge(std::iter::repeat_n(black_box(&one), 30))));
}

criterion_group!(benches, bootstrap, histograms);
criterion_main!(benches);
