//! The raw tree: TOML with a span on every key and value, and `--set` overrides laid over it.
//!
//! Nothing here knows what the keys mean. The tree is kept by hand and not deserialised into structs, because serde
//! stops at the first thing that is wrong, and a scenario's author wants all of them at once.

use toml::de::{DeTable, DeValue};

use super::source::{Problem, Sources, Span};

/// A key or value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// One `key = value`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Value {
    /// The value's type as a person calls it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number with a point",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Reads the file's text; every mistake in its syntax is a problem.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| Problem::new(error.span().unwrap_or(0..0), error.message().trim(), "the file must be valid TOML"))
        .collect();
    let span = document.span();
    let node = Node { span, value: convert_table(document.get_ref(), 0, &mut problems) };
    if problems.is_empty() { Ok(node) } else { Err(problems) }
}

fn convert_table(table: &DeTable<'_>, base: usize, problems: &mut Vec<Problem>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: shift(key.span(), base),
            node: Node {
                span: shift(value.span(), base),
                value: convert(value.get_ref(), shift(value.span(), base), base, problems),
            },
        })
        .collect();
    // The parser's map is sorted by name; people read a file from the top.
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(entries)
}

fn convert(value: &DeValue<'_>, span: Span, base: usize, problems: &mut Vec<Problem>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                problems.push(Problem::new(span, "the number is too large", "at most 9223372036854775807"));
                Value::Integer(0)
            }
        },
        DeValue::Float(float) => match float.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => {
                problems.push(Problem::new(span, "not a number", "write it as in 1.5"));
                Value::Float(0.0)
            }
        },
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| Node {
                    span: shift(item.span(), base),
                    value: convert(item.get_ref(), shift(item.span(), base), base, problems),
                })
                .collect(),
        ),
        DeValue::Table(table) => convert_table(table, base, problems),
    }
}

fn shift(span: Span, base: usize) -> Span {
    span.start + base..span.end + base
}

/// Lays `KEY=VALUE` over the tree. KEY is a dotted path; a list is entered by position (`experiment.0.duration`) or,
/// for experiments, by kind (`experiment.startup.per_block`, which reaches every experiment of that kind).
pub(super) fn apply_override(root: &mut Node, text: &str, sources: &mut Sources) -> Result<(), Vec<Problem>> {
    let base = sources.add_override(text);
    let form = "write --set KEY=VALUE, as in --set run.blocks=5";
    let Some((path, value_text)) = text.split_once('=') else {
        return Err(vec![Problem::new(base..base + text.len(), "the override has no `=`", form)]);
    };
    let mut segments = Vec::new();
    let mut at = base;
    for segment in path.split('.') {
        let name = segment.trim();
        let start = at + (segment.len() - segment.trim_start().len());
        if name.is_empty() {
            return Err(vec![Problem::new(start..start + 1, "the key has an empty part", form)]);
        }
        segments.push((name.to_owned(), start..start + name.len()));
        at += segment.len() + 1;
    }
    let value = override_value(value_text, base + path.len() + 1)?;
    set(root, &segments, &value).map_err(|problem| vec![problem])
}

/// TOML where it is TOML; a bare word such as `2s` or `bridge` is a string, so that the shell needs no quotes.
fn override_value(text: &str, base: usize) -> Result<Node, Vec<Problem>> {
    let leading = text.len() - text.trim_start().len();
    let word = text.trim();
    let base = base + leading;
    let span = base..base + word.len();
    if word.is_empty() {
        return Err(vec![Problem::new(base..base + 1, "the override has no value", "write it after the `=`")]);
    }
    match DeValue::parse(word) {
        Ok(value) => {
            let mut problems = Vec::new();
            let node = Node { value: convert(value.get_ref(), span.clone(), base, &mut problems), span };
            if problems.is_empty() { Ok(node) } else { Err(problems) }
        }
        Err(error) if word.starts_with(['[', '{', '"', '\'']) => Err(vec![Problem::new(
            error.span().map_or(span, |span| shift(span, base)),
            error.message().trim(),
            "write a TOML value, as in [\"host\", \"bridge\"], or a single word",
        )]),
        Err(_) => Ok(Node { span, value: Value::String(word.to_owned()) }),
    }
}

fn set(node: &mut Node, segments: &[(String, Span)], value: &Node) -> Result<(), Problem> {
    let Some(((name, span), rest)) = segments.split_first() else {
        *node = value.clone();
        return Ok(());
    };
    let holder = node.value.type_name();
    match &mut node.value {
        Value::Table(entries) => {
            let index = match entries.iter().position(|entry| entry.key == *name) {
                Some(index) => index,
                None => {
                    let node = Node { span: span.clone(), value: Value::Table(Vec::new()) };
                    entries.push(Entry { key: name.clone(), key_span: span.clone(), node });
                    entries.len() - 1
                }
            };
            let entry = &mut entries[index];
            if rest.is_empty() {
                // From now on an error about the key is the override's.
                entry.key_span = span.clone();
            }
            set(&mut entry.node, rest, value)
        }
        Value::Array(items) => {
            let chosen = choose(items, name, span)?;
            for index in chosen {
                set(&mut items[index], rest, value)?;
            }
            Ok(())
        }
        _ => Err(Problem::new(
            span.clone(),
            format!("there is no `{name}` here: what stands before it is {holder}"),
            "end the key earlier",
        )),
    }
}

/// Which items of a list a path's part means: one by its position, or all whose `kind` it is.
fn choose(items: &[Node], name: &str, span: &Span) -> Result<Vec<usize>, Problem> {
    let kinds: Vec<Option<&str>> = items.iter().map(kind_of).collect();
    let chosen: Vec<usize> = match name.parse::<usize>() {
        Ok(index) if index < items.len() => vec![index],
        Ok(_) => Vec::new(),
        Err(_) => (0..items.len()).filter(|&index| kinds[index] == Some(name)).collect(),
    };
    if chosen.is_empty() {
        let known: Vec<String> = (kinds.iter().enumerate())
            .map(|(index, kind)| kind.map_or_else(|| index.to_string(), |kind| format!("{index} ({kind})")))
            .collect();
        let help = format!("the list has {}: {}", items.len(), known.join(", "));
        return Err(Problem::new(span.clone(), format!("there is no item `{name}` in the list"), help));
    }
    Ok(chosen)
}

fn kind_of(node: &Node) -> Option<&str> {
    let Value::Table(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == "kind").and_then(|entry| match &entry.node.value {
        Value::String(kind) => Some(kind.as_str()),
        _ => None,
    })
}
