//! The whole report on made-up runs: complete, well-formed, and sensible where data is scarce, plentiful or odd.
//!
//! With `ISOBENCH_RENDER_DIR` set, `the_main_job_renders` leaves its files there, to be looked at in a browser.

use std::path::PathBuf;

use super::fixture;
use super::{Rendered, render, to_memory};
use crate::record::{CaseRecord, CheckRow, EnforcementRow, Flags, RunRecord, Verdict};

fn rendered(run: &RunRecord) -> Rendered {
    let rendered = to_memory(run, &fixture::summary(run), &fixture::checks()).unwrap();
    for (name, svg) in &rendered.charts {
        well_formed(name, svg);
        sound(name, svg);
    }
    // HTML's void elements are not XML; all other elements of the page are closed.
    let page = rendered.html.replacen("<!DOCTYPE html>", "", 1);
    let (head, body) = page.split_once("</title>").unwrap();
    assert!(head.contains("<meta charset=\"utf-8\">"));
    well_formed("report.html", &format!("<html><head>{body}"));
    sound("report.html", &rendered.html);
    rendered
}

/// No number went wrong, and no stand-in colour was left.
fn sound(name: &str, text: &str) {
    for bad in ["NaN", "\"inf", ">inf", "\"#F1"] {
        assert!(!text.contains(bad), "{name} contains {bad}");
    }
}

/// Checks that elements nest, attributes are quoted and unique, and no bare `<` or `&` stands in the text.
fn well_formed(name: &str, text: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        references(name, &rest[..start]);
        let end = rest[start..].find('>').unwrap_or_else(|| panic!("{name}: `<` without `>`")) + start;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "{name}: wrong end tag");
            continue;
        }
        let element = tag.split([' ', '\n', '/']).next().unwrap().to_owned();
        attributes(name, tag[element.len()..].trim_end_matches('/'));
        if element == "style" {
            let css = rest.find("</style>").unwrap();
            rest = &rest[css..];
        }
        if !tag.ends_with('/') {
            open.push(element);
        }
    }
    assert_eq!(open, Vec::<String>::new(), "{name}: elements left open");
}

fn attributes(name: &str, mut text: &str) {
    let mut seen = Vec::new();
    while let Some((key, after)) = text.split_once("=\"") {
        let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("{name}: attribute without end: {text}"));
        let key = key.trim();
        assert!(
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ':'),
            "{name}: {key}"
        );
        assert!(!seen.contains(&key), "{name}: {key} twice");
        seen.push(key);
        references(name, value);
        text = after;
    }
    assert_eq!(text.trim(), "", "{name}: an attribute without a value");
}

fn references(name: &str, text: &str) {
    for after in text.split('&').skip(1) {
        let entity = after.split_once(';').map(|(entity, _)| entity);
        let known = ["amp", "lt", "gt", "quot", "apos", "#39"];
        assert!(entity.is_some_and(|entity| known.contains(&entity)), "{name}: a bare & before `{after}`");
    }
}

fn chart<'a>(rendered: &'a Rendered, name: &str) -> &'a str {
    let names = || rendered.charts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    &rendered.charts.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} in {:?}", names())).1
}

fn start_ups() -> Vec<CaseRecord> {
    fixture::run().cases.into_iter().filter(|case| case.experiment == "startup").collect()
}

#[test]
fn the_main_job_renders() {
    let run = fixture::run();
    let files = rendered(&run);
    let names: Vec<&str> = files.charts.iter().map(|(name, _)| name.as_str()).collect();
    expect_test::expect![[r#"
        startup-exit.svg
        startup-ready.svg
        startup-start-rate.svg
        startup-waterfall.svg
        startup-ratios.svg
        network-throughput.svg
        network-rtt.svg
        network-connects.svg
        network-cpu-per-byte.svg
        network-rtt-percentiles-egress.svg
        network-rtt-percentiles-ingress.svg
        network-ratios.svg
        startup-ready-samples.svg
        startup-exit-samples.svg
        startup-teardown-samples.svg
        startup-start-rate-samples.svg
        network-throughput-samples-egress.svg
        network-throughput-samples-ingress.svg
        network-rtt-samples-egress.svg
        network-rtt-samples-ingress.svg
        network-connects-samples-egress.svg
        network-connects-samples-ingress.svg
        network-cpu-per-byte-samples-egress.svg
        network-cpu-per-byte-samples-ingress.svg
        network-retransmits-samples-egress.svg
        network-retransmits-samples-ingress.svg"#]]
    .assert_eq(&names.join("\n"));
    for name in ["startup-exit.svg", "startup-ready.svg", "startup-waterfall.svg"] {
        for series in ["floor", "host", "none", "bridge", "container"] {
            assert!(chart(&files, name).contains(&format!(">\n{series}")), "{name} lacks {series}");
        }
    }
    for name in ["network-throughput.svg", "network-rtt.svg", "network-ratios.svg", "network-cpu-per-byte.svg"] {
        for word in ["bridge", "egress", "ingress"] {
            assert!(chart(&files, name).contains(word), "{name} lacks {word}");
        }
    }
    let dir = std::env::var_os("ISOBENCH_RENDER_DIR").map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let dir = dir.as_deref().unwrap_or(temporary.path());
    render(&run, &fixture::summary(&run), &fixture::checks(), dir).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("report.html")).unwrap(), files.html);
    assert_eq!(std::fs::read_to_string(dir.join("summary.md")).unwrap(), files.markdown);
    assert_eq!(std::fs::read_dir(dir.join("charts")).unwrap().count(), files.charts.len());
}

