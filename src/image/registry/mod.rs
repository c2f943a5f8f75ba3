//! Registries: pulling and pushing by the distribution protocol.
//!
//! [`Client`] makes the requests: it proves who we are when it is asked to, tries again what failed on the way, and
//! speaks plain http only to this machine or where it was told to. [`pull()`] and [`push()`] say what goes over it.

use std::time::Duration;

mod address;
mod auth;
mod client;
mod credentials;
mod pull;
mod push;
mod tls;
mod transfer;

pub use client::Client;
pub use credentials::{Credentials, CredentialsError};
pub use pull::{Pulled, pull};
pub use push::{Pushed, push};

use super::digest::Digest;

/// Why a registry could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached, or the connection broke more often than was tried.
    #[error("cannot reach the registry {registry}")]
    Unreachable {
        /// Its host and port.
        registry: String,
        /// Why not.
        #[source]
        source: Box<ureq::Error>,
    },
    /// It does not have what was asked for.
    #[error("the registry {registry} has no {what}")]
    NotFound {
        /// Its host and port.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// It wants to know who we are, or does not let us.
    #[error("the registry {registry} denies {what}{}{hint}", said(.message))]
    Denied {
        /// Its host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// What it said.
        message: String,
        /// What would be right.
        hint: &'static str,
    },
    /// It answered with something else than what was asked for.
    #[error("the registry {registry} answered {what} with status {status}{}", said(.message))]
    Refused {
        /// Its host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// What it sent makes no sense.
    #[error("the registry {registry} sent {what}")]
    Malformed {
        /// Its host and port.
        registry: String,
        /// What is wrong with it.
        what: String,
    },
    /// The credentials cannot be found out.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A certificate to trust cannot be read.
    #[error("cannot read the certificates in {0}")]
    Certificates(String, #[source] Box<dyn std::error::Error + Send + Sync>),
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// How a registry is spoken to.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Whether http without TLS is spoken to a registry that is not this machine.
    pub plain_http: bool,
    /// Who we are; `None` for what docker's configuration says.
    pub credentials: Option<Credentials>,
    /// How often a request is tried that gets nowhere.
    pub attempts: u32,
    /// How long to wait before the second; each further wait is twice as long.
    pub pause: Duration,
    /// How many blobs are on their way at the same time.
    pub parallel: usize,
}

impl Default for Connection {
    fn default() -> Self {
        Self { plain_http: false, credentials: None, attempts: 5, pause: Duration::from_millis(200), parallel: 3 }
    }
}

/// What happens to a blob on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It begins; how many bytes it has.
    Begin(u64),
    /// So many bytes of it have come or gone by now.
    At(u64),
    /// It is there, and came or went.
    Done,
    /// It was there already.
    Known,
    /// It was there in another repository of the registry.
    Mounted,
    /// The connection broke; it goes on.
    Retry,
}

/// Who is told what happens to which blob.
pub type Watcher<'a> = &'a (dyn Fn(&Digest, Event) + Sync);
