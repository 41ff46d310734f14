//! What a run leaves behind: its cells, as Markdown for people and as JSON for programs. Owns form and words; judges nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::figures::{Spread, ratios};
use super::goals::{Judged, OWN};
use super::machine::Head;
use super::measure::Sample;
use super::scenario::{Column, Scenario};

/// Below this share of its CPU a proxy was not what held the load up, so its throughput says nothing.
const SATURATED: f64 = 0.9;
/// In the place of a figure that a busy machine would have spoilt.
pub(super) const TOO_BUSY: &str = "too busy for a figure";

/// A proxy in a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// By round; `None` where there is no figure.
    pub(super) rounds: Vec<Option<Sample>>,
    /// Why one is missing.
    pub(super) gaps: Vec<String>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Report {
    /// The machine.
    pub(super) head: Head,
    /// Each proxy's.
    pub(super) versions: Vec<(&'static str, String)>,
    /// How it was measured: a name and a value each.
    pub(super) settings: Vec<(&'static str, String)>,
    /// What is missing, each with what installs it.
    pub(super) missing: Vec<String>,
    /// In the order of the report.
    pub(super) scenarios: Vec<Scenario>,
    /// By scenario and proxy.
    pub(super) cells: BTreeMap<(&'static str, &'static str), Cell>,
    /// The goals, if there are some.
    pub(super) judged: Vec<Judged>,
    /// The machine was busy: calls were checked, and no figure that hangs on a clock is shown.
    pub(super) too_busy: bool,
    /// Why the run ended before its time: cells and rounds are missing.
    pub(super) ended_early: Option<String>,
}

impl Report {
    /// One figure of a cell, round by round. Empty where there is no such cell.
    pub(super) fn rounds(&self, proxy: &str, scenario: &str, metric: &str) -> Vec<Option<f64>> {
        let cell = self.cells.iter().find(|((own_scenario, own_proxy), _)| {
            *own_scenario == scenario && *own_proxy == proxy
        });
        cell.map_or_else(Vec::new, |(_, cell)| {
            cell.rounds
                .iter()
                .map(|sample| sample.as_ref()?.metrics.get(metric).copied())
                .collect()
        })
    }

    /// How far the floor's own rounds lie apart where proxies are compared: nothing smaller is a difference.
    pub(super) fn noise(&self) -> Vec<(&'static str, f64)> {
        self.scenarios
            .iter()
            .filter_map(|scenario| {
                let rounds = self.rounds("floor", scenario.name, "cpu_us");
                Some((scenario.name, Spread::of(&rounds)?.width()))
            })
            .collect()
    }

    /// For people.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("# wharf on the scale\n\n");
        if let Some(why) = &self.ended_early {
            let _ = writeln!(
                text,
                "**This run ended early, so cells and rounds are missing:** {why}\n"
            );
        }
        self.head_text(&mut text);
        if !self.judged.is_empty() {
            self.goals_text(&mut text);
        }
        for scenario in &self.scenarios {
            self.scenario_text(&mut text, scenario);
        }
        text
    }

    fn head_text(&self, text: &mut String) {
        let head = &self.head;
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "- {name}: {value}");
        };
        line("when", &head.date);
        line(
            "CPU",
            &format!("{}, {} of them for this run", head.cpu, head.cpus),
        );
        line("its caches", &head.caches.join(", "));
        line("clock governor", &head.governor);
        line("kernel", &head.kernel);
        line("TCP congestion control", &head.congestion_control);
        line(
            "descriptors a program may open",
            &head.descriptors_max.to_string(),
        );
        for (name, value) in &self.settings {
            line(name, value);
        }
        for (name, version) in &self.versions {
            line(name, version);
        }
        for missing in &self.missing {
            line("**not here**", missing);
        }
        if !self.too_busy {
            let noise: Vec<_> = self
                .noise()
                .iter()
                .map(|(name, width)| format!("{name} {:.0} %", width * 100.0))
                .collect();
            if !noise.is_empty() {
                line(
                    "noise: how far the floor's own rounds lie apart",
                    &noise.join(", "),
                );
            }
        }
        text.push('\n');
    }

    fn goals_text(&self, text: &mut String) {
        text.push_str("## Goals\n\n| goal | wanted | seen | |\n|---|---|---|---|\n");
        for judged in &self.judged {
            let seen = judged.seen.map_or_else(|| "–".to_owned(), spread_text);
            let forgiven = if judged.goal.noise > 0.0 {
                format!(" (+{:.0} %)", judged.goal.noise * 100.0)
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "| {} | ≤ {}{forgiven} | {seen} | {} |",
                judged.goal.name,
                plain(judged.goal.at_most),
                judged.verdict.words()
            );
        }
        text.push('\n');
    }

    fn scenario_text(&self, text: &mut String, scenario: &Scenario) {
        let columns = scenario.columns();
        let _ = writeln!(text, "## {}\n\n{}.\n", scenario.name, scenario.about);
        text.push_str("| |");
        for column in columns {
            let per = if column.metric == "cpu_us" {
                format!(" per {}", scenario.per)
            } else {
                String::new()
            };
            let _ = write!(text, " {}{per} |", column.title);
        }
        text.push_str(" wharf ÷ it | |\n|---|");
        text.push_str(&"---|".repeat(columns.len() + 2));
        text.push('\n');
        for proxy in scenario.proxies {
            let Some(cell) = self.cells.get(&(scenario.name, proxy.name())) else {
                continue;
            };
            self.row(text, scenario, columns, proxy.name(), cell);
        }
        text.push('\n');
    }

    fn row(
        &self,
        text: &mut String,
        scenario: &Scenario,
        columns: &[Column],
        proxy: &str,
        cell: &Cell,
    ) {
        let _ = write!(text, "| {proxy} |");
        for column in columns {
            let shown = if self.withheld(scenario) && cell.rounds.iter().any(Option::is_some) {
                TOO_BUSY.to_owned()
            } else {
                Spread::of(&self.rounds(proxy, scenario.name, column.metric))
                    .map_or_else(|| "–".to_owned(), |spread| column.show(spread))
            };
            let _ = write!(text, " {shown} |");
        }
        let ratio = columns
            .first()
            .filter(|_| proxy != OWN && !self.withheld(scenario))
            .and_then(|column| self.against(scenario.name, proxy, column.metric))
            .map_or_else(|| "–".to_owned(), spread_text);
        let mut notes = cell.notes();
        let utilisation = Spread::of(&self.rounds(proxy, scenario.name, "utilisation"));
        if utilisation.is_some_and(|spread| spread.median < SATURATED) && !self.withheld(scenario) {
            notes.insert(0, "not saturated".to_owned());
        }
        let _ = writeln!(text, " {ratio} | {} |", notes.join("; "));
    }

    /// Memory and counts are what they are on a busy machine too; times are not.
    fn withheld(&self, scenario: &Scenario) -> bool {
        self.too_busy && scenario.needs_quiet()
    }

    fn against(&self, scenario: &str, proxy: &str, metric: &str) -> Option<Spread> {
        Spread::of(&ratios(
            &self.rounds(OWN, scenario, metric),
            &self.rounds(proxy, scenario, metric),
        ))
    }

    /// For programs. Units are those that the metrics' names end with; bytes and pure numbers have none.
    pub(super) fn json(&self) -> Value {
        let figures = |scenario: &Scenario, proxy: &str| -> Value {
            let all: BTreeMap<&str, Value> = self
                .metrics(scenario.name, proxy)
                .into_iter()
                .map(|metric| {
                    let rounds = self.rounds(proxy, scenario.name, metric);
                    let mut value = spread_json(Spread::of(&rounds));
                    value["rounds"] = json!(rounds);
                    if proxy != OWN {
                        value["wharf_divided_by_it"] =
                            spread_json(self.against(scenario.name, proxy, metric));
                    }
                    (metric, value)
                })
                .collect();
            json!(all)
        };
        let mut cells = Vec::new();
        for scenario in &self.scenarios {
            for proxy in scenario.proxies {
                let Some(cell) = self.cells.get(&(scenario.name, proxy.name())) else {
                    continue;
                };
                cells.push(json!({
                    "scenario": scenario.name,
                    "per": scenario.per,
                    "proxy": proxy.name(),
                    "figures": if self.withheld(scenario) { Value::Null } else { figures(scenario, proxy.name()) },
                    "notes": cell.notes(),
                }));
            }
        }
        let goals: Vec<_> = self
            .judged
            .iter()
            .map(|judged| {
                json!({
                    "goal": judged.goal,
                    "seen": spread_json(judged.seen),
                    "verdict": judged.verdict,
                })
            })
            .collect();
        json!({
            "machine": self.head,
            "settings": BTreeMap::from_iter(self.settings.iter().cloned()),
            "versions": BTreeMap::from_iter(self.versions.iter().cloned()),
            "missing": self.missing,
            "too_busy": self.too_busy,
            "ended_early": self.ended_early,
            "noise": BTreeMap::from_iter(if self.too_busy { Vec::new() } else { self.noise() }),
            "cells": cells,
            "goals": goals,
        })
    }

    fn metrics(&self, scenario: &str, proxy: &str) -> Vec<&'static str> {
        let mut all: Vec<_> = self
            .cells
            .iter()
            .filter(|((own_scenario, own_proxy), _)| {
                *own_scenario == scenario && *own_proxy == proxy
            })
            .flat_map(|(_, cell)| cell.rounds.iter().flatten())
            .flat_map(|sample| sample.metrics.keys().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Cell {
    /// Gaps and notes, each once.
    fn notes(&self) -> Vec<String> {
        let told = self
            .rounds
            .iter()
            .flatten()
            .flat_map(|sample| &sample.notes);
        let mut notes: Vec<String> = Vec::new();
        for note in self.gaps.iter().chain(told) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
        notes
    }
}

impl Column {
    fn show(&self, spread: Spread) -> String {
        let show = |value: f64| format!("{:.*}", self.digits, value / self.unit);
        if spread.rounds == 1 {
            return show(spread.median);
        }
        format!(
            "{} [{}–{}]",
            show(spread.median),
            show(spread.min),
            show(spread.max)
        )
    }
}

/// As precise as the figure deserves.
fn plain(value: f64) -> String {
    if value >= 1_000_000.0 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn spread_text(spread: Spread) -> String {
    if spread.rounds == 1 {
        return plain(spread.median);
    }
    format!(
        "{} [{}–{}]",
        plain(spread.median),
        plain(spread.min),
        plain(spread.max)
    )
}

fn spread_json(spread: Option<Spread>) -> Value {
    spread.map_or_else(
        || json!({"median": null}),
        |spread| json!({"median": spread.median, "min": spread.min, "max": spread.max}),
    )
}

#[cfg(test)]
mod tests {
    use super::super::goals::Goals;
    use super::super::scenario::chosen;
    use super::*;

    fn sample(cpu_us: f64, utilisation: f64) -> Option<Sample> {
        Some(Sample {
            metrics: BTreeMap::from([("cpu_us", cpu_us), ("utilisation", utilisation)]),
            ..Sample::default()
        })
    }

    fn report() -> Report {
        let cell = |rounds| Cell {
            rounds,
            gaps: Vec::new(),
        };
        Report {
            head: Head {
                date: "a day".to_owned(),
                kernel: "6".to_owned(),
                cpu: "a CPU".to_owned(),
                cpus: 2,
                caches: vec!["L1 data 32K".to_owned()],
                governor: "none".to_owned(),
                congestion_control: "cubic".to_owned(),
                descriptors_max: 20_000,
            },
            versions: vec![("wharf", "wharf 9".to_owned())],
            settings: vec![("rounds", "2".to_owned())],
            missing: vec!["envoy is missing: install it".to_owned()],
            scenarios: chosen(&["unary-16-c64".to_owned()]).expect("it is there"),
            cells: BTreeMap::from([
                (
                    ("unary-16-c64", "wharf"),
                    cell(vec![sample(10.0, 0.99), sample(12.0, 0.98)]),
                ),
                (
                    ("unary-16-c64", "floor"),
                    cell(vec![sample(8.0, 0.7), sample(8.0, 0.7)]),
                ),
                (
                    ("unary-16-c64", "hyper"),
                    Cell {
                        rounds: vec![sample(20.0, 1.0), None],
                        gaps: vec!["7 calls failed".to_owned()],
                    },
                ),
            ]),
            judged: Vec::new(),
            too_busy: false,
            ended_early: None,
        }
    }

    #[test]
    fn a_row_has_its_median_its_range_and_the_ratio_of_each_round() {
        let text = report().markdown();
        assert!(text.contains("| wharf | 11.00 [10.00–12.00] |"), "{text}");
        assert!(
            text.contains("| 1.38 [1.25–1.50] | not saturated |"),
            "{text}"
        );
        assert!(text.contains("| 0.50 | 7 calls failed |"), "{text}");
        assert!(
            text.contains("- **not here**: envoy is missing: install it"),
            "{text}"
        );
        assert!(
            text.contains("unary-16-c64 0 %"),
            "the floor's spread: {text}"
        );
    }

    #[test]
    fn a_busy_machine_yields_no_figure_at_all() {
        let busy = Report {
            too_busy: true,
            ..report()
        };
        let text = busy.markdown();
        assert!(text.contains("| wharf | too busy for a figure |"), "{text}");
        for figure in ["11.00", "8.00", "20.00", "1.38", "not saturated"] {
            assert!(!text.contains(figure), "{figure} in {text}");
        }
        let json = busy.json();
        assert!(json["cells"][0]["figures"].is_null());
        assert_eq!(json["too_busy"], true);
    }

    #[test]
    fn a_run_that_ended_early_says_so_before_anything_else() {
        let early = Report {
            ended_early: Some("port 21000 is taken".to_owned()),
            ..report()
        };
        let text = early.markdown();
        let told = text.lines().nth(2).expect("a third line");
        assert!(told.contains("ended early"), "{told}");
        assert!(told.contains("port 21000 is taken"), "{told}");
        assert!(text.contains("| wharf | 11.00"), "what there is: {text}");
        assert_eq!(early.json()["ended_early"], "port 21000 is taken");
        assert!(report().json()["ended_early"].is_null());
        assert!(!report().markdown().contains("ended early"));
    }

    #[test]
    fn memory_is_shown_on_a_busy_machine_too() {
        let memory = Cell {
            rounds: vec![Some(Sample {
                metrics: BTreeMap::from([("rss_idle", 3e6)]),
                ..Sample::default()
            })],
            gaps: Vec::new(),
        };
        let busy = Report {
            too_busy: true,
            scenarios: chosen(&["memory".to_owned()]).expect("it is there"),
            cells: BTreeMap::from([(("memory", "wharf"), memory)]),
            ..report()
        };
        let text = busy.markdown();
        assert!(text.contains("| wharf | 3.00 | – |"), "{text}");
    }

    #[test]
    fn json_has_each_round_and_the_goals() {
        let mut report = report();
        let goals = Goals::parse(
            "[[goal]]\nname = \"g\"\nscenario = \"unary-16-c64\"\nmetric = \"cpu_us\"\nagainst = \"floor\"\nat_most = 1.4\n",
        )
        .expect("a good file");
        report.judged = goals
            .goals
            .iter()
            .map(|goal| {
                goal.judge(|proxy, scenario, metric| report.rounds(proxy, scenario, metric))
            })
            .collect();
        let json = report.json();
        let wharf = &json["cells"][0]["figures"]["cpu_us"];
        assert_eq!(wharf["rounds"], json!([10.0, 12.0]));
        assert_eq!(wharf["median"], 11.0);
        let hyper = &json["cells"][2];
        assert_eq!(hyper["proxy"], "hyper");
        assert_eq!(hyper["figures"]["cpu_us"]["rounds"], json!([20.0, null]));
        assert_eq!(json["goals"][0]["verdict"], "reached");
        let text = report.markdown();
        assert!(
            text.contains("| g | ≤ 1.40 | 1.38 [1.25–1.50] | reached |"),
            "{text}"
        );
    }

    #[test]
    fn a_figure_is_as_long_as_it_deserves() {
        for (value, shown) in [
            (4_194_304.0, "4.19 M"),
            (320.4, "320"),
            (29.52, "29.5"),
            (0.482, "0.48"),
            (0.0618, "0.062"),
        ] {
            assert_eq!(plain(value), shown);
        }
    }
}
