//! The freezer experiment on the real kernel, and that nothing frozen is left behind.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isobench::cgroup::{Controller, Hierarchy, Layout, freezer as controller};
use isobench::experiment::freezer::Freezer;
use isobench::experiment::{Experiment, ExperimentError, Observations, Stop};
use isobench::record::Verdict;
use isobench::runtime::{Network, StartRequest, by_kind};
use isobench::scenario::{FreezerCase, RuntimeKind};

use crate::faulty::{Fault, StopsAtStart, faulty};
use crate::harness::{Body, Case};
use crate::judge::{all_pass, rows, verdict};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let place = Layout::detect().ok().and_then(|layout| layout.place(Controller::Freezer));
    let cases: [(&'static str, Body); 5] = [
        ("freezer::what_is_frozen_stands_still", what_is_frozen_stands_still),
        ("freezer::a_container_outside_its_group_fails", a_container_outside_its_group_fails),
        ("freezer::stopping_leaves_nothing", stopping_leaves_nothing),
        ("freezer::a_frozen_container_can_be_removed", a_frozen_container_can_be_removed),
        ("freezer::what_a_killed_harness_froze_is_collected", what_a_killed_harness_froze_is_collected),
    ];
    let present = place.is_some();
    let mut all: Vec<Case> =
        cases.map(|(name, body)| Case::new(name, body).needs(present, "needs the freezer controller")).into();
    let apart = place.is_some_and(|place| place.hierarchy == Hierarchy::V1);
    all.push(
        Case::new("freezer::a_controller_left_out_fails", a_controller_left_out_fails)
            .needs(apart, "needs a freezer that can be left out (v1)"),
    );
    all
}

fn case(threads: u32) -> FreezerCase {
    FreezerCase { runtime: RuntimeKind::Builtin, threads, frozen: Duration::from_millis(20) }
}

fn what_is_frozen_stands_still() -> Outcome {
    for threads in [1, 30] {
        let (rows, seen) = rows(Freezer::new(case(threads), by_kind(RuntimeKind::Builtin)?))?;
        all_pass(&rows, &["rounds", "cpu_time"]);
        for name in ["freeze_time", "thaw_time", "thaw_all_time"] {
            let values: Vec<f64> =
                seen.values.iter().filter(|value| value.metric.name == name).map(|value| value.value).collect();
            assert!(values.len() == 3 && values.iter().all(|value| *value > 0.0), "{name}: {values:?}");
        }
    }
    Ok(())
}

fn a_container_outside_its_group_fails() -> Outcome {
    let (rows, _) = rows(Freezer::new(case(2), faulty(Fault::ForgetsToAttach)?))?;
    assert_eq!(verdict(&rows, "rounds"), Verdict::Fail, "{rows:#?}");
    assert_eq!(verdict(&rows, "cpu_time"), Verdict::Fail, "{rows:#?}");
    Ok(())
}

fn a_controller_left_out_fails() -> Outcome {
    let (rows, _) = rows(Freezer::new(case(2), faulty(Fault::Lacks(Controller::Freezer))?))?;
    assert_eq!(verdict(&rows, "rounds"), Verdict::Fail, "{rows:#?}");
    Ok(())
}

fn stopping_leaves_nothing() -> Outcome {
    let runtime = StopsAtStart::new()?;
    let mut experiment = Freezer::new(case(4), runtime.clone());
    experiment.prepare()?;
    let outcome = experiment.measure(&mut Observations::default(), Stop(&runtime.stop));
    assert!(matches!(outcome, Err(ExperimentError::Interrupted)), "{outcome:?}");
    assert_eq!(runtime.left(), Vec::<String>::new());
    Ok(())
}

fn a_frozen_container_can_be_removed() -> Outcome {
    let runtime = by_kind(RuntimeKind::Builtin)?;
    let instance = runtime.start(StartRequest::new(vec!["hold".to_owned()], Network::None))?;
    let group = instance.group().ok_or("no group")?;
    group.freeze()?;
    let place = group.place(Controller::Freezer).ok_or("no freezer")?.clone();
    assert!(controller::is_frozen(&place)?);
    let pid = instance.pid();
    instance.remove()?;
    assert!(!fs::exists(format!("/proc/{pid}"))? && !place.path.exists());
    Ok(())
}

/// The frozen groups directly under a directory that belong to the process `owner`.
fn frozen_groups(parent: &Path, hierarchy: Hierarchy, owner: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_frozen = |path: &PathBuf| {
        let place = isobench::cgroup::Place { hierarchy, path: path.clone() };
        let inside = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let of_owner = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().split(['-', '.', '_']).any(|part| part == owner.to_string()));
        of_owner && !inside.is_empty() && controller::is_frozen(&place).unwrap_or(false)
    };
    entries.filter(is_frozen).collect()
}

fn what_a_killed_harness_froze_is_collected() -> Outcome {
    let directory = tempfile::tempdir()?;
    let scenario = directory.path().join("frozen.toml");
    let text = "[scenario]\nname = \"frozen\"\nquestion = \"?\"\n[run]\nblocks = 1\nwarmup_blocks = 0\n\
                [[experiment]]\nkind = \"freezer\"\nfrozen = \"1m\"\n";
    fs::write(&scenario, text)?;
    let program = env!("CARGO_BIN_EXE_isobench");
    let mut run = Command::new(program);
    run.arg("run").arg(&scenario).arg("--out").arg(directory.path().join("out")).arg("--quiet");
    let mut harness = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let place = Layout::detect()?.place(Controller::Freezer).ok_or("no freezer")?;
    let parent = place.path.join("isobench");
    let begin = Instant::now();
    let found = loop {
        let found = frozen_groups(&parent, place.hierarchy, harness.id());
        if !found.is_empty() || harness.try_wait()?.is_some() || begin.elapsed() > Duration::from_secs(60) {
            break found;
        }
        std::thread::yield_now();
    };
    harness.kill()?;
    harness.wait()?;
    let [group] = found.as_slice() else { return Err(format!("no frozen group: {found:?}").into()) };
    let inside: Vec<String> = fs::read_to_string(group.join("cgroup.procs"))?.lines().map(str::to_owned).collect();
    let collected = Command::new(program).arg("gc").output()?;
    assert!(collected.status.success(), "{collected:?}");
    assert!(!group.exists(), "the group is still there");
    // Their parent is dead: whoever took them over reaps them when it likes.
    let lives = |pid: &&String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
    };
    let left: Vec<&String> = inside.iter().filter(lives).collect();
    assert!(left.is_empty(), "{left:?} outlived the collection");
    Ok(())
}
