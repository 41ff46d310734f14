//! The house's rules, held by a test: what a room may import, where clocks are read, how files begin, what types are not
//! called. Each rule is a function over text, and each is shown to find what it forbids.
//!
//! The example file against the configuration's keys is compared in `src/config/load/tests.rs`, where the keys are known.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A room, the rooms that it may import, lowest first. `core` is the highest that carries calls; it never sees `config`.
const ROOMS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("telemetry", &["wire"]),
    ("rpc", &["wire"]),
    ("net", &[]),
    ("policy", &["wire", "rpc", "telemetry"]),
    ("http2", &["wire"]),
    ("config", &["wire", "rpc", "telemetry", "policy"]),
    (
        "downstream",
        &["wire", "telemetry", "net", "policy", "http2"],
    ),
    ("upstream", &["wire", "telemetry", "net", "policy", "http2"]),
    ("exchange", &["wire", "telemetry", "rpc", "policy"]),
    (
        "core",
        &[
            "wire",
            "telemetry",
            "rpc",
            "net",
            "policy",
            "downstream",
            "upstream",
            "exchange",
        ],
    ),
    (
        "control",
        &[
            "wire",
            "telemetry",
            "rpc",
            "net",
            "policy",
            "config",
            "downstream",
            "upstream",
            "exchange",
            "core",
        ],
    ),
    (
        "cli",
        &[
            "wire",
            "telemetry",
            "rpc",
            "net",
            "policy",
            "config",
            "downstream",
            "upstream",
            "exchange",
            "core",
            "control",
        ],
    ),
];

/// Crates that only these rooms may name: what a room cannot name it cannot come to depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("annotate_snippets", &["config"]),
    ("base64", &["wire"]),
    ("clap", &["cli"]),
    ("crossbeam_channel", &["core", "control", "cli"]),
    ("env_logger", &["cli"]),
    ("flate2", &["rpc"]),
    ("h2", &["http2", "upstream", "downstream"]),
    ("httparse", &["wire"]),
    ("mio", &["net", "control"]),
    ("serde", &["config"]),
    ("signal_hook", &["control", "cli"]),
    ("socket2", &["net", "control"]),
    ("tokio", &["net"]),
    ("toml", &["config"]),
];

/// Synonyms for "something". A type that needs one of them wants a noun.
const VAGUE: &[&str] = &[
    "Manager",
    "Handler",
    "Service",
    "Context",
    "Session",
    "Helper",
    "Util",
    "Utils",
    "Data",
    "Info",
    "Wrapper",
    "Base",
    "Processor",
];

/// Where the clocks are read (invariant 9), and where the one sleep is.
const CLOCK_FILE: &str = "src/net/mio.rs";

/// Rooms outside the turn: they may read a clock or wait where the line above says why, with the word `clock:`.
const OUTSIDE_THE_TURN: &[&str] = &["control", "cli"];

#[test]
fn a_room_imports_only_the_rooms_below_it_that_its_row_names() {
    hold(&product(), imports);
}

#[test]
fn a_crate_is_named_only_in_the_rooms_that_own_it() {
    hold(&product(), crates);
}

#[test]
fn clocks_are_read_in_one_place() {
    hold(&product(), clocks);
}

#[test]
fn every_file_says_at_its_head_what_it_owns() {
    hold(&rust_files(), head);
}

#[test]
fn a_mod_file_is_a_shop_window() {
    hold(&product(), shop_window);
}

#[test]
fn types_have_names_that_say_something() {
    hold(&product(), type_names);
}

#[test]
fn an_allowance_has_a_reason() {
    hold(&rust_files(), allowances);
}

#[test]
fn documents_name_symbols_and_not_line_numbers() {
    hold(&documents(), line_numbers);
}

#[test]
fn links_in_documents_lead_somewhere() {
    hold(&documents(), |file| {
        links(file, |path| root().join(path).exists())
    });
}

#[test]
fn every_room_is_in_the_table_and_every_row_of_the_table_is_lower_than_itself() {
    let known: Vec<_> = ROOMS.iter().map(|(room, _)| *room).collect();
    for entry in fs::read_dir(root().join("src")).expect("src is there") {
        let entry = entry.expect("it can be listed");
        if entry.path().is_dir() {
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            assert!(known.contains(&name.as_str()), "src/{name} has no row");
        }
    }
    for (at, (room, below)) in ROOMS.iter().enumerate() {
        for import in *below {
            let position = known.iter().position(|known| known == import);
            assert!(
                position.is_some_and(|position| position < at),
                "{room} and {import}"
            );
        }
    }
}

