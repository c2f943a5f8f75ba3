//! What a container's monitor and its clients say to each other over a stream socket: frames of a kind (one byte), a
//! length (four bytes, little end first) and so many bytes.
//!
//! A client may say [`Message::Attach`] once, and then input, sizes and signals; or ask for something and wait for the
//! answer. A monitor says what the container writes, and how it ended.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// The most bytes that a frame holds.
pub const MOST: usize = 64 * 1024;
/// Kind and length.
const HEADER: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client: I want the output from now on, and may send input.
    Attach,
    /// Client: bytes for standard input.
    Input(Vec<u8>),
    /// Client: there is no more input.
    EndOfInput,
    /// Client: my terminal has so many rows and columns.
    Resize(u16, u16),
    /// Client: send this signal to the first process.
    Signal(i32),
    /// Client: end the container: by its stop signal or another one, and by SIGKILL after so many ms (`None`: never).
    /// Answered by [`Message::Exited`].
    Stop {
        /// The signal; 0 for the container's own.
        signal: i32,
        /// How long to wait for its end, in ms.
        grace_ms: Option<u32>,
    },
    /// Client: tell me when it has ended.
    Wait,
    /// Monitor: the program has been executed.
    Started,
    /// Monitor: it could not be: the exit code, and why.
    Failed(i32, String),
    /// Monitor: bytes of standard output, or of the terminal.
    Output(Vec<u8>),
    /// Monitor: bytes of standard error.
    Error(Vec<u8>),
    /// Monitor: it has ended with this code, and its state is written.
    Exited(i32),
    /// Monitor: what was asked could not be done.
    Refused(String),
}

/// A frame that no one sends.
#[derive(Debug, thiserror::Error)]
#[error("a frame of kind {kind} and {length} bytes is none of this protocol")]
pub struct WireError {
    kind: u8,
    length: usize,
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Attach => 1,
            Self::Input(_) => 2,
            Self::EndOfInput => 3,
            Self::Resize(..) => 4,
            Self::Signal(_) => 5,
            Self::Stop { .. } => 6,
            Self::Wait => 7,
            Self::Started => 64,
            Self::Failed(..) => 65,
            Self::Output(_) => 66,
            Self::Error(_) => 67,
            Self::Exited(_) => 68,
            Self::Refused(_) => 69,
        }
    }

    /// The frame's bytes. What is longer than [`MOST`] is cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbered = |number: i32, text: &str| [&number.to_le_bytes(), text.as_bytes()].concat();
        let mut payload = match self {
            Self::Attach | Self::EndOfInput | Self::Wait | Self::Started => Vec::new(),
            Self::Input(bytes) | Self::Output(bytes) | Self::Error(bytes) => bytes.clone(),
            Self::Resize(rows, columns) => [rows.to_le_bytes(), columns.to_le_bytes()].concat(),
            Self::Signal(number) | Self::Exited(number) => number.to_le_bytes().to_vec(),
            Self::Stop { signal, grace_ms } => {
                [signal.to_le_bytes(), grace_ms.unwrap_or(u32::MAX).to_le_bytes()].concat()
            }
            Self::Failed(code, text) => numbered(*code, text),
            Self::Refused(text) => text.clone().into_bytes(),
        };
        payload.truncate(MOST);
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.push(self.kind());
        frame.extend((payload.len() as u32).to_le_bytes());
        frame.extend(payload);
        frame
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        let number =
            |at: usize| payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_le_bytes);
        let text = |from: usize| String::from_utf8_lossy(payload.get(from..).unwrap_or_default()).into_owned();
        let half = |at: usize| payload.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
        let message = match (kind, payload.len()) {
            (1, 0) => Some(Self::Attach),
            (2, _) => Some(Self::Input(payload.to_vec())),
            (3, 0) => Some(Self::EndOfInput),
            (4, 4) => half(0).zip(half(2)).map(|(rows, columns)| Self::Resize(rows, columns)),
            (5, 4) => number(0).map(Self::Signal),
            (6, 8) => number(0).zip(number(4)).map(|(signal, grace)| {
                let grace_ms = Some(grace as u32).filter(|&grace| grace != u32::MAX);
                Self::Stop { signal, grace_ms }
            }),
            (7, 0) => Some(Self::Wait),
            (64, 0) => Some(Self::Started),
            (65, _) => number(0).map(|code| Self::Failed(code, text(4))),
            (66, _) => Some(Self::Output(payload.to_vec())),
            (67, _) => Some(Self::Error(payload.to_vec())),
            (68, 4) => number(0).map(Self::Exited),
            (69, _) => Some(Self::Refused(text(0))),
            _ => None,
        };
        message.ok_or(WireError { kind, length: payload.len() })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// When the other side has gone.
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&self.encode())
    }
}

/// Bytes that came in, of which whole frames are taken. Holds one frame at most.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: VecDeque<u8>,
}

impl Incoming {
    /// Reads what is there, once. False at the end.
    ///
    /// # Errors
    /// As the source's; WouldBlock and Interrupted among them.
    pub fn read(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = from.read(&mut buffer)?;
        self.bytes.extend(&buffer[..count]);
        Ok(count > 0)
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// When it is none of the protocol.
    pub fn take(&mut self) -> Result<Option<Message>, WireError> {
        if self.bytes.len() < HEADER {
            return Ok(None);
        }
        let header: Vec<u8> = self.bytes.iter().take(HEADER).copied().collect();
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > MOST {
            return Err(WireError { kind: header[0], length });
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        self.bytes.drain(..HEADER);
        let payload: Vec<u8> = self.bytes.drain(..length).collect();
        Message::decode(header[0], &payload).map(Some)
    }
}

/// Waits for the next frame of a blocking stream; `None` at its end.
///
/// # Errors
/// As the stream's, and for what is no frame.
pub fn receive(incoming: &mut Incoming, from: &mut impl Read) -> io::Result<Option<Message>> {
    loop {
        if let Some(message) = incoming.take()? {
            return Ok(Some(message));
        }
        match incoming.read(from) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_message_comes_back() {
        let messages = [
            Message::Attach,
            Message::Input(b"abc".to_vec()),
            Message::EndOfInput,
            Message::Resize(24, 80),
            Message::Signal(15),
            Message::Stop { signal: 0, grace_ms: None },
            Message::Stop { signal: 9, grace_ms: Some(0) },
            Message::Wait,
            Message::Started,
            Message::Failed(127, "no such file".to_owned()),
            Message::Output(vec![0; MOST]),
            Message::Error(Vec::new()),
            Message::Exited(-1),
            Message::Refused("no".to_owned()),
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        let (mut incoming, mut source) = (Incoming::default(), bytes.as_slice());
        for message in messages {
            assert_eq!(receive(&mut incoming, &mut source).unwrap(), Some(message));
        }
        assert_eq!(receive(&mut incoming, &mut source).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes: Vec<u8>) {
            let (mut incoming, mut source) = (Incoming::default(), bytes.as_slice());
            while let Ok(Some(_)) = receive(&mut incoming, &mut source) {}
        }
    }
}
