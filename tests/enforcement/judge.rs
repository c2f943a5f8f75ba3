//! Measures an experiment for some blocks, outside of a run, and judges what it came to.

use std::error::Error;
use std::sync::atomic::AtomicBool;

use isobench::experiment::{Experiment, ExperimentError, Observations, Stop};
use isobench::record::{EnforcementRow, Flags, Verdict, enforcement};

/// Measures so many blocks and judges. Beside the verdicts, all that was seen except the rows that they come from.
pub fn judged(
    experiment: &mut dyn Experiment,
    blocks: u32,
) -> Result<(Vec<EnforcementRow>, Observations), Box<dyn Error>> {
    let never = AtomicBool::new(false);
    let (mut samples, mut all) = (Vec::new(), Observations::default());
    let measured = experiment.prepare().and_then(|()| {
        (0..blocks).try_for_each(|block| {
            let mut seen = Observations::default();
            experiment.measure(&mut seen, Stop(&never))?;
            samples.extend(seen.take_enforcement("case", block, Flags::default(), 0));
            all.values.extend(seen.values);
            all.phases.extend(seen.phases);
            all.histograms.extend(seen.histograms);
            Ok::<(), ExperimentError>(())
        })
    });
    let finished = experiment.finish();
    measured?;
    finished?;
    Ok((enforcement::judge(&samples, 1), all))
}

/// Measures once and judges.
pub fn rows(mut experiment: impl Experiment) -> Result<(Vec<EnforcementRow>, Observations), Box<dyn Error>> {
    judged(&mut experiment, 1)
}

/// Every row must pass, and the settings be these.
pub fn all_pass(rows: &[EnforcementRow], settings: &[&str]) {
    let seen: Vec<&str> = rows.iter().map(|row| row.setting.as_str()).collect();
    assert_eq!(seen, settings);
    assert!(rows.iter().all(|row| row.verdict == Verdict::Pass), "{rows:#?}");
}

/// The verdict on one setting.
pub fn verdict(rows: &[EnforcementRow], setting: &str) -> Verdict {
    rows.iter().find(|row| row.setting == setting).unwrap_or_else(|| panic!("no row {setting}: {rows:#?}")).verdict
}
