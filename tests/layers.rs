//! The layer rule: a module imports lower layers only, and siblings only where the table in `src/lib.rs` shows it.
//!
//! The table is the one source of truth: it is read from the crate's front page, and so are the arrows. Code under
//! `#[cfg(test)]` obeys like any other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the table: its layer, the siblings that its row names after an arrow, and the layer that it may not go
/// beyond where its row says `imports layer N only`.
#[derive(Debug, PartialEq)]
struct Module {
    layer: u32,
    siblings: Vec<String>,
    only: Option<u32>,
}

type Table = BTreeMap<String, Module>;

/// Reads the rows `//! | 1 | [`name`], [`name`] | holds; → [`sibling`] |`.
fn parse_table(front_page: &str) -> Table {
    let mut table = Table::new();
    for line in front_page.lines() {
        let Some(row) = line.strip_prefix("//! |") else { continue };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [layer, modules, holds, ..] = cells.as_slice() else { continue };
        let Ok(layer) = layer.parse() else { continue };
        let siblings = holds.split_once('→').map_or(Vec::new(), |(_, after)| links(after));
        let only =
            holds.split_once("imports layer ").and_then(|(_, after)| after.split_whitespace().next()?.parse().ok());
        for name in links(modules) {
            let known = table.insert(name.clone(), Module { layer, siblings: siblings.clone(), only });
            assert!(known.is_none(), "`{name}` stands twice in the table");
        }
    }
    table
}

/// The names in ``[`name`]``.
fn links(text: &str) -> Vec<String> {
    text.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")).map(|(name, _)| name.to_owned()).collect()
}

/// One place where a module names another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    line: usize,
    target: String,
}

