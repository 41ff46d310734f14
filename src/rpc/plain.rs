//! HTTP that is no RPC: parts pass as they are.
//!
//! Owns the one thing that an identity still must know: whether the answer's head has left, because after it there is no way to
//! say that something went wrong but to cut.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::rpc::ending::{Closing, Ending};
use crate::wire::{Code, Fields, Part, Reason, Reset, ResponseHead, Status};

/// The answer's direction.
#[derive(Debug, Default)]
pub(super) struct PlainResponse {
    phase: Phase,
    bytes: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Waiting,
    Streaming,
    Ended,
}

impl PlainResponse {
    pub(super) fn translate(
        &mut self,
        part: Part,
        out: &mut impl FnMut(Part),
    ) -> Result<Option<Ending>, Reset> {
        match (&self.phase, &part) {
            (Phase::Ended, _) => return Ok(None),
            (Phase::Waiting, Part::Head(_)) => self.phase = Phase::Streaming,
            (Phase::Streaming, Part::Data(data)) => self.bytes += data.len() as u64,
            (Phase::Streaming, Part::End(_)) => {
                self.phase = Phase::Ended;
                out(part);
                return Ok(Some(Ending {
                    status: Status::new(Code::OK, ""),
                    reason: Reason::Ok,
                }));
            }
            (Phase::Waiting, _) => return Err(broken("the answer does not begin with a head")),
            (Phase::Streaming, Part::Head(_)) => return Err(broken("the answer has two heads")),
        }
        out(part);
        Ok(None)
    }

    pub(super) fn end(&mut self, status: &Status, out: &mut impl FnMut(Part)) -> Closing {
        match self.phase {
            Phase::Ended => return Closing::Ended,
            Phase::Streaming => return Closing::Cut,
            Phase::Waiting => self.phase = Phase::Ended,
        }
        let body = if status.message.is_empty() {
            format!("{}\n", status.code)
        } else {
            format!("{}\n", status.message)
        };
        let mut head = ResponseHead::new(status.code.to_http());
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        head.headers.insert(CONTENT_TYPE, text);
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        out(Part::Head(Box::new(head)));
        self.bytes += body.len() as u64;
        out(Part::Data(Bytes::from(body)));
        out(Part::End(None));
        Closing::Ended
    }

    pub(super) fn head_sent(&self) -> bool {
        self.phase != Phase::Waiting
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Gives back what the metadata rules for RPCs take away, and a page needs.
pub(super) fn request_fields(original: &Fields, forwarded: &mut HeaderMap) {
    for name in [
        CONTENT_TYPE,
        http::header::ACCEPT,
        http::header::ACCEPT_ENCODING,
    ] {
        if !forwarded.contains_key(&name) {
            for value in original.get_all(&name) {
                forwarded.append(&name, value.clone());
            }
        }
    }
}

const fn broken(detail: &'static str) -> Reset {
    Reset::upstream(Reason::BackendProtocol(detail))
}
