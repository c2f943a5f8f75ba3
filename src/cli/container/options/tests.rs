//! Whole lines of options.

use std::collections::BTreeMap;

use clap::{CommandFactory, Parser};

use super::*;
use crate::container::config::Security;
use crate::image::spec::Empty;

#[derive(Debug, Parser)]
#[command(name = "x")]
struct Line {
    #[command(flatten)]
    options: Options,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn image() -> ContainerConfig {
    ContainerConfig {
        user: "app".to_owned(),
        exposed_ports: BTreeMap::from([("80/tcp".to_owned(), Empty {})]),
        env: vec!["PATH=/bin".to_owned(), "A=image".to_owned()],
        entrypoint: vec!["/entry".to_owned(), "-v".to_owned()],
        cmd: vec!["serve".to_owned()],
        volumes: BTreeMap::from([("/data".to_owned(), Empty {})]),
        working_dir: "/srv".to_owned(),
        labels: BTreeMap::from([("of".to_owned(), "image".to_owned())]),
        stop_signal: Some("SIGQUIT".to_owned()),
        ..ContainerConfig::default()
    }
}

fn config_of(image: &ContainerConfig, line: &str) -> Result<Config, String> {
    let line = Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())).map_err(|e| e.to_string())?;
    let made = line.options.config("img:1", Some("sha256:ab".to_owned()), image, line.arguments);
    made.map_err(|error| error.to_string())
}

fn config(line: &str) -> Config {
    config_of(&image(), line).unwrap()
}

fn told(line: &str) -> String {
    config_of(&image(), line).unwrap_err()
}

#[test]
fn the_options_are_consistent() {
    Line::command().debug_assert();
    let help = Line::command().render_long_help().to_string();
    for flag in [
        "--name",
        "--interactive",
        "--tty",
        "--env",
        "--env-file",
        "--label",
        "--label-file",
        "--volume",
        "--mount",
        "--tmpfs",
        "--read-only",
        "--workdir",
        "--user",
        "--group-add",
        "--hostname",
        "--domainname",
        "--network",
        "--publish",
        "--publish-all",
        "--expose",
        "--add-host",
        "--dns",
        "--dns-search",
        "--entrypoint",
        "--userns",
        "--memory",
        "--memory-swap",
        "--memory-reservation",
        "--oom-kill-disable",
        "--cpu-shares",
        "--cpus",
        "--cpu-period",
        "--cpu-quota",
        "--cpuset-cpus",
        "--cpuset-mems",
        "--blkio-weight",
        "--device-read-bps",
        "--device-write-bps",
        "--device-read-iops",
        "--device-write-iops",
        "--device",
        "--device-cgroup-rule",
        "--pids-limit",
        "--ulimit",
        "--cap-add",
        "--cap-drop",
        "--security-opt",
        "--privileged",
        "--init",
        "--rm",
        "--restart",
        "--stop-signal",
        "--stop-timeout",
        "--health-cmd",
        "--health-interval",
        "--health-timeout",
        "--health-retries",
        "--health-start-period",
        "--no-healthcheck",
        "--log-driver",
        "--log-opt",
        "--pull",
        "--platform",
    ] {
        assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{flag}");
    }
}

#[test]
fn an_image_s_values_hold_where_nothing_is_said() {
    let made = config("");
    assert_eq!(made.arguments(), ["/entry", "-v", "serve"]);
    assert_eq!(made.environment, ["PATH=/bin".to_owned(), format!("HOSTNAME={}", made.hostname), "A=image".to_owned()]);
    assert_eq!(made.hostname, made.short_id());
    assert_eq!((made.working_directory.as_str(), made.user.as_str(), made.stop_signal), ("/srv", "app", 3));
    assert_eq!((made.exposed.as_slice(), made.labels["of"].as_str()), (["80/tcp".to_owned()].as_slice(), "image"));
    assert_eq!((made.mounts.len(), made.mounts[0].target.as_str()), (1, "/data"));
    assert_eq!((made.image.as_str(), made.image_id.as_deref()), ("img:1", Some("sha256:ab")));
    assert_eq!((made.name.as_str(), made.stop_timeout, made.log), ("", STOP_TIMEOUT, LogConfig::default()));
    assert_eq!((made.security, made.restart, made.limits), (Security::default(), RestartPolicy::No, Limits::default()));
    assert!(made.created.parse::<jiff::Timestamp>().is_ok());
}

