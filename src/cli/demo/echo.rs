//! `demo.v1.Echo` as a backend inside the process: plain gRPC over parts, as `proto/demo.proto` declares it.
//!
//! Owns the three methods and what they refuse. It has no clock (time is what [`Answer::poll_part`] is told), keeps no state
//! between calls, and holds at most one request message (64 KiB) and one answer message per call.
//! Sources: grpc/grpc `doc/PROTOCOL-HTTP2.md` (framing, Trailers-Only), `doc/statuscodes.md` (which fault has which code).

use std::collections::VecDeque;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prost::Message;

use crate::policy::{Answer, Callee};
use crate::wire::proto::demo::{FailRequest, SayReply, SayRequest, StreamReply, StreamRequest};
use crate::wire::status::{GRPC_MESSAGE, GRPC_STATUS, encode_message};
use crate::wire::{Code, OutgoingHead, Part, Reset, ResponseHead, Status};

/// The longest request message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The most messages of one stream.
const COUNT_MAX: u32 = 10_000;
/// The longest pause between two messages of a stream.
const INTERVAL_MS_MAX: u32 = 60_000;
/// The longest `grpc-message` that `Fail` sends, before escaping.
const FAIL_MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Flags and length in front of every message.
const PREFIX_BYTES: usize = 5;

/// The backend that speaks `demo.v1.Echo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Callee for Echo {
    fn call(&self, head: &OutgoingHead) -> Box<dyn Answer> {
        let state = match Rpc::of(head) {
            Ok(rpc) => State::Listening {
                rpc,
                unread: BytesMut::new(),
            },
            Err(status) => State::failed(&status),
        };
        Box::new(Call { state })
    }
}

#[derive(Clone, Copy, Debug)]
enum Rpc {
    Say,
    Stream,
    Fail,
}

impl Rpc {
    fn of(head: &OutgoingHead) -> Result<Self, Status> {
        if head.method != Method::POST {
            return Err(Status::new(Code::INTERNAL, "a call is a POST"));
        }
        match head.path.path() {
            "/demo.v1.Echo/Say" => Ok(Self::Say),
            "/demo.v1.Echo/Stream" => Ok(Self::Stream),
            "/demo.v1.Echo/Fail" => Ok(Self::Fail),
            _ => Err(Status::new(
                Code::UNIMPLEMENTED,
                "the demo has the service demo.v1.Echo with the methods Say, Stream and Fail, and no other",
            )),
        }
    }

    /// What the one message of the request asks for.
    fn answer(self, message: &[u8]) -> Result<State, Status> {
        match self {
            Self::Say => {
                let SayRequest { text } = decode(message)?;
                Ok(State::said(&SayReply { text }))
            }
            Self::Stream => {
                let asked: StreamRequest = decode(message)?;
                within("count", asked.count, COUNT_MAX)?;
                within("interval_ms", asked.interval_ms, INTERVAL_MS_MAX)?;
                Ok(State::Streaming(Streaming {
                    text: asked.text,
                    count: asked.count,
                    interval: Duration::from_millis(asked.interval_ms.into()),
                    head_sent: false,
                    sent: 0,
                    due: None,
                }))
            }
            Self::Fail => {
                let FailRequest { code, mut message } = decode(message)?;
                if !(1..=16).contains(&code) {
                    return Err(Status::new(
                        Code::INVALID_ARGUMENT,
                        format!("code is {code}; an error's code is 1 to 16"),
                    ));
                }
                message.truncate(message.floor_char_boundary(FAIL_MESSAGE_BYTES_MAX));
                Ok(State::failed(&Status::new(Code::new(code), message)))
            }
        }
    }
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<M, Status> {
    M::decode(message).map_err(|fault| {
        Status::new(
            Code::INTERNAL,
            format!("not the request's message: {fault}"),
        )
    })
}

fn within(field: &str, value: u32, max: u32) -> Result<(), Status> {
    if value <= max {
        return Ok(());
    }
    let message = format!("{field} is {value}; the most is {max}");
    Err(Status::new(Code::INVALID_ARGUMENT, message))
}

/// One call in progress.
#[derive(Debug)]
struct Call {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The request is not whole yet.
    Listening { rpc: Rpc, unread: BytesMut },
    /// Everything that is left to say, ready.
    Answering(VecDeque<Part>),
    /// Messages by and by.
    Streaming(Streaming),
}

#[derive(Debug)]
struct Streaming {
    text: String,
    count: u32,
    interval: Duration,
    head_sent: bool,
    sent: u32,
    /// When the next message may go. `None`: at once.
    due: Option<Instant>,
}

impl Answer for Call {
    fn handle_part(&mut self, part: Part) {
        let State::Listening { rpc, unread } = &mut self.state else {
            return; // The answer is decided; what else the client says cannot change it.
        };
        let rpc = *rpc;
        let decided = match part {
            Part::Head(_) => return,
            Part::Data(bytes) => {
                // One byte more than is allowed is enough to refuse it.
                let room = (PREFIX_BYTES + MESSAGE_BYTES_MAX + 1).saturating_sub(unread.len());
                unread.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
                match message(unread) {
                    Err(status) => Err(status),
                    Ok(_) => return,
                }
            }
            Part::End(_) => match message(unread) {
                Ok(Some(message)) => rpc.answer(message),
                Ok(None) if unread.is_empty() => Err(cardinality("no message")),
                Ok(None) => Err(Status::new(
                    Code::INTERNAL,
                    "the request ended inside a message",
                )),
                Err(status) => Err(status),
            },
        };
        self.state = decided.unwrap_or_else(|status| State::failed(&status));
    }

