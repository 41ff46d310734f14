//! The file of goals, and which of them were reached. Owns the file's form and the verdict; measures nothing.
//!
//! A goal is a ratio of two cells, or one cell alone. The numerator is always wharf in `scenario`; the denominator is another
//! proxy (`against`), another scenario (`over`), both, or nothing. Each round gives one ratio; their median is judged.

use serde::{Deserialize, Serialize};

use super::figures::{Spread, ratios};
use super::proxies::Proxy;
use super::scenario::{SCENARIOS, Scenario};

/// The proxy that goals are about.
pub(super) const OWN: &str = "wharf";

/// goals.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Goals {
    /// In the order in which they are told.
    #[serde(rename = "goal", default)]
    pub(super) goals: Vec<Goal>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Goal {
    /// For people.
    pub(super) name: String,
    /// Where wharf is measured.
    pub(super) scenario: String,
    /// Which figure of that scenario.
    pub(super) metric: String,
    /// The proxy that wharf is divided by; wharf itself where only `over` is given.
    pub(super) against: Option<String>,
    /// The scenario that is divided by; `scenario` itself where only `against` is given.
    pub(super) over: Option<String>,
    /// The figure that is divided by; `metric` itself where nothing is said.
    pub(super) over_metric: Option<String>,
    /// The median may be as large as this, in the metric's unit or as a ratio.
    pub(super) at_most: f64,
    /// How much of `at_most` is forgiven for noise: 0.02 lets 1.00 pass at 1.02.
    #[serde(default)]
    pub(super) noise: f64,
}

/// How a goal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// At or below the limit.
    Reached,
    /// Above the limit, and within what is forgiven for noise.
    WithinNoise,
    /// Above both.
    Missed,
    /// One of its cells has no figure.
    NotMeasured,
}

impl Verdict {
    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::WithinNoise => "reached, within the noise allowed",
            Self::Missed => "**missed**",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A goal, what came of it, and the verdict.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// What was wanted.
    pub(super) goal: Goal,
    /// What was seen; `None` if nothing was.
    pub(super) seen: Option<Spread>,
    /// How it stands.
    pub(super) verdict: Verdict,
}

impl Goals {
    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let goals: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let empty = "no [[goal]] in it".to_owned();
        if goals.goals.is_empty() {
            Err(empty)
        } else {
            Ok(goals)
        }
    }

    /// Every word in it is known. One that is not would be "not measured" for ever.
    pub(super) fn check(&self) -> Result<(), String> {
        for goal in &self.goals {
            let wrong = |what: &str, word: &str| {
                Err(format!(
                    "goal {:?}: no {what} is called {word:?}",
                    goal.name
                ))
            };
            for (scenario, metric) in [goal.own(), goal.reference()] {
                let Some(known) = SCENARIOS.iter().find(|known| known.name == scenario) else {
                    return wrong("scenario", scenario);
                };
                if !known.columns().iter().any(|column| column.metric == metric) {
                    return wrong("figure of that scenario", metric);
                }
            }
            if let Some(against) = &goal.against
                && Proxy::named(against).is_none()
            {
                return wrong("proxy", against);
            }
        }
        Ok(())
    }

    /// Those that speak of these scenarios and proxies: who measures a part is not told what he did not ask for.
    pub(super) fn of(mut self, scenarios: &[Scenario], proxies: &[Proxy]) -> Self {
        let asked = |name: &str| scenarios.iter().any(|scenario| scenario.name == name);
        self.goals.retain(|goal| {
            asked(goal.own().0)
                && asked(goal.reference().0)
                && goal
                    .against
                    .as_deref()
                    .is_none_or(|against| proxies.iter().any(|proxy| proxy.name() == against))
        });
        self
    }
}

impl Goal {
    /// Scenario and metric of the numerator.
    fn own(&self) -> (&str, &str) {
        (&self.scenario, &self.metric)
    }

    /// Scenario and metric of the denominator.
    fn reference(&self) -> (&str, &str) {
        (
            self.over.as_deref().unwrap_or(&self.scenario),
            self.over_metric.as_deref().unwrap_or(&self.metric),
        )
    }

    /// `cell(proxy, scenario, metric)` has one figure for each round.
    pub(super) fn judge(&self, cell: impl Fn(&str, &str, &str) -> Vec<Option<f64>>) -> Judged {
        let own = cell(OWN, &self.scenario, &self.metric);
        let divided = self.against.is_some() || self.over.is_some() || self.over_metric.is_some();
        let seen = if divided {
            let (scenario, metric) = self.reference();
            let against = self.against.as_deref().unwrap_or(OWN);
            Spread::of(&ratios(&own, &cell(against, scenario, metric)))
        } else {
            Spread::of(&own)
        };
        let verdict = match seen {
            None => Verdict::NotMeasured,
            Some(seen) if seen.median <= self.at_most => Verdict::Reached,
            Some(seen) if seen.median <= self.at_most * (1.0 + self.noise) => Verdict::WithinNoise,
            Some(_) => Verdict::Missed,
        };
        Judged {
            goal: self.clone(),
            seen,
            verdict,
        }
    }
}

