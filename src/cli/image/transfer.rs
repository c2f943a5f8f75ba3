//! `isobench image pull` and `push`, with a bar a layer where standard error is a terminal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::super::{CliError, Ended, output};
use crate::image::ImageError;
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::image::registry::{self, Connection, Event};
use crate::image::spec::{Platform, own_platform};
use crate::image::store::Store;

/// What `pull` and `push` have in common.
#[derive(Debug, Args)]
struct ConnectionArgs {
    /// Speak http without TLS, which anyone on the way can read and change
    #[arg(long)]
    plain_http: bool,
    /// How often to try a request that gets nowhere
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    attempts: u32,
    /// How many layers are on their way at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    parallel: usize,
    /// Print only the result
    #[arg(short, long)]
    quiet: bool,
}

/// The arguments of `isobench image pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image's name
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: Reference,
    /// Which platform to take, where there are several and not this machine's
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = super::platform)]
    platform: Option<Platform>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The arguments of `isobench image push`.
#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The image's name, which says to which registry it goes
    #[arg(value_name = "NAME[:TAG]")]
    name: Reference,
    #[command(flatten)]
    connection: ConnectionArgs,
}

impl ConnectionArgs {
    fn connection(&self) -> Connection {
        Connection {
            plain_http: self.plain_http,
            attempts: self.attempts.max(1),
            parallel: self.parallel.max(1),
            ..Connection::default()
        }
    }
}

pub(super) fn pull(store: &Store, args: &PullArgs) -> Result<Ended, CliError> {
    let platform = args.platform.clone().unwrap_or_else(own_platform);
    let bars = Bars::new(args.connection.quiet, "Pull complete", "Already exists");
    let connection = args.connection.connection();
    let name = args.name.clone().or_latest();
    let pulled = registry::pull(store, &name, &platform, &connection, &|blob, event| bars.tell(blob, event));
    bars.close();
    let pulled = pulled?;
    let mut text = String::new();
    if !args.connection.quiet {
        let state = if pulled.new { "Downloaded newer image for" } else { "Image is up to date for" };
        text = format!("Digest: {}\nStatus: {state} {}\n", pulled.digest, name.familiar());
    }
    text.push_str(&format!("{name}\n"));
    output::print(&text)?;
    Ok(Ended::Pass)
}

/// Pulls an image for a command whose standard output is not its own.
pub(in crate::cli) fn fetch(store: &Store, name: &str, platform: Option<&str>) -> Result<(), CliError> {
    let name = name.parse::<Reference>().map_err(ImageError::from)?.or_latest();
    let platform = match platform {
        Some(text) => super::platform(text).map_err(CliError::Platform)?,
        None => own_platform(),
    };
    let bars = Bars::new(false, "Pull complete", "Already exists");
    let pulled = registry::pull(store, &name, &platform, &Connection::default(), &|blob, event| bars.tell(blob, event));
    bars.close();
    pulled?;
    Ok(())
}

pub(super) fn push(store: &Store, args: &PushArgs) -> Result<Ended, CliError> {
    let bars = Bars::new(args.connection.quiet, "Pushed", "Layer already exists");
    let name = args.name.clone().or_latest();
    let connection = args.connection.connection();
    let pushed = registry::push(store, &name, &connection, &|blob, event| bars.tell(blob, event));
    bars.close();
    let pushed = pushed?;
    let tag = name.tag().unwrap_or_default();
    let text = match args.connection.quiet {
        true => format!("{name}\n"),
        false => format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size),
    };
    output::print(&text)?;
    Ok(Ended::Pass)
}

/// A line a blob on standard error: bars on a terminal, else a line when it is there.
struct Bars {
    quiet: bool,
    done: &'static str,
    known: &'static str,
    all: MultiProgress,
    each: Mutex<BTreeMap<Digest, ProgressBar>>,
}

impl Bars {
    fn new(quiet: bool, done: &'static str, known: &'static str) -> Self {
        Self { quiet, done, known, all: MultiProgress::new(), each: Mutex::new(BTreeMap::new()) }
    }

    fn tell(&self, blob: &Digest, event: Event) {
        if self.quiet {
            return;
        }
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if self.all.is_hidden() {
            // No terminal: what has ended is said.
            match event {
                Event::Done => eprintln!("{}: {}", blob.short(), self.done),
                Event::Known => eprintln!("{}: {}", blob.short(), self.known),
                Event::Mounted => eprintln!("{}: Mounted from another repository", blob.short()),
                Event::Retry => eprintln!("{}: Retrying", blob.short()),
                Event::Begin(_) | Event::At(_) => {}
            }
            return;
        }
        let bar = each.entry(*blob).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_style(style());
            bar.set_prefix(blob.short());
            bar
        });
        match event {
            Event::Begin(bytes) => bar.set_length(bytes),
            Event::At(bytes) => bar.set_position(bytes),
            Event::Retry => bar.set_message("retrying"),
            Event::Done => bar.finish_with_message(self.done),
            Event::Known => bar.finish_with_message(self.known),
            Event::Mounted => bar.finish_with_message("Mounted from another repository"),
        }
    }

    fn close(&self) {
        for bar in self.each.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix}: [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
