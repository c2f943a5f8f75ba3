//! What clients ask for.

use std::time::{Duration, Instant};

use super::{Monitor, MonitorError};
use crate::container::wire::Message;

impl Monitor {
    pub(super) fn listen_to(&mut self, index: usize) -> Result<(), MonitorError> {
        let Some(client) = self.clients.all.get_mut(index) else { return Ok(()) };
        client.flush();
        for message in client.hear() {
            if let Err(error) = self.answer(index, message) {
                // The container goes on whatever one client asked.
                self.clients.all[index].tell(&Message::Refused(error.to_string()));
            }
        }
        Ok(())
    }

    fn answer(&mut self, index: usize, message: Message) -> Result<(), MonitorError> {
        match message {
            Message::Attach => self.clients.all[index].interest.attached = true,
            Message::Wait => self.clients.all[index].interest.waits = true,
            Message::Input(bytes) => self.streams.put(&bytes),
            Message::EndOfInput if self.stored.config.stdin_once => self.streams.end(),
            Message::Resize(rows, columns) => {
                self.size = Some((rows, columns));
                self.streams.resize((rows, columns));
            }
            Message::Signal(signal) => self.signal(signal)?,
            Message::Stop { signal, grace_ms } => {
                self.clients.all[index].interest.waits = true;
                self.stop(signal, grace_ms)?;
            }
            // What only monitors say, and the end of an input that is to stay open.
            _ => {}
        }
        Ok(())
    }

    fn signal(&mut self, signal: i32) -> Result<(), MonitorError> {
        let Some(subject) = &self.subject else { return Ok(()) };
        if signal == libc::SIGKILL {
            self.stopped_by_hand = true;
            return subject.kill(&self.stored);
        }
        subject.signal(signal)
    }

    /// Ends the container for good.
    fn stop(&mut self, signal: i32, grace_ms: Option<u32>) -> Result<(), MonitorError> {
        self.stopped_by_hand = true;
        if self.restart_at.take().is_some() {
            return self.give_up_restarting();
        }
        let Some(subject) = &self.subject else { return Ok(()) };
        let signal = if signal == 0 { self.stored.config.stop_signal } else { signal };
        subject.signal(signal)?;
        subject.thaw(&self.stored)?;
        self.kill_at = grace_ms.map(|ms| Instant::now() + Duration::from_millis(ms.into()));
        Ok(())
    }
}
