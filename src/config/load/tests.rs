//! What an operator sees of a file and of flags.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::config::compile::{CorsRule, PagesRule};
use crate::config::parse::known_keys;
use crate::policy::{PathMatch, Peer, RouteKind, Target, Verdict};
use crate::wire::RequestHead;

const MACHINE: Machine = Machine {
    cpus: 2,
    descriptors: 20_000,
};
const EXAMPLE: &str = include_str!("../../../config.example.toml");

fn file(text: &str) -> Loaded {
    load(Some(("wharf.toml", text)), &Flags::default(), &MACHINE)
}

fn flags(flags: Flags) -> Loaded {
    load(None, &flags, &MACHINE)
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn rendered(loaded: &Loaded) -> String {
    loaded
        .compiled
        .as_ref()
        .expect_err("it must not be valid")
        .render(&loaded.sources, false)
}

const GOOD: &str = "version = 1\n\
    [[route]]\npath_prefix = \"/\"\nbackend = \"a\"\n\
    [backend.a]\nendpoints = [\"localhost:50051\"]\n";

#[test]
fn the_example_is_valid_and_says_the_defaults() {
    let example = file(EXAMPLE).compiled.expect("the example is valid");
    assert_eq!(example.warnings.0, []);
    let least = file(GOOD).compiled.expect("the least file is valid");
    assert_eq!(example.process, least.process);
    assert_eq!(example.snapshot.limits, least.snapshot.limits);
    assert_eq!(example.snapshot.live_path, least.snapshot.live_path);
    assert_eq!(example.snapshot.listeners, least.snapshot.listeners);
    assert_eq!(example.cors, least.cors);
    let backend = |compiled: &Compiled| {
        let backend = &compiled.snapshot.backends[0];
        (
            backend.connect_timeout,
            backend.connections_max,
            backend.pending_max,
        )
    };
    assert_eq!(backend(&example), backend(&least));
    // Both are asserted by number once, so that a default cannot move unseen.
    assert_eq!(backend(&least), (Duration::from_secs(1), 4, 1024));
    assert_eq!(least.process.drain_timeout, Duration::from_secs(30));
    assert_eq!(least.snapshot.limits.connections_max, 7_500);
}

#[test]
fn the_example_names_every_key_that_is_read_and_no_other() {
    let mut written = BTreeSet::new();
    let table: toml::Table = EXAMPLE.parse().expect("the example is TOML");
    collect_written("", &toml::Value::Table(table), &mut written);
    let mut read = BTreeSet::new();
    collect_read("", &mut read);
    assert!(read.contains("backend.*.limits.pending"), "{read:?}");
    assert!(read.contains("route.cors.max_age"), "{read:?}");
    assert_eq!(written, read);
}

#[test]
fn each_key_of_the_example_has_a_default_and_a_sentence() {
    let mut explained = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = line.trim();
        if let Some((key, rest)) = line.split_once('=')
            && !line.starts_with('#')
            && rest
                .split_once('#')
                .is_some_and(|(_, sentence)| sentence.trim().len() > 15)
        {
            explained.insert(key.trim().to_owned());
        }
    }
    let mut read = BTreeSet::new();
    collect_read("", &mut read);
    for path in read {
        let key = path.rsplit('.').next().expect("a path has a last part");
        assert!(explained.contains(key), "{path} has no sentence");
    }
}

#[test]
fn what_the_example_calls_needed_has_no_default_and_all_else_has_one() {
    let lines: Vec<_> = EXAMPLE.lines().collect();
    let mut needed = 0;
    for (number, line) in lines.iter().enumerate() {
        let is_key = !line.starts_with('#') && line.contains('=');
        let Some((_, sentence)) = line.split_once("# ").filter(|_| is_key) else {
            continue;
        };
        let without = lines.iter().enumerate().filter(|(n, _)| *n != number);
        let without: Vec<_> = without.map(|(_, line)| *line).collect();
        let is_needed = sentence.starts_with("needed; ");
        let compiled = file(&without.join("\n")).compiled;
        assert_eq!(compiled.is_err(), is_needed, "{line}");
        needed += usize::from(is_needed);
    }
    assert_eq!(needed, 5);
}

#[test]
fn no_value_that_the_example_gives_a_route_for_pages_passes_for_a_default() {
    let (_, own) = EXAMPLE.split_once("[route.cors]").expect("its table");
    let (own, _) = own.split_once("\n\n").expect("its end");
    let lines: Vec<_> = own.lines().skip(1).collect();
    assert_eq!(lines.len(), 5);
    for line in lines {
        assert!(line.contains("# default: as in [cors]"), "{line}");
    }
    let compiled = file(EXAMPLE).compiled.expect("the example is valid");
    assert_eq!(compiled.own_rules.len(), 1);
}

#[test]
fn the_file_in_the_readme_is_valid() {
    let readme = include_str!("../../../README.md");
    let text = readme
        .split_once("```toml\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .map(|(text, _)| text)
        .expect("the README shows a file");
    let compiled = file(text).compiled.expect(text);
    assert_eq!(compiled.warnings.0, []);
}

/// Paths of all leaves in the file; names of backends become `*`.
fn collect_written(path: &str, value: &toml::Value, keys: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let key = if path == "backend" { "*" } else { key };
                collect_written(&join(path, key), value, keys);
            }
        }
        toml::Value::Array(array) if array.iter().any(toml::Value::is_table) => {
            array
                .iter()
                .for_each(|value| collect_written(path, value, keys));
        }
        _ => {
            keys.insert(path.to_owned());
        }
    }
}

