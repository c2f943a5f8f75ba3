//! `isobench container top`: the processes of a container as the host's `ps` shows them.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use procfs::process::{Process, Stat};

use super::super::{CliError, Ended, columns, output};
use super::shown;
use crate::cgroup::{Layout, View};
use crate::container::store::Store;

/// The arguments of `isobench container top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// A name or identifier of a container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// As ps takes them: -ef, aux, or -o with names of columns: uid, user, group, pid, ppid, c, pcpu, rss, vsz, stat,
    /// stime, tty, time, etime, ni, comm, args
    #[arg(value_name = "OPTIONS", allow_hyphen_values = true, trailing_var_arg = true)]
    options: Vec<String>,
}

/// A column: its title and how it is read of a process.
#[derive(Clone, Copy)]
struct Column {
    title: &'static str,
    read: fn(&Seen<'_>) -> String,
}

/// One process, read once.
struct Seen<'a> {
    stat: Stat,
    uid: u32,
    gid: u32,
    command_line: Vec<String>,
    host: &'a Host,
}

/// What is the same for all processes.
struct Host {
    boot: Timestamp,
    now: Timestamp,
    ticks: u64,
    page: u64,
    users: String,
    groups: String,
}

pub(super) fn run(store: &Store, args: &TopArgs) -> Result<Ended, CliError> {
    let wanted = wanted(&args.options)?;
    let stored = store.find(&args.container)?;
    let not_running = || CliError::NotRunning(stored.config.name.clone());
    if !shown::settled(stored.state()?).status.is_up() {
        return Err(not_running());
    }
    let view = View::existing(&stored.config.id, &Layout::detect()?).ok_or_else(not_running)?;
    let host = Host::read();
    let mut rows = vec![wanted.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>()];
    for pid in view.processes()? {
        // One that has ended meanwhile is left out.
        let Some(process) = Seen::of(pid, &host) else { continue };
        rows.push(wanted.iter().map(|column| (column.read)(&process)).collect());
    }
    output::print(&columns::render(&rows))?;
    Ok(Ended::Pass)
}

/// The columns of what ps would be given.
fn wanted(options: &[String]) -> Result<Vec<Column>, CliError> {
    let named = |names: &str| names.split([',', ' ']).filter(|name| !name.is_empty()).map(column).collect();
    let mut options = options.iter().map(String::as_str);
    match options.next() {
        None | Some("-ef" | "-e" | "-f") => named("uid,pid,ppid,c,stime,tty,time,args"),
        Some("aux") => named("user,pid,pcpu,vsz,rss,tty,stat,stime,time,args"),
        Some(option) => match option.trim_start_matches('-').trim_start_matches(['e', 'a', 'x']).strip_prefix('o') {
            Some(rest) if option.starts_with('-') => {
                named(&std::iter::once(rest).chain(options).collect::<Vec<_>>().join(","))
            }
            _ => Err(CliError::Column(option.to_owned())),
        },
    }
}

fn column(name: &str) -> Result<Column, CliError> {
    let (title, read): (&'static str, fn(&Seen<'_>) -> String) = match name {
        "uid" => ("UID", |seen| seen.user()),
        "user" | "euser" => ("USER", |seen| seen.user()),
        "group" | "egroup" => ("GROUP", |seen| name_of(&seen.host.groups, seen.gid)),
        "pid" => ("PID", |seen| seen.stat.pid.to_string()),
        "ppid" => ("PPID", |seen| seen.stat.ppid.to_string()),
        "pgid" => ("PGID", |seen| seen.stat.pgrp.to_string()),
        "c" => ("C", |seen| (seen.busy() as u64).min(99).to_string()),
        "pcpu" | "%cpu" => ("%CPU", |seen| format!("{:.1}", seen.busy())),
        "rss" => ("RSS", |seen| (seen.stat.rss * seen.host.page / 1024).to_string()),
        "vsz" => ("VSZ", |seen| (seen.stat.vsize / 1024).to_string()),
        "stat" | "s" => ("STAT", |seen| seen.stat.state.to_string()),
        "stime" | "start" => ("STIME", |seen| seen.start()),
        "tty" | "tt" => ("TTY", |seen| seen.terminal()),
        "time" | "cputime" => ("TIME", |seen| clock(seen.cpu_seconds())),
        "etime" => ("ELAPSED", |seen| clock(seen.age())),
        "ni" => ("NI", |seen| seen.stat.nice.to_string()),
        "comm" | "ucmd" => ("COMMAND", |seen| seen.stat.comm.clone()),
        "args" | "cmd" | "command" => ("CMD", |seen| seen.command()),
        _ => return Err(CliError::Column(name.to_owned())),
    };
    Ok(Column { title, read })
}

