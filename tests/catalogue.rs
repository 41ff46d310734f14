//! The catalogue of faults (`docs/faults.md`) against the tests: every row has one that is named after it, and no test names
//! a row that is not there. `cargo test --test catalogue -- --nocapture` prints the table.
//!
//! It proves that a test exists and runs, not that it can fail. `scripts/mutants` asks that of `wire`, `rpc` and `exchange` alone;
//! of the other rooms nobody asks it but whoever writes a test, by breaking what it holds.

#![allow(
    clippy::print_stdout,
    reason = "the table is what a person runs this for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Groups of rows, as ids begin.
const GROUPS: [&str; 9] = ["h1", "h2", "w", "m", "u", "d", "x", "r", "s"];
/// A catalogue that was lost in an edit would be covered by nothing.
const ROWS_MIN: usize = 200;

/// The rows of the catalogue, and those that wait for their feature.
struct Catalogue {
    rows: BTreeSet<String>,
    waiting: BTreeSet<String>,
}

impl Catalogue {
    fn parse(text: &str) -> Self {
        let mut rows = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        let mut section = "";
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                section = title;
            }
            let Some(id) = line
                .strip_prefix("| ")
                .and_then(|rest| rest.split_once(" |"))
                .and_then(|(id, _)| row_id(&id.to_ascii_lowercase().replace('-', "_")))
            else {
                continue;
            };
            if section == "Rows that wait" {
                assert!(rows.contains(&id), "{id} waits and is no row");
                waiting.insert(id);
            } else {
                assert!(rows.insert(id.clone()), "{id} stands twice");
            }
        }
        Self { rows, waiting }
    }
}

/// The row that a test's name begins with: `h1_01_bare_lf` and `h1_01` are of `h1_01`, `u_p4_x` is of `u_p4`.
fn row_id(name: &str) -> Option<String> {
    let mut words = name.split('_');
    let group = words.next().filter(|group| GROUPS.contains(group))?;
    let number = words.next()?;
    let digits = match number.strip_prefix('p') {
        Some(phase) if group == "u" => phase,
        _ => number,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("{group}_{number}"))
}

/// The names of the tests in a file: functions right below `#[test]`.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line == "#[test]" {
            marked = true;
            return None;
        }
        if line.starts_with("#[") || line.starts_with("//") || !marked {
            return None;
        }
        marked = false;
        line.strip_prefix("fn ")?.split('(').next()
    })
}

fn read_all(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.ends_with("node_modules") {
                read_all(&path, into);
            }
        } else if path.extension().is_some_and(|own| own == "rs") {
            into.push((path.clone(), fs::read_to_string(&path).expect("text")));
        }
    }
}

/// Which tests hold which row.
fn coverage(root: &Path) -> BTreeMap<String, Vec<String>> {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        read_all(&root.join(folder), &mut files);
    }
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in &files {
        let path = path.strip_prefix(root).expect("below it").display();
        for name in tests_in(text) {
            if let Some(id) = row_id(name) {
                found.entry(id).or_default().push(format!("{path}: {name}"));
            }
        }
    }
    found
}

#[test]
fn every_row_of_the_catalogue_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let catalogue = Catalogue::parse(&text);
    let found = coverage(root);
    let mut missing = Vec::new();
    for id in &catalogue.rows {
        match found.get(id) {
            Some(tests) => println!("{id:6} {}", tests.join("\n       ")),
            None if catalogue.waiting.contains(id) => println!("{id:6} (waits for its feature)"),
            None => {
                println!("{id:6} NO TEST");
                missing.push(id.as_str());
            }
        }
    }
    let held = catalogue.rows.iter().filter(|id| found.contains_key(*id));
    println!(
        "{} rows: {} held by {} tests, {} wait, {} without a test",
        catalogue.rows.len(),
        held.count(),
        found.values().map(Vec::len).sum::<usize>(),
        catalogue.waiting.len(),
        missing.len()
    );
    let unknown: Vec<_> = found
        .iter()
        .filter(|(id, _)| !catalogue.rows.contains(*id))
        .collect();
    let early: Vec<_> = catalogue
        .waiting
        .iter()
        .filter(|id| found.contains_key(*id))
        .collect();
    assert!(
        catalogue.rows.len() >= ROWS_MIN,
        "rows of the catalogue were lost"
    );
    assert!(
        missing.is_empty(),
        "rows without a test: {}",
        missing.join(", ")
    );
    assert!(
        unknown.is_empty(),
        "tests of rows that do not exist: {unknown:?}"
    );
    assert!(
        early.is_empty(),
        "rows that wait though they have a test: {early:?}"
    );
}

#[test]
fn names_and_rows_are_read_as_they_are_meant() {
    for (name, id) in [
        ("h1_01_bare_lf_is_refused", Some("h1_01")),
        ("u_p4_reset", Some("u_p4")),
        ("u_14_interim_heads", Some("u_14")),
        ("h1_p4_is_no_row", None),
        ("w_what", None),
        ("u_p_x", None),
        ("upstream_14", None),
        ("x_7", Some("x_7")),
    ] {
        assert_eq!(row_id(name).as_deref(), id, "{name}");
    }
    let text = "#[test]\nfn h1_01_a() {}\nfn h1_02_helper() {}\n    #[test]\n    #[should_panic]\n    // why\n    fn w_01_b() {}";
    assert_eq!(tests_in(text).collect::<Vec<_>>(), ["h1_01_a", "w_01_b"]);
    let catalogue =
        Catalogue::parse("| H1-01 | x |\n| U-P4 | x |\n## Rows that wait\n| U-P4 | y |\n");
    assert_eq!(catalogue.rows.len(), 2);
    assert!(catalogue.waiting.contains("u_p4"));
}