/// Paths of all leaves that serde knows: it is asked at every path with a key that it cannot know.
fn collect_read(path: &str, keys: &mut BTreeSet<String>) {
    let real = path.replace('*', "x");
    let heads = match path {
        "" => vec![String::new()],
        _ => {
            // A table of a list's entry needs the entry.
            let entry = match real.split_once('.') {
                Some((list @ ("listener" | "route"), _)) => format!("[[{list}]]\n"),
                _ => String::new(),
            };
            vec![format!("{entry}[{real}]\n"), format!("[[{real}]]\n")]
        }
    };
    for head in heads {
        let text = format!("{head}zzz = 1\n");
        let fault = toml::from_str::<Schema>(&text).expect_err("zzz is no key");
        if let Some(("zzz", known)) = known_keys(fault.message()) {
            for key in known {
                collect_read(&join(path, key), keys);
            }
            return;
        }
    }
    if path == "backend" {
        return collect_read("backend.*", keys);
    }
    keys.insert(path.to_owned());
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[test]
fn c_01_unknown_keys_are_errors_with_the_word_that_was_meant_and_all_at_once() {
    let text = "version = 1\nverbose = true\n\
        [proces]\nworkers = 1\n\
        [[listener]]\naddres = \"127.0.0.1:1\"\n\
        [[route]]\npath_prefix = \"/\"\nbackend = \"a\"\nservice = \"x\"\n\
        [backend.a]\nendpoints = [\"localhost:50051\"]\n\
        [backend.a.limits]\npendin = 1\n";
    let loaded = file(text);
    let drawn = rendered(&loaded);
    let errors: Vec<_> = drawn
        .lines()
        .filter(|line| line.starts_with("error"))
        .collect();
    assert_eq!(
        errors,
        [
            "error[E101]: unknown key `verbose`",
            "error[E101]: unknown key `proces`",
            "error[E101]: unknown key `addres`",
            "error[E101]: unknown key `service`",
            "error[E101]: unknown key `pendin`",
        ],
        "{drawn}"
    );
    for help in ["`version`", "`process`", "`address`", "`pending`"] {
        assert!(
            drawn.contains(&format!("help: did you mean {help}?")),
            "{help}\n{drawn}"
        );
    }
}

#[test]
fn c_01_an_error_points_at_its_place_and_says_what_to_write() {
    let text = GOOD.replace("backend = \"a\"", "backend = \"aa\"");
    assert_eq!(
        rendered(&file(&text)),
        "error[E103]: route uses backend \"aa\", which no [backend.*] table defines\n \
         --> wharf.toml:4:11\n  |\n4 | backend = \"aa\"\n  |           ^^^^ no such backend\n  |\n  \
         = help: did you mean \"a\"?\n"
    );
}

#[test]
fn c_01_every_mistake_has_its_number() {
    let with = |line: &str| format!("{GOOD}{line}\n");
    for (text, number) in [
        ("version = ".to_owned(), "E100"),
        ("version = 1\nversion = 1".to_owned(), "E100"),
        (with("[nope]"), "E101"),
        (with("[process]\npin_cpus = 3"), "E102"),
        (with("[process]\nworkers = []"), "E102"),
        (with("[[cors]]"), "E102"),
        (GOOD.replace("\"a\"", "\"b\""), "E103"),
        (GOOD.replace("version = 1", ""), "E104"),
        (GOOD.replace("version = 1", "version = 2"), "E104"),
        (GOOD.replace("localhost:50051", "localhost"), "E105"),
        (with("[[listener]]\naddress = \"8080\""), "E106"),
        (with("[process]\nworkers = 0"), "E107"),
        (with("[process]\ndrain_timeout = 3"), "E107"),
        (
            with("[limits]\nheader_bytes = \"1KiB\"\nline_bytes = \"2KiB\""),
            "E107",
        ),
        (with("[limits]\nmessage_bytes = \"4GiB\""), "E107"),
        ("version = 1".to_owned(), "E108"),
        (
            with("[[listener]]\naddress = \":1\"\n[[listener]]\naddress = \"127.0.0.1:1\""),
            "E109",
        ),
        (GOOD.replace("\"/\"", "\"a\""), "E110"),
        (GOOD.replace("\"/\"", "\"/a?b\""), "E110"),
        (with("[health]\nlive = \"x\""), "E110"),
        (with("[cors]\nallow_origins = [\"localhost\"]"), "E111"),
        (with("[cors]\nallow_origins = [\"https://*\"]"), "E111"),
        (
            with("[cors]\nallow_origins = [\"*\"]\nallow_credentials = true"),
            "E114",
        ),
        (
            with("[[listener]]\naddress = \":1\"\ntrusted_proxies = [\"lan\"]"),
            "E115",
        ),
        (with("[cors]\nallow_headers = [\"a b\"]"), "E116"),
        (with("[cors]\nallow_headers = [\"*\"]"), "E116"),
        (with("[cors]\nexpose_headers = [\"\"]"), "E116"),
        (with("[cors]\nallow_headers = \"all\""), "E107"),
        (with("[cors]\nexpose_headers = \"mirror\""), "E107"),
        (with("[cors]\nmax_age = \"25h\""), "E107"),
        (with("[cors]\nallow_credentials = \"yes\""), "E102"),
        (with("[[listener]]\nname = \"x\""), "E112"),
        (GOOD.replace("backend = \"a\"\n", ""), "E112"),
        (GOOD.replace("path_prefix = \"/\"\n", ""), "E112"),
        (GOOD.replace("[\"localhost:50051\"]", "[]"), "E112"),
        (
            GOOD.replace("localhost:50051", "https://localhost:50051"),
            "E113",
        ),
        (GOOD.replace("localhost:50051", "unix:/run/x.sock"), "E113"),
        (with("protocol = \"h2\""), "E113"),
        (
            with("[[listener]]\naddress = \":1\"\nprotocol = \"spdy\""),
            "E113",
        ),
    ] {
        let loaded = file(&text);
        let findings = loaded.compiled.as_ref().expect_err(&text);
        let numbers: Vec<_> = findings
            .0
            .iter()
            .filter(|finding| finding.level == crate::config::Level::Error)
            .map(|finding| finding.number)
            .collect();
        assert_eq!(numbers, [number], "{text}\n{}", rendered(&loaded));
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_answered_with_how_it_is_written() {
    let with = |line: &str| format!("{GOOD}{line}\n");
    for (text, help) in [
        (
            with("[listener]\naddress = \":1\""),
            "write [[listener]], with two brackets",
        ),
        (with("[[cors]]"), "write [cors], with one bracket"),
        (
            GOOD.replace("[\"localhost:50051\"]", "\"localhost:50051\""),
            "write endpoints = [\"localhost:50051\"]",
        ),
        (
            with("[cors]\nallow_origins = \"*\""),
            "write allow_origins = [\"*\"]",
        ),
        (
            with("[cors]\nallow_credentials = 1"),
            "write allow_credentials = true or allow_credentials = false",
        ),
        (
            with("[cors]\nallow_headers = true"),
            "write allow_headers = \"mirror\" or allow_headers = [\"x-tenant\"]",
        ),
        (
            with("[cors]\nallow_headers = \"none\""),
            "write allow_headers = \"mirror\", or a list",
        ),
        (
            with("[cors]\nexpose_headers = 5"),
            "write expose_headers = \"auto\" or expose_headers",
        ),
        (
            GOOD.replace("[backend.a]", "[[route.cors]]\n[backend.a]"),
            "write [route.cors], with one bracket",
        ),
        (
            GOOD.replace(
                "[backend.a]",
                "[route.cors]\nallow_origins = \"*\"\n[backend.a]",
            ),
            "write allow_origins = [\"*\"]",
        ),
        (
            with("[[listener]]\naddress = \":1\"\ntrusted_proxies = \"10.0.0.0/8\""),
            "write trusted_proxies = [\"10.0.0.0/8\"]",
        ),
        (
            with("[[listener]]\naddress = \":1\"\ntrusted_proxies = [\"10.0.0.1/8\"]"),
            "10.0.0.1 has bits behind the prefix: write \"10.0.0.0/8\"",
        ),
        (
            GOOD.replace("version = 1", "version = \"1\""),
            "write version = 1",
        ),
        (
            with("[process]\npin_cpus = \"yes\""),
            "write pin_cpus = true or pin_cpus = false",
        ),
        (
            with("[[listener]]\naddress = 8080"),
            "write address = \":8080\"",
        ),
        (
            GOOD.replace("[backend.a]", "[backend]"),
            "write [backend.NAME]",
        ),
        (
            with("[limits]\nline_bytes = true"),
            "write a number, or a text such as",
        ),
        (
            with("[limits]\nheader_fields = 257"),
            "must be from 8 to 256",
        ),
        (
            with("[limits]\nheader_bytes = \"65KiB\""),
            "must be from 256 bytes to 64KiB",
        ),
        (
            with("[limits]\nbuffer_per_stream = 1"),
            "the keys here are header_bytes",
        ),
        (GOOD.replace("\"/\"", "\"/*\""), "write \"/\""),
        (GOOD.replace("\"/\"", "\"/a.B/*\""), "write \"/a.B\""),
        (
            with("[[listener]]\naddress = \"http://127.0.0.1:1/\""),
            "leave out http://, write \"127.0.0.1:1\"",
        ),
        (
            with("[cors]\nallow_origins = [\"http://a,http://b\"]"),
            "one origin each",
        ),
        (
            GOOD.replace("localhost:50051", "::1:50051"),
            "write \"[::1]:50051\"",
        ),
    ] {
        let drawn = rendered(&file(&text));
        assert!(
            drawn.contains(&format!("= help: {help}")),
            "{help}\n{drawn}"
        );
        for word in ["invalid type", "expected", "i64", "sequence"] {
            assert!(!drawn.contains(word), "{word}\n{drawn}");
        }
    }
}

#[test]
fn broken_toml_has_one_error_and_a_help_where_a_person_would_look() {
    let with = |line: &str| format!("{GOOD}{line}\n");
    // The example has the most lines below a bracket that was never closed.
    let open = EXAMPLE.replace("allow_origins     = []", "allow_origins     = [");
    let line = open
        .lines()
        .position(|line| line.contains("= [  "))
        .unwrap()
        + 1;
    for (text, help) in [
        (open, format!("is the bracket of line {line} closed?")),
        (GOOD.replace("1\"]", "1\""), "is the bracket of line 6 closed?".to_owned()),
        (GOOD.replace("1\"]", "1\"\nprotocol = \"h2c\"\n[cors]"), "is the bracket of line 6 closed?".to_owned()),
        (GOOD.replace("1\"]", "1]"), "is the text closed?".to_owned()),
        (GOOD.replace("1\"]", "1\" \"b:1\"]"), "write a comma between the two".to_owned()),
        (GOOD.replace("1\"]", "1\"\n \"b:1\"]"), "write a comma between the two".to_owned()),
        (GOOD.replace("[[route]]", "[[route]"), "close it: [[route]]".to_owned()),
        (with("[cors"), "close it: [cors]".to_owned()),
        (with("[route]"), "write [[route]], with two brackets, each time".to_owned()),
        (
            "[listener]\naddress = \":1\"\n[[listener]]".to_owned(),
            "write [[listener]], with two brackets, each time".to_owned(),
        ),
        (
            with("[backend.a]"),
            "[backend.a] stands above already: put the keys of both into one, or give it another name".to_owned(),
        ),
        (with("[[backend.a]]"), "write [backend.a], with one bracket on each side, and once".to_owned()),
        (with("[cors]\n[cors] # again"), "[cors] stands above already".to_owned()),
        (with("[route.cors]\n[route.cors]"), "one [route.cors] stands below each [[route]]".to_owned()),
        (with("[limits]\nconnections = 1\nconnections = 2"), "connections stands above already: leave one out".to_owned()),
        (with("[cors]\nmax_age = 10s"), "write it in quotes: \"10s\"".to_owned()),
        (with("[cors]\nmax_age: 10s"), "write KEY = VALUE, with = in place of the colon".to_owned()),
        (with("[cors]\nmax_age"), "write KEY = VALUE, or a table's name".to_owned()),
        (with("[process]\npin_cpus = True"), "write true or false, in lower case".to_owned()),
        ("{\"version\": 1}".to_owned(), "write KEY = VALUE, with = in place of the colon".to_owned()),
    ] {
        let drawn = rendered(&file(&text));
        assert_eq!(drawn.matches("error[").count(), 1, "{text}\n{drawn}");
        assert!(drawn.contains(&format!("= help: {help}")), "{help}\n{drawn}");
    }
}

#[test]
fn what_stands_in_the_wrong_table_or_is_not_built_yet_is_told_so() {
    let with = |line: &str| format!("{GOOD}{line}\n");
    for (text, help) in [
        (
            GOOD.replace("[backend.a]", "allow_origins = [\"http://a\"]\n[backend.a]"),
            "write allow_origins below [route.cors], a table of its own behind this route's keys",
        ),
        (
            with("[[listener]]\naddress = \":1\"\nallow_origins = [\"http://a\"]"),
            "write allow_origins in [cors], for all calls, or in [route.cors], for one route's",
        ),
        (
            GOOD.replace("version = 1", "version = 1\nmax_age = \"1h\""),
            "write max_age in [cors]",
        ),
        (
            with("[metrics]\naddress = \":1\""),
            "metrics is not built yet; leave it out",
        ),
        (
            with("[tls]"),
            "TLS is not built yet, on neither side; leave it out",
        ),
        (
            with("[[listener]]\naddress = \":1\"\ntls = {}"),
            "TLS is not built yet",
        ),
        (
            with("[limits]\nstall_timeout = false"),
            "write a number with its unit, in quotes, e.g. stall_timeout = \"10s\"",
        ),
        (
            with("[cors]\nmax_age = []"),
            "write a number with its unit, in quotes, e.g. max_age = \"10s\"",
        ),
        (
            with("[limits]\nmessage_bytes = true"),
            "write a number, or a text such as message_bytes = \"16KiB\"",
        ),
        (
            with("[process]\nworkers = true"),
            "write a number, or \"auto\" in quotes",
        ),
        (with("[limits]\nheader_fields = true"), "write a number\n"),
        (
            with("[backend.a.limits]\nconnections = true"),
            "write a number\n",
        ),
        (with("[limits]\nheader_bytes = \"16KB\""), "write \"16KiB\""),
        (
            with("[[listener]]\naddress = \":1\"\nprotocol = \"HTTP2\""),
            "did you mean \"http2\"?",
        ),
        (
            with("[[listener]]\naddress = \":1\"\nprotocol = \"http/1.1\""),
            "did you mean \"http1\"?",
        ),
        (
            with("[[listener]]\naddress = \":1\"\nprotocol = \"https\""),
            "TLS is not built yet",
        ),
        (
            with("[[listener]]\naddress = \":1\"\nprotocol = [\"http1\", \"http2\"]"),
            "write protocol = \"auto\": it is both",
        ),
        (
            with("[server]\nport = 8080"),
            "a port belongs to [[listener]]: address = \":8080\"",
        ),
        (
            with("[cors]\nallow_headers = \"authorization\""),
            "write allow_headers = \"mirror\", or a list: allow_headers = [\"authorization\"]",
        ),
        (
            with("[cors]\nexpose_headers = \"x-a, x-b\""),
            "write expose_headers = \"auto\", or a list: expose_headers = [\"x-a\", \"x-b\"]",
        ),
        (
            with("[cors]\nallow_headers = \"all\""),
            "write allow_headers = \"mirror\", or a list: allow_headers = [\"x-own\"]",
        ),
        (
            with("[cors]\nallow_origins = [\"localhost:*\"]"),
            "an origin begins with its scheme: http://localhost:*",
        ),
    ] {
        let drawn = rendered(&file(&text));
        assert_eq!(drawn.matches("error[").count(), 1, "{text}\n{drawn}");
        assert!(
            drawn.contains(&format!("= help: {help}")),
            "{help}\n{drawn}"
        );
    }
}

#[test]
fn two_routes_that_take_the_same_paths_are_not_told_to_change_places() {
    let drawn = |prefix: &str, other: &str| {
        let text = GOOD.replace("\"/\"", &format!("{prefix:?}"))
            + &format!("[[route]]\npath_prefix = {other:?}\nbackend = \"a\"\n");
        let loaded = file(&text);
        let compiled = loaded.compiled.expect("it is legal");
        compiled.warnings.render(&loaded.sources, false)
    };
    let same = "= help: both take the same paths: leave one out";
    assert!(drawn("/a.B", "/a.B").contains(same));
    assert!(drawn("/a.B", "/a.B/").contains(same));
    assert!(
        drawn("/", "/a.B")
            .contains("= help: the first match wins: put this route before the other")
    );
}

#[test]
fn a_backend_is_not_called_unused_while_a_route_has_none() {
    for key in ["bakend", "backends"] {
        let drawn = rendered(&file(&GOOD.replace("backend = ", &format!("{key} = "))));
        assert!(drawn.contains("E101"), "{drawn}");
        assert!(!drawn.contains("E152"), "{drawn}");
    }
    let drawn = rendered(&file(&GOOD.replace("backend = \"a\"\n", "")));
    assert!(drawn.contains("E112") && !drawn.contains("E152"), "{drawn}");
}

#[test]
fn a_route_that_takes_over_an_empty_list_is_mended_where_the_refusal_says() {
    let text = GOOD.replace(
        "[backend.a]",
        "[route.cors]\nallow_credentials = true\n[backend.a]",
    );
    let compiled = file(&text).compiled.expect("it is legal");
    // The line for all pages says [cors], as the refusal does. One more for the route would name its own table.
    assert_eq!(compiled.own_rules, []);
    let (status, _, sentence) = preflight(&compiled, 0, "https://app.example");
    assert_eq!(status, 403);
    // There is no [cors] to add anything to.
    assert!(
        sentence
            .ends_with("; write  [cors]  and below it  allow_origins = [\"https://app.example\"]"),
        "{sentence}"
    );
    let (_, _, sentence) = preflight(&compiled, 0, "null");
    assert!(
        sentence.ends_with(" [cors]  and below it  allow_origins = [\"null\"]"),
        "{sentence}"
    );
    let with_table = file(&format!("{text}[cors]\nallow_origins = []\n")).compiled;
    let (_, _, sentence) = preflight(&with_table.expect("it is legal"), 0, "https://app.example");
    assert!(sentence.ends_with("allow_origins in [cors]"), "{sentence}");
}

#[test]
fn what_is_legal_and_surely_unwanted_is_warned_of() {
    for (line, number) in [
        ("[[route]]\npath_prefix = \"/x\"\nbackend = \"a\"", "E151"),
        ("[backend.b]\nendpoints = [\"b:1\"]", "E152"),
        (
            "[[listener]]\naddress = \"0.0.0.0:1\"\n[cors]\nallow_origins = [\"*\"]",
            "E153",
        ),
        ("[cors]\nallow_origins = [\"https://*.com\"]", "E154"),
        (
            "[cors]\nallow_origins = [\"null\"]\nallow_credentials = true",
            "E155",
        ),
        (
            "[[listener]]\naddress = \":1\"\ntrusted_proxies = [\"0.0.0.0/0\"]",
            "E156",
        ),
        (
            "[[listener]]\naddress = \":1\"\ntrusted_proxies = [\"::/0\"]",
            "E156",
        ),
        ("[cors]\nallow_credentials = true", "E157"),
        (
            "[cors]\nallow_origins = []\nallow_credentials = true",
            "E157",
        ),
    ] {
        let compiled = file(&format!("{GOOD}{line}\n")).compiled.expect(line);
        let numbers: Vec<_> = compiled.warnings.0.iter().map(|f| f.number).collect();
        assert_eq!(numbers, [number], "{line}");
    }
}

#[test]
fn credentials_are_not_called_useless_while_some_page_has_them() {
    let with = |all: &str, own: &str| {
        let text = GOOD.replace("[backend.a]", &format!("[route.cors]\n{own}\n[backend.a]"))
            + &format!("[cors]\n{all}\n");
        let compiled = file(&text).compiled.expect("it is legal");
        compiled
            .warnings
            .0
            .iter()
            .map(|f| f.number)
            .collect::<Vec<_>>()
    };
    let (pages, credentials) = (
        "allow_origins = [\"https://a.example\"]",
        "allow_credentials = true",
    );
    assert_eq!(with(credentials, pages), [""; 0]);
    assert_eq!(with(pages, credentials), [""; 0]);
    assert_eq!(with(credentials, "max_age = \"1s\""), ["E157"]);
    assert_eq!(with("max_age = \"1s\"", credentials), ["E157"]);
}

#[test]
fn a_field_that_is_none_is_pointed_at_among_the_others() {
    let drawn = rendered(&file(&format!(
        "{GOOD}[cors]\nallow_headers = [\"x-a\", \"x b\"]\n"
    )));
    assert!(drawn.contains("--> wharf.toml:8:25\n"), "{drawn}");
    assert!(drawn.contains(" ^^^^^ not a name\n"), "{drawn}");
}

#[test]
fn an_origin_that_is_named_twice_is_one() {
    let compiled = flags(Flags {
        backends: texts(&["a:1"]),
        allow_origins: texts(&["https://a.example", "https://A.example:443"]),
        ..Flags::default()
    });
    let cors = compiled.compiled.expect("valid").cors;
    assert_eq!(cors, CorsRule::Origins(texts(&["https://a.example"])));
}

#[test]
fn a_backend_that_is_like_no_other_is_told_which_tables_there_are() {
    let text = GOOD.replace("backend = \"a\"", "backend = \"zzz\"");
    let drawn = rendered(&file(&text));
    assert!(
        drawn.contains("= help: the file defines [backend.a]\n"),
        "{drawn}"
    );
    let drawn = rendered(&file(&format!(
        "{text}[backend.b]\nendpoints = [\"b:1\"]\n"
    )));
    assert!(
        drawn.contains("the file defines [backend.a], [backend.b]\n"),
        "{drawn}"
    );
}

#[test]
fn a_command_line_is_shown_as_it_may_be_typed() {
    let drawn = rendered(&flags(Flags {
        backends: texts(&["a:1"]),
        listen: texts(&["8080"]),
        allow_origins: texts(&["*", "it's"]),
        ..Flags::default()
    }));
    assert!(
        drawn.contains("| wharf --backend a:1 --listen 8080 --allow-origin '*' --allow-origin "),
        "{drawn}"
    );
}

#[test]
fn null_with_credentials_is_pointed_at_where_it_stands_or_where_credentials_do() {
    let drawn = |text: String| {
        let loaded = file(&text);
        let compiled = loaded.compiled.expect(&text);
        compiled.warnings.render(&loaded.sources, false)
    };
    let together = drawn(format!(
        "{GOOD}[cors]\nallow_origins = [\"null\"]\nallow_credentials = true\n"
    ));
    assert!(
        together.contains("^^^^^^ no page's own origin\n"),
        "{together}"
    );
    let apart = drawn(
        GOOD.replace(
            "[backend.a]",
            "[route.cors]\nallow_credentials = true\n[backend.a]",
        ) + "[cors]\nallow_origins = [\"null\"]\n",
    );
    assert!(apart.contains("^^^^ while \"null\" may call\n"), "{apart}");
}

#[test]
fn a_key_for_methods_is_not_taken_for_one_for_headers() {
    let drawn = rendered(&file(&format!("{GOOD}[cors]\nallow_methods = [\"GET\"]\n")));
    assert!(
        drawn.contains("= help: calls are made with POST: there is nothing to set; leave it out"),
        "{drawn}"
    );
    assert!(!drawn.contains("did you mean"), "{drawn}");
}

#[test]
fn a_misspelled_key_is_not_told_a_second_time_as_missing() {
    let text = GOOD.replace("endpoints", "endpoint");
    let drawn = rendered(&file(&text));
    assert_eq!(drawn.matches("error[").count(), 1, "{drawn}");
    assert!(drawn.contains("did you mean `endpoints`?"), "{drawn}");
}

#[test]
fn any_text_at_all_gives_errors_and_never_a_panic() {
    // Every beginning of the example, and the example with each byte taken out.
    for end in 0..EXAMPLE.len() {
        if let Some(text) = EXAMPLE.get(..end).filter(|_| end % 7 == 0) {
            let loaded = file(text);
            if let Err(findings) = &loaded.compiled {
                assert!(!findings.render(&loaded.sources, true).is_empty());
            }
        }
        if end % 5 == 0 && EXAMPLE.is_char_boundary(end) && EXAMPLE.is_char_boundary(end + 1) {
            let text = format!("{}{}", &EXAMPLE[..end], &EXAMPLE[end + 1..]);
            let loaded = file(&text);
            if let Err(findings) = &loaded.compiled {
                assert!(!findings.render(&loaded.sources, false).is_empty());
            }
        }
    }
}

#[test]
fn flags_alone_make_a_route_for_everything_to_one_backend() {
    let compiled = flags(Flags {
        backends: texts(&["localhost:50051", "http://127.0.0.1:50052/"]),
        listen: texts(&[":8081", "[::1]:0"]),
        workers: Some("3".to_owned()),
        pin: Some(false),
        ..Flags::default()
    })
    .compiled
    .expect("these flags are valid");
    let snapshot = &compiled.snapshot;
    assert_eq!(
        snapshot.listeners[0].address,
        "127.0.0.1:8081".parse().unwrap()
    );
    assert_eq!(snapshot.listeners[1].address, "[::1]:0".parse().unwrap());
    assert_eq!(snapshot.routes.len(), 1);
    assert_eq!(snapshot.routes[0].path, PathMatch::Prefix("/".to_owned()));
    assert_eq!(snapshot.routes[0].kind, RouteKind::Rpc);
    assert_eq!(snapshot.routes[0].filters.len(), 2);
    assert_eq!(snapshot.unrouted.len(), 1);
    let Target::Endpoints(endpoints) = &snapshot.backends[0].target else {
        panic!("a backend of endpoints");
    };
    assert_eq!(&*endpoints[0].name, "localhost:50051");
    assert_eq!(endpoints[0].addresses, [], "names are resolved elsewhere");
    assert_eq!(&*endpoints[1].name, "127.0.0.1:50052");
    assert_eq!(endpoints[1].addresses, ["127.0.0.1:50052".parse().unwrap()]);
    assert_eq!(compiled.process.workers, 3);
    assert!(!compiled.process.pin_cpus);
    assert_eq!(compiled.snapshot.limits.connections_max, 5_000);
    assert_eq!(snapshot.live_path.as_deref(), Some("/healthz"));
}

#[test]
fn pages_of_this_machine_may_call_only_while_all_listeners_are_on_loopback_and_nothing_is_said() {
    let rule = |listen: &[&str], origins: &[&str]| {
        flags(Flags {
            backends: texts(&["a:1"]),
            listen: texts(listen),
            allow_origins: texts(origins),
            ..Flags::default()
        })
        .compiled
        .expect("valid")
        .cors
    };
    assert_eq!(rule(&[], &[]), CorsRule::Loopback);
    assert_eq!(rule(&["[::1]:1"], &[]), CorsRule::Loopback);
    assert_eq!(rule(&[":1", "0.0.0.0:2"], &[]), CorsRule::Nobody);
    assert_eq!(
        rule(&[], &["https://A.example:443"]),
        CorsRule::Origins(texts(&["https://a.example"]))
    );
    assert_eq!(file(GOOD).compiled.expect("valid").cors, CorsRule::Nobody);
}

#[test]
fn flags_go_over_the_file_and_are_pointed_at_by_themselves() {
    let given = Flags {
        listen: texts(&[":9"]),
        allow_origins: texts(&["http://a"]),
        ..Flags::default()
    };
    let text =
        format!("{GOOD}[[listener]]\naddress = \":1\"\n[cors]\nallow_origins = [\"http://b\"]\n");
    let compiled = load(Some(("f", &text)), &given, &MACHINE)
        .compiled
        .expect("valid");
    assert_eq!(compiled.snapshot.listeners.len(), 1);
    assert_eq!(compiled.snapshot.listeners[0].address.port(), 9);
    assert_eq!(compiled.cors, CorsRule::Origins(texts(&["http://a"])));
    let wrong = Flags {
        listen: texts(&["nowhere"]),
        ..Flags::default()
    };
    assert_eq!(
        rendered(&load(Some(("f", &text)), &wrong, &MACHINE)),
        "error[E106]: cannot listen on \"nowhere\"\n --> command line:1:16\n  |\n\
         1 | wharf --listen nowhere\n  |                ^^^^^^^ not an address\n  |\n  \
         = help: write an address and a port, e.g. \"127.0.0.1:8080\" or \":8080\"\n"
    );
}

#[test]
fn an_endpoint_that_cannot_be_used_says_what_to_write() {
    for (written, help) in [
        ("localhost", "write host and port, e.g. \"localhost:50051\""),
        (":50051", "write \"localhost:50051\""),
        ("50051", "write \"localhost:50051\""),
        ("::1", "write host and port, e.g. \"[::1]:50051\""),
        ("a:0", "write host and port, e.g. \"a:50051\""),
        ("a:99999", "write host and port, e.g. \"a:50051\""),
        ("a:x", "write host and port, e.g. \"a:50051\""),
        ("", "write host and port, e.g. \"localhost:50051\""),
        ("u@a:1", "write host and port, e.g. \"localhost:50051\""),
        ("a b:1", "write host and port, e.g. \"localhost:50051\""),
        (
            "http://a:1/path",
            "write host and port, e.g. \"localhost:50051\"",
        ),
        (
            "https://a:1",
            "wharf speaks plaintext HTTP/2 to backends; TLS to backends is not built yet",
        ),
        (
            "unix:/run/a",
            "wharf reaches backends over TCP; unix sockets are not built yet",
        ),
    ] {
        let loaded = flags(Flags {
            backends: texts(&[written]),
            ..Flags::default()
        });
        let findings = loaded.compiled.as_ref().expect_err(written);
        let helps: Vec<_> = findings.0.iter().map(|f| f.help.as_deref()).collect();
        assert_eq!(helps, [Some(help)], "{written:?}");
    }
}

#[test]
fn an_endpoint_is_taken_in_each_of_its_spellings() {
    for (written, name, addresses) in [
        ("localhost:1", "localhost:1", 0),
        ("http://Host.example:1", "Host.example:1", 0),
        ("grpc://a:1/", "a:1", 0),
        ("[::1]:1", "[::1]:1", 1),
        ("127.0.0.1:1", "127.0.0.1:1", 1),
    ] {
        let compiled = flags(Flags {
            backends: texts(&[written]),
            ..Flags::default()
        })
        .compiled
        .expect(written);
        let Target::Endpoints(endpoints) = &compiled.snapshot.backends[0].target else {
            panic!("endpoints");
        };
        assert_eq!(&*endpoints[0].name, name);
        assert_eq!(endpoints[0].addresses.len(), addresses, "{written}");
    }
}

/// What the filters of the first route say to a preflight of that page which asks for that field.
fn preflight(compiled: &Compiled, route: usize, origin: &str) -> (u16, Vec<String>, String) {
    let mut head = RequestHead {
        method: http::Method::OPTIONS,
        path: "/a.B/C".parse().unwrap(),
        authority: None,
        headers: [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-own"),
        ]
        .map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::try_from(value).unwrap(),
            )
        })
        .into_iter()
        .collect(),
    };
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        listener: 0,
        number: 0,
    };
    for filter in &compiled.snapshot.routes[route].filters {
        if let Verdict::Respond(answer) = filter.request(&mut head, &peer) {
            let told = answer.head.headers.iter();
            let told = told.filter(|(name, _)| name.as_str().starts_with("access-control-"));
            let mut told: Vec<_> = told
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            told.sort();
            let sentence = answer.refusal.map(|(_, sentence)| sentence);
            return (
                answer.head.status.as_u16(),
                told,
                sentence.unwrap_or_default(),
            );
        }
    }
    panic!("a preflight is answered here");
}

