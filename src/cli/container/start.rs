//! `isobench container start`.

use clap::Args;

use super::session::{self, Left, Manner};
use super::{CommandError, Outcome, each};
use crate::container::client::{Client, ClientError, settled};
use crate::container::monitor::{self, First};
use crate::container::store::{Store, Stored};

/// The arguments of `isobench container start`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StartArgs {
    /// Show its output and pass signals on, until it ends
    #[arg(short, long)]
    attach: bool,
    /// Pass input on too
    #[arg(short, long)]
    interactive: bool,
    /// The keys by which one leaves without ending it
    #[arg(long, value_name = "KEYS", default_value = session::DETACH_KEYS, value_parser = session::detach_keys)]
    detach_keys: session::Keys,
    /// Names or identifiers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(super) fn run(store: &Store, args: &StartArgs) -> Result<Outcome, CommandError> {
    if !args.attach && !args.interactive {
        return each(&args.containers, |name| {
            let stored = store.find(name)?;
            begin(store, &stored, First::default())?;
            Ok(Some(name.to_owned()))
        });
    }
    let [name] = args.containers.as_slice() else {
        return Err(CommandError::Usage("only one container can be attached to at a time".to_owned()));
    };
    let stored = store.find(name)?;
    let size = stored.config.tty.then(session::size).flatten();
    let Some(client) = begin(store, &stored, First { attached: true, size })? else {
        return Err(stored.refuse("start and attach to", stored.state()?.status, "; use `container attach`").into());
    };
    let manner = Manner {
        input: args.interactive && stored.config.open_stdin,
        tty: stored.config.tty,
        proxy: true,
        detach: args.detach_keys.0.clone(),
    };
    Ok(match session::stay(client, &stored, &manner)? {
        Left::Exited(code) => Outcome(code),
        Left::Detached => Outcome::PASS,
    })
}

/// Starts a container; `None` for one that runs already, which is fine.
pub(super) fn begin(store: &Store, stored: &Stored, first: First) -> Result<Option<Client>, CommandError> {
    settled(store, stored)?;
    let lock = stored.lock()?;
    let state = lock.state()?;
    match state.status {
        crate::container::state::Status::Running => return Ok(None),
        status @ crate::container::state::Status::Paused => {
            return Err(stored.refuse("start", status, "; use `container unpause`").into());
        }
        crate::container::state::Status::Restarting => return Ok(None),
        _ => {}
    }
    if state.removing {
        return Err(stored.refuse("start", state.status, "; its removal has begun").into());
    }
    let stream = monitor::fork(store, stored, lock, None, first).map_err(ClientError::from)?;
    let mut client = Client::new(stream);
    client.await_start(stored)?;
    Ok(Some(client))
}
