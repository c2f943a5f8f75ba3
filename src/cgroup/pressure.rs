//! Pressure stall information of a v2 group: how long its tasks stood still for want of CPU, memory or block I/O.

use std::io;
use std::path::Path;

use super::CgroupError;

/// The resources that pressure is told for, with the files.
const CPU: &str = "cpu.pressure";
const MEMORY: &str = "memory.pressure";
const IO: &str = "io.pressure";

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Share of the last 10 s, in percent.
    pub avg10: f64,
    /// Share of the last 60 s, in percent.
    pub avg60: f64,
    /// Share of the last 300 s, in percent.
    pub avg300: f64,
    /// All of it, in ns.
    pub total_ns: u64,
}

/// A pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// When at least one task stood still.
    pub some: Stall,
    /// When all tasks stood still at once; absent for the CPU before Linux 5.13.
    pub full: Option<Stall>,
}

/// The pressure of a group; a file that the kernel has not leaves its field absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressures {
    /// For want of CPU.
    pub cpu: Option<Pressure>,
    /// For want of memory.
    pub memory: Option<Pressure>,
    /// For want of block I/O.
    pub io: Option<Pressure>,
}

/// Reads the pressure of a v2 group.
///
/// # Errors
/// When a file is there and cannot be read or understood.
pub fn read(path: &Path) -> Result<Pressures, CgroupError> {
    Ok(Pressures { cpu: read_one(path, CPU)?, memory: read_one(path, MEMORY)?, io: read_one(path, IO)? })
}

fn read_one(path: &Path, file: &str) -> Result<Option<Pressure>, CgroupError> {
    let path = path.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => match parse(&text) {
            Some(pressure) => Ok(Some(pressure)),
            None => Err(CgroupError::Content { path, content: text }),
        },
        // A kernel booted with psi=0 has the files and refuses to read them.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(None)
        }
        Err(error) => Err(CgroupError::file("read", path)(error)),
    }
}

fn parse(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let full = match line("full") {
        Some(line) => Some(parse_line(line)?),
        None => None,
    };
    Some(Pressure { some: parse_line(line("some")?)?, full })
}

fn parse_line(line: &str) -> Option<Stall> {
    let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Some(Stall {
        avg10: field("avg10")?.parse().ok()?,
        avg60: field("avg60")?.parse().ok()?,
        avg300: field("avg300")?.parse().ok()?,
        total_ns: field("total")?.parse::<u64>().ok()?.checked_mul(1000)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read_and_totals_become_nanoseconds() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = parse(text).unwrap();
        assert_eq!(pressure.some, Stall { avg10: 1.5, avg60: 0.25, avg300: 0.0, total_ns: 12_000 });
        assert_eq!(pressure.full.unwrap().total_ns, 7000);
    }

    #[test]
    fn an_older_cpu_file_has_no_full_line() {
        let pressure = parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").unwrap();
        assert_eq!(pressure.full, None);
        assert_eq!(parse("some avg10=x avg60=0.00 avg300=0.00 total=1\n"), None);
        assert_eq!(parse(""), None);
    }
}
