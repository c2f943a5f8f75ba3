//! Colours: which ink draws what, in light and in dark, and which runtime and network mode has which.
//!
//! Modes take Okabe and Ito's colours ("Color Universal Design", 2008), phases Paul Tol's "muted" scheme
//! (technical note SRON/EPS/TN/09-002), both made for readers who do not tell red from green; the dark variants are
//! lightened until they stand out from a dark page.

use std::collections::BTreeMap;

use plotters::style::RGBColor;

use crate::record::{CaseRecord, Verdict};

/// How many inks the phases of a waterfall take before the rest goes into [`Ink::OTHER`].
pub(super) const PHASES: usize = 9;

/// A colour by its role; the number is its place in [`INKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct Ink(u8);

/// `(class, light, dark)` of every ink.
pub(super) const INKS: &[(&str, &str, &str)] = &[
    ("ink", "#1f2328", "#e6e8eb"),
    ("muted", "#59636e", "#a3acb8"),
    ("grid", "#dfe3e8", "#343b45"),
    ("shade", "#8c959f", "#8c959f"),
    ("other", "#9aa2ab", "#7d8590"),
    // Modes.
    ("m-host", "#0072b2", "#56b4e9"),
    ("m-bridge", "#d55e00", "#ff9248"),
    ("m-none", "#007f5f", "#35c79b"),
    ("m-container", "#a8528a", "#e39ac6"),
    ("m-floor", "#6e7781", "#aab2bd"),
    ("m-a", "#9a6b00", "#e6b034"),
    ("m-b", "#5b4bb5", "#a99cf5"),
    ("m-c", "#7a4b33", "#c99b80"),
    ("m-d", "#4a7a00", "#9ccc4f"),
    // Phases.
    ("p-0", "#332288", "#7f70dc"),
    ("p-1", "#88ccee", "#88ccee"),
    ("p-2", "#117733", "#3fa564"),
    ("p-3", "#ddcc77", "#ddcc77"),
    ("p-4", "#cc6677", "#d97c8b"),
    ("p-5", "#44aa99", "#5cc2b1"),
    ("p-6", "#882255", "#b8527f"),
    ("p-7", "#999933", "#b5b54d"),
    ("p-8", "#aa4499", "#c870b8"),
];

/// Where the inks of the modes that this version does not know begin, and how many there are.
const SPARE: (u8, u8) = (10, 4);
const FIRST_PHASE: u8 = 14;

impl Ink {
    /// Text and marks.
    pub(in crate::report) const TEXT: Ink = Ink(0);
    /// Secondary text and axes.
    pub(super) const MUTED: Ink = Ink(1);
    /// Grid lines.
    pub(super) const GRID: Ink = Ink(2);
    /// Shaded spans, drawn nearly transparent.
    pub(super) const SHADE: Ink = Ink(3);
    /// What has no colour of its own.
    pub(in crate::report) const OTHER: Ink = Ink(4);
    const FLOOR: Ink = Ink(9);

    /// The ink of the phase at this place in the order of phases.
    pub(super) fn phase(index: usize) -> Ink {
        if index < PHASES { Ink(FIRST_PHASE + index as u8) } else { Ink::OTHER }
    }

    /// The ink of a judgement; marks of different shape say the same.
    pub(super) fn verdict(verdict: Verdict) -> Ink {
        match verdict {
            Verdict::Pass => Ink(7),
            Verdict::Fail => Ink(6),
            Verdict::Inconclusive => Ink(SPARE.0),
            Verdict::Skipped => Ink::OTHER,
        }
    }

    /// The ink of a contender, by its place among them.
    pub(super) fn contender(index: usize) -> Ink {
        Ink::phase(index % PHASES)
    }

    /// The CSS class that carries the colour.
    pub(in crate::report) fn class(self) -> &'static str {
        INKS[self.0 as usize].0
    }

    /// A stand-in for plotters, which knows fixed colours only: [`super::theme`] puts the real one in its place.
    pub(super) fn stand_in(self, dashed: bool) -> RGBColor {
        RGBColor(0xf1, u8::from(dashed), self.0)
    }

    /// The ink and the dash that a stand-in's red, green and blue (as hexadecimal digits) mean.
    pub(super) fn from_stand_in(hex: &str) -> Option<(Ink, bool)> {
        let dashed = match hex.get(..4)? {
            "F100" => false,
            "F101" => true,
            _ => return None,
        };
        let index = u8::from_str_radix(hex.get(4..6)?, 16).ok()?;
        (usize::from(index) < INKS.len()).then_some((Ink(index), dashed))
    }

    /// The colour on a light page.
    pub(super) fn light(self) -> &'static str {
        INKS[self.0 as usize].1
    }
}

/// How a series looks, in every chart of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::report) struct Look {
    /// Its name in legends.
    pub name: String,
    /// Its colour.
    pub ink: Ink,
    /// Whether its lines are dashed and its bars pale: a second runtime on the same mode.
    pub dashed: bool,
}