#[test]
fn a_route_may_say_something_else_to_pages_and_what_it_leaves_out_is_said_for_all() {
    let text = "version = 1\n\
        [[route]]\nname = \"own\"\npath_prefix = \"/own.S\"\nbackend = \"a\"\n\
        [route.cors]\nallow_origins = [\"https://own.example\"]\nallow_credentials = true\n\
        [[route]]\nname = \"strict\"\npath_prefix = \"/strict.S\"\nbackend = \"a\"\n\
        [route.cors]\nallow_headers = [\"x-tenant\"]\nmax_age = \"0s\"\n\
        [[route]]\npath_prefix = \"/\"\nbackend = \"a\"\n\
        [backend.a]\nendpoints = [\"localhost:50051\"]\n\
        [cors]\nallow_origins = [\"https://*.example.com\"]\nmax_age = \"10m\"\n";
    let compiled = file(text).compiled.expect(text);
    assert_eq!(compiled.warnings.0, []);
    let all = CorsRule::Origins(texts(&["https://*.example.com"]));
    assert_eq!(compiled.cors, all);
    let (app, own) = ("https://app.example.com", "https://own.example");
    let (status, told, _) = preflight(&compiled, 0, own);
    assert_eq!(
        (status, told.join("\n").as_str()),
        (
            204,
            "access-control-allow-credentials: true\n\
             access-control-allow-headers: x-own\n\
             access-control-allow-methods: POST\n\
             access-control-allow-origin: https://own.example\n\
             access-control-max-age: 600"
        )
    );
    let (status, told, sentence) = preflight(&compiled, 0, app);
    assert_eq!((status, told), (403, vec![]));
    assert_eq!(
        sentence,
        "origin https://app.example.com is not allowed; add \"https://app.example.com\" to allow_origins in \
         [route.cors] of route \"own\""
    );
    let (status, told, sentence) = preflight(&compiled, 1, app);
    assert_eq!(status, 204);
    assert_eq!(
        told[0],
        "access-control-allow-headers: content-type,x-grpc-web,x-user-agent,grpc-timeout,x-tenant"
    );
    assert_eq!(told[3], "access-control-max-age: 0");
    assert!(
        sentence.ends_with("in [route.cors] of route \"strict\""),
        "{sentence}"
    );
    let (_, told, _) = preflight(&compiled, 2, app);
    assert_eq!(told[0], "access-control-allow-headers: x-own");
    assert_eq!(told[3], "access-control-max-age: 600");
    assert_eq!(preflight(&compiled, 2, own).0, 403);
}

