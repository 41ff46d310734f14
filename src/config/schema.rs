//! The words of the configuration file, as serde structs. The only truth about which keys there are.
//!
//! Values that carry units or choices stay text here, with their place in the file: `compile` reads them, so that one file
//! can have all its errors told at once. `config.example.toml` mirrors this file, and a test compares them both ways.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A whole configuration, as it was written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schema {
    pub(super) version: Option<Spanned<i64>>,
    pub(super) process: Process,
    pub(super) listener: Vec<Spanned<Listener>>,
    pub(super) route: Vec<Spanned<Route>>,
    pub(super) backend: BTreeMap<Spanned<String>, Backend>,
    pub(super) cors: Option<Cors>,
    pub(super) limits: Limits,
    pub(super) health: Health,
    #[serde(skip)]
    pub(super) form: Form,
    /// The pages in `cors` were typed.
    #[serde(skip)]
    pub(super) origins_typed: bool,
}

/// Who wrote it: some defaults, and every cure, hang on that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    File,
    Flags,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Process {
    pub(super) workers: Option<Spanned<Scalar>>,
    pub(super) pin_cpus: Option<bool>,
    pub(super) drain_timeout: Option<Spanned<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listener {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) protocol: Option<Spanned<String>>,
    pub(super) trusted_proxies: Option<Vec<Spanned<String>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Route {
    pub(super) name: Option<Spanned<String>>,
    pub(super) path_prefix: Option<Spanned<String>>,
    pub(super) backend: Option<Spanned<String>>,
    pub(super) cors: Option<Cors>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Backend {
    pub(super) endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) protocol: Option<Spanned<String>>,
    pub(super) limits: BackendLimits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BackendLimits {
    pub(super) connections: Option<Spanned<Scalar>>,
    pub(super) pending: Option<Spanned<Scalar>>,
    pub(super) connect_timeout: Option<Spanned<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cors {
    pub(super) allow_origins: Option<Vec<Spanned<String>>>,
    pub(super) allow_credentials: Option<Spanned<bool>>,
    pub(super) allow_headers: Option<Spanned<WordOrList>>,
    pub(super) expose_headers: Option<Spanned<WordOrList>>,
    pub(super) max_age: Option<Spanned<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) header_bytes: Option<Spanned<Scalar>>,
    pub(super) line_bytes: Option<Spanned<Scalar>>,
    pub(super) header_fields: Option<Spanned<Scalar>>,
    pub(super) message_bytes: Option<Spanned<Scalar>>,
    pub(super) header_timeout: Option<Spanned<Scalar>>,
    pub(super) keepalive_timeout: Option<Spanned<Scalar>>,
    pub(super) stall_timeout: Option<Spanned<Scalar>>,
    pub(super) connections: Option<Spanned<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    pub(super) live: Option<Spanned<String>>,
}

/// One word that stands for what is right by itself, or a list in its place: `"mirror"`, `["x-tenant"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WordOrList {
    Word(String),
    List(Vec<Spanned<String>>),
}

/// By hand: what serde derives for a choice forgets where the texts of the list stand.
impl<'de> Deserialize<'de> for WordOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = WordOrList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of texts")
            }

            fn visit_str<E>(self, word: &str) -> Result<WordOrList, E> {
                Ok(WordOrList::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<WordOrList, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(WordOrList::List(texts))
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

/// A number, or text that means one: `"16KiB"`, `"10s"`, `"auto"`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "a number or text such as \"10s\", \"16KiB\", \"auto\""
)]
pub(super) enum Scalar {
    Number(i64),
    Text(String),
}
