//! `doze`: sleeps again and again, and notes how late it is woken: scheduling latency, as a service sees it that waits
//! for work.
//!
//! `__workload doze --window START:END --every NS [--cpu N]`
//!
//! Each sleep ends at an instant of its own (`clock_nanosleep` with TIMER_ABSTIME); the latency is how long after it
//! the thread runs. Sleeps are `--every` long and up to an eighth longer, by a fixed sequence: so the wake-ups meet
//! every phase of the timer tick, and are the same in each run. The timer slack is 1 ns, so that what is seen is the
//! scheduler's doing and not the 50 µs by which the kernel may put timers together.

use hdrhistogram::Histogram;
use nix::sys::prctl::set_timerslack;
use serde::{Deserialize, Serialize};

use super::WorkloadError;
use super::burn::{option, usage, window, window_word};
use super::result::{LATENCY_BOUNDS_NS, LATENCY_DIGITS, Latency, Window};
use super::socket::pin;
use crate::sys::clock;

/// What a dozer has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doze {
    /// When it is measured.
    pub window: Window,
    /// The shortest sleep, in ns.
    pub every_ns: u64,
    /// The only CPU that it may run on.
    pub cpu: Option<u32>,
}

/// What a dozer saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DozeResult {
    /// When it was there: ns of CLOCK_MONOTONIC. After the window has opened is too late for it.
    pub ready_ns: u64,
    /// How late each wake-up was, in ns: HDR V2, uncompressed, base64.
    pub latency: Latency,
}

impl Doze {
    /// The words that make this program do so.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let every = self.every_ns.to_string();
        let mut words: Vec<String> =
            ["doze", "--window", &window_word(self.window), "--every", &every].map(str::to_owned).into();
        words.extend(self.cpu.into_iter().flat_map(|cpu| ["--cpu".to_owned(), cpu.to_string()]));
        words
    }

    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// [`WorkloadError::Arguments`] with what would be right.
    pub fn parse(words: &[String]) -> Result<Self, WorkloadError> {
        let (mut when, mut every_ns, mut cpu) = (None, 10_000_000, None);
        for pair in words.chunks(2) {
            let (name, value) = option(pair)?;
            let wrong = |what: &str| usage(format!("{name}: `{value}` is not {what}"));
            match name {
                "--window" => when = Some(window(name, value)?),
                "--every" => {
                    let every = value.parse().ok().filter(|every| *every > 0);
                    every_ns = every.ok_or_else(|| wrong("a number of ns above 0"))?;
                }
                "--cpu" => cpu = Some(value.parse().map_err(|_| wrong("a CPU number"))?),
                other => {
                    return Err(usage(format!("unknown option `{other}`; known here are --window, --every, --cpu")));
                }
            }
        }
        let window = when.ok_or_else(|| usage("doze needs --window START:END".to_owned()))?;
        Ok(Self { window, every_ns, cpu })
    }

    /// Does it.
    pub(super) fn run(&self) -> Result<DozeResult, WorkloadError> {
        pin(self.cpu)?;
        set_timerslack(1).map_err(WorkloadError::system("set the timer slack"))?;
        let (low, high) = LATENCY_BOUNDS_NS;
        // The bounds are sound; a test in `result` packs such a histogram.
        let Ok(mut latencies) = Histogram::<u64>::new_with_bounds(low, high, LATENCY_DIGITS) else {
            return Err(usage("no histogram has these bounds".to_owned()));
        };
        let ready_ns = clock::now_ns();
        let (mut due_ns, mut state) = (self.window.start_ns, 1_u64);
        while due_ns < self.window.end_ns {
            clock::sleep_until(due_ns);
            let now_ns = clock::now_ns();
            latencies.saturating_record((now_ns - due_ns).max(low));
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // The generator's high bits are its good ones.
            due_ns = now_ns + self.every_ns + (state >> 33) % (self.every_ns / 8).max(1);
        }
        Ok(DozeResult { ready_ns, latency: Latency::encode(&latencies)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip_and_errors_say_what_is_right() {
        let doze = Doze { window: Window { start_ns: 5, end_ns: 9 }, every_ns: 7, cpu: Some(1) };
        assert_eq!(Doze::parse(&doze.to_words()[1..]).unwrap(), doze);
        let refuse = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Doze::parse(&words).unwrap_err().to_string()
        };
        assert_eq!(refuse(""), "doze needs --window START:END");
        assert_eq!(refuse("--every 0"), "--every: `0` is not a number of ns above 0");
        assert_eq!(refuse("--cpu x"), "--cpu: `x` is not a CPU number");
        assert_eq!(refuse("--at 1"), "unknown option `--at`; known here are --window, --every, --cpu");
    }

    #[test]
    fn every_wake_up_is_counted_and_none_is_early() {
        let start_ns = clock::now_ns() + 1_000_000;
        let window = Window { start_ns, end_ns: start_ns + 10_000_000 };
        let seen = Doze { window, every_ns: 1_000_000, cpu: None }.run().unwrap();
        let latencies = seen.latency.decode().unwrap();
        assert!((1..=10).contains(&latencies.len()), "{}", latencies.len());
        assert!(latencies.min() >= 1);
    }
}
