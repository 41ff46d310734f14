//! gRPC as its own clients speak it over HTTP/2. Messages, heads and trailers pass as they came; both codecs look at them only to
//! know where a message ends and what the call came to.
//!
//! Owns what may differ from what came: a status that no client would understand, fields that belong to one connection, and
//! answers that are our own, which are trailers-only or trailers. It never packs or unpacks a message, and never judges an answer:
//! `answer` does.
//!
//! Source: grpc/grpc `doc/PROTOCOL-HTTP2.md` (Requests, Responses).

use std::mem;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::rpc::answer::{Answer, OwnType, Told, Writer, append_all, initial_metadata};
use crate::rpc::gate::{Compressed, Gate};
use crate::rpc::media_type::{self, MediaType};
use crate::wire::metadata::{crosses_to_client, forward_response};
use crate::wire::status::{GRPC_MESSAGE, GRPC_STATUS};
use crate::wire::{Code, Fields, Part, Reason, Reset, ResponseHead};

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// The request's direction.
#[derive(Debug)]
pub(super) struct GrpcRequest {
    gate: Gate,
}

impl GrpcRequest {
    pub(super) fn new(message_bytes_max: u32) -> Self {
        Self {
            // Whether `grpc-encoding` fits is for the backend to say.
            gate: Gate::new(Compressed::Allowed, message_bytes_max),
        }
    }

    /// What describes the call is for the backend as the caller wrote it; all of it but these crosses anyway.
    pub(super) fn request_fields(original: &Fields, forwarded: &mut HeaderMap) {
        if let Some(content_type) = original.get(CONTENT_TYPE) {
            forwarded.insert(CONTENT_TYPE, content_type.clone());
        }
        forwarded.insert(TE, TRAILERS);
    }

    pub(super) fn data(&mut self, data: Bytes, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        let message_bytes_max = self.gate.message_bytes_max();
        self.gate
            .pass(data, &mut |data| out(Part::Data(data)))
            .map_err(|fault| fault.of_request(message_bytes_max))
    }

    /// The request's own trailers, if any, go nowhere: gRPC has none.
    pub(super) fn end(&self, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        if !self.at_boundary() {
            return Err(Reset::downstream(Reason::ClientProtocol(
                "the request ends inside a message",
            )));
        }
        out(Part::End(None));
        Ok(())
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.gate.is_whole()
    }

    pub(super) fn messages(&self) -> u64 {
        self.gate.messages()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.gate.bytes()
    }
}

/// The answer's direction.
pub(super) type GrpcResponse = Answer<GrpcWriter>;

/// How an answer is written.
#[derive(Debug)]
pub(super) struct GrpcWriter {
    own_content_type: OwnType,
    gate: Gate,
}

impl GrpcWriter {
    pub(super) fn new(request: &Fields, message_bytes_max: u32) -> Self {
        Self {
            own_content_type: OwnType::of(request, media_type::grpc),
            gate: Gate::new(Compressed::Refused, message_bytes_max),
        }
    }

    /// Trailers-only.
    fn send_alone(mut head: Box<ResponseHead>, told: &Told, out: &mut impl FnMut(Part)) {
        write(told, &mut head.headers);
        head.status = StatusCode::OK;
        head.end = true;
        out(Part::Head(head));
        out(Part::End(None));
    }
}

impl Writer for GrpcWriter {
    /// It stays in its field.
    type ContentType = ();