#[test]
fn a_table_that_is_there_is_filled_and_one_that_is_not_is_written() {
    for (more, cure) in [
        (
            "",
            "write  [cors]  and below it  allow_origins = [\"http://a\"]",
        ),
        ("[cors]\n", "add \"http://a\" to allow_origins in [cors]"),
    ] {
        let compiled = file(&format!("{GOOD}\n{more}")).compiled.expect("valid");
        let (status, _, sentence) = preflight(&compiled, 0, "http://a");
        assert_eq!(status, 403);
        assert!(sentence.contains(cure), "{sentence}");
    }
}

#[test]
fn a_cure_names_the_table_that_the_list_stands_in() {
    let text = "version = 1\n\
        [[route]]\nname = \"fields\"\npath_prefix = \"/f.S\"\nbackend = \"a\"\n\
        [route.cors]\nallow_headers = [\"x-tenant\"]\n\
        [[route]]\nname = \"pages\"\npath_prefix = \"/p.S\"\nbackend = \"a\"\n\
        [route.cors]\nallow_origins = [\"https://own.example\"]\n\
        [backend.a]\nendpoints = [\"localhost:50051\"]\n\
        [cors]\nallow_origins = [\"https://app.example\"]\nallow_headers = [\"x-other\"]\n";
    let told = |flags: &Flags, route, origin| {
        let loaded = load(Some(("wharf.toml", text)), flags, &MACHINE);
        preflight(&loaded.compiled.expect(text), route, origin).2
    };
    let none = Flags::default();
    let cases = [
        (0, "https://new.example", "allow_origins in [cors]"),
        (
            0,
            "https://app.example",
            "\"mirror\", in [route.cors] of route \"fields\"",
        ),
        (
            1,
            "https://new.example",
            "allow_origins in [route.cors] of route \"pages\"",
        ),
        (1, "https://own.example", "\"mirror\", in [cors]"),
    ];
    for (route, origin, place) in cases {
        let sentence = told(&none, route, origin);
        assert!(sentence.ends_with(place), "{sentence}");
    }
    // A flag goes over [cors], and over what a route takes from there, but not over a list of its own.
    let typed = Flags {
        allow_origins: texts(&["https://flag.example"]),
        ..Flags::default()
    };
    assert_eq!(
        told(&typed, 0, "https://app.example"),
        "origin https://app.example is not allowed; add:  --allow-origin https://app.example  (the flag stands in \
         place of allow_origins in [cors])"
    );
    let sentence = told(&typed, 1, "https://flag.example");
    assert!(sentence.ends_with(cases[2].2), "{sentence}");
}

