//! How to see whether a container is well.

use std::time::Duration;

use clap::Args;

use super::values::{OptionsError, duration, number, wrong};
use crate::image::spec::HealthCheck;

/// Docker's defaults, in ns: between two, and when one counts as failed.
const INTERVAL: u64 = 30_000_000_000;
const TIMEOUT: u64 = 30_000_000_000;
const RETRIES: u32 = 3;

/// Options about the health check.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Health")]
pub(super) struct HealthOptions {
    /// A line for the container's shell that ends with 0 while it is well
    #[arg(long, value_name = "LINE")]
    health_cmd: Option<String>,
    /// The time between two checks [default: 30s]
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// How long one may take [default: 30s]
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// How many must fail in a row [default: 3]
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<String>,
    /// How long failures do not count at first [default: 0s]
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// No health check, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthOptions {
    /// The check, with what is not given from the image, and docker's defaults where that says nothing. `None` for no
    /// check.
    pub(super) fn check(&self, image: Option<&HealthCheck>) -> Result<Option<HealthCheck>, OptionsError> {
        if self.no_healthcheck {
            return match self.first_given() {
                Some(flag) => Err(OptionsError::Conflict(format!("--no-healthcheck cannot be used with {flag}"))),
                None => Ok(None),
            };
        }
        let image = image.cloned().unwrap_or_default();
        let ns = |flag, text: &Option<String>, image: u64, default: u64| -> Result<u64, OptionsError> {
            let given = text.as_ref().map(|text| positive(flag, text)).transpose()?.unwrap_or(0);
            Ok([given, image, default].into_iter().find(|ns| *ns > 0).unwrap_or(0))
        };
        let retries = match &self.health_retries {
            Some(text) => number("--health-retries", text, 0..=i32::MAX as u32)?,
            None => 0,
        };
        let test = match &self.health_cmd {
            Some(line) if !line.is_empty() => vec!["CMD-SHELL".to_owned(), line.clone()],
            _ => image.test,
        };
        let check = HealthCheck {
            interval: ns("--health-interval", &self.health_interval, image.interval, INTERVAL)?,
            timeout: ns("--health-timeout", &self.health_timeout, image.timeout, TIMEOUT)?,
            start_period: ns("--health-start-period", &self.health_start_period, image.start_period, 0)?,
            retries: [retries, image.retries, RETRIES].into_iter().find(|count| *count > 0).unwrap_or(RETRIES),
            test,
        };
        let is_check = check.test.len() > 1 && check.test[0] != "NONE";
        Ok(is_check.then_some(check))
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--health-cmd", &self.health_cmd),
            ("--health-interval", &self.health_interval),
            ("--health-timeout", &self.health_timeout),
            ("--health-retries", &self.health_retries),
            ("--health-start-period", &self.health_start_period),
        ];
        given.iter().find(|(_, text)| text.is_some()).map(|(flag, _)| *flag)
    }
}

/// A duration in ns: 0 for the default, or at least 1 ms.
fn positive(flag: &'static str, text: &str) -> Result<u64, OptionsError> {
    let given = duration(flag, text)?;
    if !given.is_zero() && given < Duration::from_millis(1) {
        return Err(wrong(flag, text, "it is at least 1ms"));
    }
    u64::try_from(given.as_nanos()).map_err(|_| wrong(flag, text, "it is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Vec<String> {
        vec!["CMD-SHELL".to_owned(), line.to_owned()]
    }

    #[test]
    fn what_is_given_goes_before_the_image_and_the_defaults() {
        let image = HealthCheck { test: shell("image"), interval: 7_000_000_000, retries: 9, ..HealthCheck::default() };
        let none = HealthOptions::default();
        assert_eq!(none.check(None).unwrap(), None);
        let expected = HealthCheck { timeout: TIMEOUT, ..image.clone() };
        assert_eq!(none.check(Some(&image)).unwrap(), Some(expected));
        let given = HealthOptions {
            health_cmd: Some("mine".to_owned()),
            health_timeout: Some("1m30s".to_owned()),
            health_retries: Some("2".to_owned()),
            ..HealthOptions::default()
        };
        let expected = HealthCheck {
            test: shell("mine"),
            interval: 7_000_000_000,
            timeout: 90_000_000_000,
            start_period: 0,
            retries: 2,
        };
        assert_eq!(given.check(Some(&image)).unwrap(), Some(expected));
    }

    #[test]
    fn no_check() {
        let image = HealthCheck { test: shell("image"), ..HealthCheck::default() };
        let off = HealthOptions { no_healthcheck: true, ..HealthOptions::default() };
        assert_eq!(off.check(Some(&image)).unwrap(), None);
        let both = HealthOptions { health_cmd: Some("x".to_owned()), ..off };
        assert_eq!(both.check(None).unwrap_err().to_string(), "--no-healthcheck cannot be used with --health-cmd");
        let disabled = HealthCheck { test: vec!["NONE".to_owned()], ..HealthCheck::default() };
        assert_eq!(HealthOptions::default().check(Some(&disabled)).unwrap(), None);
        let short = HealthOptions { health_interval: Some("1us".to_owned()), ..HealthOptions::default() };
        assert!(short.check(None).is_err());
    }
}
