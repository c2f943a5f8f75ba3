//! What `run` and `create` share: docker's options, checked, and laid over what the image says.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use crate::container::config::{Config, Limits, LogConfig, NetworkMode, RestartPolicy, SCHEMA};
use crate::container::{names, signal};
use crate::image::spec::ContainerConfig;

mod environment;
mod health;
mod limits;
mod mounts;
mod network;
mod security;
mod values;

pub(in crate::cli) use limits::LimitOptions;
pub(in crate::cli) use values::OptionsError;

use values::{bytes, number, wrong};

/// How long a container has to end where nothing else is said.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A time to end that never passes: a hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The most files of a log; all of them are opened to read it.
const MOST_LOG_FILES: u32 = 500;

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Pull {
    /// When it is not here
    Missing,
    /// Never
    Never,
    /// Each time
    Always,
}

/// The options of a container.
#[derive(Debug, Clone, Args)]
#[command(disable_help_flag = true)]
pub(in crate::cli) struct Options {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Its name [default: two words at random]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Keep standard input open though no one is attached
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// A variable; without a value, from here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    environment: Vec<String>,
    /// A file of variables, one a line
    #[arg(long = "env-file", value_name = "FILE")]
    environment_files: Vec<String>,
    /// A label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// A file of labels, one a line
    #[arg(long = "label-file", value_name = "FILE")]
    label_files: Vec<String>,
    /// Where the program starts
    #[arg(short, long = "workdir", value_name = "DIRECTORY")]
    working_directory: Option<String>,
    /// The program, in the place of the image's entry point; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Run a small init as PID 1, which reaps and passes signals on
    #[arg(long)]
    init: bool,
    /// Remove it once it has ended
    #[arg(long = "rm")]
    auto_remove: bool,
    /// When it is started again: no, on-failure or on-failure:N, always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    restart: String,
    /// The signal that asks it to end [default: the image's, or TERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How many seconds it has to end, -1 for ever [default: 10]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<String>,
    /// How its output is kept: json-file or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// max-size=BYTES or max-file=NUMBER
    #[arg(long = "log-opt", value_name = "NAME=VALUE")]
    log_options: Vec<String>,
    /// When the image is fetched
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: Pull,
    /// The platform of the image, as in linux/amd64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    /// A path or a volume, as in /srv:/data:ro or data:/data
    #[arg(short, long = "volume", value_name = "[SOURCE:]TARGET[:OPTIONS]", help_heading = "Files")]
    volumes: Vec<String>,
    /// A mount, as in type=bind,source=/srv,target=/data,readonly
    #[arg(long = "mount", value_name = "KEY=VALUE,…", help_heading = "Files")]
    mounts: Vec<String>,
    /// A file system in memory, as in /run:size=64m
    #[arg(long, value_name = "TARGET[:OPTIONS]", help_heading = "Files")]
    tmpfs: Vec<String>,
    /// Its root can only be read
    #[arg(long, help_heading = "Files")]
    read_only: bool,
    #[command(flatten)]
    network: network::NetworkOptions,
    #[command(flatten)]
    security: security::SecurityOptions,
    #[command(flatten)]
    limits: LimitOptions,
    #[command(flatten)]
    fixed_limits: limits::FixedLimitOptions,
    #[command(flatten)]
    health: health::HealthOptions,
}

impl Options {
    /// Whether standard input stays open.
    pub(in crate::cli) fn interactive(&self) -> bool {
        self.interactive
    }

    /// Whether it gets a terminal.
    pub(in crate::cli) fn tty(&self) -> bool {
        self.tty
    }

    /// When the image is fetched.
    pub(in crate::cli) fn pull(&self) -> Pull {
        self.pull
    }

    /// The platform of the image, where one was asked for.
    pub(in crate::cli) fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// The container that was asked for, with a new identifier and the image's values where nothing was said. Its name
    /// is empty where none was given.
    ///
    /// # Errors
    /// The first option that is wrong or contradicts another.
    pub(in crate::cli) fn config(
        &self,
        image_name: &str,
        image_id: Option<String>,
        image: &ContainerConfig,
        arguments: Vec<String>,
    ) -> Result<Config, OptionsError> {
        let id = names::random_id().map_err(OptionsError::Random)?;
        let restart = self.restart()?;
        let connected = self.network.connected(image.exposed_ports.keys())?;
        let hostname = connected.hostname.unwrap_or_else(|| default_hostname(&connected.network, &id));
        let asked = environment::asked(&self.environment_files, &self.environment)?;
        let (entrypoint, command) = self.program(image, arguments)?;
        let mut limits = Limits::default();
        self.limits.apply(&mut limits)?;
        self.fixed_limits.apply(&mut limits)?;
        Ok(Config {
            schema: SCHEMA,
            name: self.name()?,
            created: format!("{:.9}", jiff::Timestamp::now()),
            image: image_name.to_owned(),
            image_id,
            entrypoint,
            command,
            environment: environment::merge(&hostname, self.tty, &asked, &image.env),
            working_directory: self.working_directory(image)?,
            user: self.security.user.clone().unwrap_or_else(|| image.user.clone()),
            groups: self.security.groups.clone(),
            hostname,
            domainname: connected.domainname,
            labels: environment::labels(&image.labels, &self.label_files, &self.labels)?,
            ports: connected.ports,
            exposed: connected.exposed,
            publish_all: connected.publish_all,
            extra_hosts: connected.extra_hosts,
            dns: connected.dns,
            dns_search: connected.dns_search,
            open_stdin: self.interactive,
            stdin_once: false,
            tty: self.tty,
            mounts: mounts::all(&self.volumes, &self.mounts, &self.tmpfs, image.volumes.keys())?,
            read_only: self.read_only,
            user_namespace: self.security.user_namespace(&connected.network)?,
            network: connected.network,
            limits,
            devices: self.fixed_limits.devices()?,
            device_rules: self.fixed_limits.device_rules()?,
            ulimits: self.fixed_limits.ulimits()?,
            security: self.security.security()?,
            init: self.init,
            auto_remove: self.auto_remove,
            restart,
            stop_signal: self.stop_signal(image)?,
            stop_timeout: self.stop_timeout()?,
            health: self.health.check(image.healthcheck.as_ref())?,
            log: self.log()?,
            id,
        })
    }