#[test]
fn a_second_rendering_removes_charts_that_are_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let run = fixture::run();
    render(&run, &fixture::summary(&run), &[], dir.path()).unwrap();
    let run = fixture::run_of(start_ups(), 2, 2);
    render(&run, &fixture::summary(&run), &[], dir.path()).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(dir.path().join("charts")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with("startup-")), "{left:?}");
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    let html = rendered(&fixture::run()).html;
    for sign in ["<script", "<link", "<img", "<iframe", "url(", "@import", " src=", "onload"] {
        assert!(!html.contains(sign), "{sign}");
    }
    let addresses: Vec<&str> = html.split("http").skip(1).map(|rest| &rest[..rest.len().min(26)]).collect();
    assert!(addresses.iter().all(|address| address.starts_with("://www.w3.org/2000/svg")), "{addresses:?}");
}

#[test]
fn ids_are_unique_and_names_point_to_them() {
    let html = rendered(&fixture::run()).html;
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    for names in html.split("aria-labelledby=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(names.split(' ').all(|name| ids.contains(&name)), "{names}");
    }
    for target in html.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.contains(&target), "{target}");
    }
}

#[test]
fn the_head_answers_first() {
    let html = rendered(&fixture::run()).html;
    let (start, end) = (html.find("<header>").unwrap(), html.find("<nav").unwrap());
    expect_test::expect![[r#"
        <header>
        <p class="meta">isobench · bridge-vs-host · 2026-01-02 03:04:05 UTC</p>
        <h1>What does a bridged, NATed container pay against the host&#39;s own network?</h1>
        <section class="answer" aria-label="Answer">
        <h3>Start-up</h3>
        <ul>
        <li>A container on the host&#39;s network takes 1.56 ms from request to exit, <strong>1.48×</strong> the 1.06 ms of a bare clone and exec (95 % interval 1.47–1.49); its program is running after 1.37 ms.</li>
        <li>A container without a network takes 1.98 ms from request to exit, <strong>1.89×</strong> the 1.06 ms of a bare clone and exec (95 % interval 1.87–1.89); its program is running after 1.79 ms.</li>
        <li>A bridged container takes 2.58 ms from request to exit, <strong>2.44×</strong> the 1.06 ms of a bare clone and exec (95 % interval 2.42–2.45); its program is running after 2.38 ms.</li>
        <li>A container in another&#39;s network takes 1.59 ms from request to exit, <strong>1.52×</strong> the 1.06 ms of a bare clone and exec (95 % interval 1.49–1.52); its program is running after 1.39 ms.</li>
        </ul>
        <h3>Network</h3>
        <ul>
        <li>Bridge egress carries <strong>0.94×</strong> the host&#39;s throughput (95 % interval 0.93–0.96): 40.9 Gbit/s against 43.3 Gbit/s.</li>
        <li>Bridge ingress carries <strong>0.880×</strong> the host&#39;s throughput (95 % interval 0.875–0.884): 38.6 Gbit/s against 43.8 Gbit/s.</li>
        <li>Bridge egress takes <strong>1.238×</strong> the host&#39;s round-trip time (95 % interval 1.236–1.239): 15.2 µs against 12.3 µs.</li>
        <li>Bridge ingress takes <strong>1.24×</strong> the host&#39;s round-trip time (95 % interval 1.24–1.25): 15.3 µs against 12.3 µs.</li>
        <li>Bridge egress shows <strong>no difference</strong> from the host&#39;s connections a second (1.00×, 95 % interval 0.99–1.01): 14.2k/s against 14.3k/s.</li>
        <li>Bridge ingress makes <strong>0.91×</strong> the host&#39;s connections a second (95 % interval 0.89–0.91): 13.0k/s against 14.3k/s.</li>
        <li>Bridge egress costs <strong>1.14×</strong> the host&#39;s CPU time a byte (95 % interval 1.12–1.15): 0.330 ns/B against 0.291 ns/B.</li>
        <li>Bridge ingress costs <strong>1.18×</strong> the host&#39;s CPU time a byte (95 % interval 1.18–1.19): 0.346 ns/B against 0.294 ns/B.</li>
        </ul>
        </section>
        <div class="verdict fail">
        <p><strong>2 of 5 checks pass, 1 fails, 1 cannot be told from this data, 1 was skipped.</strong></p>
        <p>Failed: exit of <code>startup/builtin/bridge/c1</code> is 2.57 ms, asked for ≤ 2 ms.</p>
        <p>Not measured: <code>network/builtin/macvlan/*</code>: the kernel has no macvlan driver (CONFIG_MACVLAN is not set).</p>
        <p>350 of the 2100 measured samples (16.7 %) were disturbed (time stolen by the hypervisor 175, CPU pressure from outside 350).</p>
        </div>
    "#]].assert_eq(&html[start..end]);
}

#[test]
fn an_empty_run_has_no_charts_and_says_so() {
    let files = rendered(&fixture::run_of(Vec::new(), 0, 0));
    assert_eq!(files.charts, []);
    assert!(files.html.contains("Nothing was measured, so there is no answer."));
}

#[test]
fn cases_without_any_sample_have_no_charts() {
    let mut run = fixture::run();
    run.samples.clear();
    run.phases.clear();
    run.histograms.clear();
    assert_eq!(rendered(&run).charts, []);
}

#[test]
fn one_case_one_block_one_start_is_enough() {
    let run = fixture::run_of(start_ups().into_iter().take(1).collect(), 1, 1);
    let files = rendered(&run);
    assert!(chart(&files, "startup-exit.svg").contains("a single start each"));
    assert!(chart(&files, "startup-waterfall.svg").contains("The only start of each case."));
    let run = fixture::run_of(vec![fixture::case("network/builtin/host/egress/tcp_rr", None)], 1, 1);
    assert!(chart(&rendered(&run), "network-rtt-percentiles.svg").contains("host"));
}

#[test]
fn equal_and_zero_and_missing_values_draw() {
    let mut run = fixture::run();
    for value in [0.0, 1.0, 5e9, f64::NAN, f64::INFINITY] {
        run.samples.iter_mut().for_each(|sample| sample.value = value);
        run.phases.iter_mut().for_each(|phase| phase.duration_ns = if value == 1.0 { 1 } else { 0 });
        let mut summary = fixture::summary(&run);
        summary.iter_mut().for_each(|row| (row.ratio, row.ratio_ci95_low) = (Some(value), Some(value)));
        let files = to_memory(&run, &summary, &[]).unwrap();
        for (name, svg) in &files.charts {
            well_formed(name, svg);
            sound(name, svg);
        }
        sound("report.html", &files.html);
        sound("summary.md", &files.markdown);
    }
}

#[test]
fn forty_cases_are_split() {
    let mut cases = Vec::new();
    for concurrency in ["c1", "c2", "c4", "c8", "c16"] {
        for runtime in ["floor", "builtin"] {
            for network in ["host", "none", "bridge", "container"] {
                let baseline = format!("startup/floor/none/{concurrency}");
                cases.push(fixture::case(&format!("startup/{runtime}/{network}/{concurrency}"), Some(&baseline)));
            }
        }
    }
    assert_eq!(cases.len(), 40);
    let run = fixture::run_of(cases, 3, 8);
    let files = rendered(&run);
    let names: Vec<&str> = files.charts.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"startup-exit-c16.svg") && names.contains(&"startup-waterfall-c4-2.svg"), "{names:?}");
    for (name, svg) in &files.charts {
        let height: f64 = svg.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
        assert!(height < 900.0, "{name} is {height} px high");
    }
    if let Some(dir) = std::env::var_os("ISOBENCH_RENDER_DIR") {
        render(&run, &fixture::summary(&run), &[], &PathBuf::from(dir).join("forty")).unwrap();
    }
}

#[test]
fn what_comes_from_files_stays_text() {
    let evil = "<script>alert(\"1\")</script>&'\u{1}";
    let mut run = fixture::run_of(
        vec![fixture::case("startup/<script>/a&b/c1", None), fixture::case("net\"work/x/y/\"><b>/tcp_rr", None)],
        2,
        2,
    );
    run.meta.question = evil.to_owned();
    run.meta.name = evil.to_owned();
    run.meta.started_utc = evil.to_owned();
    run.meta.scenario_toml = evil.to_owned();
    run.meta.isobench_version = evil.to_owned();
    run.skips[0].reason = evil.to_owned();
    run.skips[0].case = evil.to_owned();
    run.fingerprint.facts.insert(evil.to_owned(), evil.to_owned());
    run.phases.iter_mut().for_each(|phase| phase.phase = evil.to_owned());
    let mut summary = fixture::summary(&run);
    summary.iter_mut().for_each(|row| row.flags = evil.to_owned());
    let check = CheckRow {
        check: evil.to_owned(),
        case: evil.to_owned(),
        metric: evil.to_owned(),
        value: Some(1.0),
        bound: evil.to_owned(),
        verdict: Verdict::Fail,
    };
    let files = to_memory(&run, &summary, &[check]).unwrap();
    for (name, text) in files.charts.iter().chain([&("summary.md".to_owned(), files.markdown.clone())]) {
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains('\u{1}'), "{name}");
    }
    assert!(!files.html.contains("<script") && !files.html.contains("<b>") && !files.html.contains('\u{1}'));
    for (name, svg) in &files.charts {
        well_formed(name, svg);
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)), "{name}");
    }
}

#[test]
fn enforcement_rows_have_a_table() {
    let mut run = fixture::run_of(Vec::new(), 1, 1);
    assert!(!rendered(&run).html.contains("enforcement-table"));
    run.enforcement.push(EnforcementRow {
        case: "memory/builtin/none/64M".to_owned(),
        controller: "memory".to_owned(),
        setting: "limit".to_owned(),
        requested: 67_108_864.0,
        achieved: 66_060_288.0,
        accounted: None,
        unit: "bytes".to_owned(),
        error_pct: -1.5625,
        error_ci95_low: -1.7,
        error_ci95_high: -1.4,
        accounting_error_pct: None,
        tolerance_pct: 2.0,
        verdict: Verdict::Pass,
        flags: Flags::default(),
    });
    let html = rendered(&run).html;
    let row = html.split("<tr>").find(|row| row.contains("memory limit")).unwrap();
    let row = row.split("</tr>").next().unwrap();
    expect_test::expect![[r#"<td><span class="badge pass">pass</span></td><th scope="row">memory limit</th><td>memory/builtin/none/64M</td><td class="n">64.0 MiB</td><td class="n">63.0 MiB</td><td class="n">–</td><td class="n">−1.6 %</td><td class="n">−1.7 % to −1.4 %</td><td class="n">–</td><td class="n">±2 %</td>"#]].assert_eq(row);
}

#[test]
fn disturbed_and_warm_up_samples_show() {
    let mut run = fixture::run_of(start_ups(), 3, 4);
    run.samples[50].flags = Flags { preempted: true, ..Flags::default() };
    let files = rendered(&run);
    let svg = chart(&files, "startup-exit-samples.svg");
    assert!(svg.contains("Shaded: warm-up"), "{svg}");
    assert!(chart(&rendered(&fixture::run()), "startup-exit-samples.svg").contains("Hollow, with a tick"));
}

#[test]
fn a_chart_file_is_readable_in_light_and_dark() {
    let files = rendered(&fixture::run());
    let svg = chart(&files, "startup-exit.svg");
    assert!(svg.contains("prefers-color-scheme: dark") && svg.contains("role=\"img\"") && svg.contains("<title"));
    assert!(!svg.contains("#FFFFFF"), "a background was painted");
}

#[test]
fn enforcement_renders() {
    let run = fixture::enforced();
    let checks = crate::gate::enforcement::evaluate(&run.enforcement, &[]);
    let rendered = to_memory(&run, &[], &checks).unwrap();
    for (name, svg) in &rendered.charts {
        well_formed(name, svg);
        sound(name, svg);
    }
    let names: Vec<&str> = rendered.charts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "enforcement-errors-cpu.svg",
            "enforcement-errors-memory.svg",
            "enforcement-requested-cpu-ratio.svg",
            "enforcement-split-cpu-shares.svg",
            "enforcement-kill.svg",
            "enforcement-achieved-cpu.svg",
            "enforcement-achieved-memory.svg",
        ]
    );
    let page = rendered.html.replacen("<!DOCTYPE html>", "", 1);
    let (_, body) = page.split_once("</title>").unwrap();
    well_formed("report.html", &format!("<html><head>{body}"));
    assert!(body.contains("<strong>does not hold</strong>") && !body.contains("id=\"checks\""), "{body}");
    if let Some(dir) = std::env::var_os("ISOBENCH_RENDER_DIR") {
        render(&run, &[], &checks, &PathBuf::from(dir).join("enforcement")).unwrap();
    }
}
