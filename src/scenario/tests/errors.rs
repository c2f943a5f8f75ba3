//! Golden errors: each with its line, its column and what would be right.

use expect_test::expect;

use super::super::*;
use super::{NETWORK, STARTUP, bad, bad_file};

#[test]
fn broken_toml() {
    bad(
        "[run\nblocks = 3\nseed = = 1\n",
        expect![[r#"
        t.toml:4:5: unclosed table, expected `]`
          4 | [run
            |     ^
            = the file must be valid TOML

        t.toml:6:8: extra `=`, expected nothing
          6 | seed = = 1
            |        ^
            = the file must be valid TOML

        t.toml:6:10: unexpected key or value, expected newline, `#`
          6 | seed = = 1
            |          ^
            = the file must be valid TOML
    "#]],
    );
    bad(
        &format!("[run]\nblocks = 3\nblocks = 4\n{STARTUP}"),
        expect![[r#"
        t.toml:6:1: duplicate key
          6 | blocks = 4
            | ^^^^^^
            = the file must be valid TOML
    "#]],
    );
}

#[test]
fn unknown_keys() {
    bad(
        &format!(
            "[run]\nblokcs = 3\n{STARTUP}per_blocks = 3\n[[check]]\nmetric = \"exit\"\ncase = \"startup/builtin/host/c1\"\nmin_ration = 1\nmax = 1\n[reports]\nx = 1\n"
        ),
        expect![[r#"
            t.toml:5:1: unknown key `blokcs` in [run]
              5 | blokcs = 3
                | ^^^^^^
                = did you mean `blocks`? known are blocks, warmup_blocks, seed

            t.toml:9:1: unknown key `per_blocks` in [[experiment]]
              9 | per_blocks = 3
                | ^^^^^^^^^^
                = did you mean `per_block`? known are enforce, kind, runtime, network, concurrency, per_block, image, layers, cold, baseline

            t.toml:13:1: unknown key `min_ration` in [[check]]
              13 | min_ration = 1
                 | ^^^^^^^^^^
                 = did you mean `min_ratio`? known are metric, case, min_ratio, max_ratio, min, max

            t.toml:15:2: unknown key `reports` in the file
              15 | [reports]
                 |  ^^^^^^^
                 = known are scenario, run, experiment, check
        "#]],
    );
}

#[test]
fn wrong_types() {
    bad(
        &format!(
            "[run]\nblocks = \"many\"\nseed = 1.5\n{NETWORK}duration = 1\npin = \"yes\"\nstreams = [1, \"2\"]\npath = 3\n"
        ),
        expect![[r#"
            t.toml:5:10: `blocks`: expected a whole number, found a string
              5 | blocks = "many"
                |          ^^^^^^
                = write it as in 1

            t.toml:6:8: `seed`: expected a whole number, found a number with a point
              6 | seed = 1.5
                |        ^^^
                = write it as in 1

            t.toml:11:12: `duration`: expected a duration with its unit, found a whole number
              11 | duration = 1
                 |            ^
                 = write it as in "250ms", "1.5s" or "2m"

            t.toml:12:7: `pin`: expected a boolean, found a string
              12 | pin = "yes"
                 |       ^^^^^
                 = write it as in true or false

            t.toml:13:15: `streams`: expected a whole number, found a string
              13 | streams = [1, "2"]
                 |               ^^^
                 = write it as in 1

            t.toml:14:8: `path`: expected the name of a path, found a whole number
              14 | path = 3
                 |        ^
                 = write it as in "egress"
        "#]],
    );
    bad_file(
        "scenario = 1\nrun = []\nexperiment = 3\n",
        &Options::default(),
        expect![[r#"
            t.toml:1:12: expected the table [scenario], found a whole number
              1 | scenario = 1
                |            ^
                = write [scenario] on a line of its own

            t.toml:1:12: [scenario] lacks `name`
              1 | scenario = 1
                |            ^
                = add name = "my-question"

            t.toml:1:12: [scenario] lacks `question`
              1 | scenario = 1
                |            ^
                = add question = "What does … cost?"

            t.toml:2:7: expected the table [run], found a list
              2 | run = []
                |       ^^
                = write [run] on a line of its own

            t.toml:3:1: expected [[experiment]], found a whole number
              3 | experiment = 3
                | ^^^^^^^^^^
                = write [[experiment]], with two brackets
        "#]],
    );
    bad_file(
        "[scenario]\nname = 3\nquestion = \" \"\n[experiment]\nkind = \"startup\"\n",
        &Options::default(),
        expect![[r#"
            t.toml:2:8: `name`: expected a string, found a whole number
              2 | name = 3
                |        ^
                = write it as in "text"

            t.toml:3:12: `question`: the text is empty
              3 | question = " "
                |            ^^^
                = write at least one word

            t.toml:4:2: expected [[experiment]], found a table
              4 | [experiment]
                |  ^^^^^^^^^^
                = write [[experiment]], with two brackets
        "#]],
    );
}

#[test]
fn empty_lists_and_doubles() {
    bad(
        "[[experiment]]\nkind = \"startup\"\nnetwork = []\nconcurrency = [1, 2, 1]\n",
        expect![[r#"
            t.toml:6:11: `network` is an empty list, so that there is nothing to run
              6 | network = []
                |           ^^
                = name at least one value

            t.toml:7:22: `concurrency` holds this value twice
              7 | concurrency = [1, 2, 1]
                |                      ^
                = name each value once
        "#]],
    );
}

#[test]
fn impossible_numbers() {
    bad(
        &format!(
            "[run]\nblocks = 0\nwarmup_blocks = -1\nseed = -5\n{STARTUP}concurrency = [0, 1000]\n{NETWORK}duration = \"1 fortnight\"\nwarmup = \"2h\"\nmessage_size = [0, \"1G\", \"x\"]\nstreams = 99999999999\n"
        ),
        expect![[r#"
            t.toml:5:10: `blocks`: 0 is out of range
              5 | blocks = 0
                |          ^
                = from 1 to 100000

            t.toml:6:17: `warmup_blocks`: -1 is out of range
              6 | warmup_blocks = -1
                |                 ^^
                = from 0 to 100000

            t.toml:7:8: `seed`: -5 is out of range
              7 | seed = -5
                |        ^^
                = from 0 to 9223372036854775807

            t.toml:11:16: `concurrency`: 0 is out of range
              11 | concurrency = [0, 1000]
                 |                ^
                 = from 1 to 256

            t.toml:11:19: `concurrency`: 1000 is out of range
              11 | concurrency = [0, 1000]
                 |                   ^^^^
                 = from 1 to 256

            t.toml:16:12: `duration`: `1 fortnight` is not a duration
              16 | duration = "1 fortnight"
                 |            ^^^^^^^^^^^^^
                 = write a number and a unit, as in "250ms", "1.5s" or "2m"

            t.toml:17:10: `warmup`: 2h is out of range
              17 | warmup = "2h"
                 |          ^^^^
                 = from 0ns to 60s

            t.toml:18:17: `message_size`: the byte count is out of range
              18 | message_size = [0, "1G", "x"]
                 |                 ^
                 = from 1 to 67108864

            t.toml:18:20: `message_size`: the byte count is out of range
              18 | message_size = [0, "1G", "x"]
                 |                    ^^^^
                 = from 1 to 67108864

            t.toml:18:26: `message_size`: `x` is not a byte count
              18 | message_size = [0, "1G", "x"]
                 |                          ^^^
                 = write it as in 4096, "64K" or "16MiB"

            t.toml:19:11: `streams`: 99999999999 is out of range
              19 | streams = 99999999999
                 |           ^^^^^^^^^^^
                 = from 1 to 256
        "#]],
    );
    bad(
        "[run]\nblocks = 99999999999999999999\n",
        expect![[r#"
        t.toml:5:10: the number is too large
          5 | blocks = 99999999999999999999
            |          ^^^^^^^^^^^^^^^^^^^^
            = at most 9223372036854775807
    "#]],
    );
    bad(
        &format!("{STARTUP}concurrency = [1, 16]\n"),
        expect![[r#"
        t.toml:7:19: 10 starts a block cannot keep 16 starters busy
          7 | concurrency = [1, 16]
            |                   ^^
            = set per_block to at least 16
    "#]],
    );
    bad(
        &format!("{STARTUP}concurrency = 8\nper_block = [8, 4]\n"),
        expect![[r#"
        t.toml:8:17: 4 starts a block cannot keep 8 starters busy
          8 | per_block = [8, 4]
            |                 ^
            = set per_block to at least 8
    "#]],
    );
    bad(
        "[[experiment]]\nkind = \"network\"\nnetwork = \"bridge\"\ntest = [\"udp_rr\", \"udp_stream\"]\nmessage_size = [1, \"1K\", \"64K\"]\n",
        expect![[r#"
            t.toml:8:17: `message_size`: a datagram of udp_stream cannot carry 1 bytes
              8 | message_size = [1, "1K", "64K"]
                |                 ^
                = from 8 to 65507, or a second [[experiment]] for the other tests

            t.toml:8:26: `message_size`: a datagram of udp_rr cannot carry 65536 bytes
              8 | message_size = [1, "1K", "64K"]
                |                          ^^^^^
                = from 1 to 65507, or a second [[experiment]] for the other tests
        "#]],
    );
}

#[test]
fn unknown_names() {
    bad(
        "[[experiment]]\nkind = \"start-up\"\n[[experiment]]\nkind = \"startup\"\nruntime = \"builtln\"\nnetwork = [\"brigde\"]\n[[experiment]]\nkind = \"network\"\nnetwork = \"host\"\ntest = \"tcp_steam\"\npath = \"outwards\"\n",
        expect![[r#"
            t.toml:5:8: unknown kind of experiment `start-up`
              5 | kind = "start-up"
                |        ^^^^^^^^^^
                = did you mean `startup`? known are startup, network, cpu, memory, pids, freezer, blkio, accounting, devices, combined, interference, lifecycle

            t.toml:8:11: `runtime`: unknown runtime `builtln`
              8 | runtime = "builtln"
                |           ^^^^^^^^^
                = did you mean `builtin`? known are floor, builtin

            t.toml:9:12: `network`: unknown network mode `brigde`
              9 | network = ["brigde"]
                |            ^^^^^^^^
                = did you mean `bridge`? known are host, none, bridge, container

            t.toml:13:8: `test`: unknown network test `tcp_steam`
              13 | test = "tcp_steam"
                 |        ^^^^^^^^^^^
                 = did you mean `tcp_stream`? known are tcp_stream, tcp_rr, tcp_crr, udp_stream, udp_rr

            t.toml:14:8: `path`: unknown path `outwards`
              14 | path = "outwards"
                 |        ^^^^^^^^^^
                 = known are egress, ingress, internal
        "#]],
    );
    bad(
        "[[experiment]]\nkind = \"network\"\nruntime = [\"builtin\", \"floor\"]\nnetwork = [\"host\", \"none\"]\ntest = \"tcp_rr\"\n",
        expect![[r#"
            t.toml:6:23: `runtime`: the floor has no network to measure: it is a bare clone3 and exec
              6 | runtime = ["builtin", "floor"]
                |                       ^^^^^^^
                = use "builtin"; network = "host" is what ratios go to

            t.toml:7:20: `network`: nothing reaches a container with network `none`, so there is no traffic to measure
              7 | network = ["host", "none"]
                |                    ^^^^^^
                = leave it out; known here are host, bridge, container
        "#]],
    );
}

#[test]
fn missing_parts() {
    bad_file(
        "",
        &Options::default(),
        expect![[r#"
            t.toml:1:1: the file has no [scenario]
              1 |
                | ^
                = add [scenario] with a name and a question

            t.toml:1:1: the file has no experiment
              1 |
                | ^
                = add one that begins with [[experiment]]
        "#]],
    );
    bad(
        "[[experiment]]\nnetwork = \"host\"\n[[experiment]]\nkind = \"network\"\n[[check]]\n",
        expect![[r#"
        t.toml:4:1: [[experiment]] lacks `kind`
          4 | [[experiment]]
            | ^^^^^^^^^^^^^^
            = add kind = "startup"

        t.toml:6:1: [[experiment]] lacks `network`
          6 | [[experiment]]
            | ^^^^^^^^^^^^^^
            = add network = [...] with one or more of host, none, bridge, container

        t.toml:6:1: [[experiment]] lacks `test`
          6 | [[experiment]]
            | ^^^^^^^^^^^^^^
            = add test = [...] with one or more of tcp_stream, tcp_rr, tcp_crr, udp_stream, udp_rr

        t.toml:8:1: [[check]] lacks `metric`
          8 | [[check]]
            | ^^^^^^^^^
            = add metric = "exit"

        t.toml:8:1: [[check]] lacks `case`
          8 | [[check]]
            | ^^^^^^^^^
            = add case = "startup/builtin/bridge/c1"

        t.toml:8:1: the check has no bound
          8 | [[check]]
            | ^^^^^^^^^
            = add min_ratio, max_ratio, min or max
    "#]],
    );
    bad_file(
        &format!("[scenario]\nname = \"../x\"\n{STARTUP}"),
        &Options::default(),
        expect![[r#"
        t.toml:1:1: [scenario] lacks `question`
          1 | [scenario]
            | ^^^^^^^^^^
            = add question = "What does … cost?"

        t.toml:2:8: `name`: `../x` cannot name a directory
          2 | name = "../x"
            |        ^^^^^^
            = letters, digits, `-`, `_`, `.`
    "#]],
    );
}

#[test]
fn images_whose_cases_would_have_one_name() {
    bad(
        "[[experiment]]\nkind = \"startup\"\nnetwork = [\"none\", \"host\"]\nimage = [\"a/b\", \"a_b\"]\n",
        expect![[r#"
            t.toml:7:17: `a/b` and `a_b` give cases of one name
              7 | image = ["a/b", "a_b"]
                |                 ^^^^^
                = give one of them a name that differs in more than `/` and `_`
        "#]],
    );
}

#[test]
fn cold_starts_beside_others() {
    bad(
        "[[experiment]]\nkind = \"startup\"\nnetwork = [\"none\", \"container\"]\nconcurrency = 2\ncold = [false, true]\nlayers = [0, 8]\n",
        expect![[r#"
            t.toml:8:16: a start cannot be cold beside others, which keep the image's pages in use
              8 | cold = [false, true]
                |                ^^^^
                = set concurrency to 1, or give cold starts an experiment of their own

            t.toml:8:16: a start cannot be cold beside the container whose network it shares
              8 | cold = [false, true]
                |                ^^^^
                = leave out "container", or give cold starts an experiment of their own

            t.toml:9:11: `layers`: 0 is out of range
              9 | layers = [0, 8]
                |           ^
                = from 1 to 100
        "#]],
    );
}