/// The looks of a run's series, fixed once so that a mode keeps its colour from chart to chart.
#[derive(Debug)]
pub(in crate::report) struct Looks {
    looks: BTreeMap<(String, String), Look>,
}

impl Looks {
    /// Gives every runtime with a network mode of these cases its look.
    ///
    /// The mode makes the colour and the runtime the dash. A floor that was measured on one mode only is grey.
    pub(in crate::report) fn of(cases: &[CaseRecord]) -> Self {
        let mut series: Vec<(&str, &str)> = Vec::new();
        for case in cases {
            if !series.contains(&(&case.runtime, &case.network)) {
                series.push((&case.runtime, &case.network));
            }
        }
        let lone_floor = series.iter().filter(|(runtime, _)| *runtime == "floor").count() == 1;
        let mut runtimes: Vec<&str> = Vec::new();
        let mut unknown: Vec<&str> = Vec::new();
        for (runtime, network) in &series {
            if *runtime != "floor" && !runtimes.contains(runtime) {
                runtimes.push(runtime);
            }
            let key = if network.is_empty() { runtime } else { network };
            if known_mode(key).is_none() && !unknown.contains(key) {
                unknown.push(key);
            }
        }
        unknown.sort_unstable();
        let ink = |key: &str| {
            known_mode(key).unwrap_or_else(|| {
                let index = unknown.iter().position(|name| *name == key).unwrap_or(0);
                Ink(SPARE.0 + (index % usize::from(SPARE.1)) as u8)
            })
        };
        let look = |(runtime, network): (&str, &str)| {
            if runtime == "floor" {
                let (name, ink) = if lone_floor {
                    ("floor".to_owned(), Ink::FLOOR)
                } else {
                    (format!("floor {network}"), ink(network))
                };
                return Look { name, ink, dashed: true };
            }
            let key = if network.is_empty() { runtime } else { network };
            let name = if runtimes.len() > 1 { format!("{runtime} {network}") } else { key.to_owned() };
            Look {
                name: name.trim().to_owned(),
                ink: ink(key),
                dashed: runtimes.iter().position(|r| *r == runtime) > Some(0),
            }
        };
        let looks = series.iter().map(|key| ((key.0.to_owned(), key.1.to_owned()), look(*key))).collect();
        Self { looks }
    }

    /// The look of a case.
    pub(in crate::report) fn get(&self, case: &CaseRecord) -> Look {
        self.looks.get(&(case.runtime.clone(), case.network.clone())).cloned().unwrap_or_else(|| Look {
            name: case.id.clone(),
            ink: Ink::OTHER,
            dashed: false,
        })
    }
}

fn known_mode(network: &str) -> Option<Ink> {
    match network {
        "host" => Some(Ink(5)),
        "bridge" => Some(Ink(6)),
        "none" => Some(Ink(7)),
        "container" => Some(Ink(8)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(runtime: &str, network: &str) -> CaseRecord {
        CaseRecord {
            id: format!("startup/{runtime}/{network}/c1"),
            experiment: "startup".to_owned(),
            runtime: runtime.to_owned(),
            network: network.to_owned(),
            parameters: BTreeMap::new(),
            baseline: None,
        }
    }

    #[test]
    fn the_numbered_inks_are_where_the_numbers_say() {
        assert_eq!(Ink::FLOOR.class(), "m-floor");
        assert_eq!(Ink(SPARE.0).class(), "m-a");
        assert_eq!(Ink(SPARE.0 + SPARE.1).class(), "p-0");
        assert_eq!(Ink::phase(0).class(), "p-0");
        assert_eq!(Ink::phase(PHASES - 1).class(), INKS[INKS.len() - 1].0);
        assert_eq!(Ink::phase(PHASES), Ink::OTHER);
    }

    #[test]
    fn stand_ins_come_back() {
        let RGBColor(r, g, b) = Ink::FLOOR.stand_in(true);
        assert_eq!(Ink::from_stand_in(&format!("{r:02X}{g:02X}{b:02X}")), Some((Ink::FLOOR, true)));
        assert_eq!(Ink::from_stand_in("000000"), None);
        assert_eq!(Ink::from_stand_in("F100FF"), None);
    }

    #[test]
    fn a_mode_has_one_colour_and_a_runtime_one_dash() {
        let cases = [case("floor", "none"), case("builtin", "none"), case("builtin", "macvlan"), case("runc", "none")];
        let looks = Looks::of(&cases);
        assert_eq!(looks.get(&cases[0]), Look { name: "floor".into(), ink: Ink::FLOOR, dashed: true });
        assert_eq!(looks.get(&cases[1]), Look { name: "builtin none".into(), ink: Ink(7), dashed: false });
        assert_eq!(looks.get(&cases[2]), Look { name: "builtin macvlan".into(), ink: Ink(SPARE.0), dashed: false });
        assert_eq!(looks.get(&cases[3]), Look { name: "runc none".into(), ink: Ink(7), dashed: true });
        let floors = Looks::of(&[case("floor", "none"), case("floor", "host")]);
        assert_eq!(floors.get(&case("floor", "host")), Look { name: "floor host".into(), ink: Ink(5), dashed: true });
    }
}
