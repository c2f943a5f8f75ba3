//! When a container is started again by itself, and after which wait: docker's rules, as pure functions.

use std::str::FromStr;
use std::time::Duration;

use super::config::RestartPolicy;

/// The wait before the first start.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest wait.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run of this length makes the next wait the first one again.
pub const LONG_RUN: Duration = Duration::from_secs(10);

/// A text that is no restart policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no restart policy; write no, on-failure, on-failure:N, always or unless-stopped")]
pub struct RestartError(pub String);

impl FromStr for RestartPolicy {
    type Err = RestartError;

    fn from_str(text: &str) -> Result<Self, RestartError> {
        match text {
            "no" | "" => Ok(Self::No),
            "always" => Ok(Self::Always),
            "unless-stopped" => Ok(Self::UnlessStopped),
            "on-failure" => Ok(Self::OnFailure(0)),
            _ => {
                let count = text.strip_prefix("on-failure:").filter(|count| !count.starts_with('+'));
                let count = count.and_then(|count| count.parse().ok());
                count.map(Self::OnFailure).ok_or_else(|| RestartError(text.to_owned()))
            }
        }
    }
}

impl std::fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(0) => f.write_str("on-failure"),
            Self::OnFailure(count) => write!(f, "on-failure:{count}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

/// How a run of a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The code that it ended with.
    pub exit_code: i32,
    /// How long it ran.
    pub lasted: Duration,
    /// How often the policy had started it before.
    pub restarts: u32,
    /// The wait before this run, if the policy began it.
    pub delay: Option<Duration>,
    /// Whether it was stopped by hand.
    pub stopped_by_hand: bool,
}

/// The wait before the next run; `None` when there is none.
#[must_use]
pub fn next(policy: RestartPolicy, run: &Run) -> Option<Duration> {
    let again = match policy {
        RestartPolicy::No => false,
        RestartPolicy::OnFailure(most) => run.exit_code != 0 && (most == 0 || run.restarts < most),
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    };
    (again && !run.stopped_by_hand).then(|| match run.delay {
        Some(before) if run.lasted < LONG_RUN => before.saturating_mul(2).clamp(FIRST_DELAY, LONGEST_DELAY),
        _ => FIRST_DELAY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run =
        Run { exit_code: 1, lasted: Duration::from_secs(1), restarts: 0, delay: None, stopped_by_hand: false };

    #[test]
    fn policies_are_read_and_written() {
        for text in ["no", "on-failure", "on-failure:3", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for text in ["Always", "on-failure:", "on-failure:-1", "on-failure:+1", "on-failure:x", "always:3", "never"] {
            assert_eq!(text.parse::<RestartPolicy>(), Err(RestartError(text.to_owned())));
        }
    }

    #[test]
    fn who_is_started_again() {
        let again = |policy, run| next(policy, &run).is_some();
        let well = Run { exit_code: 0, ..RUN };
        let by_hand = Run { stopped_by_hand: true, ..RUN };
        for (policy, after_failure, after_success) in [
            (RestartPolicy::No, false, false),
            (RestartPolicy::OnFailure(0), true, false),
            (RestartPolicy::Always, true, true),
            (RestartPolicy::UnlessStopped, true, true),
        ] {
            assert_eq!((again(policy, RUN), again(policy, well)), (after_failure, after_success), "{policy}");
            assert!(!again(policy, by_hand), "{policy}");
        }
        assert!(again(RestartPolicy::OnFailure(3), Run { restarts: 2, ..RUN }));
        assert!(!again(RestartPolicy::OnFailure(3), Run { restarts: 3, ..RUN }));
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut run = RUN;
        let mut waits = Vec::new();
        for restarts in 0..12 {
            run = Run { restarts, delay: next(RestartPolicy::Always, &run), ..run };
            waits.push(run.delay.unwrap().as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        let long = Run { lasted: LONG_RUN, ..run };
        assert_eq!(next(RestartPolicy::Always, &long), Some(FIRST_DELAY));
    }
}
