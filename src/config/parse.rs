//! The file's text to a [`Schema`]: TOML 1.0, every key known, all errors told at once; of broken TOML the first.
//!
//! serde stops at the first thing it cannot read. So what it stumbled over is noted, taken out of the table, and it is
//! asked again, until it has read the rest: a file with three typos gets three errors.

mod syntax;

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::error::{Finding, Findings};
use crate::config::schema::Schema;

/// Reads a whole file. The schema is what could be read of it: `compile` may find more, so both are told together.
pub fn parse(text: &str) -> (Schema, Findings) {
    let mut findings = Findings::default();
    if text.len() > FILE_BYTES_MAX {
        findings.push(
            Finding::error("E100", format!("the file is over {FILE_BYTES_MAX} bytes"))
                .help("is it a configuration file?"),
        );
        return (Schema::default(), findings);
    }
    let (table, faults) = DeTable::parse_recoverable(text);
    // What follows from broken syntax is noise, whether it is told by the reader of TOML or by us. At one place the brackets that
    // a fault has left open are told of too.
    let place = |fault: &&toml::de::Error| {
        let start = fault.span().map_or(usize::MAX, |span| span.start);
        (start, fault.message().starts_with("unclosed"))
    };
    if let Some(fault) = faults.iter().min_by_key(place) {
        findings.push(syntax::finding(text, fault));
        return (Schema::default(), findings);
    }
    let mut taken_out: Vec<Range<usize>> = Vec::new();
    loop {
        let mut readable = table.clone();
        for span in &taken_out {
            remove(readable.get_mut(), span);
        }
        let fault = match Schema::deserialize(toml::de::Deserializer::from(readable)) {
            Ok(schema) => return (schema, findings),
            Err(fault) => fault,
        };
        let Some(span) = fault.span() else {
            findings.push(Finding::error("E102", fault.message()));
            return (Schema::default(), findings);
        };
        findings.push(finding(&fault, &span, table.get_ref()));
        // Each round takes one entry out, so the rounds end; an entry that cannot be found ends them at once.
        if taken_out.contains(&span) || taken_out.len() == FINDINGS_MAX {
            return (Schema::default(), findings);
        }
        taken_out.push(span);
    }
}

/// The keys that serde knows beside an unknown one, from its sentence: it is the one who knows.
pub(super) fn known_keys(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((key, known))
}

fn finding(fault: &toml::de::Error, span: &Range<usize>, table: &DeTable<'_>) -> Finding {
    let message = fault.message();
    let Some((key, known)) = known_keys(message) else {
        let Some((path, value)) = written_at(table, span) else {
            return Finding::error("E102", message).at(span.clone(), "");
        };
        let key = path.join(".");
        return Finding::error("E102", format!("`{key}` is not written like this"))
            .at(span.clone(), kind(value))
            .help(right_form(&path, value));
    };
    let finding =
        Finding::error("E101", format!("unknown key `{key}`")).at(span.clone(), "no such key");
    if let Some(help) = written_elsewhere(key, &known) {
        return finding.help(help);
    }
    match nearest(key, known.iter().copied()) {
        Some(near) => finding.help(format!("did you mean `{near}`?")),
        None => finding.help(format!("the keys here are {}", known.join(", "))),
    }
}

/// What is said of a key that has another place, or none yet, or is what people know from other programs. `known` tells the
/// table that it stands in.
fn written_elsewhere(key: &str, known: &[&str]) -> Option<String> {
    const CORS: [&str; 5] = [
        "allow_origins",
        "allow_credentials",
        "allow_headers",
        "expose_headers",
        "max_age",
    ];
    let is_table_of = |own: &str| known.contains(&own);
    Some(match key {
        // It looks like allow_headers.
        "allow_methods" => {
            "calls are made with POST: there is nothing to set; leave it out".to_owned()
        }
        _ if CORS.contains(&key) && is_table_of("path_prefix") => {
            format!("write {key} below [route.cors], a table of its own behind this route's keys")
        }
        _ if CORS.contains(&key) => {
            format!("write {key} in [cors], for all calls, or in [route.cors], for one route's")
        }
        "cors" if is_table_of("address") => {
            "write [cors], for all calls, or [route.cors], for one route's".to_owned()
        }
        "server" | "port" | "listen" if is_table_of("listener") => {
            "a port belongs to [[listener]]: address = \":8080\"".to_owned()
        }
        "tls" | "certificate" | "cert" => {
            "TLS is not built yet, on neither side; leave it out".to_owned()
        }
        "metrics" | "tracing" | "traces" | "otlp" | "admin" | "discovery" | "etcd"
        | "websocket" => {
            format!("{key} is not built yet; leave it out")
        }
        _ => return None,
    })
}