/// The top-level modules that a file of the crate names, by `crate::x` or by enough `super::` to reach the root.
///
/// `depth` is how many modules the file's own module lies below the root: `src/fs.rs` 1, `src/cli/run.rs` 2.
fn imports(source: &str, depth: usize) -> Vec<Import> {
    let code = without_comments_and_strings(source);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate` in a macro is the crate too; `other_crate::` is not.
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        names_after(&code, at + "crate::".len(), &mut found);
    }
    for (at, _) in code.match_indices("super::") {
        if code[..at].ends_with("::") || code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let chain = code[at..].split("super::").take_while(|part| part.is_empty()).count();
        if chain == depth + nesting(&code, at) {
            names_after(&code, at + chain * "super::".len(), &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// How many inline `mod x { … }` a position lies in.
fn nesting(code: &str, at: usize) -> usize {
    let mut open: Vec<bool> = Vec::new();
    let mut since = 0;
    for (index, c) in code[..at].char_indices() {
        match c {
            '{' => {
                let words: Vec<&str> = code[since..index].split_whitespace().collect();
                let is_module = words.len() >= 2 && words[words.len() - 2] == "mod";
                open.push(is_module);
                since = index + 1;
            }
            '}' => {
                open.pop();
                since = index + 1;
            }
            ';' => since = index + 1,
            _ => {}
        }
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

/// Notes the name that begins at `at`, or each first name of a `{…}` group there.
fn names_after(code: &str, at: usize, found: &mut Vec<Import>) {
    let line = code[..at].matches('\n').count() + 1;
    let rest = &code[at..];
    let mut note = |text: &str| {
        let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !name.is_empty() {
            found.push(Import { line, target: name });
        }
    };
    let Some(group) = rest.strip_prefix('{') else { return note(rest) };
    let mut depth = 0_u32;
    let mut start = 0;
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return note(&group[start..index]),
            '}' => depth -= 1,
            ',' if depth == 0 => {
                note(&group[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
}

/// The source with comments and the content of string literals blanked out, line by line where it was.
fn without_comments_and_strings(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < characters.len() {
        let end = match (characters[at], characters.get(at + 1)) {
            ('/', Some('/')) => characters[at..].iter().position(|c| *c == '\n').map_or(characters.len(), |n| at + n),
            ('/', Some('*')) => end_of(&characters, at + 2, &['*', '/']),
            ('r', Some('"' | '#')) if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => {
                let hashes = characters[at + 1..].iter().take_while(|c| **c == '#').count();
                if characters.get(at + 1 + hashes) == Some(&'"') {
                    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    end_of(&characters, at + 2 + hashes, &closing)
                } else {
                    at
                }
            }
            ('"', _) => end_of_string(&characters, at + 1),
            // A character literal, and not a lifetime.
            ('\'', Some('\\')) => end_of(&characters, at + 3, &['\'']),
            ('\'', Some(_)) if characters.get(at + 2) == Some(&'\'') => at + 3,
            _ => at,
        };
        if end == at {
            code.push(characters[at]);
            at += 1;
        } else {
            code.extend(characters[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

fn end_of(characters: &[char], from: usize, closing: &[char]) -> usize {
    (from..characters.len())
        .find(|&at| characters[at..].starts_with(closing))
        .map_or(characters.len(), |at| at + closing.len())
}

fn end_of_string(characters: &[char], from: usize) -> usize {
    let mut at = from;
    while at < characters.len() && characters[at] != '"' {
        at += if characters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(characters.len())
}

/// What is wrong with a module that imports another; `None` when the rule allows it.
fn judge(table: &Table, module: &str, target: &str) -> Option<String> {
    let own = &table[module];
    let other = table.get(target)?;
    if module == target {
        return None;
    }
    if let Some(only) = own.only.filter(|only| other.layer > *only) {
        return Some(format!("`{module}` imports layer {only} only, and `{target}` is in layer {}", other.layer));
    }
    if other.layer < own.layer {
        return None;
    }
    if other.layer > own.layer {
        return Some(format!("`{module}` (layer {}) imports upward: `{target}` (layer {})", own.layer, other.layer));
    }
    let allowed = own.siblings.iter().any(|sibling| sibling == target);
    (!allowed).then(|| format!("`{module}` imports its sibling `{target}`, and the table shows no arrow for it"))
}

/// Everything in a file that breaks the rule; `path` is relative to `src`.
fn violations(table: &Table, path: &Path, source: &str) -> Vec<String> {
    let parts: Vec<String> = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let module = parts[0].as_str();
    if matches!(module, "lib" | "main" | "build") && parts.len() == 1 {
        return Vec::new(); // roots of crates of their own; the library's names what it holds
    }
    if !table.contains_key(module) {
        return vec![format!("src/{}: the module `{module}` is not in the table of src/lib.rs", path.display())];
    }
    let depth = if parts.last().is_some_and(|last| last == "mod") { parts.len() - 1 } else { parts.len() };
    imports(source, depth)
        .into_iter()
        .filter_map(|import| {
            let wrong = judge(table, module, &import.target)?;
            Some(format!("src/{}:{}: {wrong}", path.display(), import.line))
        })
        .collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn source_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn real_table() -> Table {
    parse_table(&fs::read_to_string(source_directory().join("lib.rs")).unwrap())
}

#[test]
fn every_import_goes_down() {
    let table = real_table();
    let source = source_directory();
    let files = rust_files(&source);
    assert!(files.len() > 20, "the sources were not found: {files:?}");
    let wrong: Vec<String> = (files.iter())
        .flat_map(|path| violations(&table, path.strip_prefix(&source).unwrap(), &fs::read_to_string(path).unwrap()))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_table_names_every_module_of_the_crate() {
    let table = real_table();
    let front_page = fs::read_to_string(source_directory().join("lib.rs")).unwrap();
    let mut declared: Vec<&str> =
        front_page.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    declared.sort_unstable();
    assert_eq!(declared, table.keys().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(table["network"], Module { layer: 2, siblings: Vec::new(), only: None });
    assert_eq!(table["container"], Module { layer: 2, siblings: vec!["network".to_owned()], only: None });
}

#[test]
fn a_made_up_upward_import_is_found() {
    let table = real_table();
    let found = |path: &str, source: &str| violations(&table, Path::new(path), source);
    let upward = "src/sys/netns.rs:2: `sys` (layer 0) imports upward: `record` (layer 1)";
    for source in [
        "\nuse crate::record::Sample;\n",
        "\nuse crate::{record::Sample, units};\n",
        "\nuse crate::{\n units, fs::{read, x}, record };\n",
        "\nfn f() -> crate::record::Sample { todo!() }\n",
        "\nuse super::super::record::Sample;\n",
        "\n#[cfg(test)] mod tests { use super::super::super::record::Sample; }\n",
    ] {
        assert!(
            found("sys/netns.rs", source).contains(&upward.to_owned()),
            "{source}: {:?}",
            found("sys/netns.rs", source)
        );
    }
    assert_eq!(found("sys/mod.rs", "use super::record::Sample;\n").len(), 1);
}

#[test]
fn a_sibling_needs_an_arrow() {
    let table = real_table();
    let found = |path: &str, source: &str| violations(&table, Path::new(path), source);
    assert!(found("container/launch.rs", "use crate::network::PortMapping;\n").is_empty());
    assert_eq!(
        found("network/bridge.rs", "use crate::container::Spec;\n"),
        ["src/network/bridge.rs:1: `network` imports its sibling `container`, and the table shows no arrow for it"]
    );
    assert!(found("scenario/check.rs", "use crate::record::metric;\n").is_empty());
    assert_eq!(found("record/mod.rs", "use crate::scenario::Case;\n").len(), 1);
}

#[test]
fn a_row_can_narrow_the_rule() {
    let table = real_table();
    let found = |source: &str| violations(&table, Path::new("workload/stamp.rs"), source);
    assert!(found("use crate::sys::clock;\n").is_empty());
    assert_eq!(
        found("use crate::record::Sample;\n"),
        ["src/workload/stamp.rs:1: `workload` imports layer 0 only, and `record` is in layer 1"]
    );
}

#[test]
fn what_is_not_an_import_is_let_alone() {
    let table = real_table();
    for source in [
        "//! [`crate::record`]\n/* use crate::record; */\n",
        "const TEXT: &str = \"use crate::record;\";\n",
        "const RAW: &str = r#\"use \"crate::record;\"#;\n",
        "use super::clock; use crate::sys::clock; use other_crate::record;\n",
        "mod tests { use super::super::clock; const C: char = '\"'; }\n",
    ] {
        assert_eq!(violations(&table, Path::new("sys/netns.rs"), source), Vec::<String>::new(), "{source}");
    }
    assert_eq!(
        violations(&table, Path::new("helpers.rs"), ""),
        ["src/helpers.rs: the module `helpers` is not in the table of src/lib.rs"]
    );
}
