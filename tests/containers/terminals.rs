//! Containers with a terminal, used through one: what a person at a keyboard meets.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::{Winsize, openpty};

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place, end, until};

pub fn cases() -> Vec<Case> {
    vec![
        case("terminals::run_is_on_a_terminal_of_its_own", run),
        case("terminals::a_new_size_reaches_the_program", resize),
        case("terminals::leaving_by_keys_leaves_it_running", leave),
        case("terminals::exec_is_on_a_terminal_of_its_own", exec),
        case("terminals::what_is_no_terminal_is_refused", refused),
    ]
}

/// The keys that leave a container: ctrl-p ctrl-q.
const LEAVE: &[u8] = b"\x10\x11";

/// A command at a terminal, which is its controlling one.
struct Seat {
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
    line: OwnedFd,
    command: Child,
}

impl Seat {
    fn new(place: &Place, arguments: &[&str]) -> Outcome<Self> {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None)?;
        let inner = place.command(arguments);
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(pair.slave.try_clone()?).stdout(pair.slave.try_clone()?).stderr(pair.slave.try_clone()?);
        let seat =
            Self { screen: Arc::default(), keys: File::from(pair.master), line: pair.slave, command: command.spawn()? };
        let (mut reader, screen) = (seat.keys.try_clone()?, Arc::clone(&seat.screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
            }
        });
        Ok(seat)
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until something is on the screen.
    fn sees(&self, text: &str) -> Outcome {
        until(|| Ok(self.seen().contains(text)))
            .map_err(|error| format!("{error} for `{text}`: {}", self.seen()).into())
    }

    fn press(&mut self, keys: &[u8]) -> Outcome {
        Ok(self.keys.write_all(keys)?)
    }

    /// Makes the terminal larger or smaller.
    fn resize(&self, rows: u16, columns: u16) -> Outcome {
        let mut stty = Command::new("stty");
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]).stdin(Stdio::from(self.line.try_clone()?));
        if stty.status()?.success() { Ok(()) } else { Err("stty failed".into()) }
    }

    /// Waits for the command's end; its code.
    fn end(self) -> Outcome<i32> {
        end(self.command)?.code.ok_or_else(|| "it was killed".into())
    }
}

fn run() -> Outcome {
    let place = Place::new()?;
    let mut seat = Seat::new(&place, &["run", "-it", "--rm", "--network", "none", IMAGE, "sh"])?;
    // What is typed is echoed, so that the answer must differ from the question.
    seat.press(b"tty; echo pid=$$; stty size; echo term=$TERM\r")?;
    for text in ["/dev/pts/0\r\n", "pid=1\r\n", "24 80\r\n", "term=xterm\r\n"] {
        seat.sees(text)?;
    }
    // The key takes away what was typed before it and not read yet.
    seat.press(b"echo go$((1))on; sleep 1000\r")?;
    seat.sees("go1on\r\n")?;
    seat.press(b"\x03")?;
    seat.sees("^C")?;
    seat.press(b"echo after=$?\r")?;
    seat.sees("after=130\r\n")?;
    seat.press(b"exit 7\r")?;
    assert_eq!(seat.end()?, 7);
    Ok(())
}

fn resize() -> Outcome {
    let place = Place::new()?;
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done";
    let seat = Seat::new(&place, &["run", "-it", "--network", "none", "--name", "typed", IMAGE, "sh", "-c", script])?;
    seat.sees("ready")?;
    seat.resize(33, 101)?;
    seat.sees("33 101\r\n")?;
    place.ok(&["kill", "typed"])?;
    assert_eq!(seat.end()?, 137);
    Ok(())
}

fn leave() -> Outcome {
    let place = Place::new()?;
    let mut seat = Seat::new(&place, &["run", "-it", "--network", "none", "--name", "typed", IMAGE, "sh"])?;
    seat.press(b"x=kept; echo is=$x\r")?;
    seat.sees("is=kept\r\n")?;
    let pid = place.pid("typed")?;
    seat.press(LEAVE)?;
    assert_eq!(seat.end()?, 0);
    assert_eq!(place.pid("typed")?, pid);
    let mut seat = Seat::new(&place, &["attach", "typed"])?;
    seat.press(b"echo still=$x\r")?;
    seat.sees("still=kept\r\n")?;
    seat.press(b"exit 5\r")?;
    assert_eq!(seat.end()?, 5);
    assert_eq!(place.ok(&["wait", "typed"])?, "5");
    Ok(())
}

fn exec() -> Outcome {
    let place = Place::new()?;
    place.up("quiet", &[], "sleep 1000")?;
    let mut seat = Seat::new(&place, &["exec", "-it", "quiet", "sh"])?;
    seat.press(b"tty; stty size; trap 'stty size' WINCH; echo set=$?\r")?;
    for text in ["/dev/pts/0\r\n", "24 80\r\n", "set=0\r\n"] {
        seat.sees(text)?;
    }
    seat.resize(40, 100)?;
    seat.press(b"stty size\r")?;
    seat.sees("40 100\r\n")?;
    seat.press(b"exit 6\r")?;
    assert_eq!(seat.end()?, 6);
    assert_eq!(place.shown("quiet", "{{.State.Running}}")?, "true");
    Ok(())
}

fn refused() -> Outcome {
    let place = Place::new()?;
    place.up("quiet", &[], "sleep 1000")?;
    let said = place.feed(&["exec", "-it", "quiet", "true"], Vec::new())?;
    assert!(said.code != Some(0) && said.stderr.contains("terminal"), "{said:?}");
    Ok(())
}