    fn content_type(&self, _backend: MediaType<'_>) {}

    fn head(&mut self, mut head: Box<ResponseHead>, (): (), out: &mut impl FnMut(Part)) {
        let kind = Kind::of(&head.headers);
        if kind.packs {
            // Which codings it reads the caller has told the backend itself.
            let message_bytes_max = self.gate.message_bytes_max();
            self.gate = Gate::new(Compressed::Allowed, message_bytes_max);
        }
        if !kind.is_initial {
            head.headers = crossing(mem::take(&mut head.headers), initial_metadata);
        }
        head.end = false;
        out(Part::Head(head));
    }

    fn data(&mut self, data: Bytes, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        let message_bytes_max = self.gate.message_bytes_max();
        self.gate
            .pass(data, &mut |data| out(Part::Data(data)))
            .map_err(|fault| fault.of_answer(message_bytes_max))
    }

    fn end(&mut self, told: &Told, mut trailers: Box<HeaderMap>, out: &mut impl FnMut(Part)) {
        write(told, &mut trailers);
        out(Part::End(Some(trailers)));
    }

    fn alone(
        &mut self,
        mut head: Box<ResponseHead>,
        trailers: HeaderMap,
        told: &Told,
        out: &mut impl FnMut(Part),
    ) {
        head.headers = crossing(mem::take(&mut head.headers), forward_response);
        append_all(&mut head.headers, forward_response(trailers));
        Self::send_alone(head, told, out);
    }

    fn whole(
        &mut self,
        head_fields: HeaderMap,
        end_fields: HeaderMap,
        told: &Told,
        out: &mut impl FnMut(Part),
    ) {
        let mut head = Box::new(ResponseHead::new(StatusCode::OK));
        head.headers = head_fields;
        append_all(&mut head.headers, end_fields);
        let content_type = self.own_content_type.value(media_type::grpc);
        head.headers.insert(CONTENT_TYPE, content_type);
        Self::send_alone(head, told, out);
    }

    fn is_whole(&self) -> bool {
        self.gate.is_whole()
    }

    fn is_aligned(&self) -> bool {
        self.gate.is_aligned()
    }

    fn messages(&self) -> u64 {
        self.gate.messages()
    }

    fn bytes(&self) -> u64 {
        self.gate.bytes()
    }

    /// HTTP/2 carries every value that it has brought.
    fn dropped_fields(&self) -> u32 {
        0
    }
}

/// What matters of the head of an answer that goes on, found in one walk.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kind {
    /// All of it crosses, with its one content type.
    is_initial: bool,
    /// Messages may be compressed.
    packs: bool,
}

impl Kind {
    fn of(fields: &HeaderMap) -> Self {
        let mut types = 0;
        let mut crosses = true;
        let mut coding = None;
        for (name, value) in fields {
            match name.as_str() {
                "content-type" => types += 1,
                "grpc-status" | "grpc-message" | "grpc-status-details-bin" => crosses = false,
                "grpc-encoding" => {
                    coding.get_or_insert(value.as_bytes());
                }
                _ => crosses = crosses && crosses_to_client(name),
            }
        }
        Self {
            is_initial: crosses && types == 1,
            packs: coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")),
        }
    }
}

/// Those fields of a backend's head that `cross`, with its first content type, which the caller reads as it is.
fn crossing(mut fields: HeaderMap, cross: impl Fn(HeaderMap) -> HeaderMap) -> HeaderMap {
    let content_type = fields.remove(CONTENT_TYPE);
    let mut fields = cross(fields);
    if let Some(content_type) = content_type {
        fields.insert(CONTENT_TYPE, content_type);
    }
    fields
}

/// Makes a section say what is told. What a backend has said so stays as it came.
fn write(told: &Told, fields: &mut HeaderMap) {
    let message = told.message().map(|message| &message[..]);
    let (mut statuses, mut messages, mut stands) = (0, 0, true);
    for (name, value) in fields.iter() {
        match name.as_str() {
            "grpc-status" => {
                statuses += 1;
                stands = stands && says(value, told.code());
            }
            "grpc-message" => {
                messages += 1;
                stands = stands && message == Some(value.as_bytes());
            }
            _ => {}
        }
    }
    if stands && statuses == 1 && messages == usize::from(message.is_some()) {
        return;
    }
    fields.insert(GRPC_STATUS, HeaderValue::from(told.code().number()));
    let message = told.message().cloned();
    // It is printable ASCII, which a field may hold.
    match message.and_then(|message| HeaderValue::from_maybe_shared(message).ok()) {
        Some(message) => fields.insert(GRPC_MESSAGE, message),
        None => fields.remove(GRPC_MESSAGE),
    };
}

/// Whether a `grpc-status` says that code in the specification's spelling. What has another is read as UNKNOWN.
fn says(value: &HeaderValue, code: Code) -> bool {
    Code::from_header(value) == code && (code != Code::UNKNOWN || value == "2")
}