/// What the run ends with: 1 if one was missed, else 2 if one was not measured, else 0.
pub(super) fn exit_code(judged: &[Judged]) -> u8 {
    let any = |verdict| judged.iter().any(|judged| judged.verdict == verdict);
    if any(Verdict::Missed) {
        1
    } else if any(Verdict::NotMeasured) {
        2
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[goal]]
name = "small calls against hyper"
scenario = "unary-16-c64"
metric = "cpu_us"
against = "hyper"
at_most = 0.5
noise = 0.02

[[goal]]
name = "memory"
scenario = "memory"
metric = "rss_idle"
at_most = 4194304

[[goal]]
name = "growth"
scenario = "connections-15000"
metric = "cpu_us"
over = "connections-10"
at_most = 1.6
"#;

    fn world(proxy: &str, scenario: &str, metric: &str) -> Vec<Option<f64>> {
        match (proxy, scenario, metric) {
            ("wharf", "unary-16-c64", "cpu_us") => vec![Some(10.2), Some(5.1), Some(11.0)],
            ("hyper", "unary-16-c64", "cpu_us") => vec![Some(20.0), Some(10.0), None],
            ("wharf", "memory", "rss_idle") => vec![Some(4_194_304.0)],
            ("wharf", "connections-15000", "cpu_us") => vec![Some(17.0)],
            ("wharf", "connections-10", "cpu_us") => vec![Some(10.0)],
            _ => vec![],
        }
    }

    #[test]
    fn a_goal_is_reached_within_its_noise_or_missed() {
        let goals = Goals::parse(FILE).expect("a good file").goals;
        let verdicts: Vec<_> = goals.iter().map(|goal| goal.judge(world).verdict).collect();
        assert_eq!(
            verdicts,
            [Verdict::WithinNoise, Verdict::Reached, Verdict::Missed]
        );
        let strict = Goal {
            noise: 0.0,
            ..goals[0].clone()
        };
        assert_eq!(strict.judge(world).verdict, Verdict::Missed);
    }

    #[test]
    fn a_goal_whose_peer_is_missing_is_not_measured() {
        let mut goal = Goals::parse(FILE).expect("a good file").goals.remove(0);
        goal.against = Some("envoy".to_owned());
        let judged = goal.judge(world);
        assert_eq!(judged.verdict, Verdict::NotMeasured);
        assert_eq!(judged.seen, None);
    }

    #[test]
    fn the_exit_code_tells_a_miss_before_a_gap() {
        let goals = Goals::parse(FILE).expect("a good file").goals;
        let judge = |at: usize| goals[at].judge(world);
        let mut missing = goals[0].clone();
        missing.against = Some("envoy".to_owned());
        let gap = missing.judge(world);
        assert_eq!(exit_code(&[judge(0), judge(1)]), 0);
        assert_eq!(exit_code(&[judge(0), gap.clone()]), 2);
        assert_eq!(exit_code(&[gap, judge(2)]), 1);
        assert_eq!(exit_code(&[]), 0);
    }

    #[test]
    fn the_goals_of_this_project_speak_of_what_is_measured() {
        let goals = Goals::parse(include_str!("../../goals.toml")).expect("a good file");
        assert_eq!(goals.check(), Ok(()));
        for (word, wrong) in [
            ("\"cpu_us\"", "\"cpu_ms\""),
            ("\"unary-16-c64\"", "\"unary-17\""),
            ("\"hyper\"", "\"traefik\""),
        ] {
            let text = include_str!("../../goals.toml").replace(word, wrong);
            let error = Goals::parse(&text)
                .expect("a form")
                .check()
                .expect_err(wrong);
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn who_measures_a_part_is_judged_by_the_goals_of_that_part() {
        let goals = || Goals::parse(FILE).expect("a good file");
        let chosen = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            super::super::scenario::chosen(&words).expect("known")
        };
        let count =
            |scenarios: &[Scenario], proxies: &[Proxy]| goals().of(scenarios, proxies).goals.len();
        assert_eq!(count(&chosen(&[]), &Proxy::ALL), 3);
        assert_eq!(count(&chosen(&["unary-16-c64"]), &Proxy::ALL), 1);
        assert_eq!(count(&chosen(&["unary-16-c64"]), &[Proxy::Wharf]), 0);
        assert_eq!(
            count(&chosen(&["connections-15000"]), &Proxy::ALL),
            0,
            "over another"
        );
        assert_eq!(count(&chosen(&["connections"]), &Proxy::ALL), 1);
    }

    #[test]
    fn a_file_with_a_word_that_nobody_knows_is_refused() {
        let error = Goals::parse(&FILE.replace("noise", "nosie")).expect_err("a typing error");
        assert!(error.contains("nosie"), "{error}");
        assert!(Goals::parse("").is_err(), "no goal is no success");
    }
}