#[test]
fn what_is_said_holds() {
    let made = config(
        "--name web -it -e A=1 -l k=v -v /srv:/data --tmpfs /run --read-only -w /w -u 5:6 --group-add wheel -h box \
         --network none --init --restart on-failure:3 --stop-signal INT --stop-timeout -1 --log-opt max-size=10m \
         --log-opt max-file=3 --cap-add SYS_TIME --userns 100000:65536 -m 64m --pull never --platform linux/arm64 \
         img --flag",
    );
    assert_eq!((made.name.as_str(), made.open_stdin, made.tty), ("web", true, true));
    assert_eq!(made.environment, ["PATH=/bin", "HOSTNAME=box", "TERM=xterm", "A=1"]);
    assert_eq!(made.arguments(), ["/entry", "-v", "img", "--flag"]);
    assert_eq!((made.working_directory.as_str(), made.user.as_str()), ("/w", "5:6"));
    assert_eq!((made.groups.as_slice(), made.network), (["wheel".to_owned()].as_slice(), NetworkMode::None));
    assert_eq!((made.restart, made.stop_signal, made.stop_timeout), (RestartPolicy::OnFailure(3), 2, FOREVER));
    assert_eq!(made.log, LogConfig { kept: true, max_size: Some(10 << 20), max_files: 3 });
    assert_eq!((made.user_namespace, made.limits.memory), (Some((100_000, 65_536)), Some(64 << 20)));
    assert!(made.init && made.read_only && made.mounts.len() == 2);
    assert_eq!(made.security.cap_add, ["SYS_TIME"]);
}

#[test]
fn an_entry_point_makes_the_images_void() {
    assert_eq!(config("--entrypoint /bin/sh").arguments(), ["/bin/sh"]);
    assert_eq!(config("--entrypoint /bin/sh -- -c x").arguments(), ["/bin/sh", "-c", "x"]);
    let line = Line::parse_from(["x", "--entrypoint", "", "true"]);
    let made = line.options.config("i", None, &image(), line.arguments).unwrap();
    assert_eq!((made.entrypoint.len(), made.command.as_slice()), (0, ["true".to_owned()].as_slice()));
    let line = Line::parse_from(["x", "--entrypoint", ""]);
    let outcome = line.options.config("i", None, &image(), line.arguments);
    assert!(matches!(outcome, Err(OptionsError::NoCommand)));
    assert!(config_of(&ContainerConfig::default(), "").is_err());
    assert_eq!(config_of(&ContainerConfig::default(), "true").unwrap().working_directory, "/");
}

#[test]
fn the_hosts_stack_has_the_hosts_name() {
    let own = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(config("--network host").hostname, own);
}

#[test]
fn wrong_lines_say_what_would_be_right() {
    let lines = [
        "--rm --restart always",
        "--restart sometimes",
        "-w relative",
        "--stop-signal NONE",
        "--stop-timeout x",
        "--log-driver syslog",
        "--log-driver none --log-opt max-size=1",
        "--log-opt max-file=3",
        "--log-opt max-size=0",
        "--log-opt tag=x",
        "--userns 1:1 --privileged",
    ];
    expect_test::expect![[r#"
        --rm cannot be used with --restart always: what is removed cannot be started again
        --restart cannot be `sometimes`: write no, on-failure, on-failure:N, always or unless-stopped
        --workdir cannot be `relative`: write an absolute path
        --stop-signal cannot be `NONE`: write a signal's name or a number from 1 to 64, as in TERM, SIGINT, 9 or RTMIN+3
        --stop-timeout cannot be `x`: write a whole number from -1 to 2147483647
        --log-driver cannot be `syslog`: write json-file or none
        --log-driver none takes no --log-opt
        --log-opt max-file needs --log-opt max-size, at which a new file is begun
        --log-opt cannot be `max-size=0`: max-size is at least 1 byte; -1 is no limit
        --log-opt cannot be `tag=x`: write max-size=BYTES or max-file=NUMBER
        --privileged cannot be used with users of its own; add --userns host
    "#]]
    .assert_eq(&lines.map(|line| told(line) + "\n").concat());
    let image = ContainerConfig { stop_signal: Some("SIGNONE".to_owned()), ..image() };
    assert!(config_of(&image, "").unwrap_err().contains("give another with --stop-signal"));
}

#[test]
fn a_configuration_is_kept() {
    let made = config("-p 80 --cpus 0.5 --ulimit nofile=1:2 --health-cmd true");
    let read: Config = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
    assert_eq!(read, made);
}
