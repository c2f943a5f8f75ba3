//! `isobench container port`.

use clap::Args;

use super::super::{CliError, Ended, output};
use super::shown;
use crate::container::store::Store;

/// The arguments of `isobench container port`.
#[derive(Debug, Args)]
pub(super) struct PortArgs {
    /// A name or identifier of a container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub(super) fn run(store: &Store, args: &PortArgs) -> Result<Ended, CliError> {
    let stored = store.find(&args.container)?;
    let mut ports = shown::published(&shown::settled(stored.state()?));
    ports.sort_by_key(|port| (port.container_port, port.host_port));
    let inside = |port: &crate::network::PortMapping| format!("{}/{}", port.container_port, port.protocol);
    let text: String = match &args.port {
        None => ports.iter().map(|port| format!("{} -> {}\n", inside(port), shown::host_end(port))).collect(),
        Some(wanted) => {
            let wanted = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
            ports.retain(|port| inside(port) == wanted);
            if ports.is_empty() {
                return Err(CliError::Unpublished { port: wanted, container: args.container.clone() });
            }
            ports.iter().map(|port| format!("{}\n", shown::host_end(port))).collect()
        }
    };
    output::print(&text)?;
    Ok(Ended::Pass)
}
