//! The keys of `[cors]` and `[route.cors]`: which pages may call, what they may send and read.
//!
//! Owns how the two go together: a key that a route does not write is that of `[cors]`. And it sees to it that nobody can act
//! as whoever has signed in because all the web was let in.

use std::ops::Range;
use std::time::Duration;

use http::HeaderName;
use toml::Spanned;

use crate::config::compile::{Compiler, CorsRule, DAY, PagesRule};
use crate::config::error::Finding;
use crate::config::schema::{self, Form, WordOrList};
use crate::config::units;
use crate::policy::{Cors, Listener, OriginPattern, OriginsFrom};

/// What holds for pages, as it was written or by default.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    origins: Vec<OriginPattern>,
    origins_from: OriginsFrom,
    /// Nothing was said of origins, so those of this machine are let in.
    loopback: bool,
    /// Where `"*"` stands.
    star: Option<Range<usize>>,
    credentials: bool,
    /// `None`: what is asked for.
    sends: Option<Vec<HeaderName>>,
    /// The table that says so.
    sends_from: String,
    /// `None`: what stands on the answer.
    reads: Option<Vec<HeaderName>>,
    max_age: Duration,
    place: String,
    on_loopback: bool,
}

impl Pages {
    /// The filter that obeys it.
    pub(super) fn filter(&self) -> Cors {
        let mut cors = Cors::new(self.origins.clone(), self.origins_from.clone())
            .with_credentials(self.credentials)
            .remembered_for(self.max_age)
            .naming_fields_in(self.sends_from.as_str());
        if let Some(names) = &self.sends {
            cors = cors.letting_send(names.iter().cloned());
        }
        if let Some(names) = &self.reads {
            cors = cors.letting_read(names.iter().cloned());
        }
        cors
    }

    /// For people.
    pub(super) fn rule(&self) -> PagesRule {
        let pages = if self.loopback {
            CorsRule::Loopback
        } else if self.origins.is_empty() {
            CorsRule::Nobody
        } else {
            CorsRule::Origins(self.origins.iter().map(ToString::to_string).collect())
        };
        // Where nobody may call, nobody does so with credentials.
        let credentials = self.credentials && pages != CorsRule::Nobody;
        PagesRule { pages, credentials }
    }
}

