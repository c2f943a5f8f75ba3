//! The memory experiment on the real kernel: right with the built-in runtime, failed with every wrong one.

use std::error::Error;
use std::os::fd::AsFd;
use std::time::Duration;

use isobench::cgroup::oom::OomWatch;
use isobench::cgroup::{Controller, Hierarchy, Layout, Limits, memory as controller};
use isobench::experiment::memory::Memory;
use isobench::experiment::{Experiment, ExperimentError, Observations, Stop};
use isobench::record::Verdict;
use isobench::runtime::{Network, StartRequest, by_kind};
use isobench::scenario::{MemoryCase, MemorySetting, RuntimeKind};
use isobench::sys::board::Board;
use isobench::sys::region::page_size;
use isobench::units::Limit;
use isobench::workload::steer::{COMPLAINT, complaint};
use isobench::workload::touch;

use crate::faulty::{Fault, StopsAtStart, faulty};
use crate::harness::{Body, Case};
use crate::judge::{all_pass, rows, verdict};

type Outcome = Result<(), Box<dyn Error>>;

const LIMIT: u64 = 16 << 20;

pub fn cases() -> Vec<Case> {
    let version =
        Layout::detect().ok().and_then(|layout| layout.place(Controller::Memory)).map(|place| place.hierarchy);
    let mut all: Vec<Case> = Vec::new();
    let mut add = |cases: &[(&'static str, Body)], present: bool, reason: &str| {
        all.extend(cases.iter().map(|(name, body)| {
            Case::new(name, *body).needs(version.is_some(), "needs the memory controller").needs(present, reason)
        }));
    };
    add(
        &[
            ("memory::the_limit_is_kept_to_a_batch_of_pages", the_limit_is_kept_to_a_batch_of_pages),
            ("memory::a_limit_without_swap_is_kept", a_limit_without_swap_is_kept),
            ("memory::a_limit_below_the_usage_is_told", a_limit_below_the_usage_is_told),
            ("memory::a_soft_limit_does_what_its_version_says", a_soft_limit_does_what_its_version_says),
            ("memory::a_container_outside_its_group_fails", a_container_outside_its_group_fails),
            ("memory::half_the_limit_fails", half_the_limit_fails),
            ("memory::a_controller_left_out_fails", a_controller_left_out_fails),
            ("memory::stopping_leaves_nothing", stopping_leaves_nothing),
            ("memory::the_watch_wakes_for_a_kill_only", the_watch_wakes_for_a_kill_only),
            ("memory::settling_takes_the_stock_back", settling_takes_the_stock_back),
            ("memory::a_workload_complains", a_workload_complains),
        ],
        true,
        "",
    );
    let on_disk = on_disk();
    add(
        &[
            ("memory::page_cache_is_reclaimed_and_nobody_killed", page_cache_is_reclaimed_and_nobody_killed),
            ("memory::page_cache_gives_way_to_a_lower_limit", page_cache_gives_way_to_a_lower_limit),
            ("memory::page_cache_outside_the_group_fails", page_cache_outside_the_group_fails),
        ],
        on_disk,
        "needs a file system on a disk",
    );
    let swap = prepared(MemorySetting::Swap, 8 << 20);
    add(&[("memory::swap_is_used_up_to_its_limit", swap_is_used_up_to_its_limit)], swap, "needs 16 MiB of free swap");
    add(
        &[("memory::swap_is_skipped_by_name_where_there_is_none", swap_is_skipped_by_name_where_there_is_none)],
        !swap,
        "needs a host without swap",
    );
    all
}

/// Whether a case can be measured here.
fn prepared(setting: MemorySetting, limit: u64) -> bool {
    by_kind(RuntimeKind::Builtin)
        .ok()
        .is_some_and(|runtime| Memory::new(case(setting, limit), runtime).prepare().is_ok())
}

fn on_disk() -> bool {
    prepared(MemorySetting::Cache, LIMIT)
}

fn case(setting: MemorySetting, limit: u64) -> MemoryCase {
    MemoryCase { runtime: RuntimeKind::Builtin, setting, limit }
}

fn sound(setting: MemorySetting, limit: u64) -> Result<Memory, Box<dyn Error>> {
    Ok(Memory::new(case(setting, limit), by_kind(RuntimeKind::Builtin)?))
}

fn wrong(setting: MemorySetting, fault: Fault) -> Result<Memory, Box<dyn Error>> {
    Ok(Memory::new(case(setting, LIMIT), faulty(fault)?))
}

fn value(seen: &Observations, name: &str) -> Option<f64> {
    seen.values.iter().find(|value| value.metric.name == name).map(|value| value.value)
}

fn the_limit_is_kept_to_a_batch_of_pages() -> Outcome {
    for limit in [LIMIT, LIMIT + 12345, 48 << 20] {
        let (rows, seen) = rows(sound(MemorySetting::Limit, limit)?)?;
        all_pass(&rows, &["limit", "limit/accounted", "limit/kills", "limit/events"]);
        let pages = page_size() as f64;
        assert_eq!(rows[0].requested, (limit / page_size() * page_size()) as f64);
        assert!((rows[0].achieved - rows[0].requested).abs() <= 64.0 * pages, "{rows:#?}");
        assert_eq!(rows[2].accounted, Some(1.0), "the controller counts the kill");
        assert_eq!(value(&seen, "charge_batch"), Some(64.0 * pages));
        let (kill, event) = (value(&seen, "kill_delay"), value(&seen, "oom_event_delay"));
        assert!(kill.is_some_and(|delay| delay > 0.0) && event.is_some_and(|delay| delay > 0.0));
    }
    Ok(())
}

fn a_limit_without_swap_is_kept() -> Outcome {
    let (rows, _) = rows(sound(MemorySetting::NoSwap, LIMIT)?)?;
    all_pass(&rows, &["no-swap", "no-swap/accounted", "no-swap/kills", "no-swap/events"]);
    Ok(())
}

fn swap_is_used_up_to_its_limit() -> Outcome {
    let (rows, _) = rows(sound(MemorySetting::Swap, 8 << 20)?)?;
    assert_eq!(verdict(&rows, "swap/kills"), Verdict::Pass, "{rows:#?}");
    assert_eq!(verdict(&rows, "swap"), Verdict::Pass, "{rows:#?}");
    Ok(())
}

fn swap_is_skipped_by_name_where_there_is_none() -> Outcome {
    match sound(MemorySetting::Swap, LIMIT)?.prepare() {
        Err(ExperimentError::Unsupported(reason)) => assert!(reason.contains("swap"), "{reason}"),
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

fn page_cache_is_reclaimed_and_nobody_killed() -> Outcome {
    let (rows, _) = rows(sound(MemorySetting::Cache, LIMIT)?)?;
    all_pass(&rows, &["cache", "cache/kills", "cache/intact"]);
    assert!(rows[0].achieved <= rows[0].requested, "more in the cache than the limit: {rows:#?}");
    Ok(())
}

fn page_cache_outside_the_group_fails() -> Outcome {
    for fault in [Fault::ForgetsToAttach, Fault::HalvesLimits, Fault::Lacks(Controller::Memory)] {
        let (rows, _) = rows(wrong(MemorySetting::Cache, fault)?)?;
        assert_eq!(verdict(&rows, "cache"), Verdict::Fail, "{fault:?}: {rows:#?}");
        let (rows, _) = self::rows(wrong(MemorySetting::ShrinkCache, fault)?)?;
        if fault != Fault::HalvesLimits {
            assert_eq!(verdict(&rows, "shrink-cache/excess"), Verdict::Fail, "{fault:?}: {rows:#?}");
        }
    }
    Ok(())
}

fn page_cache_gives_way_to_a_lower_limit() -> Outcome {
    let (rows, _) = rows(sound(MemorySetting::ShrinkCache, LIMIT)?)?;
    all_pass(
        &rows,
        &["before", "excess", "in_force", "errno", "kills"]
            .map(|row| format!("shrink-cache/{row}"))
            .each_ref()
            .map(String::as_str),
    );
    Ok(())
}

fn is_v1() -> bool {
    let place = Layout::detect().ok().and_then(|layout| layout.place(Controller::Memory));
    place.is_some_and(|place| place.hierarchy == Hierarchy::V1)
}

fn a_limit_below_the_usage_is_told() -> Outcome {
    let (rows, _) = rows(sound(MemorySetting::Shrink, LIMIT)?)?;
    let settings = ["shrink/errno", "shrink/in_force", "shrink/kills", "shrink/intact"];
    all_pass(&rows, if is_v1() { &settings } else { &settings[..3] });
    Ok(())
}

fn a_soft_limit_does_what_its_version_says() -> Outcome {
    let (rows, seen) = rows(sound(MemorySetting::Soft, LIMIT)?)?;
    let excess = value(&seen, "soft_excess").ok_or("no soft_excess")?;
    if is_v1() {
        all_pass(&rows, &[]);
        assert!(excess >= 1.0, "twice the soft limit was touched, yet it held only {excess} beyond it");
        return Ok(());
    }
    all_pass(&rows, &["soft", "soft/throttled"]);
    let (rows, _) = self::rows(wrong(MemorySetting::Soft, Fault::ForgetsToAttach)?)?;
    assert_eq!(verdict(&rows, "soft/throttled"), Verdict::Fail);
    assert!(rows[0].achieved > rows[0].requested, "nothing held it back: {rows:#?}");
    Ok(())
}

fn a_container_outside_its_group_fails() -> Outcome {
    let (rows, seen) = rows(wrong(MemorySetting::Limit, Fault::ForgetsToAttach)?)?;
    for setting in ["limit", "limit/accounted", "limit/kills", "limit/events"] {
        assert_eq!(verdict(&rows, setting), Verdict::Fail, "{setting}: {rows:#?}");
    }
    assert_eq!(value(&seen, "kill_delay"), None, "nobody was killed");
    let (rows, _) = self::rows(wrong(MemorySetting::Shrink, Fault::ForgetsToAttach)?)?;
    assert!(rows.iter().any(|row| row.verdict == Verdict::Fail), "{rows:#?}");
    Ok(())
}

fn half_the_limit_fails() -> Outcome {
    let (rows, _) = rows(wrong(MemorySetting::Limit, Fault::HalvesLimits)?)?;
    assert_eq!(verdict(&rows, "limit"), Verdict::Fail, "{rows:#?}");
    assert!(rows[0].error_pct < -45.0 && rows[0].error_pct > -55.0, "{rows:#?}");
    assert_eq!(verdict(&rows, "limit/kills"), Verdict::Pass, "it was killed, only too early");
    Ok(())
}

fn a_controller_left_out_fails() -> Outcome {
    for setting in [MemorySetting::Limit, MemorySetting::Shrink] {
        let (rows, _) = rows(wrong(setting, Fault::Lacks(Controller::Memory))?)?;
        assert!(rows.iter().any(|row| row.verdict == Verdict::Fail), "{setting}: {rows:#?}");
        assert!(rows.iter().all(|row| row.accounted.is_none()), "nothing was accounted");
    }
    Ok(())
}

fn stopping_leaves_nothing() -> Outcome {
    for setting in MemorySetting::ALL {
        let runtime = StopsAtStart::new()?;
        let mut experiment = Memory::new(case(*setting, LIMIT), runtime.clone());
        if experiment.prepare().is_err() {
            continue; // what cannot be measured here cannot be stopped; it has a test of its own
        }
        let outcome = experiment.measure(&mut Observations::default(), Stop(&runtime.stop));
        assert!(matches!(outcome, Err(ExperimentError::Interrupted)), "{setting}: {outcome:?}");
        experiment.finish()?;
        assert_eq!(runtime.left(), Vec::<String>::new(), "{setting}");
    }
    Ok(())
}

/// A memory limit, without a way out into swap where there is any.
fn limited(bytes: u64) -> Limits {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let limit = Some(Limit::Value(bytes));
    Limits { memory: limit, memory_and_swap: limit.filter(|_| swaps.lines().count() > 1), ..Limits::default() }
}

/// A container that touches up to so many pages, and its board.
fn toucher(pages: u64, limits: Limits) -> Result<(Box<dyn isobench::runtime::Instance>, Board), Box<dyn Error>> {
    let (board, fd) = Board::create(touch::word::COUNT + COMPLAINT)?;
    let runtime = by_kind(RuntimeKind::Builtin)?;
    let request = StartRequest { stdin: Some(fd), limits, ..StartRequest::new(touch::words(pages), Network::None) };
    let instance = runtime.start(request)?;
    assert!(board.wait(Duration::from_secs(60), |board| board.get(touch::word::TOUCHED) == 1));
    Ok((instance, board))
}

fn the_watch_wakes_for_a_kill_only() -> Outcome {
    let pages = LIMIT / page_size();
    let (instance, board) = toucher(2 * pages, limited(LIMIT))?;
    let place = instance.group().and_then(|group| group.place(Controller::Memory)).ok_or("no group")?;
    let mut watch = OomWatch::arm(place)?;
    board.post(touch::word::TARGET, pages / 2);
    assert!(board.wait(Duration::from_secs(60), |board| board.get(touch::word::TOUCHED) == pages / 2));
    assert!(!watch.wait(Duration::from_millis(20))?, "half the limit is no event");
    board.post(touch::word::TARGET, 2 * pages);
    assert!(watch.wait(Duration::from_secs(60))?);
    assert!(board.wait(Duration::from_secs(60), |board| board.get(touch::word::ENDED) != 0));
    assert!(touch::killed(board.get(touch::word::ENDED)));
    instance.remove()?;
    Ok(())
}

fn settling_takes_the_stock_back() -> Outcome {
    let (instance, board) = toucher(1000, limited(1 << 30))?;
    let place = instance.group().and_then(|group| group.place(Controller::Memory)).ok_or("no group")?;
    let settled = || -> Result<u64, Box<dyn Error>> {
        controller::settle(place)?;
        Ok(controller::usage(place)?.current)
    };
    // The stocks of other CPUs come back by work that a busy machine may put off, so it gets more than one try.
    let mut seen = Vec::new();
    for pages in (11..=91).step_by(10) {
        let before = settled()?;
        board.post(touch::word::TARGET, pages);
        assert!(board.wait(Duration::from_secs(60), |board| board.get(touch::word::TOUCHED) == pages));
        let at_once = controller::usage(place)?.current;
        let after = settled()?;
        let pages = [at_once, after].map(|bytes| (bytes as i64 - before as i64) / page_size() as i64);
        seen.push(pages);
        if pages == [64, 10] {
            break;
        }
    }
    assert_eq!(seen.last(), Some(&[64, 10]), "ten pages are charged as a batch and come back as ten: {seen:?}");
    instance.remove()?;
    Ok(())
}

fn a_workload_complains() -> Outcome {
    let (board, fd) = Board::create(touch::word::COUNT + COMPLAINT)?;
    let theirs = fd.as_fd().try_clone_to_owned()?;
    let runtime = by_kind(RuntimeKind::Builtin)?;
    let workload = vec!["touch".to_owned(), "much".to_owned()];
    let mut instance =
        runtime.start(StartRequest { stdin: Some(theirs), ..StartRequest::new(workload, Network::None) })?;
    instance.wait()?;
    assert_eq!(complaint(&board).as_deref(), Some("the only argument is how many pages to touch at most, at least 1"));
    instance.remove()?;
    Ok(())
}
