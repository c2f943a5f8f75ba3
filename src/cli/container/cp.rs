//! `isobench container cp`.

use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::{CliError, Ended, columns};
use crate::container::config::{Config, MountSource};
use crate::container::files::{Arrangement, Bound, FilesError, Root, Source, Wanted, arrange, base_name};
use crate::container::state::{Process, State};
use crate::container::store::{Locked, Store};

/// The arguments of `isobench container cp`.
#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// A path of the host, CONTAINER:PATH, or - for an archive on standard input
    #[arg(value_name = "SOURCE")]
    from: String,
    /// A path of the host, CONTAINER:PATH, or - for an archive on standard output
    #[arg(value_name = "TARGET")]
    to: String,
    /// Keep the owners
    #[arg(short, long)]
    archive: bool,
    /// Copy what the source's link leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Stream,
    Host(PathBuf),
    Container(&'a str, PathBuf),
}

/// Takes an end apart, as docker does: a path that begins with `/` or `.` is the host's, whatever colons it has.
fn end(text: &str) -> End<'_> {
    match text.split_once(':') {
        _ if text == "-" => End::Stream,
        Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => {
            End::Container(name, Path::new("/").join(path))
        }
        _ => End::Host(PathBuf::from(text)),
    }
}

pub(super) fn run(store: &Store, args: &CopyArgs) -> Result<Ended, CliError> {
    let wrong = |text: &str| Err(FilesError::Arrangement(text.to_owned()).into());
    match (end(&args.from), end(&args.to)) {
        (End::Container(..), End::Container(..)) => wrong("copying between containers is not supported"),
        (End::Container(name, path), to) => copy_out(&reach(store, name)?, &path, &to, args),
        (from, End::Container(name, path)) => copy_in(&reach(store, name)?, &from, (name, &path), args),
        _ => wrong("one of source and target must be in a container: CONTAINER:PATH"),
    }
}

/// A container's root, and what keeps the container as it is meanwhile.
pub(super) struct Reached {
    pub(super) root: Root,
    _locked: Option<Locked>,
}

/// Reaches a container's files, with all that is mounted in it.
fn reach(store: &Store, name: &str) -> Result<Reached, CliError> {
    reach_by(store, name, Root::running, |config| binds(store, config))
}

/// Reaches a container's files: of one that runs by `running`, of another with the binds that `binds` names.
pub(super) fn reach_by(
    store: &Store,
    name: &str,
    running: impl Fn(Process, Option<(u32, u32)>) -> Result<Root, FilesError>,
    binds: impl Fn(&Config) -> Vec<Bound>,
) -> Result<Reached, CliError> {
    let stored = store.find(name)?;
    let up = |state: &State| match state.init.filter(|_| state.status.is_up()) {
        None => Ok(None),
        Some(init) => match running(init, stored.config.user_namespace) {
            Err(FilesError::Ended) => Ok(None),
            root => root.map(Some),
        },
    };
    if let Some(root) = up(&stored.state()?)? {
        return Ok(Reached { root, _locked: None });
    }
    // So that it does not start while its overlay is mounted here.
    let locked = stored.lock()?;
    if let Some(root) = up(&locked.state()?)? {
        return Ok(Reached { root, _locked: None });
    }
    let root = Root::stopped(&stored.config, &stored.directory, binds(&stored.config))?;
    Ok(Reached { root, _locked: Some(locked) })
}

/// The directories of the host that a container sees.
fn binds(store: &Store, config: &Config) -> Vec<Bound> {
    let bound = |mount: &crate::container::config::Mount| {
        let source = match &mount.source {
            MountSource::Bind { path, .. } => PathBuf::from(path),
            MountSource::Volume { name, .. } => store.volumes().join(name).join("_data"),
            MountSource::Tmpfs { .. } => return None,
        };
        // A bind that is to be made when it starts is not there yet.
        source.exists().then(|| Bound { source, target: PathBuf::from(&mount.target), read_only: mount.read_only })
    };
    config.mounts.iter().filter_map(bound).collect()
}

