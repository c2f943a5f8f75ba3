//! The control connection between client and server: JSON lines over TCP, in one fixed order. A message out of order
//! ends the test with an error.
//!
//! client: `Hello` → server: `Accepted` → (the client opens its flows) → client: `Window` → server: `Started` →
//! (the flows run) → client: `Finished` → server: `Done`. The first connection that a server accepts is control; in
//! `tcp_stream` and `tcp_rr` the next ones, as many as `Hello` says, are the flows.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::socket::failure;
use super::window::Window;
use super::{Test, WorkloadError};

/// More than any message needs: `Finished` with the most streams takes 64 KiB.
const MAX_LINE: u64 = 1 << 20;

/// What a client says, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
pub(super) enum ToServer {
    /// What it is going to do.
    Hello { test: Test, streams: u32, message_size: u32 },
    /// Its flows stand; this is the measured time.
    Window(Window),
    /// Its flows have ended; `udp_stream`: how many datagrams it sent inside the window, over all flows.
    Finished { sent: Option<u64> },
}

/// What a server says, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "lowercase")]
pub(super) enum ToClient {
    /// It waits for the flows.
    Accepted,
    /// Its flows are ready to receive.
    Started,
    /// It has everything that came.
    Done,
}

/// One end of the control connection.
pub(super) struct Control<S> {
    socket: BufReader<S>,
    peer: &'static str,
    timeout: Duration,
}

impl<S: Read + Write> Control<S> {
    /// `peer` is `client` or `server`; `timeout` is only told, the caller sets it on the socket.
    pub(super) fn new(socket: S, peer: &'static str, timeout: Duration) -> Self {
        Self { socket: BufReader::new(socket), peer, timeout }
    }

    pub(super) fn socket(&self) -> &S {
        self.socket.get_ref()
    }

    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), WorkloadError> {
        let failed = failure(format!("write to the {}", self.peer), self.peer, self.timeout);
        let mut line = serde_json::to_vec(message).map_err(WorkloadError::system("write a message as JSON"))?;
        line.push(b'\n');
        self.socket.get_mut().write_all(&line).map_err(failed)
    }

    pub(super) fn receive<T: DeserializeOwned>(&mut self, due: &'static str) -> Result<T, WorkloadError> {
        let mut line = Vec::new();
        let read = (&mut self.socket).take(MAX_LINE).read_until(b'\n', &mut line);
        let failed = failure(format!("read `{due}` from the {}", self.peer), self.peer, self.timeout);
        match read {
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(_) if line.is_empty() => return Err(failed(ErrorKind::UnexpectedEof.into())),
            Ok(_) => return Err(self.unexpected(&line, due)),
            Err(error) => return Err(failed(error)),
        }
        serde_json::from_slice(&line).map_err(|_| self.unexpected(&line, due))
    }

    /// Reads the one message that is due.
    pub(super) fn expect(&mut self, message: &ToClient, due: &'static str) -> Result<(), WorkloadError> {
        let got: ToClient = self.receive(due)?;
        if got == *message { Ok(()) } else { Err(self.unexpected(format!("{got:?}").as_bytes(), due)) }
    }

    pub(super) fn unexpected(&self, got: &[u8], due: &'static str) -> WorkloadError {
        let got = String::from_utf8_lossy(&got[..got.len().min(100)]).trim_end().to_owned();
        WorkloadError::Protocol { peer: self.peer, got, due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Control<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        (Control::new(ours, "client", Duration::from_millis(10)), theirs)
    }

    #[test]
    fn messages_travel() {
        let (mut control, theirs) = pair();
        let mut client = Control::new(theirs, "server", Duration::from_secs(1));
        let hello = ToServer::Hello { test: Test::UdpRr, streams: 2, message_size: 64 };
        client.send(&hello).unwrap();
        client.send(&ToServer::Finished { sent: Some(7) }).unwrap();
        assert_eq!(control.receive::<ToServer>("hello").unwrap(), hello);
        assert_eq!(control.receive::<ToServer>("finished").unwrap(), ToServer::Finished { sent: Some(7) });
        control.send(&ToClient::Done).unwrap();
        let error = client.expect(&ToClient::Started, "started").unwrap_err();
        assert_eq!(error.to_string(), "the server sent `Done` where started was due");
    }

    #[test]
    fn silence_absence_and_nonsense_are_told_apart() {
        let (mut control, mut theirs) = pair();
        let error = control.receive::<ToServer>("hello").unwrap_err();
        assert_eq!(error.to_string(), "cannot read `hello` from the client: nothing happened for 10 ms");
        theirs.write_all(b"GET / HTTP/1.1\n").unwrap();
        let error = control.receive::<ToServer>("hello").unwrap_err();
        assert_eq!(error.to_string(), "the client sent `GET / HTTP/1.1` where hello was due");
        drop(theirs);
        let error = control.receive::<ToServer>("hello").unwrap_err();
        assert_eq!(error.to_string(), "the client went away before the end of the test");
    }
}