/// The keys that lead to what stands at `span`, and what stands there. Lists of tables have no part in the path.
fn written_at<'t, 'i>(
    table: &'t DeTable<'i>,
    span: &Range<usize>,
) -> Option<(Vec<&'t str>, &'t DeValue<'i>)> {
    let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    table.iter().find_map(|(key, value)| {
        let below = match value.get_ref() {
            DeValue::Table(table) => written_at(table, span),
            DeValue::Array(list) => list.iter().find_map(|value| match value.get_ref() {
                DeValue::Table(table) => written_at(table, span),
                _ => None,
            }),
            _ => None,
        };
        let here =
            || (key.span() == *span || inside(value.span())).then(|| (Vec::new(), value.get_ref()));
        let (mut path, value) = below.or_else(here)?;
        path.insert(0, key.get_ref().as_ref());
        Some((path, value))
    })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// How a key is written whose value was of another kind.
fn right_form(path: &[&str], value: &DeValue<'_>) -> String {
    let list = |key: &str, example: &str| match value {
        DeValue::String(text) => format!("write {key} = [{text:?}]"),
        _ => format!("write {key} = [{example:?}]"),
    };
    match path {
        ["listener" | "route"] => format!("write [[{}]], with two brackets", path.concat()),
        ["process" | "cors" | "limits" | "health"] => {
            format!("write [{}], with one bracket on each side", path.concat())
        }
        ["backend"] => "write [backend.NAME], with a name of yours".to_owned(),
        ["backend", key]
            if matches!(value, DeValue::Table(_) | DeValue::Array(_)) && *key != "endpoints" =>
        {
            format!("write [backend.{key}], with one bracket on each side")
        }
        ["backend", _] => "write [backend.NAME]: its table needs a name".to_owned(),
        ["backend", _, "limits"] => format!("write [{}]", path.join(".")),
        ["backend", _, "endpoints"] => list("endpoints", "localhost:50051"),
        [.., "cors", "allow_origins"] => list("allow_origins", "https://app.example.com"),
        [.., "cors", "allow_credentials"] => {
            "write allow_credentials = true or allow_credentials = false".to_owned()
        }
        [.., "cors", "allow_headers"] => {
            "write allow_headers = \"mirror\" or allow_headers = [\"x-tenant\"]".to_owned()
        }
        [.., "cors", "expose_headers"] => {
            "write expose_headers = \"auto\" or expose_headers = [\"x-trace-id\"]".to_owned()
        }
        ["route", "cors"] => "write [route.cors], with one bracket on each side".to_owned(),
        ["listener", "protocol"] if matches!(value, DeValue::Array(_)) => {
            "write protocol = \"auto\": it is both".to_owned()
        }
        ["listener", "trusted_proxies"] => list("trusted_proxies", "10.0.0.0/8"),
        ["version"] => "write version = 1, without quotes".to_owned(),
        ["process", "pin_cpus"] => "write pin_cpus = true or pin_cpus = false".to_owned(),
        ["listener", "address"] => match value {
            DeValue::Integer(port) => format!("write address = \":{}\"", port.as_str()),
            _ => "write address = \"127.0.0.1:8080\"".to_owned(),
        },
        [.., "name" | "path_prefix" | "backend" | "protocol" | "live"] => {
            "write it as a text, in quotes".to_owned()
        }
        [.., key] if key.ends_with("_timeout") || *key == "max_age" => {
            format!("write a number with its unit, in quotes, e.g. {key} = \"10s\"")
        }
        [.., key] if key.ends_with("_bytes") => {
            format!("write a number, or a text such as {key} = \"16KiB\"")
        }
        ["process", "workers"] | ["limits", "connections"] => {
            "write a number, or \"auto\" in quotes".to_owned()
        }
        _ => "write a number".to_owned(),
    }
}

/// The word that was probably meant.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| (strsim::jaro_winkler(written, word), word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// Takes out the entry at `span`: the one whose key stands there, or the smallest whose value contains it.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if key.span() == *span {
            found = Some(key.clone());
            break;
        }
        let value_span = value.span();
        if remove_below(value, span) {
            return true;
        }
        if inside(value_span) {
            found = Some(key.clone());
        }
    }
    match found {
        Some(key) => table.remove(&key).is_some(),
        None => false,
    }
}

fn remove_below(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(array) => array.iter_mut().any(|value| remove_below(value, span)),
        _ => false,
    }
}

/// No configuration is larger.
const FILE_BYTES_MAX: usize = 4 << 20;
/// More findings than this help nobody.
const FINDINGS_MAX: usize = 50;
