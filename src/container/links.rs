//! What a child and its launcher pass to each other beside the clock page: the master of a terminal, and word of a guarded
//! exec.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::launch::ContainerError;
use super::spec::ContainerSpec;
use crate::sys::guard::{self, Verdict};
use crate::sys::terminal::{self, Master};

/// Both ends of what a child needs, until it is launched; then the launcher's.
#[derive(Debug, Default)]
pub(super) struct Links {
    terminal: Option<(OwnedFd, Option<OwnedFd>)>,
    verdict: Option<(Verdict, Option<io::PipeWriter>)>,
}

fn failed(act: &'static str) -> impl FnOnce(io::Error) -> ContainerError {
    move |source| ContainerError::Process { act, source }
}

impl Links {
    /// What this spec needs.
    pub(super) fn of(spec: &ContainerSpec) -> Result<Self, ContainerError> {
        let mut links = Self::default();
        if spec.terminal {
            let (ours, childs) = terminal::pair().map_err(failed("make a terminal for"))?;
            links.terminal = Some((ours, Some(childs)));
        }
        if spec.guarded {
            let (ours, childs) = Verdict::new().map_err(failed("make a pipe for"))?;
            links.verdict = Some((ours, Some(childs)));
        }
        Ok(links)
    }

    /// Where the child sends the master of its terminal.
    pub(super) fn terminal_end(&self) -> Option<RawFd> {
        self.terminal.as_ref().and_then(|(_, end)| end.as_ref()).map(AsRawFd::as_raw_fd)
    }

    /// The stub and where it tells of a failed exec.
    pub(super) fn guard(&self) -> Result<Option<(RawFd, RawFd)>, ContainerError> {
        let Some(end) = self.verdict.as_ref().and_then(|(_, end)| end.as_ref()) else { return Ok(None) };
        let stub = guard::stub().map_err(failed("make the stub for"))?;
        Ok(Some((stub, end.as_raw_fd())))
    }

    /// Called once the child has its copies: what it does not close by itself then closes with its end.
    pub(super) fn close_childs_ends(&mut self) {
        if let Some((_, end)) = &mut self.terminal {
            end.take();
        }
        if let Some((_, end)) = &mut self.verdict {
            end.take();
        }
    }

    /// Waits for the terminal; word of the exec is for later.
    pub(super) fn receive(self) -> Result<(Option<Master>, Option<Verdict>), ContainerError> {
        let terminal = match &self.terminal {
            Some((socket, _)) => terminal::receive(socket.as_fd()).map_err(failed("get the terminal of"))?,
            None => None,
        };
        Ok((terminal, self.verdict.map(|(verdict, _)| verdict)))
    }
}
