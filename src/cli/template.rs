//! `--format`: the part of Go's templates that is used with docker's commands.
//!
//! Known are fields (`.A.B`), `json`, `upper`, `lower`, `title`, `len`, `index`, `join`, `split`, `println`, texts,
//! numbers, pipelines, and `range`, `if`, `else`, `end`.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A `{{` without its `}}`, or a `range` without its `end`.
    #[error("the template is not complete: `{0}` is missing")]
    Open(&'static str),
    /// Something that does not belong there.
    #[error("the template cannot have `{0}` there")]
    Unexpected(String),
    /// A function that is not known.
    #[error("the template has the function `{0}`, which is not known")]
    Function(String),
    /// A field that the list does not have.
    #[error("there is no field `{0}`")]
    Field(String),
    /// A function was given something else than what it takes.
    #[error("the function `{0}` cannot take that")]
    Argument(&'static str),
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Node>);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Value(Pipeline),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    If(Pipeline, Vec<Node>, Vec<Node>),
}

/// Commands; what one yields is the last argument of the next.
type Pipeline = Vec<Vec<Word>>;

#[derive(Debug, Clone, PartialEq)]
enum Word {
    Field(Vec<String>),
    Literal(Value),
    Name(String),
    Group(Pipeline),
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Action(Vec<String>),
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = pieces(text)?.into_iter().peekable();
        let nodes = nodes(&mut pieces)?;
        match pieces.next() {
            Some(Piece::Action(words)) => Err(TemplateError::Unexpected(words.join(" "))),
            _ => Ok(Self(nodes)),
        }
    }

    /// The text for a value.
    pub(super) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let mut text = String::new();
        render(&self.0, value, &mut text)?;
        Ok(text)
    }
}

/// A `--format` as docker takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Format {
    /// Lines of columns under titles.
    Table(Template, String),
    /// A JSON object a line.
    Json,
    /// A line each.
    Lines(Template),
}

impl Format {
    /// Reads `json`, `table TEMPLATE` or `TEMPLATE`.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let unescaped = text.replace("\\t", "\t").replace("\\n", "\n");
        match unescaped.strip_prefix("table ") {
            Some(columns) => Ok(Self::Table(Template::parse(columns)?, columns.to_owned())),
            None => Ok(Self::Lines(Template::parse(&unescaped)?)),
        }
    }

    /// The text for some values; `titles` gives each field's title.
    pub(super) fn render(&self, values: &[Value], titles: &Value) -> Result<String, TemplateError> {
        match self {
            Self::Json => Ok(values.iter().map(|value| format!("{value}\n")).collect()),
            Self::Lines(template) => {
                values.iter().map(|value| template.render(value).map(|line| line + "\n")).collect()
            }
            Self::Table(template, _) => {
                let cells = |value: &Value| -> Result<Vec<String>, TemplateError> {
                    Ok(template.render(value)?.split('\t').map(str::to_owned).collect())
                };
                let rows = std::iter::once(titles).chain(values).map(cells).collect::<Result<Vec<_>, _>>()?;
                Ok(super::columns::render(&rows))
            }
        }
    }
}

/// Text and actions. A `-` beside the braces takes the blanks away, as in Go.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, behind) = after.split_once("}}").ok_or(TemplateError::Open("}}"))?;
        let mut before = if trim { before.trim_start() } else { before };
        let mut inside = inside;
        if let Some(trimmed) = inside.strip_prefix("- ") {
            (before, inside) = (before.trim_end(), trimmed);
        }
        trim = false;
        if let Some(trimmed) = inside.strip_suffix(" -") {
            (trim, inside) = (true, trimmed);
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Action(words(inside)?));
        rest = behind;
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