    fn name(&self) -> Result<String, OptionsError> {
        match self.name.as_deref() {
            Some("") => Err(wrong("--name", "", "write a name, or leave the option out for one at random")),
            // Docker's inspect shows names with a slash, and takes them so.
            Some(name) => Ok(name.strip_prefix('/').unwrap_or(name).to_owned()),
            None => Ok(String::new()),
        }
    }

    /// The entry point and the command: an entry point that is given makes those of the image void, arguments that are
    /// given the image's command.
    fn program(
        &self,
        image: &ContainerConfig,
        arguments: Vec<String>,
    ) -> Result<(Vec<String>, Vec<String>), OptionsError> {
        let (entrypoint, default) = match self.entrypoint.as_deref() {
            Some("") => (Vec::new(), Vec::new()),
            Some(program) => (vec![program.to_owned()], Vec::new()),
            None => (image.entrypoint.clone(), image.cmd.clone()),
        };
        let command = if arguments.is_empty() { default } else { arguments };
        if entrypoint.iter().chain(&command).next().is_none_or(String::is_empty) {
            return Err(OptionsError::NoCommand);
        }
        Ok((entrypoint, command))
    }

    fn working_directory(&self, image: &ContainerConfig) -> Result<String, OptionsError> {
        match self.working_directory.as_deref() {
            Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(path.to_owned()),
            Some(path) => Err(wrong("--workdir", path, "write an absolute path")),
            None if image.working_dir.starts_with('/') => Ok(image.working_dir.clone()),
            None => Ok(format!("/{}", image.working_dir)),
        }
    }

    fn restart(&self) -> Result<RestartPolicy, OptionsError> {
        let policy = self.restart.parse();
        let policy = policy.map_err(|_| {
            wrong("--restart", &self.restart, "write no, on-failure, on-failure:N, always or unless-stopped")
        })?;
        if self.auto_remove && policy != RestartPolicy::No {
            let told = format!("--rm cannot be used with --restart {policy}: what is removed cannot be started again");
            return Err(OptionsError::Conflict(told));
        }
        Ok(policy)
    }

    fn stop_signal(&self, image: &ContainerConfig) -> Result<i32, OptionsError> {
        let expected = "write a signal's name or a number from 1 to 64, as in TERM, SIGINT, 9 or RTMIN+3";
        match (&self.stop_signal, image.stop_signal.as_deref().filter(|signal| !signal.is_empty())) {
            (Some(text), _) => signal::parse(text).map_err(|_| wrong("--stop-signal", text, expected)),
            (None, Some(text)) => signal::parse(text).map_err(|_| {
                let told = format!("the image's stop signal `{text}` is none; give another with --stop-signal");
                OptionsError::Conflict(told)
            }),
            (None, None) => Ok(libc::SIGTERM),
        }
    }

    fn stop_timeout(&self) -> Result<Duration, OptionsError> {
        let Some(text) = &self.stop_timeout else { return Ok(STOP_TIMEOUT) };
        let seconds = number("--stop-timeout", text, -1..=i64::from(i32::MAX))?;
        Ok(u64::try_from(seconds).map_or(FOREVER, Duration::from_secs))
    }

    fn log(&self) -> Result<LogConfig, OptionsError> {
        const FLAG: &str = "--log-opt";
        let mut log = LogConfig::default();
        match self.log_driver.as_str() {
            "json-file" => {}
            "none" if self.log_options.is_empty() => log.kept = false,
            "none" => return Err(OptionsError::Conflict("--log-driver none takes no --log-opt".to_owned())),
            other => return Err(wrong("--log-driver", other, "write json-file or none")),
        }
        for text in &self.log_options {
            match text.split_once('=') {
                // Docker's word for no limit.
                Some(("max-size", "-1")) => log.max_size = None,
                Some(("max-size", size)) => match bytes(FLAG, size)? {
                    0 => return Err(wrong(FLAG, text, "max-size is at least 1 byte; -1 is no limit")),
                    size => log.max_size = Some(size),
                },
                Some(("max-file", count)) => log.max_files = number(FLAG, count, 1..=MOST_LOG_FILES)?,
                _ => return Err(wrong(FLAG, text, "write max-size=BYTES or max-file=NUMBER")),
            }
        }
        if log.max_files > 1 && log.max_size.is_none() {
            return Err(OptionsError::Conflict(
                "--log-opt max-file needs --log-opt max-size, at which a new file is begun".to_owned(),
            ));
        }
        Ok(log)
    }
}

/// The host's own name on its stack, else the first digits of the identifier, as docker has it.
fn default_hostname(network: &NetworkMode, id: &str) -> String {
    let own = || nix::unistd::gethostname().ok()?.into_string().ok();
    let own = if *network == NetworkMode::Host { own() } else { None };
    own.unwrap_or_else(|| id.get(..12).unwrap_or(id).to_owned())
}

#[cfg(test)]
mod tests;
