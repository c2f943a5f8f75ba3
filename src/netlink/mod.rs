//! Links, addresses, routes and nf_tables, spoken straight to the kernel: no `ip`, `nft` or `iptables` is run.
//!
//! Layer 1. [`message`] lays out requests, [`socket`] sends a batch of them in one system call and reads the answers;
//! the other files each know one family of objects. `network` and `lab` decide what to ask for.

pub mod address;
pub mod expression;
pub mod link;
pub mod message;
pub mod nftables;
pub mod route;
pub mod socket;

use std::io;

pub use message::Batch;
pub use socket::{Protocol, Socket};

/// Why the kernel did not do what was asked over netlink.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused one request.
    #[error("cannot {act} {object}{}", explain(.message))]
    Refused {
        /// What was asked: `add link`, `delete route`, …
        act: &'static str,
        /// The object it was asked of, as in `vethac1e0002`.
        object: String,
        /// The kernel's own explanation, where it gave one.
        message: Option<String>,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// The socket itself failed.
    #[error("cannot {act} a netlink socket")]
    Socket {
        /// What was done with the socket.
        act: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel answered with something that is not well-formed, or not at all.
    #[error("unusable netlink answer to {act} {object}: {problem}")]
    Answer {
        /// What was asked.
        act: &'static str,
        /// Of which object.
        object: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
}

impl NetlinkError {
    /// The kernel's error number, when it refused a request.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Socket { .. } | Self::Answer { .. } => None,
        }
    }
}

fn explain(message: &Option<String>) -> String {
    message.as_ref().map(|text| format!(" (kernel: {text})")).unwrap_or_default()
}
