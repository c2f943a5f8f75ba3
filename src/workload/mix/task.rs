//! Tasks of `mix`: threads that do nothing, made until the kernel refuses one.

use std::sync::mpsc;
use std::thread::JoinHandle;

/// A thread that does nothing until it is let go: what the pids controller counts is tasks, and a thread is one.
pub(super) struct Task {
    thread: JoinHandle<()>,
    /// Dropped to let it go.
    hold: mpsc::Sender<()>,
}

/// Makes tasks until there are enough or the kernel refuses one, and says with which error.
pub(super) fn make_tasks(wanted: u32) -> (Vec<Task>, i32) {
    let mut tasks = Vec::new();
    for _ in 0..wanted {
        let (hold, wait) = mpsc::channel::<()>();
        let body = move || {
            // An error is the sender's end, which is the sign to go.
            let _ = wait.recv();
        };
        match std::thread::Builder::new().stack_size(64 << 10).spawn(body) {
            Ok(thread) => tasks.push(Task { thread, hold }),
            Err(error) => return (tasks, error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
    (tasks, 0)
}

pub(super) fn release(tasks: Vec<Task>) {
    for Task { thread, hold } in tasks {
        drop(hold);
        // It cannot panic: it only waits.
        let _ = thread.join();
    }
}