/// The words of an action; a text keeps its quotes.
fn words(action: &str) -> Result<Vec<String>, TemplateError> {
    let mut words = Vec::new();
    let mut characters = action.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' | '|' => words.push(c.to_string()),
            '"' | '`' => {
                let mut word = c.to_string();
                loop {
                    let next = characters.next().ok_or(TemplateError::Open("a quote"))?;
                    word.push(next);
                    if next == c {
                        break;
                    }
                    if next == '\\' && c == '"' {
                        word.extend(characters.next());
                    }
                }
                words.push(word);
            }
            c => {
                let mut word = c.to_string();
                while let Some(c) = characters.next_if(|c| !c.is_whitespace() && !"()|\"`".contains(*c)) {
                    word.push(c);
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

/// Nodes up to an `end` or `else`, which is left.
fn nodes(pieces: &mut Peekable<IntoIter<Piece>>) -> Result<Vec<Node>, TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.peek() {
        let words = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text.clone()));
                pieces.next();
                continue;
            }
            Piece::Action(words) => words.clone(),
        };
        match words.first().map(String::as_str) {
            Some("end" | "else") => break,
            Some(control @ ("range" | "if")) => {
                pieces.next();
                let of = pipeline(&mut words[1..].iter().peekable())?;
                let then = self::nodes(pieces)?;
                let mut otherwise = Vec::new();
                if is_action(pieces.peek(), "else") {
                    pieces.next();
                    otherwise = self::nodes(pieces)?;
                }
                if !is_action(pieces.next().as_ref(), "end") {
                    return Err(TemplateError::Open("end"));
                }
                nodes.push(if control == "range" {
                    Node::Range(of, then, otherwise)
                } else {
                    Node::If(of, then, otherwise)
                });
            }
            _ => {
                pieces.next();
                let mut rest = words.iter().peekable();
                nodes.push(Node::Value(pipeline(&mut rest)?));
                if let Some(word) = rest.next() {
                    return Err(TemplateError::Unexpected(word.clone()));
                }
            }
        }
    }
    Ok(nodes)
}

fn is_action(piece: Option<&Piece>, word: &str) -> bool {
    matches!(piece, Some(Piece::Action(words)) if words.len() == 1 && words[0] == word)
}

type Rest<'a> = Peekable<std::slice::Iter<'a, String>>;

/// Commands up to a closing bracket, which is left.
fn pipeline(words: &mut Rest<'_>) -> Result<Pipeline, TemplateError> {
    let mut pipeline = vec![Vec::new()];
    while let Some(word) = words.next_if(|word| *word != ")") {
        let last = pipeline.len() - 1;
        match word.as_str() {
            "|" => pipeline.push(Vec::new()),
            "(" => {
                pipeline[last].push(Word::Group(self::pipeline(words)?));
                if words.next().is_none_or(|word| word != ")") {
                    return Err(TemplateError::Open(")"));
                }
            }
            word => pipeline[last].push(read_word(word)?),
        }
    }
    if pipeline.iter().any(Vec::is_empty) {
        return Err(TemplateError::Open("a command"));
    }
    Ok(pipeline)
}

fn read_word(word: &str) -> Result<Word, TemplateError> {
    if let Some(path) = word.strip_prefix('.') {
        return Ok(Word::Field(path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()));
    }
    if let Some(raw) = word.strip_prefix('`') {
        return Ok(Word::Literal(raw.trim_end_matches('`').into()));
    }
    if word.starts_with('"') || word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        let value = serde_json::from_str(word).map_err(|_| TemplateError::Unexpected(word.to_owned()))?;
        return Ok(Word::Literal(value));
    }
    Ok(Word::Name(word.to_owned()))
}