impl Host {
    fn read() -> Self {
        let up = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up: f64 = up.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
        let now = Timestamp::now();
        let boot = now.checked_sub(SignedDuration::from_millis((up * 1e3) as i64)).unwrap_or(now);
        // The names of the host's own files, parsed here: no module for names is loaded.
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (ticks, page) = (procfs::ticks_per_second(), procfs::page_size());
        Self { boot, now, ticks, page, users: file("/etc/passwd"), groups: file("/etc/group") }
    }
}

/// The name of an id in a file of lines `NAME:x:ID:…`; the number where it has none.
fn name_of(file: &str, id: u32) -> String {
    let mut lines = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|line| line.get(2).is_some_and(|text| text.parse() == Ok(id)));
    found.map_or_else(|| id.to_string(), |line| line[0].to_owned())
}

impl<'a> Seen<'a> {
    fn of(pid: u32, host: &'a Host) -> Option<Self> {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        let (stat, status) = (process.stat().ok()?, process.status().ok()?);
        let command_line = process.cmdline().unwrap_or_default();
        Some(Self { stat, uid: status.euid, gid: status.egid, command_line, host })
    }

    fn user(&self) -> String {
        name_of(&self.host.users, self.uid)
    }

    /// Seconds since it started.
    fn age(&self) -> u64 {
        let started = self.stat.starttime / self.host.ticks;
        let now = self.host.now.duration_since(self.host.boot).as_secs();
        u64::try_from(now).unwrap_or(0).saturating_sub(started)
    }

    fn cpu_seconds(&self) -> u64 {
        (self.stat.utime + self.stat.stime) / self.host.ticks
    }

    /// The part of its life in which it was on a CPU, in percent.
    fn busy(&self) -> f64 {
        let used = (self.stat.utime + self.stat.stime) as f64 / self.host.ticks as f64;
        used * 100.0 / (self.age().max(1)) as f64
    }

    /// The time of the day when it started, or the day where that is another one; UTC.
    fn start(&self) -> String {
        let started = SignedDuration::from_secs((self.stat.starttime / self.host.ticks) as i64);
        let Ok(started) = self.host.boot.checked_add(started) else { return "?".to_owned() };
        let day = |time: Timestamp| time.strftime("%F").to_string();
        let form = if day(started) == day(self.host.now) { "%H:%M" } else { "%b%d" };
        started.strftime(form).to_string()
    }

    fn terminal(&self) -> String {
        match self.stat.tty_nr() {
            (0, 0) => "?".to_owned(),
            (136..=143, minor) => format!("pts/{minor}"),
            (4, minor) => format!("tty{minor}"),
            (major, minor) => format!("{major}:{minor}"),
        }
    }

    fn command(&self) -> String {
        let line = self.command_line.join(" ");
        let text = if line.is_empty() { format!("[{}]", self.stat.comm) } else { line };
        // What a program calls itself is no one's to trust.
        text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
    }
}

/// Seconds as `[DAYS-]HOURS:MINUTES:SECONDS`.
fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let text = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(options: &[&str]) -> Result<Vec<&'static str>, CliError> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        Ok(wanted(&options)?.iter().map(|column| column.title).collect())
    }

    #[test]
    fn columns_as_ps_has_them() {
        let default = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
        assert_eq!(titles(&[]).unwrap(), default);
        assert_eq!(titles(&["-ef"]).unwrap(), default);
        assert_eq!(titles(&["-o", "pid,comm"]).unwrap(), ["PID", "COMMAND"]);
        assert_eq!(titles(&["-eo", "pid", "args"]).unwrap(), ["PID", "CMD"]);
        assert_eq!(titles(&["-opid"]).unwrap(), ["PID"]);
        assert!(titles(&["-o", "nonsense"]).is_err() && titles(&["-z"]).is_err());
    }

    #[test]
    fn times_and_names() {
        assert_eq!(clock(3_661), "01:01:01");
        assert_eq!(clock(90_000), "1-01:00:00");
        assert_eq!(name_of("root:x:0:0::/:/sh\nx:x:7:7::/:/sh\n", 7), "x");
        assert_eq!(name_of("", 7), "7");
    }

    #[test]
    fn this_process_is_seen() {
        let host = Host::read();
        let seen = Seen::of(std::process::id(), &host).unwrap();
        assert!(seen.age() < 3600 && !seen.command().is_empty());
    }
}
