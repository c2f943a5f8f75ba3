//! `isobench container run` and `create`: from options to a container that is kept, and on to its program.

use clap::Args;

use super::options::Options;
use super::session::{self, Left, Manner};
use super::{CommandError, Outcome};
use crate::cli::output;
use crate::container::client::{Client, ClientError};
use crate::container::config::{Config, MountSource};
use crate::container::make::MakeError;
use crate::container::monitor::{self, First};
use crate::container::store::{Store, Stored};
use crate::container::{etc, make, names};
use crate::image::Image;

/// The arguments of `isobench container create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    #[command(flatten)]
    options: Options,
    /// The image: a name or identifier of the store, `self`, or docker-archive:PATH, oci:PATH, dir:PATH
    image: String,
    /// The program and its arguments, in the place of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The arguments of `isobench container run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// Leave it running and print its identifier
    #[arg(short, long)]
    detach: bool,
    /// The keys by which one leaves without ending it
    #[arg(long, value_name = "KEYS", default_value = session::DETACH_KEYS, value_parser = session::detach_keys)]
    detach_keys: session::Keys,
    /// Pass signals on to the program
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    #[command(flatten)]
    create: CreateArgs,
}

/// A container that was just made, with its image open.
struct Fresh {
    stored: Stored,
    image: Image,
}

pub(super) fn create(store: &Store, args: &CreateArgs) -> Result<Outcome, CommandError> {
    let Fresh { stored, .. } = make_container(store, args, false)?;
    output::print(&format!("{}\n", stored.config.id))?;
    Ok(Outcome::PASS)
}

pub(super) fn run(store: &Store, args: &RunArgs) -> Result<Outcome, CommandError> {
    let options = &args.create.options;
    if options.tty() && options.interactive() && !args.detach && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(CommandError::NoTerminal);
    }
    let Fresh { stored, image } = make_container(store, &args.create, !args.detach)?;
    let lock = stored.lock()?;
    let size = stored.config.tty.then(session::size).flatten();
    let first = First { attached: !args.detach, size };
    let stream = monitor::fork(store, &stored, lock, Some(image), first).map_err(ClientError::from)?;
    let mut client = Client::new(stream);
    let started = client.await_start(&stored);
    if args.detach {
        // Docker tells the identifier of a container that did not come to run too.
        output::print(&format!("{}\n", stored.config.id))?;
        started?;
        return Ok(Outcome::PASS);
    }
    started?;
    let manner = Manner {
        input: stored.config.open_stdin,
        tty: stored.config.tty,
        proxy: args.sig_proxy,
        detach: args.detach_keys.0.clone(),
    };
    Ok(match session::stay(client, &stored, &manner)? {
        Left::Exited(code) => Outcome(code),
        Left::Detached => Outcome::PASS,
    })
}

fn make_container(store: &Store, args: &CreateArgs, attached: bool) -> Result<Fresh, CommandError> {
    let image = super::pull::open(&args.image, &args.options)?;
    let image_id = image.id.map(|id| id.to_string());
    let mut config = args.options.config(&args.image, image_id, &image.config, args.command.clone())?;
    etc::check(&config).map_err(MakeError::from)?;
    config.stdin_once = attached && config.open_stdin;
    let stored = named(store, config)?;
    if let Err(error) = keep(store, &stored, &image) {
        // The first error is the one to tell.
        let _ = make::remove(store, &stored, true);
        return Err(error);
    }
    Ok(Fresh { stored, image })
}

/// Makes the container under its name, or under one that is free.
fn named(store: &Store, config: Config) -> Result<Stored, CommandError> {
    if !config.name.is_empty() {
        return Ok(store.create(config)?);
    }
    let mut attempt = 0;
    loop {
        let name = names::random_name(attempt)?;
        match store.create(Config { name, ..config.clone() }) {
            Err(crate::container::store::StoreError::NameTaken { .. }) => attempt += 1,
            made => return Ok(made?),
        }
    }
}

/// Keeps what it needs: its image, unless it goes with the command; its volumes.
fn keep(store: &Store, stored: &Stored, image: &Image) -> Result<(), CommandError> {
    if let (Some(id), false) = (&stored.config.image_id, stored.config.auto_remove) {
        crate::image::Store::of_machine()?.pin(id, &stored.config.id)?;
    }
    if stored.config.mounts.iter().any(|mount| matches!(mount.source, MountSource::Volume { .. })) {
        make::volumes(store, stored, image)?;
    }
    Ok(())
}
