//! `stamp`: tells when the program's first instruction of its own ran. It lies on the path that `startup` measures,
//! so it does one write(2) and nothing else.

use std::os::fd::AsFd;
use std::process::ExitCode;

/// Writes the entry time (ns of CLOCK_MONOTONIC) to `stdout` as 8 bytes, little-endian, with one write(2).
///
/// Returns 1 when the write failed or was cut short, which a pipe never does with 8 bytes.
pub(super) fn run(entry_ns: u64, stdout: impl AsFd) -> ExitCode {
    match nix::unistd::write(stdout, &entry_ns.to_le_bytes()) {
        Ok(8) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    #[test]
    fn writes_eight_bytes() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        super::run(0x0102_0304_0506_0708, &writer);
        drop(writer);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [8, 7, 6, 5, 4, 3, 2, 1]);
    }
}
