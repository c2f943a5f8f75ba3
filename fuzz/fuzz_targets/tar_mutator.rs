//! Mutations that keep the checksums of tar headers right: else nearly every input ends at the first header.

/// Writes the checksum of every block that says it is a header.
pub fn mend_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
