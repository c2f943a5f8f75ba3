//! `isobench network ls`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::known::{self, Known};
use crate::cli::filter::{self, Label};
use crate::cli::template::Format;
use crate::cli::{CliError, Ended, columns, output};

/// The arguments of `isobench network ls`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only networks for which this holds: driver=DRIVER, id=ID, label=NAME[=VALUE], name=NAME, scope=SCOPE,
    /// type=custom|builtin, dangling=BOOL
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// `json`, a template as in '{{.Name}}', or 'table TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten identifiers
    #[arg(long)]
    no_trunc: bool,
    /// Only identifiers
    #[arg(short, long)]
    quiet: bool,
}

const TABLE: &str = "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}";
const SCOPE: &str = "local";

pub(super) fn run(args: &ListArgs) -> Result<Ended, CliError> {
    let filters = args.filters.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let format = match &args.format {
        Some(format) => Format::parse(format)?,
        None if args.quiet => Format::parse("{{.ID}}")?,
        None => Format::parse(TABLE)?,
    };
    let networks = known::all()?;
    let rows: Vec<Value> =
        networks.iter().filter(|network| take(&filters, network)).map(|network| row(network, args.no_trunc)).collect();
    let titles = json!({
        "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
        "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
    });
    output::print(&format.render(&rows, &titles)?)?;
    Ok(Ended::Pass)
}

fn row(network: &Known, whole: bool) -> Value {
    let created: Option<Timestamp> = network.created().parse().ok();
    json!({
        "ID": if whole { &network.id } else { &network.id[..12] },
        "Name": network.name,
        "Driver": network.driver,
        "Scope": SCOPE,
        "IPv4": "true",
        "IPv6": "false",
        "Internal": "false",
        "Labels": "",
        "CreatedAt": created.map(columns::at).unwrap_or_default(),
    })
}

/// A `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Driver(String),
    Id(String),
    Label(Label),
    Name(String),
    Scope(String),
    Builtin(bool),
    Dangling(bool),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = || CliError::Filter(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok(match name {
            "driver" => Self::Driver(value.to_owned()),
            "id" => Self::Id(value.to_owned()),
            "label" => Self::Label(Label::parse(value)),
            "name" => Self::Name(value.to_owned()),
            "scope" => Self::Scope(value.to_owned()),
            "type" => Self::Builtin(match value {
                "builtin" => true,
                "custom" => false,
                _ => return Err(wrong()),
            }),
            "dangling" => Self::Dangling(filter::truth(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        })
    }

    fn takes(&self, network: &Known) -> bool {
        match self {
            Self::Driver(driver) => network.driver == driver,
            Self::Id(id) => network.id.starts_with(id.as_str()),
            // No network has a label yet.
            Self::Label(label) => label.is_on(&Default::default()),
            Self::Name(name) => network.name.contains(name.as_str()),
            Self::Scope(scope) => scope == SCOPE,
            Self::Builtin(builtin) => *builtin,
            // The built-in ones are never in anyone's way.
            Self::Dangling(dangling) => !dangling,
        }
    }
}

/// Of several filters of one kind one must hold, and of each kind one; all labels must.
fn take(filters: &[Filter], network: &Known) -> bool {
    let kind = std::mem::discriminant::<Filter>;
    filters.iter().all(|filter| match filter {
        Filter::Label(_) => filter.takes(network),
        _ => filters.iter().any(|other| kind(other) == kind(filter) && other.takes(network)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &'static str, driver: &'static str) -> Known {
        Known { name, driver, id: "ab".repeat(32), view: None }
    }

    #[test]
    fn filters() {
        let bridge = known("bridge", "bridge");
        for (texts, taken) in [
            (&[][..], true),
            (&["driver=bridge"], true),
            (&["driver=host"], false),
            (&["driver=host", "driver=bridge"], true),
            (&["driver=bridge", "name=ridg"], true),
            (&["driver=bridge", "name=none"], false),
            (&["id=abab"], true),
            (&["id=b"], false),
            (&["scope=local"], true),
            (&["scope=swarm"], false),
            (&["type=builtin"], true),
            (&["type=custom"], false),
            (&["dangling=true"], false),
            (&["dangling=0"], true),
            (&["label=a"], false),
        ] {
            let filters: Vec<Filter> = texts.iter().map(|text| Filter::parse(text).unwrap()).collect();
            assert_eq!(take(&filters, &bridge), taken, "{texts:?}");
        }
        for text in ["x=y", "driver", "type=other", "dangling=perhaps", ""] {
            assert!(matches!(Filter::parse(text), Err(CliError::Filter(_))), "{text}");
        }
    }

    #[test]
    fn a_row_is_as_docker_has_it() {
        let shown = row(&known("none", "null"), false);
        assert_eq!((&shown["ID"], &shown["Scope"]), (&"abababababab".into(), &"local".into()));
        assert_eq!(row(&known("none", "null"), true)["ID"].as_str().map(str::len), Some(64));
    }
}
