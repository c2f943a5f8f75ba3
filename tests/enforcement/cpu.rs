//! The `cpu` experiment on the real kernel: right limits pass, and each way to get them wrong is found.
//!
//! One at a time: a test that burns all CPUs is not to share them with another.

use std::error::Error;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use isobench::cgroup::{Controller, Layout};
use isobench::experiment::cpu::CpuExperiment;
use isobench::experiment::{Experiment, Observations, Stop};
use isobench::record::enforcement::judge;
use isobench::record::{EnforcementRow, Flags, Verdict};
use isobench::scenario::{CpuCase, CpuSetting, CpuSpin, RuntimeKind};
use isobench::units::Limit;

use crate::faulty::{Fault, faultless, faulty};
use crate::harness::Case;

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let two_cpus = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1);
    let mounted = |controller| Layout::detect().is_ok_and(|layout| layout.place(controller).is_some());
    let all = [
        Case::new("cpu::shares_split_by_their_proportion", shares_split),
        Case::new("cpu::work_follows_the_weights", work_follows_the_weights),
        Case::new("cpu::nested_shares_are_relative_among_siblings", nested_shares),
        Case::new("cpu::unused_time_goes_to_the_others", conservation),
        Case::new("cpu::a_quota_is_kept_at_every_point", quota).needs(two_cpus, "needs two CPUs"),
        Case::new("cpu::a_quota_is_taken_back_while_running", quota_taken_back),
        Case::new("cpu::free_threads_pay_for_their_last_tick", free_threads),
        Case::new("cpu::no_instruction_off_the_set", placement).needs(two_cpus, "needs two CPUs"),
        Case::new("cpu::a_sleeper_is_woken_beside_a_burner", wakeup),
        Case::new("cpu::forgotten_limits_are_found", forgotten).needs(two_cpus, "needs two CPUs"),
        Case::new("cpu::half_of_a_limit_is_found", half),
        Case::new("cpu::a_controller_left_out_is_found", left_out),
        Case::new("cpu::nothing_stays_behind", nothing_stays),
    ];
    let with = |case: Case, controller| case.needs(mounted(controller), "needs the cpu and cpuset controllers");
    all.into_iter().map(|case| with(with(case, Controller::Cpu), Controller::Cpuset)).collect()
}

/// Measures a case in so many blocks, and judges it as a run would.
fn measure(
    setting: CpuSetting,
    duration_ms: u64,
    fault: Option<Fault>,
    blocks: u32,
) -> Result<Measured, Box<dyn Error>> {
    measure_until(setting, duration_ms, fault, blocks..=blocks)
}

/// The rows, and what was seen beside them in the last block.
type Measured = (Vec<EnforcementRow>, Observations);

/// Measures a case that is to hold: for three blocks, and for more of them while a row is not judged to pass, since
/// other programs may need the CPUs too. What is wrong stays wrong however many blocks there are.
fn measure_in_peace(setting: CpuSetting, duration_ms: u64) -> Result<Measured, Box<dyn Error>> {
    measure_until(setting, duration_ms, None, 3..=15)
}

fn measure_until(
    setting: CpuSetting,
    duration_ms: u64,
    fault: Option<Fault>,
    blocks: RangeInclusive<u32>,
) -> Result<Measured, Box<dyn Error>> {
    let case = CpuCase { runtime: RuntimeKind::Builtin, setting, duration: Duration::from_millis(duration_ms) };
    let stop = AtomicBool::new(false);
    let mut samples = Vec::new();
    for block in 0..*blocks.end() {
        let runtime = fault.map_or_else(faultless, faulty)?;
        let mut experiment = CpuExperiment::new(case.clone(), runtime);
        let mut seen = Observations::default();
        let measured = experiment.prepare().and_then(|()| experiment.measure(&mut seen, Stop(&stop)));
        experiment.finish()?;
        measured?;
        samples.extend(seen.take_enforcement("case", block, Flags::default(), 0));
        let rows = judge(&samples, 1);
        let settled = rows.iter().all(|row| row.verdict == Verdict::Pass) && harness_kept_away(&seen);
        if block + 1 == *blocks.end() || (block + 1 >= *blocks.start() && settled) {
            return Ok((rows, seen));
        }
    }
    Err("no block at all".into())
}

/// The harness used less than 2 % of a CPU, where a case says how much it used.
fn harness_kept_away(seen: &Observations) -> bool {
    seen.values.iter().filter(|value| value.metric.name == "harness_cpu").all(|value| value.value < 0.02)
}

fn shares(list: &[u64]) -> CpuSetting {
    CpuSetting::Shares { shares: list.to_vec(), nested: false, conservation: false }
}

