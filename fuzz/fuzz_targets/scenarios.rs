//! Scenario files: what is wrong is told with its place, what is right has cases with names of their own.

#![no_main]

use std::collections::BTreeSet;

use isobench::scenario::{Options, Scenario};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Lists multiply, and no one waits for millions of cases.
    if text.len() > 4096 {
        return;
    }
    for quick in [false, true] {
        let options = Options { quick, ..Options::default() };
        match Scenario::parse(text, "fuzz.toml", &options) {
            Ok(scenario) => {
                let ids: BTreeSet<&str> = scenario.cases.iter().map(|case| case.id.as_str()).collect();
                assert_eq!(ids.len(), scenario.cases.len());
                for case in &scenario.cases {
                    let _ = (case.record(), case.estimate());
                    if let Some(baseline) = &case.baseline {
                        assert!(ids.contains(baseline.as_str()), "{baseline}");
                    }
                }
                let _ = scenario.estimate();
            }
            Err(error) => assert!(error.to_string().starts_with("fuzz.toml:"), "{error}"),
        }
    }
});
