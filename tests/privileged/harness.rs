//! Named cases over libtest-mimic, so that a missing privilege shows as an ignored test with its reason.

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// A test function; an error or a panic fails it.
pub type Body = fn() -> Result<(), Box<dyn std::error::Error>>;

/// One test: its name, as in `network::bridge_reaches_the_peer`, what it needs beside root, and its body.
pub struct Case {
    pub name: &'static str,
    pub body: Body,
    /// Why it cannot run here, where it cannot.
    pub skip: Option<String>,
}

impl Case {
    /// A test that needs only root.
    pub fn new(name: &'static str, body: Body) -> Self {
        let skip = (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned());
        Self { name, body, skip }
    }

    /// Skips the test, with this reason, when `present` is false.
    #[allow(dead_code, reason = "each test binary uses what it needs of this file")]
    pub fn needs(mut self, present: bool, reason: &str) -> Self {
        if !present && self.skip.is_none() {
            self.skip = Some(reason.to_owned());
        }
        self
    }
}

impl Case {
    /// Skips the test where a processor is emulated: everything takes 10 to 20 times as long there, by turns.
    #[allow(dead_code, reason = "each test binary uses what it needs of this file")]
    pub fn timed(self) -> Self {
        self.needs(!is_emulated(), "its times mean nothing under QEMU TCG")
    }
}

/// Whether this machine's processor is QEMU's emulation of one (TCG).
#[allow(dead_code, reason = "each test binary uses what it needs of this file")]
fn is_emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("QEMU TCG"))
}

/// Runs the cases as `cargo test` would.
#[allow(dead_code, reason = "each test binary uses what it needs of this file")]
pub fn run(cases: Vec<Case>) -> Conclusion {
    run_with(cases, &Arguments::from_args())
}

/// Runs the cases one after the other, because each looks at the whole machine.
#[allow(dead_code, reason = "each test binary uses what it needs of this file")]
pub fn run_one_by_one(cases: Vec<Case>) -> Conclusion {
    run_with(cases, &Arguments { test_threads: Some(1), ..Arguments::from_args() })
}

fn run_with(cases: Vec<Case>, arguments: &Arguments) -> Conclusion {
    let trials = cases.into_iter().map(|case| {
        let name = match &case.skip {
            Some(reason) => format!("{} [skipped: {reason}]", case.name),
            None => case.name.to_owned(),
        };
        let body = case.body;
        Trial::test(name, move || body().map_err(|error| Failed::from(chain(&*error))))
            .with_ignored_flag(case.skip.is_some())
    });
    libtest_mimic::run(arguments, trials.collect())
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