fn quota_of(percent: u32, period_ms: u64, spin: CpuSpin) -> CpuSetting {
    CpuSetting::Quota { percent: Limit::Value(percent.into()), period: Duration::from_millis(period_ms), spin }
}

fn expect_all(rows: &[EnforcementRow], names: &[&str]) -> Outcome {
    // On v2 the names go on with the weights.
    let named = |row: &EnforcementRow| row.setting.split(' ').next().unwrap_or_default().to_owned();
    let seen: Vec<String> = rows.iter().map(named).collect();
    assert_eq!(seen, names, "{rows:#?}");
    match rows.iter().find(|row| row.verdict != Verdict::Pass) {
        Some(row) => Err(format!("{row:#?}").into()),
        None => Ok(()),
    }
}

fn fails(rows: &[EnforcementRow], setting: &str) -> Outcome {
    let row = rows.iter().find(|row| row.setting.split(' ').next() == Some(setting));
    let row = row.ok_or_else(|| format!("no {setting} among {rows:#?}"))?;
    if row.verdict == Verdict::Fail { Ok(()) } else { Err(format!("not found out: {row:#?}").into()) }
}

fn value(seen: &Observations, metric: &str) -> f64 {
    let found = seen.values.iter().find(|value| value.metric.name == metric);
    found.unwrap_or_else(|| panic!("no {metric} in {seen:#?}")).value
}

/// What the group's files say is what the threads saw, and the harness kept out of the way.
fn accounts_agree(rows: &[EnforcementRow], seen: &Observations) {
    for row in rows.iter().filter(|row| !row.setting.starts_with("work/")) {
        // Left out only where the machine let the harness read it too late, in every block.
        if let Some(error) = row.accounting_error_pct {
            assert!(error.abs() < 2.0, "{row:#?}");
        }
    }
    assert!(value(seen, "harness_cpu") > 0.0 && harness_kept_away(seen), "{seen:#?}");
}

fn shares_split() -> Outcome {
    let (rows, seen) = measure_in_peace(shares(&[1024, 256]), 1000)?;
    expect_all(&rows, &["shares/a", "work/a", "shares/b", "work/b"])?;
    assert_eq!(rows.iter().map(|row| row.requested).collect::<Vec<_>>(), [0.8, 0.8, 0.2, 0.2]);
    accounts_agree(&rows, &seen);
    // The kernel hands a contended CPU over at its ticks.
    assert!(value(&seen, "turn") > 500_000.0 && value(&seen, "longest_stall") > value(&seen, "turn"), "{seen:#?}");
    Ok(())
}

/// By work alone, which is counted: right also where time is not, as in an emulated machine. The bound is wide enough
/// for a kernel whose ticks come late there.
fn work_follows_the_weights() -> Outcome {
    const BOUND_PCT: f64 = 10.0;
    for list in [&[1024, 512][..], &[1024, 256], &[1024, 1024, 1024]] {
        let (rows, _) = measure(shares(list), 2000, None, 3)?;
        let work: Vec<&EnforcementRow> = rows.iter().filter(|row| row.setting.starts_with("work/")).collect();
        assert_eq!(work.len(), list.len(), "{rows:#?}");
        for row in work {
            println!(
                "{list:?} {}: {:.3} of {:.3} asked, {:+.2} %",
                row.setting, row.achieved, row.requested, row.error_pct
            );
            assert!(row.error_pct.abs() < BOUND_PCT, "{row:#?}");
        }
    }
    Ok(())
}

fn nested_shares() -> Outcome {
    let setting = CpuSetting::Shares { shares: vec![1024, 512], nested: true, conservation: false };
    let (rows, _) = measure_in_peace(setting, 1000)?;
    expect_all(&rows, &["nested/a.a", "work/a.a", "nested/a.b", "work/a.b", "nested/b", "work/b"])
}

fn conservation() -> Outcome {
    let setting = CpuSetting::Shares { shares: vec![1024, 512, 512], nested: false, conservation: true };
    let (rows, _) = measure_in_peace(setting, 750)?;
    let all = ["shares/a", "work/a", "shares/b", "work/b", "shares/c", "work/c"];
    expect_all(&rows, &[&all[..], &["idle/a", "idle/b", "alone/c"]].concat())?;
    assert!((rows[6].requested - 2.0 / 3.0).abs() < 1e-9 && rows[8].requested == 1.0, "{rows:#?}");
    Ok(())
}

fn quota() -> Outcome {
    for (percent, period_ms) in [(10, 10), (50, 100), (190, 10)] {
        let (rows, seen) = measure_in_peace(quota_of(percent, period_ms, CpuSpin::Checked), 500)?;
        expect_all(&rows, &["quota"])?;
        accounts_agree(&rows, &seen);
        assert!(value(&seen, "throttled_periods") >= 1.0, "{percent} % of {period_ms} ms: {seen:#?}");
    }
    Ok(())
}