#[test]
fn every_file_that_decodes_what_strangers_send_has_a_fuzz_target() {
    let fuzz = root().join("fuzz");
    if !fuzz.exists() {
        return;
    }
    let targets: String = files_below(&fuzz, "rs")
        .iter()
        .map(|file| file.text.as_str())
        .collect();
    let missing = unfuzzed(&product(), &targets);
    assert!(missing.is_empty(), "no fuzz target names {missing:?}");
}

#[test]
fn x_06_what_is_released_checks_every_overflow_and_unwinds() {
    let manifest = read(&root().join("Cargo.toml")).text;
    let (_, rest) = manifest
        .split_once("[profile.release]\n")
        .expect("a release profile");
    let profile = rest.split("\n[").next().unwrap_or_default();
    // No counter and no window wraps in silence; and a panic that comes of it ends one key, which takes unwinding.
    for line in ["overflow-checks = true", "panic = \"unwind\""] {
        let set = profile.lines().any(|own| own.trim() == line);
        assert!(set, "[profile.release] lacks {line}: {profile}");
    }
}

#[test]
fn no_runtime_of_tokio_is_built_in() {
    // `normal`: what the binary holds. Tests may use what they like.
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "-e",
            "normal,features",
            "-i",
            "tokio",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(tree.contains("tokio v"), "{tree}");
    assert_eq!(runtime_features(&tree), Vec::<&str>::new(), "{tree}");
}

