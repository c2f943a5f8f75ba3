//! `isobench container attach`.

use clap::Args;

use super::session::{self, Left, Manner};
use super::{CommandError, Outcome};
use crate::container::client::{Client, settled};
use crate::container::state::Status;
use crate::container::store::Store;
use crate::container::wire::Message;

/// The arguments of `isobench container attach`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AttachArgs {
    /// The keys by which one leaves without ending it
    #[arg(long, value_name = "KEYS", default_value = session::DETACH_KEYS, value_parser = session::detach_keys)]
    detach_keys: session::Keys,
    /// Pass no input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the program
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: bool,
    /// A name or an identifier
    container: String,
}

pub(super) fn run(store: &Store, args: &AttachArgs) -> Result<Outcome, CommandError> {
    let stored = store.find(&args.container)?;
    let state = settled(store, &stored)?;
    match state.status {
        Status::Running => {}
        Status::Paused => return Err(stored.refuse("attach to", state.status, "; unpause it first").into()),
        status => return Err(stored.refuse("attach to", status, "; start it first").into()),
    }
    let mut client = Client::connect(&stored)?;
    let size = stored.config.tty.then(session::size).flatten();
    for message in [Some(Message::Attach), size.map(|(rows, columns)| Message::Resize(rows, columns))] {
        let Some(message) = message else { continue };
        client.say(&message).map_err(CommandError::system("speak to the container's monitor"))?;
    }
    let manner = Manner {
        input: stored.config.open_stdin && !args.no_stdin,
        tty: stored.config.tty,
        proxy: args.sig_proxy,
        detach: args.detach_keys.0.clone(),
    };
    Ok(match session::stay(client, &stored, &manner)? {
        Left::Exited(code) => Outcome(code),
        Left::Detached => Outcome::PASS,
    })
}
