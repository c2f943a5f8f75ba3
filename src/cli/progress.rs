//! What is shown while a run goes on, on standard error: a bar on a terminal, plain lines elsewhere, nothing if quiet.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::DOUBT;
use super::pace::{Pace, rough};
use crate::scenario::Scenario;
use crate::schedule::Event;

/// Follows the events of one run.
pub(super) struct Progress {
    show: Show,
    pace: Pace,
    block: String,
}

enum Show {
    Nothing,
    Lines,
    Bar(ProgressBar),
}

impl Progress {
    pub(super) fn new(scenario: &Scenario, quiet: bool) -> Self {
        let pace = Pace::new(scenario);
        let show = if quiet {
            Show::Nothing
        } else if std::io::stderr().is_terminal() {
            Show::Bar(bar(pace.measurements_left()))
        } else {
            Show::Lines
        };
        Self { show, pace, block: String::new() }
    }

    pub(super) fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Preparing { case, index, total } => {
                self.message(|| format!("preparing {case} ({} of {total})", index + 1));
                if index == 0 {
                    self.line(|| format!("preparing {total} cases"));
                }
            }
            Event::Skipped { case, reason } => {
                self.pace.skipped(case);
                self.note(&format!("{DOUBT}skipped{DOUBT:#} {case}: {reason}"));
            }
            Event::BlockStarted { block, total, warmup } => {
                let kind = if warmup { " (warm-up)" } else { "" };
                self.block = format!("block {}/{total}{kind}", block + 1);
            }
            Event::CaseStarted { case, .. } => self.message(|| case.to_owned()),
            Event::CaseMeasured { case, duration_ns, .. } => {
                self.pace.measured(case, Duration::from_nanos(duration_ns));
                if let Show::Bar(bar) = &self.show {
                    let left = self.pace.measurements_left();
                    bar.set_position(bar.length().unwrap_or(left).saturating_sub(left));
                }
            }
            Event::BlockFinished { .. } => {
                self.line(|| format!("{}: about {} left", self.block, rough(self.pace.time_left())));
            }
            Event::Finishing => self.message(|| "giving everything back".to_owned()),
        }
    }

    /// Takes the bar away, so that the results stand alone.
    pub(super) fn end(self) {
        if let Show::Bar(bar) = self.show {
            bar.finish_and_clear();
        }
    }

    /// Updates the bar.
    fn message(&self, what: impl Fn() -> String) {
        if let Show::Bar(bar) = &self.show {
            bar.set_prefix(self.block.clone());
            bar.set_message(format!("{} left  {}", rough(self.pace.time_left()), what()));
        }
    }

    /// Prints a line where there is no bar.
    fn line(&self, what: impl Fn() -> String) {
        if let Show::Lines = self.show {
            let _ = writeln!(anstream::stderr(), "{}", what());
        }
    }

    /// Prints a line that should stay, with or without a bar.
    fn note(&self, text: &str) {
        match &self.show {
            Show::Nothing => {}
            // Where standard error is closed, progress is of no use to anyone.
            Show::Lines => drop(writeln!(anstream::stderr(), "{text}")),
            Show::Bar(bar) => bar.suspend(|| drop(writeln!(anstream::stderr(), "{text}"))),
        }
    }
}

fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    // The template is a constant of ours; if it were wrong, the default style would show.
    if let Ok(style) = ProgressStyle::with_template("{prefix:22} {bar:24} {percent:>3}%  {msg}") {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
