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
    pub fn needs(mut self, present: bool, reason: &str) -> Self {
        if !present && self.skip.is_none() {
            self.skip = Some(reason.to_owned());
        }
        self
    }
}

/// Runs the cases as `cargo test` would; `at_once` are at most so many, for those that look at the whole machine.
pub fn run(cases: Vec<Case>, at_once: Option<usize>) -> Conclusion {
    let asked = Arguments::from_args();
    let arguments = Arguments { test_threads: at_once.or(asked.test_threads), ..asked };
    let trials = cases.into_iter().map(|case| {
        let name = match &case.skip {
            Some(reason) => format!("{} [skipped: {reason}]", case.name),
            None => case.name.to_owned(),
        };
        let body = case.body;
        Trial::test(name, move || body().map_err(|error| Failed::from(chain(&*error))))
            .with_ignored_flag(case.skip.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect())
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
