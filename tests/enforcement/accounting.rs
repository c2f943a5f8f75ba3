//! Accounting: the experiment against the kernel, and against a runtime that leaves a controller out.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use isobench::cgroup::Controller;
use isobench::experiment::accounting::AccountingExperiment;
use isobench::experiment::{EnforcementObservation, Experiment, Observations, Stop};
use isobench::record::enforcement::signed_error_pct;
use isobench::runtime::{Runtime, by_kind};
use isobench::scenario::RuntimeKind;
use isobench::scenario::accounting::{AccountingCase, Amount};

use crate::faulty::{Fault, faulty};
use crate::harness::Case;

type Outcome = Result<(), Box<dyn Error>>;

pub fn cases() -> Vec<Case> {
    let loops = Path::new("/dev/loop-control").exists();
    vec![
        Case::new("accounting::cpu_time_is_charged", cpu_time_is_charged),
        Case::new("accounting::memory_is_charged_in_batches", memory_is_charged_in_batches),
        Case::new("accounting::block_io_is_charged_exactly", block_io_is_charged_exactly)
            .needs(loops, "needs loop devices"),
        Case::new("accounting::network_is_counted_exactly", network_is_counted_exactly),
        Case::new("accounting::what_is_not_charged_is_found", what_is_not_charged_is_found),
    ]
}

fn measure(amount: Amount, runtime: Arc<dyn Runtime>) -> Result<Vec<EnforcementObservation>, Box<dyn Error>> {
    let case = AccountingCase { runtime: RuntimeKind::Builtin, amount, per_block: 2 };
    let mut experiment = AccountingExperiment::new(case, runtime);
    experiment.prepare()?;
    let mut seen = Observations::default();
    experiment.measure(&mut seen, Stop(&AtomicBool::new(false)))?;
    experiment.finish()?;
    // Two readings for each of two measurements.
    let costs: Vec<f64> = seen.values.iter().map(|value| value.value).collect();
    assert!(costs.len() == 4 && costs.iter().all(|cost| *cost > 0.0), "{costs:?}");
    Ok(seen.enforcement)
}

fn builtin() -> Result<Arc<dyn Runtime>, Box<dyn Error>> {
    Ok(by_kind(RuntimeKind::Builtin)?)
}

fn error(row: &EnforcementObservation) -> f64 {
    signed_error_pct(row.achieved, row.requested)
}

fn cpu_time_is_charged() -> Outcome {
    for ms in [1, 100] {
        for row in measure(Amount::Cpu(Duration::from_millis(ms)), builtin()?)? {
            assert!(row.requested >= ms as f64 * 1e6, "{row:?}");
            assert!(error(&row).abs() <= row.tolerance_pct, "{row:?}");
        }
    }
    Ok(())
}

fn memory_is_charged_in_batches() -> Outcome {
    for bytes in [4096, 1 << 20, 64 << 20] {
        for row in measure(Amount::Memory(bytes), builtin()?)? {
            assert_eq!(row.requested, f64::from(bytes));
            assert!(error(&row).abs() <= row.tolerance_pct, "{row:?}");
        }
    }
    Ok(())
}

fn block_io_is_charged_exactly() -> Outcome {
    let rows = measure(Amount::Block(1 << 20), builtin()?)?;
    let names: Vec<&str> = rows.iter().map(|row| row.setting.as_str()).collect();
    assert_eq!(names, ["bytes", "operations", "bytes", "operations"]);
    assert_eq!((rows[0].requested, rows[1].requested), (f64::from(1 << 20), 256.0));
    assert!(rows.iter().all(|row| error(row) == 0.0), "{rows:?}");
    Ok(())
}

fn network_is_counted_exactly() -> Outcome {
    let rows = measure(Amount::Network(10 << 10), builtin()?)?;
    // Ten datagrams of 1024 bytes with 42 bytes of headers each.
    assert_eq!((rows[0].requested, rows[1].requested), (10.0 * 1066.0, 10.0));
    assert!(rows.iter().all(|row| error(row) == 0.0), "{rows:?}");
    Ok(())
}

fn what_is_not_charged_is_found() -> Outcome {
    for (amount, controller) in
        [(Amount::Cpu(Duration::from_millis(20)), Controller::Cpuacct), (Amount::Memory(4 << 20), Controller::Memory)]
    {
        for row in measure(amount, faulty(Fault::Strays(controller))?)? {
            assert!(error(&row) < -90.0 && row.tolerance_pct < 50.0, "{controller}: {row:?}");
        }
    }
    Ok(())
}