impl Compiler<'_> {
    /// What holds for pages wherever a route says nothing else.
    pub(super) fn pages(&mut self, listeners: &[Listener]) -> Pages {
        let on_loopback = listeners
            .iter()
            .all(|listener| listener.address.ip().is_loopback());
        let none = schema::Cors::default();
        let written = self.schema.cors.as_ref().unwrap_or(&none);
        let loopback =
            written.allow_origins.is_none() && self.schema.form == Form::Flags && on_loopback;
        let origins = if loopback {
            let patterns = OriginPattern::LOOPBACK.iter();
            patterns.filter_map(|text| text.parse().ok()).collect()
        } else {
            Vec::new()
        };
        let place = "[cors]".to_owned();
        let origins_from = match (self.schema.form, self.schema.origins_typed) {
            (Form::Flags, _) if loopback => OriginsFrom::Loopback,
            (Form::Flags, _) => OriginsFrom::Flags,
            (Form::File, true) => OriginsFrom::FlagsOverFile,
            (Form::File, false) if self.schema.cors.is_none() => OriginsFrom::NoTable,
            (Form::File, false) => OriginsFrom::Table(place.as_str().into()),
        };
        let default = Pages {
            origins,
            origins_from,
            loopback,
            star: None,
            credentials: false,
            sends: None,
            sends_from: place.clone(),
            reads: None,
            max_age: MAX_AGE,
            place,
            on_loopback,
        };
        self.over(default, written)
    }

    /// What holds for pages on one route.
    pub(super) fn pages_of(&mut self, route: &str, written: &schema::Cors, all: &Pages) -> Pages {
        // What it takes over is mended where it is written: a list of its own would stand in place of that for all.
        let mut own = Pages {
            place: format!("[route.cors] of route {route:?}"),
            ..all.clone()
        };
        if written.allow_origins.is_some() {
            own.origins_from = OriginsFrom::Table(own.place.as_str().into());
            own.loopback = false;
        }
        if written.allow_headers.is_some() {
            own.sends_from.clone_from(&own.place);
        }
        self.over(own, written)
    }

    /// The keys that are written go over those that hold without them.
    fn over(&mut self, mut pages: Pages, written: &schema::Cors) -> Pages {
        if let Some(origins) = &written.allow_origins {
            (pages.origins, pages.star) = self.origins(origins, pages.on_loopback);
        }
        if let Some(credentials) = &written.allow_credentials {
            pages.credentials = *credentials.get_ref();
        }
        if let Some(headers) = &written.allow_headers {
            pages.sends = self.names(headers, "allow_headers", "mirror");
        }
        if let Some(headers) = &written.expose_headers {
            pages.reads = self.names(headers, "expose_headers", "auto");
        }
        let max_age = self.read(&written.max_age, |value| {
            units::duration(value, Duration::ZERO..=DAY)
        });
        pages.max_age = max_age.unwrap_or(pages.max_age);
        self.check_credentials(&pages, written);
        pages
    }

    fn check_credentials(&mut self, pages: &Pages, written: &schema::Cors) {
        // A route that changes neither of the two has been told of them at `[cors]`.
        if !pages.credentials
            || (written.allow_origins.is_none() && written.allow_credentials.is_none())
        {
            return;
        }
        let here = || written.allow_credentials.as_ref().map(Spanned::span);
        let find = |text: &str| {
            let origins = written.allow_origins.iter().flatten();
            let mut spans = origins.filter(|origin| origin.get_ref() == text);
            spans.next().map(Spanned::span).or_else(here)
        };
        if let Some(star) = &pages.star {
            let at = find("*").unwrap_or_else(|| star.clone());
            self.findings.push(
                Finding::error(
                    "E114",
                    format!(
                        "allow_credentials and the origin \"*\" do not go together in {}",
                        pages.place
                    ),
                )
                .at(
                    at,
                    "any page of the web could call as whoever is signed in",
                )
                .help(
                    "name the origins of your pages, e.g. \"https://app.example.com\" or \"https://*.example.com\", or \
                     leave out allow_credentials",
                ),
            );
        }
        if let Some(at) = here().filter(|_| self.nobody_uses_credentials(pages, written)) {
            self.findings.push(
                Finding::warning("E157", "no page is named, so allow_credentials does nothing")
                    .at(at, "for nobody")
                    .help("name your pages in allow_origins, e.g. [\"https://app.example.com\"], or leave it out"),
            );
        }
        let null = OriginPattern::Exact("null".into());
        if pages.origins.contains(&null)
            && let Some(at) = find("null")
        {
            let label = match &written.allow_origins {
                Some(_) => "no page's own origin",
                None => "while \"null\" may call",
            };
            self.findings.push(
                Finding::warning(
                    "E155",
                    "any file and any sandboxed frame may call as whoever is signed in",
                )
                .at(at, label)
                .help("leave out \"null\", or allow_credentials"),
            );
        }
    }

    /// Credentials are allowed by these keys, and to no page, neither by them nor on a route that takes them over.
    fn nobody_uses_credentials(&self, pages: &Pages, written: &schema::Cors) -> bool {
        let names_pages =
            |cors: &schema::Cors| cors.allow_origins.iter().flatten().next().is_some();
        let for_all = self.schema.cors.as_ref();
        let is_for_all = for_all.is_some_and(|own| std::ptr::eq(written, own));
        let routes = self.schema.route.iter();
        let mut routes = routes.filter_map(|route| route.get_ref().cors.as_ref());
        pages.origins.is_empty()
            && !names_pages(written)
            && !(is_for_all && routes.any(names_pages))
    }

    fn origins(
        &mut self,
        written: &[Spanned<String>],
        on_loopback: bool,
    ) -> (Vec<OriginPattern>, Option<Range<usize>>) {
        let mut patterns = Vec::new();
        let mut star = None;
        for origin in written {
            let pattern: OriginPattern = match origin.get_ref().parse() {
                Ok(pattern) => pattern,
                Err(fault) => {
                    let fault: crate::policy::OriginFault = fault;
                    self.findings.push(
                        Finding::error("E111", format!("{:?} is no origin", origin.get_ref()))
                            .at(origin.span(), "not an origin")
                            .help(fault.0),
                    );
                    continue;
                }
            };
            if pattern == OriginPattern::Any {
                star = Some(origin.span());
                if !on_loopback {
                    self.findings.push(
                        Finding::warning(
                            "E153",
                            "every page of the web may call, and not only from this machine",
                        )
                        .at(origin.span(), "every origin")
                        .help("name the origins of your pages instead"),
                    );
                }
            }
            if let Some(domain) = pattern.top_level() {
                self.findings.push(
                    Finding::warning(
                        "E154",
                        format!("every page of every site below .{domain} may call"),
                    )
                    .at(origin.span(), "hardly one owner's")
                    .help(format!(
                        "name your own, e.g. \"https://*.example.{domain}\""
                    )),
                );
            }
            if !patterns.contains(&pattern) {
                patterns.push(pattern);
            }
        }
        (patterns, star)
    }

    /// Names of fields; `None` where the word stands that leaves it to wharf.
    fn names(
        &mut self,
        written: &Spanned<WordOrList>,
        key: &str,
        word: &str,
    ) -> Option<Vec<HeaderName>> {
        let list = match written.get_ref() {
            WordOrList::Word(own) if own == word => return None,
            WordOrList::Word(own) => {
                self.findings.push(
                    Finding::error("E107", format!("{own:?} is no value for this setting"))
                        .at(written.span(), "not usable")
                        .help(format!(
                            "write {key} = {word:?}, or a list: {key} = [{}]",
                            as_list(own)
                        )),
                );
                return None;
            }
            WordOrList::List(list) => list,
        };
        let mut names = Vec::new();
        for text in list {
            let name = HeaderName::try_from(text.get_ref()).ok();
            // To a browser it is every name, but with credentials it is none: that would be a riddle.
            match name.filter(|name| name != "*") {
                Some(name) => names.push(name),
                None => self.findings.push(
                    Finding::error("E116", format!("{:?} is no field name", text.get_ref()))
                        .at(text.span(), "not a name")
                        .help(format!(
                            "write names alone, e.g. {key} = [\"x-own\"]; every one is {key} = {word:?}"
                        )),
                ),
            }
        }
        Some(names)
    }
}

/// The elements of the list that was meant by one text of names; an example, if it holds none.
fn as_list(text: &str) -> String {
    // These are words for all or nothing, and names of no field.
    const WORDS: [&str; 7] = ["*", "all", "any", "none", "auto", "mirror", "expose"];
    let is_name = |name: &&str| !WORDS.contains(name) && HeaderName::try_from(*name).is_ok();
    let names: Vec<_> = text
        .split([',', ' '])
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() || !names.iter().all(is_name) {
        return "\"x-own\"".to_owned();
    }
    format!("\"{}\"", names.join("\", \""))
}

/// The longest that Chromium keeps a preflight's answer.
const MAX_AGE: Duration = Duration::from_hours(2);
