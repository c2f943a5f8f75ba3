//! Writer and reader together.

use std::fs;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log.json")
    }

    fn writer(&self, max_size: Option<u64>, max_files: u32) -> Writer {
        Writer::open(self.path(), LogConfig { kept: true, max_size, max_files }).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn read(&self, reader: impl FnOnce(Reader) -> Reader) -> Vec<String> {
        let mut texts = Vec::new();
        let read: Result<(), FileError> = reader(Reader::new(self.path())).read(|entry| {
            texts.push(entry.text.clone());
            Ok(())
        });
        read.unwrap();
        texts
    }

    fn all(&self) -> Vec<String> {
        self.read(|reader| reader)
    }
}

/// The file with every time as `T`.
fn without_times(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| match line.split_once("\"time\":\"") {
        Some((before, time)) => {
            assert!(time.trim_end_matches("\"}").parse::<Timestamp>().is_ok(), "{time}");
            format!("{before}\"time\":\"T\"}}\n")
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn lines_are_entries() {
    let place = Place::new();
    let mut writer = place.writer(None, 1);
    writer.write(Stream::Stdout, b"one\ntwo\nthr").unwrap();
    writer.write(Stream::Stderr, b"error\n").unwrap();
    writer.write(Stream::Stdout, b"ee\n\nlast").unwrap();
    expect![[r#"
        {"log":"one\n","stream":"stdout","time":"T"}
        {"log":"two\n","stream":"stdout","time":"T"}
        {"log":"error\n","stream":"stderr","time":"T"}
        {"log":"three\n","stream":"stdout","time":"T"}
        {"log":"\n","stream":"stdout","time":"T"}
    "#]]
    .assert_eq(&without_times(&place.path()));
    writer.flush().unwrap();
    assert_eq!(place.all(), ["one\n", "two\n", "error\n", "three\n", "\n", "last"]);
    assert_eq!(place.read(|reader| Reader { stdout: false, ..reader }), ["error\n"]);
}

#[test]
fn long_lines_are_split() {
    let place = Place::new();
    let mut writer = place.writer(None, 1);
    let line = "x".repeat(2 * LONGEST_PIECE + 5) + "\n";
    for part in line.as_bytes().chunks(1000) {
        writer.write(Stream::Stdout, part).unwrap();
    }
    writer.write(Stream::Stdout, &line.as_bytes()[line.len() - 1 - LONGEST_PIECE..]).unwrap();
    let lengths: Vec<usize> = place.all().iter().map(String::len).collect();
    assert_eq!(lengths, [LONGEST_PIECE, LONGEST_PIECE, 6, LONGEST_PIECE, 1]);
}

#[test]
fn one_write_for_a_batch() {
    let place = Place::new();
    let mut writer = place.writer(None, 1);
    let count = || {
        let io = fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("syscw: ")?.parse::<u64>().ok()).unwrap()
    };
    let lines = "a line\n".repeat(200);
    let before = count();
    writer.write(Stream::Stdout, lines.as_bytes()).unwrap();
    assert_eq!(count() - before, 1);
}

#[test]
fn files_are_rotated() {
    let place = Place::new();
    let mut writer = place.writer(Some(200), 3);
    for number in 0..20 {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
    }
    assert_eq!(place.files(), ["log.json", "log.json.1", "log.json.2"]);
    let kept = place.all();
    assert_eq!(kept.last().unwrap(), "line 19\n");
    assert!((7..=9).contains(&kept.len()), "{kept:?}");
    assert!(fs::metadata(place.path().with_extension("json.1")).unwrap().len() < 300);
    // One file only: it begins anew.
    let place = Place::new();
    let mut writer = place.writer(Some(100), 1);
    writer.write(Stream::Stdout, "a\n".repeat(50).as_bytes()).unwrap();
    assert_eq!(place.files(), ["log.json"]);
    assert!(fs::metadata(place.path()).unwrap().len() < 200);
}

#[test]
fn a_torn_entry_is_taken_away() {
    let place = Place::new();
    place.writer(None, 1).write(Stream::Stdout, b"whole\n").unwrap();
    let mut torn = fs::read(place.path()).unwrap();
    torn.extend_from_slice(br#"{"log":"to"#);
    fs::write(place.path(), &torn).unwrap();
    assert_eq!(place.all(), ["whole\n"]);
    place.writer(None, 1).write(Stream::Stdout, b"next\n").unwrap();
    assert_eq!(place.all(), ["whole\n", "next\n"]);
    fs::write(place.path(), "x".repeat(10_000)).unwrap();
    place.writer(None, 1).write(Stream::Stdout, b"fresh\n").unwrap();
    assert_eq!(place.all(), ["fresh\n"]);
}

#[test]
fn a_gap_left_by_a_killed_rotation_does_no_harm() {
    let place = Place::new();
    place.writer(None, 5).write(Stream::Stdout, b"old\n").unwrap();
    fs::rename(place.path(), numbered(&place.path(), 3)).unwrap();
    assert_eq!(place.all(), ["old\n"]);
    let mut writer = place.writer(Some(1), 5);
    writer.write(Stream::Stdout, b"new\n").unwrap();
    writer.write(Stream::Stdout, b"newer\n").unwrap();
    assert_eq!(place.all(), ["old\n", "new\n", "newer\n"]);
}

#[test]
fn a_full_disk_leaves_whole_entries() {
    let place = Place::new();
    let mut writer = place.writer(None, 1);
    writer.write(Stream::Stdout, b"before\n").unwrap();
    writer.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
    assert!(writer.write(Stream::Stdout, b"lost\n").is_err());
    writer.write(Stream::Stdout, b"after\n").unwrap();
    assert_eq!(place.all(), ["before\n", "after\n"]);
}

#[test]
fn a_log_that_cannot_be_opened_holds_nothing_back() {
    let place = Place::new();
    let mut writer = place.writer(Some(100), 2);
    writer.write(Stream::Stdout, "before\n".repeat(3).as_bytes()).unwrap();
    let path = place.path();
    place.directory.close().unwrap();
    for _ in 0..20 {
        assert!(writer.write(Stream::Stdout, "lost\n".repeat(5000).as_bytes()).is_err());
        assert!(writer.batch.is_empty());
    }
    fs::create_dir(path.parent().unwrap()).unwrap();
    writer.write(Stream::Stdout, b"after\n").unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("after"));
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

#[test]
fn what_is_no_entry_is_passed_over() {
    let place = Place::new();
    let good = r#"{"log":"good\n","stream":"stdout","time":"2024-01-02T03:04:05Z","attrs":{"a":"b"}}"#;
    let huge = "x".repeat(3 << 20);
    fs::write(place.path(), format!("junk\n{good}\n{{}}\n{huge}\n{good}\n\n{{\"log\":1}}\n")).unwrap();
    assert_eq!(place.all(), ["good\n", "good\n"]);
}

#[test]
fn the_end_and_a_span_of_time() {
    let place = Place::new();
    let mut writer = place.writer(Some(2000), 10);
    for number in 0..100 {
        writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
    }
    assert!(place.files().len() > 2);
    for tail in [0, 1, 5, 40, 99, 100, 1000] {
        let expected: Vec<String> = (100 - tail.min(100)..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(place.read(|reader| Reader { tail: Some(tail), ..reader }), expected, "{tail}");
    }
    let line = |second: u32| {
        format!("{{\"log\":\"{second}\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:0{second}Z\"}}\n")
    };
    let place = Place::new();
    fs::write(place.path(), (0..9).map(line).collect::<String>()).unwrap();
    let at = |second: u32| Some(format!("2024-01-01T00:00:0{second}Z").parse().unwrap());
    assert_eq!(place.read(|reader| Reader { since: at(3), until: at(5), ..reader }), ["3", "4", "5"]);
    assert_eq!(place.read(|reader| Reader { since: at(7), tail: Some(5), ..reader }), ["7", "8"]);
}

#[test]
fn entries_are_shown_with_their_time() {
    let entry =
        Entry { stream: Stream::Stdout, time: "2024-01-02T03:04:05.5Z".parse().unwrap(), text: "x\n".to_owned() };
    let mut out = Vec::new();
    entry.write(true, &mut out).unwrap();
    entry.write(false, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "2024-01-02T03:04:05.500000000Z x\nx\n");
}

#[test]
fn a_log_is_followed_through_rotations() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new();
    let runs = AtomicBool::new(true);
    let mut texts = Vec::new();
    std::thread::scope(|scope| {
        let mut writer = place.writer(Some(2000), 50);
        scope.spawn(|| {
            for number in 0..1000 {
                writer.write(Stream::Stdout, format!("{number}\n").as_bytes()).unwrap();
                if number % 100 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
            runs.store(false, Ordering::SeqCst);
            drop(writer);
        });
        let followed: Result<(), FileError> = Reader::new(place.path()).follow(
            || runs.load(Ordering::SeqCst),
            |entry| {
                texts.push(entry.text.trim_end().parse::<u32>().unwrap());
                Ok(())
            },
        );
        followed.unwrap();
    });
    assert_eq!(texts, (0..1000).collect::<Vec<_>>());
}

#[test]
fn nothing_is_kept_of_a_log_that_is_off() {
    let place = Place::new();
    let mut writer = Writer::open(place.path(), LogConfig { kept: false, ..LogConfig::default() }).unwrap();
    writer.write(Stream::Stdout, &vec![b'x'; 100_000]).unwrap();
    writer.flush().unwrap();
    assert!(place.files().is_empty());
    assert_eq!(place.all(), Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(lines in prop::collection::vec("[a-zé<&\"\\\\]{0,40}\n", 0..60), cut in 1usize..50, size in 50u64..3000) {
        let place = Place::new();
        let mut writer = place.writer(Some(size), 500);
        for part in lines.concat().as_bytes().chunks(cut) {
            writer.write(Stream::Stdout, part).unwrap();
        }
        prop_assert_eq!(place.all(), lines);
    }
}
