//! Profiles as docker takes them, down to what the kernel answers.

use super::super::program::tests::run;
use super::*;

const X86_64: u32 = 0xc000_003e;
const NONE: CapabilitySet = CapabilitySet(0);

fn told(text: &str) -> String {
    let error = compile(text, NONE).unwrap_err();
    std::error::Error::source(&error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// The program of a profile with these entries whose default fails with 99.
fn profile(entries: &str) -> String {
    format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99, "syscalls": [{entries}]}}"#)
}

#[cfg(target_arch = "x86_64")]
struct Compiled(Vec<sock_filter>);

#[cfg(target_arch = "x86_64")]
impl Compiled {
    fn of(text: &str, capabilities: CapabilitySet, kernel: (u32, u32)) -> Self {
        Self(compile_for(text, capabilities, kernel).unwrap().code().unwrap())
    }

    fn answer(&self, number: i64, arguments: [u64; 6]) -> u32 {
        run(&self.0, X86_64, u32::try_from(number).unwrap(), arguments)
    }

    fn plain(&self, number: i64) -> u32 {
        self.answer(number, [0; 6])
    }
}

const ALLOW: u32 = 0x7fff_0000;

fn errno(number: i32) -> u32 {
    0x0005_0000 | number.cast_unsigned()
}

#[cfg(target_arch = "x86_64")]
#[test]
fn names_actions_and_the_default() {
    let text = profile(
        r#"{"names": ["read", "write", "no_such_call", "file_setattr"], "action": "SCMP_ACT_ALLOW", "args": null},
           {"name": "open", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
           {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
           {"names": ["chdir"], "action": "SCMP_ACT_KILL_PROCESS"},
           {"names": ["rmdir"], "action": "SCMP_ACT_KILL"},
           {"names": ["link"], "action": "SCMP_ACT_TRAP"},
           {"names": ["pipe"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
           {"names": ["poll"], "action": "SCMP_ACT_LOG"}"#,
    );
    let filter = Compiled::of(&text, NONE, (6, 1));
    for (number, expected) in [
        (libc::SYS_read, ALLOW),
        (libc::SYS_write, ALLOW),
        (libc::SYS_open, errno(13)),
        (libc::SYS_mkdir, errno(1)),
        (libc::SYS_chdir, 0x8000_0000),
        (libc::SYS_rmdir, 0),
        (libc::SYS_link, 0x0003_0000),
        (libc::SYS_pipe, 0x7ff0_0007),
        (libc::SYS_poll, 0x7ffc_0000),
        (libc::SYS_stat, errno(99)),
        // x32, and another architecture.
        (libc::SYS_read | 0x4000_0000, errno(libc::ENOSYS)),
    ] {
        assert_eq!(filter.plain(number), expected, "{number}");
    }
    assert_eq!(run(&filter.0, 0x4000_0003, 3, [0; 6]), 0x8000_0000);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_newer_than_the_profile_are_not_there() {
    let strict = Compiled::of(&profile(r#"{"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}"#), NONE, (6, 1));
    assert_eq!(strict.plain(libc::SYS_openat2 - 1), errno(99));
    assert_eq!(strict.plain(libc::SYS_openat2 + 1), errno(libc::ENOSYS));
    let lax = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let lax = Compiled::of(lax, NONE, (6, 1));
    assert_eq!((lax.plain(libc::SYS_read), lax.plain(libc::SYS_openat2)), (errno(1), ALLOW));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn arguments() {
    let text = profile(
        r#"{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
           {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
           {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
           {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
               {"index": 0, "value": 40, "op": "SCMP_CMP_NE"}, {"index": 2, "value": 9, "op": "SCMP_CMP_LT"}]},
           {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "args": [
               {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}"#,
    );
    let filter = Compiled::of(&text, NONE, (6, 1));
    let first = |number, value| filter.answer(number, [value, 0, 0, 0, 0, 0]);
    assert_eq!(first(libc::SYS_clone, 17), ALLOW);
    assert_eq!(first(libc::SYS_clone, 0x1000_0000), errno(99));
    assert_eq!((first(libc::SYS_personality, 8), first(libc::SYS_personality, 0)), (ALLOW, ALLOW));
    assert_eq!(first(libc::SYS_personality, 1 << 32 | 8), errno(99));
    assert_eq!(filter.answer(libc::SYS_socket, [2, 0, 8, 0, 0, 0]), ALLOW);
    assert_eq!(filter.answer(libc::SYS_socket, [40, 0, 8, 0, 0, 0]), errno(99));
    assert_eq!(filter.answer(libc::SYS_socket, [2, 0, 9, 0, 0, 0]), errno(99));
    // Two conditions on one argument are alternatives.
    assert_eq!((first(libc::SYS_dup, 1), first(libc::SYS_dup, 2), first(libc::SYS_dup, 3)), (ALLOW, ALLOW, errno(99)));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_stricter_of_two_rules_holds() {
    let condition = r#""args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]"#;
    let entries = [
        r#"{"names": ["dup", "pipe"], "action": "SCMP_ACT_ALLOW"}"#.to_owned(),
        r#"{"names": ["pipe"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}"#.to_owned(),
        format!(r#"{{"names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6, {condition}}}"#),
        format!(r#"{{"names": ["pipe"], "action": "SCMP_ACT_ALLOW", {condition}}}"#),
    ];
    let backwards: Vec<String> = entries.iter().rev().cloned().collect();
    for entries in [entries.join(","), backwards.join(",")] {
        let filter = Compiled::of(&profile(&entries), NONE, (6, 1));
        let first = |number, value| filter.answer(number, [value, 0, 0, 0, 0, 0]);
        assert_eq!((first(libc::SYS_dup, 1), first(libc::SYS_dup, 2)), (errno(6), ALLOW));
        assert_eq!((first(libc::SYS_pipe, 1), first(libc::SYS_pipe, 2)), (errno(5), errno(5)));
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn what_entries_depend_on() {
    let text = profile(
        r#"{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_SYS_TIME"]}},
           {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}},
           {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
           {"names": ["dup"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
           {"names": ["pipe"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
           {"names": ["poll"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
           {"names": ["link"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
           {"names": ["file_setattr"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": null}"#,
    );
    let allowed = |capabilities: &[&str], kernel| {
        let filter = Compiled::of(&text, CapabilitySet::of(capabilities), kernel);
        let calls = [
            ("mount", libc::SYS_mount),
            ("setns", libc::SYS_setns),
            ("ptrace", libc::SYS_ptrace),
            ("dup", libc::SYS_dup),
            ("pipe", libc::SYS_pipe),
            ("poll", libc::SYS_poll),
            ("link", libc::SYS_link),
        ];
        let allowed = calls.iter().filter(|(_, number)| filter.plain(*number) == ALLOW);
        allowed.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(allowed(&[], (4, 7)), ["setns", "dup", "pipe"]);
    assert_eq!(allowed(&["SYS_ADMIN"], (4, 8)), ["ptrace", "pipe"]);
    assert_eq!(allowed(&["SYS_ADMIN", "SYS_TIME"], (5, 0)), ["mount", "ptrace", "pipe"]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_32_bit_architecture_where_it_is_listed() {
    const I386: u32 = 0x4000_0003;
    let entry = r#""syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]"#;
    for list in [
        r#""archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}]"#,
        r#""architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]"#,
    ] {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", {list}, {entry}}}"#);
        let filter = Compiled::of(&text, NONE, (6, 1));
        // read is 0 on the one and 3 on the other.
        assert_eq!((run(&filter.0, X86_64, 0, [0; 6]), run(&filter.0, I386, 3, [0; 6])), (ALLOW, ALLOW));
        assert_eq!(run(&filter.0, I386, 0, [0; 6]), errno(1));
    }
}

#[test]
fn wrong_profiles_say_what_would_be_right() {
    let entry = |rest: &str| profile(&format!(r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", {rest}}}"#));
    let arg = |arg: &str| entry(&format!(r#""args": [{{{arg}}}]"#));
    let cases = [
        "{}".to_owned(),
        r#"{"defaultAction": "ALLOW"}"#.to_owned(),
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.to_owned(),
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}"#.to_owned(),
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]}"#.to_owned(),
        arg(r#""index": 6, "op": "SCMP_CMP_EQ""#),
        arg(r#""index": 0, "op": "EQ""#),
        entry(r#""name": "write""#),
        entry(r#""includes": {"minKernel": "new"}"#),
    ];
    expect_test::expect![[r#"
        the seccomp profile cannot be understood: missing field `defaultAction` at line 1 column 2
        the seccomp profile's action `ALLOW` is not known; there are SCMP_ACT_ALLOW, _ERRNO, _KILL, _KILL_THREAD, _KILL_PROCESS, _TRAP, _TRACE and _LOG
        the seccomp profile asks for the action SCMP_ACT_NOTIFY, which is not supported
        the seccomp profile's errno 5000 is none; they go from 0 to 4095
        the seccomp profile's architecture `amd64` is not known; they are written as in SCMP_ARCH_X86_64
        the seccomp profile compares argument 6; system calls have arguments 0 to 5
        the seccomp profile's comparison `EQ` is not known; there are SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT and _MASKED_EQ
        the seccomp profile has both `name` and `names`; it may have one of them
        the seccomp profile's kernel version `new` is not of the form 4.8
    "#]]
    .assert_eq(&cases.iter().map(|text| told(text) + "\n").collect::<String>());
}

/// A thread's filter is its own and ends with it.
#[test]
fn the_kernel_answers_so() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122},
        {"names": ["fchmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11,
         "args": [{"index": 1, "value": 511, "op": "SCMP_CMP_EQ"}]}]}"#;
    let filter = compile(text, NONE).unwrap();
    let place = tempfile::tempdir().unwrap();
    let errno = |outcome: std::io::Result<()>| outcome.err().and_then(|error| error.raw_os_error());
    let answers = std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            use std::os::unix::fs::PermissionsExt;
            let file = std::fs::File::create(place.path().join("f")).unwrap();
            let mode = |mode| file.set_permissions(std::fs::Permissions::from_mode(mode));
            seccompiler::apply_filter(&filter).unwrap();
            [errno(std::fs::create_dir(place.path().join("d"))), errno(mode(0o777)), errno(mode(0o700))]
        });
        confined.join().unwrap()
    });
    assert_eq!(answers, [Some(libc::EDQUOT), Some(libc::EAGAIN), None]);
    assert!(std::fs::create_dir(place.path().join("d")).is_ok());
}

/// A program that is started under a filter has it too.
#[test]
fn a_program_is_under_the_filter() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]}"#;
    let filter = compile(text, NONE).unwrap();
    let place = tempfile::tempdir().unwrap();
    let output = std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            std::process::Command::new("mkdir").arg(place.path().join("d")).env("LC_ALL", "C").output().unwrap()
        });
        confined.join().unwrap()
    });
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("quota exceeded"), "{told}");
}