#[test]
fn the_cure_without_a_file_is_a_flag_and_says_whom_it_shuts_out() {
    let told = |origins: &[&str]| {
        let loaded = flags(Flags {
            backends: texts(&["localhost:50051"]),
            allow_origins: texts(origins),
            ..Flags::default()
        });
        preflight(&loaded.compiled.expect("valid"), 0, "http://new.example").2
    };
    let cure = "; add:  --allow-origin http://new.example";
    assert!(told(&["http://a.example"]).ends_with(cure));
    let sentence = told(&[]);
    assert!(
        sentence.contains(&format!(
            "{cure}  (with  --allow-origin 'http://localhost:*'"
        )),
        "{sentence}"
    );
}

#[test]
fn a_route_that_lets_other_pages_in_is_told_of_and_one_that_does_not_is_not() {
    let route = |own: &str| {
        GOOD.replace("[backend.a]", &format!("[route.cors]\n{own}\n[backend.a]"))
            + "[cors]\nallow_origins = [\"https://all.example\"]\n"
    };
    let rules = |own: &str| {
        let compiled = file(&route(own)).compiled.expect(own);
        assert!(!compiled.credentials);
        compiled.own_rules
    };
    let origins = |list: &[&str]| CorsRule::Origins(texts(list));
    for (own, pages, credentials) in [
        (
            "allow_origins = [\"https://own.example\"]",
            origins(&["https://own.example"]),
            false,
        ),
        ("allow_origins = []", CorsRule::Nobody, false),
        (
            "allow_credentials = true",
            origins(&["https://all.example"]),
            true,
        ),
    ] {
        let rule = PagesRule { pages, credentials };
        assert_eq!(rules(own), [("route-1".into(), rule)], "{own}");
    }
    assert_eq!(rules("max_age = \"1s\""), []);
    assert_eq!(rules("allow_origins = [\"https://all.example\"]"), []);
}