    fn poll_part(&mut self, now: Instant) -> Poll<Result<Part, Reset>> {
        let part = match &mut self.state {
            State::Listening { .. } => return Poll::Pending,
            // The end is sticky.
            State::Answering(parts) => parts.pop_front().unwrap_or(Part::End(None)),
            State::Streaming(stream) => match stream.next(now) {
                Some(part) => part,
                None if stream.sent < stream.count => return Poll::Pending,
                None => {
                    self.state = State::Answering(VecDeque::new());
                    ok_end()
                }
            },
        };
        Poll::Ready(Ok(part))
    }

    fn wake_at(&self) -> Option<Instant> {
        match &self.state {
            State::Streaming(stream) if stream.sent < stream.count => stream.due,
            _ => None,
        }
    }
}

impl Streaming {
    /// The head, or the message that is due now.
    fn next(&mut self, now: Instant) -> Option<Part> {
        if !self.head_sent {
            self.head_sent = true;
            return Some(ok_head());
        }
        if self.sent >= self.count || self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.sent += 1;
        self.due = now.checked_add(self.interval);
        Some(Part::Data(envelope(&StreamReply {
            text: self.text.clone(),
            number: self.sent,
        })))
    }
}

impl State {
    /// One message, then OK.
    fn said(reply: &impl Message) -> Self {
        Self::Answering([ok_head(), Part::Data(envelope(reply)), ok_end()].into())
    }

    /// An error and no message: gRPC's Trailers-Only.
    fn failed(status: &Status) -> Self {
        let mut head = ResponseHead::new(StatusCode::OK);
        head.end = true;
        head.headers = trailers(status);
        head.headers.insert(CONTENT_TYPE, GRPC);
        Self::Answering([Part::Head(Box::new(head)), Part::End(None)].into())
    }
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc+proto");
/// So that a page can see metadata arrive with an error.
const DEMO_TRAILER: HeaderName = HeaderName::from_static("demo-trailer");

fn ok_head() -> Part {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.insert(CONTENT_TYPE, GRPC);
    Part::Head(Box::new(head))
}

fn ok_end() -> Part {
    Part::End(Some(Box::new(trailers(&Status::new(Code::OK, "")))))
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, status.code.number().into());
    if status.code != Code::OK {
        trailers.insert(GRPC_MESSAGE, encode_message(&status.message));
        trailers.insert(
            DEMO_TRAILER,
            HeaderValue::from_static("sent with the error"),
        );
    }
    trailers
}

fn envelope(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    // A reply is hardly longer than its request, of which there are 64 KiB.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_slice(&message.encode_to_vec());
    out.freeze()
}

/// The one message of a request, if it is whole; what is wrong with it, as soon as that can be seen.
fn message(unread: &[u8]) -> Result<Option<&[u8]>, Status> {
    let Some((&[flags, ref length @ ..], after)) = unread.split_first_chunk::<PREFIX_BYTES>()
    else {
        // Nothing may follow the message, so flags alone are worth a look.
        return unread
            .first()
            .map_or(Ok(None), |&flags| plain(flags).map(|()| None));
    };
    plain(flags)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Status::new(
            Code::RESOURCE_EXHAUSTED,
            format!("the message has {length} bytes; the demo takes {MESSAGE_BYTES_MAX}"),
        ));
    }
    match after.split_at_checked(length) {
        None => Ok(None),
        Some((message, [])) => Ok(Some(message)),
        Some(_) => Err(cardinality("more than one message")),
    }
}

fn plain(flags: u8) -> Result<(), Status> {
    match flags {
        0 => Ok(()),
        1 => Err(Status::new(
            Code::UNIMPLEMENTED,
            "the demo reads no compressed messages",
        )),
        _ => Err(Status::new(
            Code::INTERNAL,
            "reserved flags in front of a message",
        )),
    }
}

fn cardinality(came: &str) -> Status {
    Status::new(
        Code::UNIMPLEMENTED,
        format!("this method takes exactly one message; {came} came"),
    )
}

#[cfg(test)]
mod tests;
