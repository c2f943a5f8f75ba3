//! Unpacking a layer beside `tar -x`: the same archive, the same file system, alternated.
//!
//! `cargo bench --bench unpack [DIRECTORY...]`; needs root, tar, gzip and zstd. The archive is of the directories, or of
//! `/usr/include` and `/usr/lib/gcc`. Not a criterion bench: the two sides have to take turns, so that whatever
//! disturbs the machine hits both, and the ratio is made in each turn. Ours hashes the archive as it comes and as it is
//! decompressed, as it does for every layer.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use isobench::image::unpack::{self, Limits, Options};
use isobench::stats::quantile::median;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let once = arguments.iter().any(|argument| argument == "--test");
    let turns = if once { 1 } else { 11 };
    for tool in ["tar", "gzip", "zstd"] {
        if Command::new(tool).arg("--version").output().is_err() {
            println!("skipped: {tool} is not installed");
            return Ok(());
        }
    }
    let mut directories: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| *argument != "--test").collect();
    if directories.is_empty() {
        directories = vec!["/usr/include", "/usr/lib/gcc"];
    }
    directories.retain(|directory| Path::new(directory).is_dir());
    let place = tempfile::Builder::new().prefix("isobench-unpack-").tempdir_in("/var/tmp")?;
    println!("{:5} {:>4}  {:>10} {:>10} {:>7}", "form", "turn", "isobench", "tar -x", "ratio");
    for (form, option) in [("plain", None), ("gzip", Some("--gzip")), ("zstd", Some("--zstd"))] {
        let archive = place.path().join(form);
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&archive).args(option).args(["--numeric-owner", "-C", "/"]);
        tar.args(directories.iter().map(|directory| directory.trim_start_matches('/')));
        run(&mut tar)?;
        let (mut ratios, mut own, mut entries) = (Vec::new(), Vec::new(), 0);
        for turn in 0..turns {
            // The order changes, so that neither side always comes second.
            let mut sides = [0.0; 2];
            for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                let directory = place.path().join("root");
                std::fs::create_dir(&directory)?;
                let begin = Instant::now();
                if side == 0 {
                    let options = Options::layer(Limits::default(), Vec::new());
                    entries = unpack::unpack(File::open(&archive)?, &File::open(&directory)?, &options)?.entries;
                } else {
                    run(Command::new("tar").args(["--numeric-owner", "-xpf"]).arg(&archive).arg("-C").arg(&directory))?;
                }
                sides[side] = begin.elapsed().as_secs_f64();
                std::fs::remove_dir_all(directory)?;
            }
            let [ours, theirs] = sides;
            println!("{form:5} {turn:>4}  {ours:>8.3} s {theirs:>8.3} s {:>7.3}", theirs / ours);
            ratios.push(theirs / ours);
            own.push(ours);
        }
        let (ratio, ours) = (median(&ratios).unwrap_or(f64::NAN), median(&own).unwrap_or(f64::NAN));
        let size = archive.metadata()?.len() / 1_000_000;
        println!("{form:5}  {size} MB, {entries} entries: {ours:.3} s; median of the ratios of speed {ratio:.2}");
        std::fs::remove_file(archive)?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}
