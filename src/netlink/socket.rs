//! One netlink socket: sends a batch in one system call and reads every answer to it.
//!
//! The kernel works through a request inside the sender's own system call, so every answer is there when `send`
//! returns. Reading therefore never waits, and a missing answer is an error instead of a hang.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::NetlinkError;
use super::message::{ACK, Answer, Batch, DUMP, HEADER, answers, attribute, text, u32_at};
use crate::sys::netns::NetNs;
use crate::sys::sockopt;

/// NLMSGERR_ATTR_MSG of `linux/netlink.h`.
const ERROR_MESSAGE: u16 = 1;
/// Room for one datagram: the kernel fills dumps up to the size that the reader offers, 32 KiB at most.
const BUFFER: usize = 32 * 1024;
/// Enough for acknowledgements; a socket that only sets things never needs more.
const SMALL_BUFFER: usize = 8 * 1024;
/// How often, in ms, a sender in a thread of its own is looked after.
const SENDER_CHECK: u8 = 50;
/// The sender makes one system call.
const SENDER_STACK: usize = 64 * 1024;

/// Which part of the kernel a socket speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// A socket that stays in the network namespace in which it was opened, whichever thread uses it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    protocol: Protocol,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel gives none (no memory, no file descriptor, no such protocol).
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let number = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number)
            .map_err(|errno| NetlinkError::Socket { act: "open", source: errno.into() })?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            // Explained errors, and acknowledgements without a copy of the request.
            sockopt::set_int(fd.as_fd(), libc::SOL_NETLINK, option, 1)
                .map_err(|source| NetlinkError::Socket { act: "set an option of", source })?;
        }
        Ok(Self { fd, protocol, sequence: 1, buffer: Vec::new() })
    }

    /// Opens a socket in another network namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or as [`Socket::open`].
    pub fn open_in(ns: &NetNs, protocol: Protocol) -> Result<Self, NetlinkError> {
        ns.enter(|| Self::open(protocol))
            .map_err(|source| NetlinkError::Socket { act: "enter the namespace of", source })?
    }

    /// Sends the batch and collects the answers.
    ///
    /// rtnetlink works through a batch whatever fails in it, and the first refusal is the error; nf_tables carries
    /// out a batch as a whole or not at all.
    ///
    /// # Errors
    /// When the kernel refuses a request, or the socket fails.
    pub fn run(&mut self, batch: Batch) -> Result<(), NetlinkError> {
        self.query(batch, |_, _| {})
    }

    /// Sends a batch whose requests are answered with data, one message or many (a dump), and hands each to `each`.
    pub(super) fn query(&mut self, mut batch: Batch, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let Some(last) = batch.requests.len().checked_sub(1) else { return Ok(()) };
        let first = self.number(&mut batch);
        let closing = self.ask_for_one_acknowledgement(&mut batch);
        let sent = send_all(&self.fd, &batch.bytes);
        sent.map_err(|source| NetlinkError::Socket { act: "send to", source })?;

        let mut refused = None;
        loop {
            let length = self.receive(&batch, last)?;
            for answer in answers(&self.buffer[..length]) {
                // Older numbers are left-overs of a batch that was given up at its first error.
                let index = answer.sequence.wrapping_sub(first) as usize;
                if index > last {
                    continue;
                }
                let finished = match i32::from(answer.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        let error = refusal(&answer, &batch, index);
                        let failed = error.is_some();
                        refused = refused.or(error);
                        index == closing || (failed && self.protocol == Protocol::Netfilter)
                    }
                    libc::NLMSG_NOOP => false,
                    _ => {
                        each(answer.kind, answer.payload);
                        false
                    }
                };
                if finished {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends a batch of one request from a thread of its own and returns with the first answer to it, while the kernel
    /// may still be busy with the rest. The socket is closed when it has done.
    pub(super) fn run_until_first_answer(mut self, mut batch: Batch) -> Result<(), NetlinkError> {
        let first = self.number(&mut batch);
        let last = self.ask_for_one_acknowledgement(&mut batch);
        self.buffer.resize(BUFFER, 0);
        let fd = Arc::new(self.fd);
        let (sender_fd, bytes) = (Arc::clone(&fd), std::mem::take(&mut batch.bytes));
        let sender = std::thread::Builder::new().name("netlink".to_owned()).stack_size(SENDER_STACK);
        let sender = sender
            .spawn(move || send_all(&sender_fd, &bytes))
            .map_err(|source| NetlinkError::Socket { act: "start a thread for", source })?;
        loop {
            // The wait has an end only for the case that the send itself fails: then no answer will come.
            let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut wait, SENDER_CHECK);
            match ready.and_then(|_| recv_now(&fd, &mut self.buffer, MsgFlags::MSG_TRUNC)) {
                Ok(length) => {
                    let datagram = &self.buffer[..length.min(self.buffer.len())];
                    if let Some(answer) = answers(datagram).find(|answer| answer.sequence == first) {
                        let refused = i32::from(answer.kind) == libc::NLMSG_ERROR;
                        let error = if refused { refusal(&answer, &batch, last) } else { None };
                        return error.map_or(Ok(()), Err);
                    }
                }
                Err(Errno::EAGAIN) if sender.is_finished() => {
                    let sent = sender.join().unwrap_or_else(|_| Err(io::Error::other("the sending thread panicked")));
                    sent.map_err(|source| NetlinkError::Socket { act: "send to", source })?;
                    return Err(unanswered(&batch, last));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::Socket { act: "read from", source: errno.into() }),
            }
        }
    }

    /// Gives the messages consecutive sequence numbers and returns the first.
    fn number(&mut self, batch: &mut Batch) -> u32 {
        let first = self.sequence;
        for request in &batch.requests {
            batch.bytes[request.offset + 8..request.offset + 12].copy_from_slice(&self.sequence.to_ne_bytes());
            self.sequence = self.sequence.wrapping_add(1);
        }
        first
    }

    /// Refusals are always reported, so one acknowledgement, of the last request, is enough to know that all is done.
    /// Returns which request that is: nf_tables does not acknowledge the message that ends a batch. A dump ends by a
    /// message of its own.
    fn ask_for_one_acknowledgement(&self, batch: &mut Batch) -> usize {
        let last = batch.requests.len() - 1;
        let closing = match self.protocol {
            Protocol::Netfilter if last >= 2 => last - 1,
            _ => last,
        };
        let flags = batch.requests[closing].offset + 6;
        let old = u16::from_ne_bytes([batch.bytes[flags], batch.bytes[flags + 1]]);
        if old & DUMP != DUMP {
            batch.bytes[flags..flags + 2].copy_from_slice(&(old | ACK).to_ne_bytes());
        }
        closing
    }

    /// Reads one datagram into the buffer, which grows when it is too small.
    fn receive(&mut self, batch: &Batch, last: usize) -> Result<usize, NetlinkError> {
        let dumps = batch.requests.iter().any(|request| {
            let flags = u16::from_ne_bytes([batch.bytes[request.offset + 6], batch.bytes[request.offset + 7]]);
            flags & DUMP == DUMP
        });
        let wanted = if dumps { BUFFER } else { SMALL_BUFFER };
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let problem = |problem| {
            let request = &batch.requests[last];
            NetlinkError::Answer { act: request.act, object: request.object.clone(), problem }
        };
        loop {
            // With MSG_TRUNC the kernel tells the datagram's full length even if it did not fit.
            match recv_now(&self.fd, &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => return Err(problem("it is longer than any should be")),
                Ok(length) => return Ok(length),
                Err(Errno::EAGAIN) => return Err(unanswered(batch, last)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::Socket { act: "read from", source: errno.into() }),
            }
        }
    }
}

fn unanswered(batch: &Batch, index: usize) -> NetlinkError {
    let request = &batch.requests[index];
    NetlinkError::Answer { act: request.act, object: request.object.clone(), problem: "it did not come" }
}

fn recv_now(fd: &OwnedFd, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<usize> {
    recv(fd.as_raw_fd(), buffer, flags | MsgFlags::MSG_DONTWAIT)
}

fn send_all(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    loop {
        match send(fd.as_raw_fd(), bytes, MsgFlags::empty()) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The error that an NLMSG_ERROR or NLMSG_DONE carries; none when it is an acknowledgement.
fn refusal(answer: &Answer<'_>, batch: &Batch, index: usize) -> Option<NetlinkError> {
    let request = &batch.requests[index];
    let Some(code) = u32_at(answer.payload, 0) else {
        let problem = "it is too short";
        return Some(NetlinkError::Answer { act: request.act, object: request.object.clone(), problem });
    };
    let code = code as i32;
    (code < 0 && request.tolerated != Some(-code)).then(|| NetlinkError::Refused {
        act: request.act,
        object: request.object.clone(),
        message: explanation(answer),
        source: io::Error::from_raw_os_error(-code),
    })
}

/// The kernel's words, after the error number and the header (or the whole) of the request that it refuses.
fn explanation(answer: &Answer<'_>) -> Option<String> {
    if i32::from(answer.flags) & libc::NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = if i32::from(answer.kind) == libc::NLMSG_DONE {
        0
    } else if i32::from(answer.flags) & libc::NLM_F_CAPPED != 0 {
        HEADER
    } else {
        (u32_at(answer.payload, 4)? as usize).next_multiple_of(4)
    };
    attribute(answer.payload.get(4 + echoed..)?, ERROR_MESSAGE).map(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.request((16, 0), ("add link", "br0"), &[0; 16], |_| {});
        batch
    }

    fn answer(flags: i32, payload: &[u8]) -> Option<NetlinkError> {
        let answer = Answer { kind: libc::NLMSG_ERROR as u16, flags: flags as u16, sequence: 1, payload };
        refusal(&answer, &batch(), 0)
    }

    #[test]
    fn a_refusal_names_the_act_the_object_the_errno_and_the_kernels_words() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        payload.extend_from_slice(&[9, 0, 1, 0]);
        payload.extend_from_slice(b"busy\0\0\0\0");
        let error = answer(libc::NLM_F_ACK_TLVS | libc::NLM_F_CAPPED, &payload).unwrap();
        assert_eq!(error.to_string(), "cannot add link br0 (kernel: busy)");
        assert_eq!(error.errno(), Some(libc::EEXIST));
    }

    #[test]
    fn the_kernels_words_are_found_behind_a_whole_request() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend_from_slice(&18u32.to_ne_bytes());
        payload.extend_from_slice(&[0; 16]);
        payload.extend_from_slice(&[8, 0, 1, 0]);
        payload.extend_from_slice(b"bad\0");
        let error = answer(libc::NLM_F_ACK_TLVS, &payload).unwrap();
        assert_eq!(error.to_string(), "cannot add link br0 (kernel: bad)");
    }

    #[test]
    fn an_acknowledgement_is_no_error_and_a_short_one_is() {
        assert!(answer(0, &[0; 20]).is_none());
        assert!(matches!(answer(0, &[0; 2]), Some(NetlinkError::Answer { .. })));
    }
}