fn copy_out(from: &Reached, path: &Path, to: &End<'_>, args: &CopyArgs) -> Result<Ended, CliError> {
    let follow = args.follow_link;
    let seen = from.root.look(path, follow)?.ok_or_else(|| FilesError::Missing(path.display().to_string()))?;
    let target = match to {
        End::Stream | End::Container(..) => {
            let output = io::stdout().lock();
            if output.is_terminal() {
                return Err(CliError::Terminal);
            }
            let mut output = BufWriter::new(output);
            from.root.read(path, follow, &base_name(path), &mut output)?;
            output.flush().map_err(CliError::Output)?;
            return Ok(Ended::Pass);
        }
        End::Host(path) => absolute(path)?,
    };
    let host = Root::of_host()?;
    let wanted = Wanted { path: &target, seen: host.look(&target, true)? };
    let arranged = arrange(Source { path, seen }, wanted)?;
    let bytes = transfer((&from.root, path, follow), (&host, &arranged, args.archive))?;
    told(args, bytes, &target.display().to_string());
    Ok(Ended::Pass)
}

fn copy_in(to: &Reached, from: &End<'_>, (name, path): (&str, &Path), args: &CopyArgs) -> Result<Ended, CliError> {
    let bytes = match from {
        End::Stream | End::Container(..) => {
            let mut input = Counted { inner: io::stdin(), bytes: 0 };
            to.root.write(path, &mut input, args.archive)?;
            input.bytes
        }
        End::Host(source) => {
            let source = absolute(source)?;
            let host = Root::of_host()?;
            let missing = || FilesError::Missing(source.display().to_string());
            let seen = host.look(&source, args.follow_link)?.ok_or_else(missing)?;
            let wanted = Wanted { path, seen: to.root.look(path, true)? };
            let arranged = arrange(Source { path: &source, seen }, wanted)?;
            transfer((&host, &source, args.follow_link), (&to.root, &arranged, args.archive))?
        }
    };
    told(args, bytes, &format!("{name}:{}", path.display()));
    Ok(Ended::Pass)
}

/// Copies what stands at a path of one root into a directory of the other; the bytes of the archive between them.
fn transfer(
    (from, path, follow): (&Root, &Path, bool),
    (to, arranged, keep): (&Root, &Arrangement, bool),
) -> Result<u64, FilesError> {
    let failed = |source| FilesError::Read(path.display().to_string(), source);
    let (reader, writer) = io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut writer = BufWriter::with_capacity(CHUNK, writer);
            from.read(path, follow, &arranged.called, &mut writer)?;
            writer.flush().map_err(failed)
        });
        let mut reader = Counted { inner: reader, bytes: 0 };
        let written = to.write(&arranged.directory, &mut reader, keep);
        // What is left in the pipe is not waited for.
        let Counted { inner, bytes } = reader;
        drop(inner);
        let read = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (read, written) {
            // The reader that went away is why nothing more could be written.
            (Err(FilesError::Read(_, source)), Err(error)) if source.kind() == io::ErrorKind::BrokenPipe => Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(bytes),
        }
    })
}

/// What is given to the pipe at once, in bytes.
const CHUNK: usize = 64 << 10;

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// A path of the host from its root; a slash at its end says something, and stays.
fn absolute(path: &Path) -> Result<PathBuf, FilesError> {
    let here = std::env::current_dir();
    let here = here.map_err(|source| FilesError::Read("the working directory".to_owned(), source))?;
    Ok(here.join(path))
}

fn told(args: &CopyArgs, bytes: u64, target: &str) {
    if !args.quiet {
        // Where standard error is closed there is no one to tell.
        let _ = writeln!(anstream::stderr(), "Successfully copied {} to {target}", columns::size(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_as_docker_takes_them_apart() {
        assert_eq!(end("-"), End::Stream);
        assert_eq!(end("c:/a:b"), End::Container("c", "/a:b".into()));
        assert_eq!(end("c:a"), End::Container("c", "/a".into()));
        assert_eq!(end("./c:a"), End::Host("./c:a".into()));
        assert_eq!(end("/c:a"), End::Host("/c:a".into()));
        assert_eq!(end(":a"), End::Host(":a".into()));
        assert_eq!(end("a"), End::Host("a".into()));
    }
}