#[test]
fn credentials_and_every_origin_are_an_error_that_points_wherever_the_two_come_together() {
    let with = |all: &str, own: &str| {
        GOOD.replace("[backend.a]", &format!("[route.cors]\n{own}\n[backend.a]"))
            + &format!("[cors]\n{all}\n")
    };
    for (text, place, line) in [
        (
            with("allow_origins = [\"*\"]\nallow_credentials = true", ""),
            "[cors]",
            "allow_origins = [\"*\"]",
        ),
        (
            with("allow_origins = [\"*\"]", "allow_credentials = true"),
            "[route.cors] of route \"route-1\"",
            "allow_credentials = true",
        ),
        (
            with(
                "allow_credentials = true",
                "allow_origins = [\"http://a\", \"*\"]",
            ),
            "[route.cors] of route \"route-1\"",
            "allow_origins = [\"http://a\", \"*\"]",
        ),
    ] {
        let drawn = rendered(&file(&text));
        let sentence = format!(
            "error[E114]: allow_credentials and the origin \"*\" do not go together in {place}\n"
        );
        assert!(drawn.starts_with(&sentence), "{drawn}");
        assert!(drawn.contains(&format!("| {line}\n")), "{drawn}");
        assert!(
            drawn.contains(
                "= help: name the origins of your pages, e.g. \"https://app.example.com\""
            ),
            "{drawn}"
        );
        assert_eq!(drawn.matches("error[").count(), 1, "{drawn}");
    }
    // Each by itself is well, and so is a route that goes another way.
    for text in [
        with("allow_origins = [\"*\"]", ""),
        with(
            "allow_origins = [\"http://a\"]\nallow_credentials = true",
            "",
        ),
        with(
            "allow_origins = [\"*\"]",
            "allow_origins = [\"http://a\"]\nallow_credentials = true",
        ),
    ] {
        assert!(file(&text).compiled.is_ok(), "{text}");
    }
}

#[test]
fn each_listener_believes_its_own_proxies() {
    let text = format!(
        "{GOOD}[[listener]]\naddress = \"127.0.0.1:1\"\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n\
         [[listener]]\naddress = \"127.0.0.1:2\"\n"
    );
    let compiled = file(&text).compiled.expect(&text);
    let told = |listener| {
        let mut head = RequestHead {
            method: http::Method::POST,
            path: "/a.B/C".parse().unwrap(),
            authority: None,
            headers: [(
                http::HeaderName::from_static("x-forwarded-for"),
                http::HeaderValue::from_static("1.2.3.4"),
            )]
            .into_iter()
            .collect(),
        };
        let peer = Peer {
            address: "10.0.0.7:1".parse().unwrap(),
            listener,
            number: 0,
        };
        for filter in &compiled.snapshot.routes[0].filters {
            assert!(matches!(
                filter.request(&mut head, &peer),
                Verdict::Continue
            ));
        }
        let mut told = http::HeaderMap::new();
        head.headers.vouched().unwrap().write(None, &mut told);
        told["x-forwarded-for"].to_str().unwrap().to_owned()
    };
    assert_eq!(told(0), "1.2.3.4, 10.0.0.7");
    assert_eq!(told(1), "10.0.0.7");
}