fn quota_taken_back() -> Outcome {
    let unlimited =
        CpuSetting::Quota { percent: Limit::Max, period: Duration::from_millis(100), spin: CpuSpin::Checked };
    let (rows, seen) = measure_in_peace(unlimited, 500)?;
    expect_all(&rows, &["quota"])?;
    assert_eq!((rows[0].requested, value(&seen, "throttled_periods")), (1.0, 0.0), "{rows:#?}");
    Ok(())
}

fn free_threads() -> Outcome {
    let (rows, seen) = measure_in_peace(quota_of(5, 50, CpuSpin::Free), 2000)?;
    expect_all(&rows, &["quota"])?;
    // 2.5 ms a period, and a tick of 4 ms: it stands still for the better part of a period at least.
    assert!(value(&seen, "longest_stall") > 40e6, "{seen:#?}");
    Ok(())
}

fn placement() -> Outcome {
    let setting = CpuSetting::Cpuset { cpus: "0".to_owned(), threads: 4 };
    let (rows, seen) = measure_in_peace(setting, 300)?;
    expect_all(&rows, &["looks", "time", "affinity"])?;
    assert!(value(&seen, "placement_looks") > 1000.0, "{seen:#?}");
    Ok(())
}

fn wakeup() -> Outcome {
    let (rows, seen) = measure(CpuSetting::Wakeup { shares: vec![1024, 1024] }, 300, None, 1)?;
    assert!(rows.is_empty());
    let wakes = seen.histograms.iter().map(|row| row.histogram.len()).sum::<u64>();
    assert!((5..=60).contains(&wakes), "{wakes}");
    assert!(value(&seen, "wakeup_latency") > 0.0);
    Ok(())
}

fn forgotten() -> Outcome {
    let (rows, _) = measure(shares(&[1024, 256]), 500, Some(Fault::LeavesOut(Controller::Cpu)), 1)?;
    fails(&rows, "shares/a")?;
    fails(&rows, "work/b")?;
    let (rows, seen) = measure(quota_of(50, 10, CpuSpin::Checked), 300, Some(Fault::LeavesOut(Controller::Cpu)), 1)?;
    fails(&rows, "quota")?;
    assert_eq!(value(&seen, "throttled_periods"), 0.0);
    let setting = CpuSetting::Cpuset { cpus: "0".to_owned(), threads: 4 };
    let (rows, _) = measure(setting, 300, Some(Fault::LeavesOut(Controller::Cpuset)), 1)?;
    for setting in ["looks", "time", "affinity"] {
        fails(&rows, setting)?;
    }
    Ok(())
}

fn half() -> Outcome {
    let (rows, _) = measure(shares(&[1024, 512]), 500, Some(Fault::HalvesTheFirst), 1)?;
    fails(&rows, "shares/a")?;
    fails(&rows, "shares/b")?;
    let (rows, _) = measure(quota_of(50, 10, CpuSpin::Checked), 300, Some(Fault::HalvesTheFirst), 1)?;
    fails(&rows, "quota")?;
    assert!((rows[0].achieved - 0.25).abs() < 0.01, "{rows:#?}");
    Ok(())
}

fn left_out() -> Outcome {
    let (rows, _) = measure(shares(&[1024, 256]), 500, Some(Fault::Strays(Controller::Cpu)), 1)?;
    fails(&rows, "shares/a")?;
    let (rows, _) = measure(quota_of(20, 10, CpuSpin::Checked), 300, Some(Fault::Strays(Controller::Cpu)), 1)?;
    fails(&rows, "quota")
}

fn nothing_stays() -> Outcome {
    let layout = Layout::detect()?;
    let place = layout.place(Controller::Cpu).ok_or("no cpu controller")?;
    let parent = place.path.join("isobench");
    let own = format!("{}-", std::process::id());
    let (_, _) = measure(shares(&[1024, 512]), 100, None, 1)?;
    let weight = ["cpu.shares", "cpu.weight"].iter().find_map(|file| std::fs::read_to_string(parent.join(file)).ok());
    assert!(weight.is_some_and(|weight| ["1024", "100"].contains(&weight.trim())), "the parent's weight was not reset");
    for entry in std::fs::read_dir(&parent)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let children = std::fs::read_dir(entry.path()).map(|all| all.flatten().filter(|it| it.path().is_dir()).count());
        assert!(!(name.starts_with(&own) && children.unwrap_or(0) > 0), "{name} still holds groups");
    }
    Ok(())
}
