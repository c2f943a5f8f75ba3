//! The networks that there are: `bridge` with what is noted of it, `host` and `none`.

use crate::cli::CliError;
use crate::image::digest::Digest;
use crate::network::machine::{DEFAULT, MachineNetworks, View};
use crate::sys::netns::NetNs;

/// A network of this machine.
#[derive(Debug)]
pub(super) struct Known {
    pub name: &'static str,
    pub driver: &'static str,
    /// 64 hexadecimal digits.
    pub id: String,
    /// What is known of a bridge.
    pub view: Option<View>,
}

/// All of them, by name.
pub(super) fn all() -> Result<Vec<Known>, CliError> {
    let view = MachineNetworks::open(NetNs::current().map_err(CliError::Namespace)?)?.look()?;
    let fixed = |name: &'static str, driver| {
        let id = Digest::of(format!("isobench network {name}").as_bytes()).hex();
        Known { name, driver, id, view: None }
    };
    let bridge = Known { name: DEFAULT, driver: "bridge", id: view.id.clone(), view: Some(view) };
    Ok(vec![bridge, fixed("host", "host"), fixed("none", "null")])
}

impl Known {
    /// Whether it is meant by a name, an identifier or the beginning of one.
    pub(super) fn is(&self, text: &str) -> bool {
        self.name == text || (!text.is_empty() && self.id.starts_with(text))
    }

    /// When it was made; in Go's form for "never" where it is always there, or not yet.
    pub(super) fn created(&self) -> &str {
        let made = self.view.as_ref().and_then(|view| view.created.as_deref());
        made.unwrap_or("0001-01-01T00:00:00Z")
    }
}
