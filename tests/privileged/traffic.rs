//! The `network` experiment in real labs with real containers: which metrics come out, and that nothing stays behind.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use isobench::experiment::network::NetworkExperiment;
use isobench::experiment::{Experiment, ExperimentError, Observations, Stop};
use isobench::runtime::by_kind;
use isobench::scenario::{CaseKind, NetworkCase, NetworkMode, NetworkTest, RuntimeKind, TrafficPath};

use crate::harness::Case;

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("traffic::every_mode_and_path_carries", every_mode_and_path_carries),
        Case::new("traffic::every_test_yields_its_metrics", every_test_yields_its_metrics),
        Case::new("traffic::what_cannot_be_measured_is_a_named_skip", what_cannot_be_measured_is_a_named_skip),
        Case::new("traffic::a_stop_leaves_no_program_behind", a_stop_leaves_no_program_behind),
    ]
}

fn case(network: NetworkMode, path: TrafficPath, test: NetworkTest) -> NetworkCase {
    NetworkCase {
        runtime: RuntimeKind::Builtin,
        network,
        path,
        test,
        duration: Duration::from_millis(100),
        warmup: Duration::from_millis(20),
        message_size: if test == NetworkTest::TcpStream { 128 << 10 } else { 64 },
        streams: 1,
        pin: false,
    }
}

fn experiment(case: &NetworkCase) -> Result<NetworkExperiment, Box<dyn Error>> {
    Ok(NetworkExperiment::new(case.clone(), by_kind(case.runtime)?))
}

/// Measures once and gives back the names of the metrics, every one of which must be a sensible number.
fn metrics(case: &NetworkCase) -> Result<BTreeSet<&'static str>, Box<dyn Error>> {
    let mut experiment = experiment(case)?;
    let stop = AtomicBool::new(false);
    let mut seen = Observations::default();
    experiment.prepare()?;
    experiment.measure(&mut seen, Stop(&stop))?;
    experiment.finish()?;
    for value in &seen.values {
        if !value.value.is_finite() || value.value < 0.0 {
            return Err(format!("{} is {}", value.metric.name, value.value).into());
        }
    }
    if seen.histograms.iter().any(|row| row.histogram.is_empty()) {
        return Err("an empty histogram".into());
    }
    Ok(seen.values.iter().map(|value| value.metric.name).collect())
}

fn every_mode_and_path_carries() -> Outcome {
    for network in [NetworkMode::Host, NetworkMode::Bridge, NetworkMode::Container] {
        for &path in TrafficPath::ALL {
            for test in [NetworkTest::TcpRr, NetworkTest::UdpRr] {
                let names = metrics(&case(network, path, test)).map_err(|error| explain(network, path, &*error))?;
                if !names.contains("rtt") {
                    return Err(format!("{network} {path} {test}: {names:?}").into());
                }
            }
        }
    }
    Ok(())
}

fn explain(network: NetworkMode, path: TrafficPath, error: &dyn Error) -> String {
    let mut text = format!("{network} {path}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// What a test yields is what the scenario promises of it, by which checks are validated.
fn every_test_yields_its_metrics() -> Outcome {
    for test in NetworkTest::ALL.iter().copied() {
        let case = NetworkCase { streams: 2, ..case(NetworkMode::Bridge, TrafficPath::Ingress, test) };
        let seen = metrics(&case)?;
        if seen != CaseKind::Network(case).metrics().iter().copied().collect() {
            return Err(format!("{test}: {seen:?}").into());
        }
    }
    Ok(())
}

fn what_cannot_be_measured_is_a_named_skip() -> Outcome {
    let floor = NetworkCase {
        runtime: RuntimeKind::Floor,
        ..case(NetworkMode::Bridge, TrafficPath::Egress, NetworkTest::TcpRr)
    };
    let none = case(NetworkMode::None, TrafficPath::Internal, NetworkTest::TcpRr);
    let small = NetworkCase { message_size: 7, ..case(NetworkMode::Host, TrafficPath::Egress, NetworkTest::UdpStream) };
    for (case, reason) in [(floor, "no network mode `bridge`"), (none, "no link"), (small, "8 to 65507 bytes, not 7")] {
        let mut experiment = experiment(&case)?;
        let stop = AtomicBool::new(false);
        let outcome = experiment.prepare().and_then(|()| experiment.measure(&mut Observations::default(), Stop(&stop)));
        match outcome {
            Err(ExperimentError::Unsupported(why)) if why.contains(reason) => {}
            other => return Err(format!("{reason}: {other:?}").into()),
        }
        experiment.finish()?;
    }
    Ok(())
}

fn a_stop_leaves_no_program_behind() -> Outcome {
    // A message size that no other test has tells this test's programs apart.
    const SIZE: u32 = 54_321;
    for network in [NetworkMode::Host, NetworkMode::Container] {
        let case = NetworkCase {
            message_size: SIZE,
            duration: Duration::from_secs(60),
            ..case(network, TrafficPath::Ingress, NetworkTest::UdpRr)
        };
        let mut experiment = experiment(&case)?;
        experiment.prepare()?;
        let stop = Arc::new(AtomicBool::new(false));
        let user = Arc::clone(&stop);
        let presser = std::thread::spawn(move || {
            let patience = Instant::now() + Duration::from_secs(20);
            while programs(SIZE).is_empty() && Instant::now() < patience {
                std::thread::yield_now();
            }
            let seen = programs(SIZE).len();
            user.store(true, Ordering::Relaxed);
            seen
        });
        let outcome = experiment.measure(&mut Observations::default(), Stop(&stop));
        let seen = presser.join().map_err(|_| "the presser panicked")?;
        let left = programs(SIZE);
        experiment.finish()?;
        if !matches!(outcome, Err(ExperimentError::Interrupted)) || seen == 0 || !left.is_empty() {
            return Err(format!("{network}: {outcome:?}, {seen} programs before, {left:?} after").into());
        }
    }
    Ok(())
}

/// The processes whose command line holds this message size.
fn programs(size: u32) -> Vec<u32> {
    let word = format!("\0{size}\0");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&word))
        })
        .collect()
}
