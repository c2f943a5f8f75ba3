//! The pids experiment on the real kernel: exact with the built-in runtime, failed with every wrong one.

use std::error::Error;

use isobench::cgroup::{Controller, Layout};
use isobench::experiment::pids::Pids;
use isobench::experiment::{Experiment, ExperimentError, Observations, Stop};
use isobench::record::Verdict;
use isobench::runtime::by_kind;
use isobench::scenario::{PidsCase, RuntimeKind};

use crate::faulty::{Fault, StopsAtStart, faulty};
use crate::harness::{Body, Case};
use crate::judge::{all_pass, rows, verdict};

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let present = Layout::detect().is_ok_and(|layout| layout.place(Controller::Pids).is_some());
    let cases: [(&'static str, Body); 5] = [
        ("pids::the_count_is_exact", the_count_is_exact),
        ("pids::a_container_outside_its_group_fails", a_container_outside_its_group_fails),
        ("pids::half_the_limit_fails", half_the_limit_fails),
        ("pids::a_controller_left_out_fails", a_controller_left_out_fails),
        ("pids::stopping_leaves_nothing", stopping_leaves_nothing),
    ];
    cases.map(|(name, body)| Case::new(name, body).needs(present, "needs the pids controller")).into()
}

fn case(limit: u32) -> PidsCase {
    PidsCase { runtime: RuntimeKind::Builtin, limit }
}

fn the_count_is_exact() -> Outcome {
    for limit in [2, 8, 100] {
        let (rows, _) = rows(Pids::new(case(limit), by_kind(RuntimeKind::Builtin)?))?;
        all_pass(&rows, &["limit", "refusals", "errno"]);
        assert_eq!(rows[0].accounted, Some(f64::from(limit)));
        assert_eq!(rows[1].accounted, Some(1.0), "the controller counts the refusal");
    }
    Ok(())
}

fn a_container_outside_its_group_fails() -> Outcome {
    let (rows, _) = rows(Pids::new(case(20), faulty(Fault::ForgetsToAttach)?))?;
    assert!(rows.iter().all(|row| row.verdict == Verdict::Fail), "{rows:#?}");
    assert_eq!((rows[0].achieved, rows[0].accounted), (40.0, Some(0.0)), "it stops by itself at twice the limit");
    Ok(())
}

fn half_the_limit_fails() -> Outcome {
    let (rows, _) = rows(Pids::new(case(20), faulty(Fault::HalvesLimits)?))?;
    assert_eq!((verdict(&rows, "limit"), rows[0].achieved), (Verdict::Fail, 10.0));
    Ok(())
}

fn a_controller_left_out_fails() -> Outcome {
    let (rows, _) = rows(Pids::new(case(20), faulty(Fault::Lacks(Controller::Pids))?))?;
    assert!(rows.iter().all(|row| row.verdict == Verdict::Fail && row.accounted.is_none()), "{rows:#?}");
    Ok(())
}

fn stopping_leaves_nothing() -> Outcome {
    let runtime = StopsAtStart::new()?;
    let mut experiment = Pids::new(case(50), runtime.clone());
    experiment.prepare()?;
    let outcome = experiment.measure(&mut Observations::default(), Stop(&runtime.stop));
    assert!(matches!(outcome, Err(ExperimentError::Interrupted)), "{outcome:?}");
    assert_eq!(runtime.left(), Vec::<String>::new());
    Ok(())
}