fn render(nodes: &[Node], value: &Value, text: &mut String) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(plain) => text.push_str(plain),
            Node::Value(pipeline) => text.push_str(&show(&evaluate(pipeline, value)?)),
            Node::If(of, then, otherwise) => {
                let chosen = if is_true(&evaluate(of, value)?) { then } else { otherwise };
                render(chosen, value, text)?;
            }
            Node::Range(of, each, otherwise) => {
                let items = match evaluate(of, value)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
                    Value::Null => Vec::new(),
                    _ => return Err(TemplateError::Argument("range")),
                };
                if items.is_empty() {
                    render(otherwise, value, text)?;
                }
                items.iter().try_for_each(|item| render(each, item, text))?;
            }
        }
    }
    Ok(())
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(name, value)| format!("{name}:{}", show(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

fn evaluate(pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
    let mut result = None;
    for command in pipeline {
        let mut arguments = Vec::new();
        let name = match &command[0] {
            Word::Name(name) => Some(name.as_str()),
            _ => None,
        };
        for word in &command[usize::from(name.is_some())..] {
            arguments.push(match word {
                Word::Field(path) => field(dot, path)?,
                Word::Literal(value) => value.clone(),
                Word::Group(pipeline) => evaluate(pipeline, dot)?,
                Word::Name(name) => return Err(TemplateError::Unexpected(name.clone())),
            });
        }
        arguments.extend(result.take());
        result = Some(match name {
            Some(name) => call(name, arguments)?,
            None if arguments.len() == 1 => arguments.remove(0),
            None => return Err(TemplateError::Unexpected(show(&arguments[1]))),
        });
    }
    Ok(result.unwrap_or(Value::Null))
}

fn field(value: &Value, path: &[String]) -> Result<Value, TemplateError> {
    let mut value = value;
    for name in path {
        value = match value {
            Value::Object(map) => map.get(name).ok_or_else(|| TemplateError::Field(name.clone()))?,
            Value::Null => return Ok(Value::Null),
            _ => return Err(TemplateError::Field(name.clone())),
        };
    }
    Ok(value.clone())
}

fn call(name: &str, arguments: Vec<Value>) -> Result<Value, TemplateError> {
    let text = |value: &Value, of| value.as_str().map(str::to_owned).ok_or(TemplateError::Argument(of));
    Ok(match (name, arguments.as_slice()) {
        ("json", [value]) => value.to_string().into(),
        ("upper", [value]) => text(value, "upper")?.to_uppercase().into(),
        ("lower", [value]) => text(value, "lower")?.to_lowercase().into(),
        ("title", [value]) => {
            let text = text(value, "title")?;
            let mut characters = text.chars();
            let first = characters.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
            (first + characters.as_str()).into()
        }
        ("len", [value]) => match value {
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            Value::String(text) => text.len().into(),
            Value::Null => 0.into(),
            _ => return Err(TemplateError::Argument("len")),
        },
        ("index", [value, key]) => match (value, key) {
            (Value::Array(items), Value::Number(at)) => {
                let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                at.and_then(|at| items.get(at)).cloned().ok_or(TemplateError::Argument("index"))?
            }
            (Value::Object(map), Value::String(name)) => map.get(name).cloned().unwrap_or_default(),
            _ => return Err(TemplateError::Argument("index")),
        },
        ("join", [Value::Array(items), between]) => {
            items.iter().map(show).collect::<Vec<_>>().join(&text(between, "join")?).into()
        }
        ("split", [value, between]) => {
            let (value, between) = (text(value, "split")?, text(between, "split")?);
            value.split(&between).map(Value::from).collect::<Vec<_>>().into()
        }
        ("println", values) => (values.iter().map(show).collect::<Vec<_>>().join(" ") + "\n").into(),
        _ => return Err(TemplateError::Function(name.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(template: &str) -> Result<String, TemplateError> {
        let value =
            json!({"ID": "abc", "Tags": ["a:1", "b:2"], "Config": {"Env": null, "Labels": {"x.y": "z"}}, "N": 0});
        Template::parse(template)?.render(&value)
    }

    #[test]
    fn what_docker_users_write() {
        for (template, shown) in [
            ("{{.ID}}: {{ .Tags }}", "abc: [a:1 b:2]"),
            ("{{json .Config}}", r#"{"Env":null,"Labels":{"x.y":"z"}}"#),
            ("{{range .Tags}}{{println .}}{{end}}", "a:1\nb:2\n"),
            ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
            ("{{index .Config.Labels \"x.y\"}}", "z"),
            ("{{index .Tags 1 | upper}}", "B:2"),
            ("{{join .Tags \", \"}}", "a:1, b:2"),
            ("{{if .N}}yes{{else}}no{{end}}", "no"),
            ("{{len .Tags}} {{len (index .Tags 0)}}", "2 3"),
            ("a  {{- .ID -}}  b", "aabcb"),
            ("{{.}}", "map[Config:map[Env:<no value> Labels:map[x.y:z]] ID:abc N:0 Tags:[a:1 b:2]]"),
        ] {
            assert_eq!(text(template).as_deref(), Ok(shown), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        use TemplateError as E;
        assert_eq!(text("{{.ID"), Err(E::Open("}}")));
        assert_eq!(text("{{range .Tags}}"), Err(E::Open("end")));
        assert_eq!(text("{{end}}"), Err(E::Unexpected("end".to_owned())));
        assert_eq!(text("{{.Nope}}"), Err(E::Field("Nope".to_owned())));
        assert_eq!(text("{{nope .ID}}"), Err(E::Function("nope".to_owned())));
        assert_eq!(text("{{range .ID}}{{end}}"), Err(E::Argument("range")));
    }

    #[test]
    fn tables_have_titles() {
        let format = Format::parse("table {{.ID}}\\t{{.N}}").unwrap();
        let shown = format.render(&[json!({"ID": "abc", "N": 1})], &json!({"ID": "IMAGE ID", "N": "N"})).unwrap();
        assert_eq!(shown, "IMAGE ID   N\nabc        1\n");
    }
}
