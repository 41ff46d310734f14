//! The head of a request for as long as its call is open.
//!
//! Owns how little of it is held when only a record will ask for it again. It never decides when that is so.

use std::cell::OnceCell;
use std::ops::Deref;

use bytes::Bytes;
use http::header::HeaderValue;
use http::uri::PathAndQuery;
use http::{HeaderName, Method};

use crate::wire::fields::WHO_ASKS;
use crate::wire::{Fields, RequestHead};

/// A request's head: whole, or folded to what a record tells. Whoever looks sees a head; one that was folded is then held
/// unfolded as well, so it is looked at when the call is over.
#[derive(Debug)]
pub struct Head(State);

#[derive(Debug)]
enum State {
    Whole(Box<RequestHead>),
    Folded(Box<Folded>),
}

/// Verb, path, and who asks.
#[derive(Debug)]
struct Folded {
    method: Method,
    /// The path, then the values, in one piece of memory that holds nothing else.
    texts: Box<[u8]>,
    path_bytes: u32,
    /// How long each value is; [`ABSENT`]: there is none.
    value_bytes: [u32; WHO_ASKS.len()],
    /// There since somebody has looked.
    unfolded: OnceCell<Box<RequestHead>>,
}

const ABSENT: u32 = u32::MAX;

impl Head {
    /// Lets go of all but verb, path, and the fields that say who asks.
    pub(super) fn fold(&mut self) {
        let State::Whole(head) = &self.0 else {
            return;
        };
        let path = head.path.as_str().as_bytes();
        let value = |name: &HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
        let values = WHO_ASKS.each_ref().map(value);
        let bytes = values
            .iter()
            .flatten()
            .map(|value| value.len())
            .sum::<usize>();
        let mut texts = Vec::with_capacity(path.len() + bytes);
        texts.extend_from_slice(path);
        values
            .iter()
            .flatten()
            .for_each(|value| texts.extend_from_slice(value));
        // Heads are bounded far below what these numbers can say.
        let length = |text: &[u8]| text.len() as u32;
        self.0 = State::Folded(Box::new(Folded {
            method: head.method.clone(),
            path_bytes: length(path),
            value_bytes: values.map(|value| value.map_or(ABSENT, length)),
            texts: texts.into_boxed_slice(),
            unfolded: OnceCell::new(),
        }));
    }
}

impl Folded {
    fn unfold(&self) -> RequestHead {
        let mut texts = Bytes::copy_from_slice(&self.texts);
        let path = texts.split_to(self.path_bytes as usize);
        let mut headers = Fields::default();
        for (name, &bytes) in WHO_ASKS.iter().zip(&self.value_bytes) {
            if bytes != ABSENT
                && let Ok(value) = HeaderValue::from_maybe_shared(texts.split_to(bytes as usize))
            {
                headers.append(name.clone(), value);
            }
        }
        RequestHead {
            method: self.method.clone(),
            // It was one when it was folded.
            path: PathAndQuery::from_maybe_shared(path)
                .unwrap_or_else(|_| PathAndQuery::from_static("/")),
            authority: None,
            headers,
        }
    }
}

impl From<RequestHead> for Head {
    fn from(head: RequestHead) -> Self {
        Self(State::Whole(Box::new(head)))
    }
}

impl Deref for Head {
    type Target = RequestHead;

    fn deref(&self) -> &RequestHead {
        match &self.0 {
            State::Whole(head) => head,
            State::Folded(folded) => folded.unfolded.get_or_init(|| Box::new(folded.unfold())),
        }
    }
}

#[cfg(test)]
impl std::ops::DerefMut for Head {
    fn deref_mut(&mut self) -> &mut RequestHead {
        match &mut self.0 {
            State::Whole(head) => head,
            State::Folded(_) => panic!("nobody changes a head that was folded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_folded_comes_out_as_it_went_in() {
        let [origin, _, library] = &WHO_ASKS;
        let mut headers = Fields::default();
        for (name, value) in [
            (&http::header::ACCEPT, "let go"),
            (library, "grpc-web-javascript/0.1"),
            (origin, ""),
            (origin, "only the first is told"),
        ] {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        let mut head = Head::from(RequestHead {
            method: Method::POST,
            path: PathAndQuery::from_static("/a.B/C?cut=off"),
            authority: Some("a:80".parse().unwrap()),
            headers,
        });
        head.fold();
        head.fold();
        assert_eq!(
            (&head.method, head.path.as_str()),
            (&Method::POST, "/a.B/C?cut=off")
        );
        assert_eq!(head.authority, None);
        let told: Vec<_> = head.headers.iter().collect();
        let (origin_said, library_said) = (
            HeaderValue::from_static(""),
            HeaderValue::from_static("grpc-web-javascript/0.1"),
        );
        assert_eq!(told, [(origin, &origin_said), (library, &library_said)]);
    }
}