/// A file of the repository.
#[derive(Clone, Debug)]
struct File {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl File {
    /// The room that it stands in; `None` for `lib.rs` and `main.rs`.
    fn room(&self) -> Option<&str> {
        let (room, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(room)
    }

    /// Lines of code with their numbers: no comments, and nothing from the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<_> = self.text.lines().collect();
        let end = lines
            .windows(2)
            .position(|pair| {
                pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
            })
            .unwrap_or(lines.len());
        lines
            .into_iter()
            .take(end)
            .enumerate()
            .map(|(index, line)| (index + 1, line.split(" // ").next().unwrap_or(line)))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

type Faults = Vec<String>;

fn hold(files: &[File], rule: impl Fn(&File) -> Faults) {
    assert!(!files.is_empty(), "a rule without files holds nothing");
    let faults: Faults = files.iter().flat_map(rule).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn imports(file: &File) -> Faults {
    let Some(room) = file.room() else {
        return Faults::new();
    };
    let allowed = ROOMS.iter().find(|(name, _)| *name == room);
    let allowed = allowed.map_or(&[][..], |(_, allowed)| *allowed);
    let mut faults = Faults::new();
    for (number, line) in file.code() {
        for (_, rest) in after_each(line, "crate::") {
            let named: String = rest.chars().take_while(|c| is_word(*c)).collect();
            let is_room = ROOMS.iter().any(|(name, _)| *name == named);
            // `use crate::{a, b}` would hide what is imported.
            if named.is_empty() {
                faults.push(format!(
                    "{}:{number}: name each room on a line of its own",
                    file.path
                ));
            } else if is_room && named != room && !allowed.contains(&named.as_str()) {
                faults.push(format!(
                    "{}:{number}: {room} may not import {named}",
                    file.path
                ));
            }
        }
    }
    faults
}

fn crates(file: &File) -> Faults {
    let Some(room) = file.room() else {
        return Faults::new();
    };
    let mut faults = Faults::new();
    for (number, line) in file.code() {
        for (name, rooms) in CRATES {
            let named = after_each(line, &format!("{name}::"))
                .into_iter()
                .any(|(before, _)| {
                    // A path of ours may end like a crate: `crate::net::mio::Machine`, `self::mio::`.
                    !before.ends_with("::") && !before.chars().next_back().is_some_and(is_word)
                });
            let used = named || line.trim() == format!("use {name};");
            if used && !rooms.contains(&room) {
                faults.push(format!(
                    "{}:{number}: {room} may not name {name}",
                    file.path
                ));
            }
        }
        if room == "wire" && line.contains("log::") {
            faults.push(format!("{}:{number}: wire says nothing", file.path));
        }
    }
    faults
}

fn clocks(file: &File) -> Faults {
    if file.path == CLOCK_FILE {
        return Faults::new();
    }
    let lines: Vec<_> = file.text.lines().collect();
    let justified = |number: usize| {
        let above = number.checked_sub(2).and_then(|index| lines.get(index));
        file.room()
            .is_some_and(|room| OUTSIDE_THE_TURN.contains(&room))
            && above.is_some_and(|line| line.trim_start().starts_with("// clock:"))
    };
    file.code()
        .filter(|(_, line)| {
            [
                "Instant::now",
                "SystemTime::now",
                "thread::sleep",
                ".elapsed()",
            ]
            .iter()
            .any(|call| line.contains(call))
        })
        .filter(|(number, _)| !justified(*number))
        .map(|(number, line)| format!("{}:{number}: time is an argument: {line}", file.path))
        .collect()
}

fn head(file: &File) -> Faults {
    let first = file.text.lines().next().unwrap_or_default();
    if first.starts_with("//! ") || first.starts_with("#!") {
        return Faults::new();
    }
    vec![format!("{}: begins without //!", file.path)]
}

fn shop_window(file: &File) -> Faults {
    if !file.path.ends_with("/mod.rs") {
        return Faults::new();
    }
    let mut faults = Faults::new();
    let mut in_use = false;
    for (number, line) in file.code() {
        let line = line.trim();
        let fits = line.is_empty()
            || in_use
            || line.starts_with("#[cfg(")
            || line.starts_with("pub use ")
            || line.starts_with("pub(crate) use ")
            || (["mod ", "pub mod ", "pub(crate) mod "]
                .iter()
                .any(|word| line.starts_with(word))
                && line.ends_with(';'));
        if !fits {
            faults.push(format!(
                "{}:{number}: only mod and pub use: {line}",
                file.path
            ));
        }
        in_use = (in_use || line.contains("use ")) && !line.ends_with(';');
    }
    faults
}

fn type_names(file: &File) -> Faults {
    let mut faults = Faults::new();
    for (number, line) in file.code() {
        for keyword in ["struct ", "enum ", "trait ", "type "] {
            for (before, rest) in after_each(line, keyword) {
                if before.chars().next_back().is_some_and(is_word) {
                    continue;
                }
                let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
                if words(&name)
                    .iter()
                    .any(|word| VAGUE.contains(&word.as_str()))
                {
                    faults.push(format!("{}:{number}: {name} says nothing", file.path));
                }
            }
        }
    }
    faults
}

fn allowances(file: &File) -> Faults {
    let mut faults = Faults::new();
    for (before, rest) in after_each(&file.text, "[allow(") {
        let attribute = rest.split(']').next().unwrap_or_default();
        let line_start = before.lines().last().unwrap_or_default().trim_start();
        if (line_start == "#" || line_start == "#!") && !attribute.contains("reason") {
            let number = before.lines().count();
            faults.push(format!("{}:{number}: allow without a reason", file.path));
        }
    }
    faults
}

fn line_numbers(file: &File) -> Faults {
    after_each(&file.text, ".rs:")
        .into_iter()
        .filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
        .map(|(before, _)| format!("{}:{}: names a line", file.path, before.lines().count()))
        .collect()
}

fn links(file: &File, exists: impl Fn(&str) -> bool) -> Faults {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    after_each(&file.text, "](")
        .into_iter()
        .filter_map(|(_, rest)| rest.split([')', '#', ' ']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !exists(format!("{folder}/{target}").trim_start_matches('/')))
        .map(|target| format!("{}: {target} is not there", file.path))
        .collect()
}

fn unfuzzed(files: &[File], targets: &str) -> Vec<String> {
    let mut missing = BTreeSet::new();
    for file in files.iter().filter(|file| file.room() == Some("wire")) {
        for (_, line) in file.code() {
            let decodes = [
                "pub fn parse",
                "pub fn decode",
                "pub fn read_",
                "pub fn step",
            ]
            .iter()
            .any(|begin| line.trim_start().starts_with(begin));
            let stem = file.path.trim_end_matches(".rs").rsplit('/').next();
            if let Some(stem) = stem.filter(|_| decodes)
                && !targets.contains(&format!("{stem}::"))
            {
                missing.insert(stem.to_owned());
            }
        }
    }
    missing.into_iter().collect()
}

fn runtime_features(tree: &str) -> Vec<&str> {
    tree.lines()
        .filter_map(|line| line.split("tokio feature \"").nth(1))
        .filter_map(|rest| rest.split('"').next())
        .filter(|feature| {
            ["rt", "rt-multi-thread", "net", "full", "macros", "time"].contains(feature)
        })
        .collect()
}

/// What stands before and after each place where `word` stands.
fn after_each<'a>(text: &'a str, word: &str) -> Vec<(&'a str, &'a str)> {
    text.match_indices(word)
        .map(|(at, found)| (&text[..at], &text[at + found.len()..]))
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// `HttpSessionInfo` is Http, Session, Info.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if !c.is_ascii_uppercase() => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    words
}

fn root() -> PathBuf {
    // Asked when it runs, so that the same build can look at another working copy.
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// The code of the product: without files that hold nothing but tests.
fn product() -> Vec<File> {
    let mut files = files_below(&root().join("src"), "rs");
    files.retain(|file| !file.path.ends_with("/tests.rs") && !file.path.contains("/tests/"));
    files
}

fn rust_files() -> Vec<File> {
    ["src", "tests", "benches", "fuzz"]
        .iter()
        .flat_map(|folder| files_below(&root().join(folder), "rs"))
        .collect()
}

fn documents() -> Vec<File> {
    let mut files: Vec<_> = fs::read_dir(root())
        .expect("the root can be listed")
        .flatten()
        .filter(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "md")
        })
        .map(|entry| read(&entry.path()))
        .collect();
    files.extend(files_below(&root().join("docs"), "md"));
    files
}

fn files_below(folder: &Path, extension: &str) -> Vec<File> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return files;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let skipped = ["target", "node_modules", "corpus", "artifacts"];
        if path.is_dir() {
            if !skipped.iter().any(|name| entry.file_name() == *name) {
                files.extend(files_below(&path, extension));
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(read(&path));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read(path: &Path) -> File {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root()).expect("it is below the root");
    File {
        path: path.to_str().expect("a path in UTF-8").replace('\\', "/"),
        text,
    }
}

mod a_rule_finds_what_it_forbids {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    fn faults(rule: impl Fn(&File) -> Faults, path: &str, text: &str) -> usize {
        rule(&file(path, text)).len()
    }

    #[test]
    fn imports_that_point_upwards() {
        for (path, text, expected) in [
            ("src/wire/a.rs", "use crate::wire::Part;", 0),
            ("src/wire/a.rs", "use crate::policy::Limits;", 1),
            ("src/exchange/a.rs", "fn f(x: crate::net::Key) {}", 1),
            ("src/exchange/a.rs", "use crate::upstream::Stream;", 1),
            ("src/core/a.rs", "use crate::config::Schema;", 1),
            ("src/core/a.rs", "use crate::{net, wire};", 1),
            ("src/core/a.rs", "use crate::exchange::Exchange;", 0),
            ("src/lib.rs", "use crate::cli::run;", 0),
            ("src/wire/a.rs", "// crate::policy is above us", 0),
            ("src/wire/a.rs", "//! [`crate::policy`]", 0),
            (
                "src/wire/a.rs",
                "#[cfg(test)]\nmod tests {\n use crate::policy::X;\n}",
                0,
            ),
            ("src/wire/a.rs", "#[cfg(test)]\nuse crate::policy::X;", 1),
        ] {
            assert_eq!(faults(imports, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn crates_in_rooms_that_do_not_own_them() {
        for (path, text, expected) in [
            ("src/exchange/a.rs", "use h2::client::SendRequest;", 1),
            ("src/upstream/a.rs", "use h2::client::SendRequest;", 0),
            ("src/core/a.rs", "let poll = mio::Poll::new();", 1),
            ("src/core/a.rs", "use crate::net::mio::Machine;", 0),
            ("src/policy/a.rs", "use serde::Deserialize;", 1),
            ("src/policy/a.rs", "let not_h2::x;", 0),
            ("src/wire/a.rs", "log::debug!(\"x\");", 1),
            ("src/cli/a.rs", "use clap;", 0),
            ("src/core/a.rs", "use clap;", 1),
        ] {
            assert_eq!(faults(crates, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn clocks_that_are_hidden() {
        for (path, text, expected) in [
            ("src/core/a.rs", "let now = Instant::now();", 1),
            (
                "src/core/a.rs",
                "// clock: no\nlet now = Instant::now();",
                1,
            ),
            (
                "src/control/a.rs",
                "// clock: once, at the start\nlet now = Instant::now();",
                0,
            ),
            ("src/control/a.rs", "let now = SystemTime::now();", 1),
            ("src/net/mio.rs", "let now = Instant::now();", 0),
            ("src/net/sim.rs", "std::thread::sleep(x);", 1),
            (
                "src/net/timers.rs",
                "#[cfg(test)]\nmod tests {\n Instant::now();\n}",
                0,
            ),
        ] {
            assert_eq!(faults(clocks, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn files_without_a_head_and_windows_with_more_than_goods() {
        assert_eq!(faults(head, "src/a.rs", "use x;"), 1);
        assert_eq!(faults(head, "src/a.rs", "//! Owns a.\n"), 0);
        for (text, expected) in [
            (
                "//! x\n\nmod a;\npub mod b;\npub use a::{\n    B,\n    C,\n};\n",
                0,
            ),
            ("#[cfg(test)]\nmod tests;\n", 0),
            ("mod a;\nfn f() {}\n", 1),
            ("use crate::wire::Part;\n", 1),
            ("mod a {\n}\n", 2),
        ] {
            assert_eq!(
                faults(shop_window, "src/a/mod.rs", text),
                expected,
                "{text}"
            );
        }
        assert_eq!(faults(shop_window, "src/a/b.rs", "fn f() {}"), 0);
    }

    #[test]
    fn types_called_something() {
        for (text, expected) in [
            ("pub struct ConnectionManager;", 1),
            ("enum SessionState {}", 1),
            ("pub trait Handler {}", 1),
            ("type Data = u8;", 1),
            ("struct Base64Decoder;", 0),
            ("struct Database;", 0),
            ("enum Step { Data, Info }", 0),
            ("fn f(cx: &mut Context<'_>) {}", 0),
        ] {
            assert_eq!(faults(type_names, "src/a/b.rs", text), expected, "{text}");
        }
    }

    #[test]
    fn allowances_without_a_word() {
        for (text, expected) in [
            ("#[allow(dead_code)]", 1),
            ("#[allow(\n    dead_code,\n)]", 1),
            ("#![allow(missing_docs)]", 1),
            ("#[allow(dead_code, reason = \"later\")]", 0),
            ("let x = \"[allow(\";", 0),
        ] {
            assert_eq!(faults(allowances, "src/a.rs", text), expected, "{text}");
        }
    }

    #[test]
    fn documents_that_rot() {
        let line = concat!("see core.rs", ":12");
        assert_eq!(faults(line_numbers, "README.md", line), 1);
        assert_eq!(faults(line_numbers, "README.md", "see core.rs: it"), 0);
        let there = |path: &str| path == "docs/a.md" || path == "LICENSE";
        for (path, text, expected) in [
            (
                "README.md",
                "[a](docs/a.md#x) [b](https://x.example) [c](#here)",
                0,
            ),
            ("README.md", "[a](docs/b.md)", 1),
            ("docs/x.md", "[a](a.md)", 0),
        ] {
            let found = links(&file(path, text), there).len();
            assert_eq!(found, expected, "{path}: {text}");
        }
    }

    #[test]
    fn decoders_without_a_target_and_runtimes() {
        let wire = file("src/wire/http1/body.rs", "    pub fn decode(&mut self) {}");
        assert_eq!(
            unfuzzed(std::slice::from_ref(&wire), "envelope::step"),
            ["body"]
        );
        assert_eq!(unfuzzed(&[wire], "wire::http1::body::decode"), [""; 0]);
        let tree = "tokio v1\n├── tokio feature \"io-util\"\n└── tokio feature \"rt\" (x)\n";
        assert_eq!(runtime_features(tree), ["rt"]);
    }
}
