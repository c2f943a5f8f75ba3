//! `isobench container logs`.

use std::io::{self, Write};

use clap::Args;
use jiff::Timestamp;

use super::{CommandError, Outcome};
use crate::cli::CliError;
use crate::container::client::settled;
use crate::container::log::{Entry, Reader, Stream};
use crate::container::state::Status;
use crate::container::store::Store;

/// The arguments of `isobench container logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// Go on with what it writes, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only this many lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Say when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only what was written since a time (by RFC 3339) or for so long (42m)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only what was written before a time or so long ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// A name or an identifier
    container: String,
}

/// How many lines; `None` for all.
#[derive(Debug, Clone, Copy)]
struct Tail(Option<u64>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail(None)),
        text => text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "write a number of lines, or `all`".to_owned()),
    }
}

/// A time, a day, seconds since 1970, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is no time such as 2026-01-31T12:00:00Z, and no duration such as 42m");
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let ns = (seconds * 1e9) as i128;
        return Timestamp::from_nanosecond(ns).map_err(|_| wrong());
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        return jiff::tz::TimeZone::UTC
            .to_timestamp(date.to_datetime(jiff::civil::Time::midnight()))
            .map_err(|_| wrong());
    }
    let ago = text.parse::<jiff::SignedDuration>().map_err(|_| wrong())?;
    Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

pub(super) fn run(store: &Store, args: &LogsArgs) -> Result<Outcome, CommandError> {
    let stored = store.find(&args.container)?;
    settled(store, &stored)?;
    if !stored.config.log.kept {
        return Err(CommandError::Usage(format!(
            "container {} keeps no log: it was made with --log-driver none",
            stored.config.short_id()
        )));
    }
    let mut reader = Reader::new(stored.log());
    (reader.tail, reader.since, reader.until) = (args.tail.0, args.since, args.until);
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let print = |entry: &Entry| -> Result<(), CommandError> {
        let written = match entry.stream {
            Stream::Stdout => entry.write(args.timestamps, &mut stdout),
            Stream::Stderr => entry.write(args.timestamps, &mut stderr),
        };
        written.map_err(|error| CliError::Output(error).into())
    };
    if args.follow {
        let runs = || stored.state().is_ok_and(|state| state.status.is_up() || state.status == Status::Restarting);
        reader.follow(runs, print)?;
    } else {
        reader.read(print)?;
    }
    io::stdout().flush().map_err(CliError::Output)?;
    Ok(Outcome::PASS)
}
