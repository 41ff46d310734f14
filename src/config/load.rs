//! The file and the flags together: what was typed goes over what was written, and both go through the same schema.
//!
//! The flags become a text of their own, as they would be typed, so that an error in one of them has a caret under it too.

use std::ops::Range;

use toml::Spanned;

use crate::config::compile::{Compiled, Machine, compile};
use crate::config::error::{Findings, Source, Sources};
use crate::config::parse::parse;
use crate::config::schema::{Backend, Form, Listener, Route, Scalar, Schema};

/// What may be typed instead of written. Flag over file over default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The word behind the program's name, where errors are to show one.
    pub subcommand: Option<&'static str>,
    /// `--backend`, each: endpoints of the one backend that takes everything.
    pub backends: Vec<String>,
    /// `--listen`, each.
    pub listen: Vec<String>,
    /// `--allow-origin`, each.
    pub allow_origins: Vec<String>,
    /// `--workers`: a number or `auto`.
    pub workers: Option<String>,
    /// `--pin`.
    pub pin: Option<bool>,
}

/// A configuration that was read, whatever it is worth.
#[derive(Debug)]
pub struct Loaded {
    /// The texts, for [`Findings::render`].
    pub sources: Sources,
    /// What was written. [`compile`] may be asked again: each answer is a new snapshot.
    pub schema: Schema,
    /// What it means, or everything that is wrong with it.
    pub compiled: Result<Compiled, Findings>,
}

/// Reads a file (its name for people, and its text), or the flags alone.
pub fn load(file: Option<(&str, &str)>, flags: &Flags, machine: &Machine) -> Loaded {
    let mut sources = Sources::default();
    let (mut schema, mut findings) = match file {
        Some((name, text)) => {
            sources.push(Source {
                name: name.to_owned(),
                text: text.to_owned(),
            });
            parse(text)
        }
        None => (Schema::of_flags(), Findings::default()),
    };
    let text = schema.overlay(flags, sources.end());
    sources.push(Source {
        name: "command line".to_owned(),
        text,
    });
    let compiled = if findings.0.iter().any(|finding| finding.number == "E100") {
        Err(findings)
    } else {
        match compile(&schema, machine) {
            Ok(compiled) if findings.has_errors() => {
                findings.0.extend(compiled.warnings.0);
                Err(findings)
            }
            Err(more) => {
                // A key that was misspelled is missing too, but that is the same error twice.
                let misread = findings.has_errors();
                let news = more
                    .0
                    .into_iter()
                    .filter(|one| !(misread && one.is_absence()));
                findings.0.extend(news);
                findings.sort();
                Err(findings)
            }
            ok => ok,
        }
    };
    Loaded {
        sources,
        schema,
        compiled,
    }
}

impl Schema {
    /// The start without a file: everything is as it is by default, and flags say the rest.
    fn of_flags() -> Self {
        Self {
            version: Some(Spanned::new(0..0, 1)),
            form: Form::Flags,
            ..Self::default()
        }
    }

    /// Writes the flags over what is there, and answers them as a command line whose offsets begin at `base`.
    fn overlay(&mut self, flags: &Flags, base: usize) -> String {
        let mut line = CommandLine {
            base,
            text: match flags.subcommand {
                Some(subcommand) => format!("wharf {subcommand}"),
                None => "wharf".to_owned(),
            },
        };
        if !flags.backends.is_empty() {
            let endpoints: Vec<_> = line.values("--backend", &flags.backends);
            let all = span_of(&endpoints);
            let name = match flags.backends.as_slice() {
                [one] => one.clone(),
                _ => "backend".to_owned(),
            };
            self.route = vec![Spanned::new(
                all.clone(),
                Route {
                    name: Some(Spanned::new(all.clone(), "all".to_owned())),
                    path_prefix: Some(Spanned::new(all.clone(), "/".to_owned())),
                    backend: Some(Spanned::new(all.clone(), name.clone())),
                    ..Route::default()
                },
            )];
            let backend = Backend {
                endpoints: Some(Spanned::new(all.clone(), endpoints)),
                ..Backend::default()
            };
            self.backend = [(Spanned::new(all, name), backend)].into();
        }
        if !flags.listen.is_empty() {
            self.listener = line
                .values("--listen", &flags.listen)
                .into_iter()
                .map(|address| {
                    let listener = Listener {
                        address: Some(address.clone()),
                        ..Listener::default()
                    };
                    Spanned::new(address.span(), listener)
                })
                .collect();
        }
        if !flags.allow_origins.is_empty() {
            let typed = line.values("--allow-origin", &flags.allow_origins);
            self.cors.get_or_insert_default().allow_origins = Some(typed);
            self.origins_typed = true;
        }
        if let Some(workers) = &flags.workers {
            let value = line.value("--workers", workers);
            let scalar = Scalar::Text(value.get_ref().clone());
            self.process.workers = Some(Spanned::new(value.span(), scalar));
        }
        if let Some(pin) = flags.pin {
            line.value("--pin", if pin { "on" } else { "off" });
            self.process.pin_cpus = Some(pin);
        }
        line.text
    }
}

struct CommandLine {
    base: usize,
    text: String,
}

impl CommandLine {
    fn values(&mut self, flag: &str, values: &[String]) -> Vec<Spanned<String>> {
        values.iter().map(|value| self.value(flag, value)).collect()
    }

    fn value(&mut self, flag: &str, value: &str) -> Spanned<String> {
        self.text.push(' ');
        self.text.push_str(flag);
        self.text.push(' ');
        // In quotes where a shell would want them, so that the line can mostly be typed again; the caret stands below the value.
        let quote = match value {
            plain if is_plain_word(plain) => "",
            other if other.contains('\'') => "\"",
            _ => "'",
        };
        self.text.push_str(quote);
        let start = self.base + self.text.len();
        self.text.push_str(value);
        self.text.push_str(quote);
        Spanned::new(start..start + value.len(), value.to_owned())
    }
}

/// Whether a shell takes that word as it stands.
pub fn is_plain_word(word: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.,:/=@%+".contains(&b);
    !word.is_empty() && word.bytes().all(is_plain)
}

fn span_of(values: &[Spanned<String>]) -> Range<usize> {
    let start = values.first().map_or(0, |value| value.span().start);
    let end = values.last().map_or(0, |value| value.span().end);
    start..end
}

#[cfg(test)]
mod tests;
