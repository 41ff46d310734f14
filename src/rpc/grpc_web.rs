//! gRPC-Web to gRPC and back. Messages are the same on both sides and pass untouched; what differs is the end: gRPC's trailer
//! section becomes one frame with flag 0x80, the last bytes of the body.
//!
//! Owns the shape of a gRPC-Web answer: HTTP 200, whatever happened; exactly one trailer frame, last; no `grpc-status` in the
//! head. That is the only shape that all client libraries read rightly. It never judges an answer: `answer` does.
//!
//! Sources: grpc/grpc `doc/PROTOCOL-WEB.md`, `doc/compression.md`.

use std::mem;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::rpc::answer::{
    Answer, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, OwnType, Said, Told, Writer, initial_metadata,
    split_fields,
};
use crate::rpc::dialect::Form;
use crate::rpc::gate::{Compressed, Gate};
use crate::rpc::grpc::GrpcRequest;
use crate::rpc::grpc_web_text::{TextIn, TextOut};
use crate::rpc::inflate::{Coding, Inflater};
use crate::rpc::media_type::{self, MediaType};
use crate::rpc::trailer_frame::TrailerFrame;
use crate::wire::metadata::crosses_to_client;
use crate::wire::{Fields, Part, Reset, ResponseHead};

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// The request's direction.
#[derive(Debug)]
pub(super) struct GrpcWebRequest {
    text: Option<TextIn>,
    plain: GrpcRequest,
}

impl GrpcWebRequest {
    pub(super) fn new(form: Form, message_bytes_max: u32) -> Self {
        Self {
            text: match form {
                Form::Binary => None,
                Form::Text => Some(TextIn::default()),
            },
            plain: GrpcRequest::new(message_bytes_max),
        }
    }

    pub(super) fn request_fields(original: &Fields, forwarded: &mut HeaderMap) {
        let suffix = original
            .get(CONTENT_TYPE)
            .and_then(|value| MediaType::parse(value).suffix());
        forwarded.insert(CONTENT_TYPE, media_type::grpc(suffix));
        forwarded.insert(TE, TRAILERS);
        forwarded.entry(GRPC_ACCEPT_ENCODING).or_insert(IDENTITY);
    }

    pub(super) fn data(&mut self, data: Bytes, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        let data = match &mut self.text {
            None => data,
            Some(text) => text.decode(&data)?,
        };
        self.plain.data(data, out)
    }

    pub(super) fn end(&self, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        if let Some(text) = &self.text {
            text.finish()?;
        }
        self.plain.end(out)
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.plain.at_boundary() && self.text.as_ref().is_none_or(|text| text.finish().is_ok())
    }

    pub(super) fn messages(&self) -> u64 {
        self.plain.messages()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.plain.bytes()
    }
}

/// The answer's direction.
pub(super) type GrpcWebResponse = Answer<GrpcWebWriter>;

/// How an answer is written.
#[derive(Debug)]
pub(super) struct GrpcWebWriter {
    form: Form,
    /// For an answer that is our own: the backend's suffix is not known then.
    own_content_type: OwnType,
    /// The request's `grpc-accept-encoding`. Browsers have none.
    accepted: Vec<HeaderValue>,
    message_bytes_max: u32,
    flow: Flow,
    text: TextOut,
    dropped_fields: u32,
}

/// How messages go through.
#[derive(Debug)]
enum Flow {
    Pass(Gate),
    Inflate(Box<Inflater>),
}

impl GrpcWebWriter {
    pub(super) fn new(form: Form, request: &Fields, message_bytes_max: u32) -> Self {
        Self {
            form,
            own_content_type: OwnType::of(request, |suffix| media_type::grpc_web(form, suffix)),
            accepted: request.get_all(GRPC_ACCEPT_ENCODING).cloned().collect(),
            message_bytes_max,
            flow: Flow::Pass(Gate::new(Compressed::Refused, message_bytes_max)),
            text: TextOut::default(),
            dropped_fields: 0,
        }
    }

    /// Compressed messages pass to a caller who named their coding, and are unpacked for any other.
    fn choose_flow(&mut self, fields: &mut HeaderMap) {
        let Some(encoding) = fields.get(GRPC_ENCODING) else {
            return;
        };
        let Some(coding) = Coding::parse(encoding) else {
            return;
        };
        if names(&self.accepted, encoding) {
            self.flow = Flow::Pass(Gate::new(Compressed::Allowed, self.message_bytes_max));
        } else {
            self.flow = Flow::Inflate(Box::new(Inflater::new(coding, self.message_bytes_max)));
            fields.remove(GRPC_ENCODING);
        }
    }

    /// A whole answer in one go: a head with a length, the frame, the end.
    fn send_whole(
        &mut self,
        head_fields: HeaderMap,
        content_type: HeaderValue,
        frame: TrailerFrame,
        out: &mut impl FnMut(Part),
    ) {
        self.dropped_fields = self.dropped_fields.saturating_add(frame.dropped_fields);
        let body = self.written(frame);
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers = head_fields;
        head.headers.insert(CONTENT_TYPE, content_type);
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        out(Part::Head(Box::new(head)));
        out(Part::Data(body));
        out(Part::End(None));
    }

    /// A frame as the caller's form writes it.
    fn written(&mut self, frame: TrailerFrame) -> Bytes {
        match self.form {
            Form::Binary => frame.bytes,
            Form::Text => self.text.frame(frame),
        }
    }
}

impl Writer for GrpcWebWriter {
    type ContentType = HeaderValue;

    /// gRPC-Web's content type with the suffix of the backend's, for `grpc+json` must not become proto on the way.
    fn content_type(&self, backend: MediaType<'_>) -> HeaderValue {
        media_type::grpc_web(self.form, backend.suffix())
    }

    /// Our head for a backend's gRPC head. It leaves at once: a page's `fetch` resolves by it.
    fn head(
        &mut self,
        mut head: Box<ResponseHead>,
        content_type: HeaderValue,
        out: &mut impl FnMut(Part),
    ) {
        if !becomes_ours(&mut head.headers, &content_type) {
            self.choose_flow(&mut head.headers);
            head.headers = initial_metadata(mem::take(&mut head.headers));
            head.headers.insert(CONTENT_TYPE, content_type);
        }
        head.status = StatusCode::OK;
        head.end = false;
        out(Part::Head(head));
    }

    fn data(&mut self, data: Bytes, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        match self.form {
            Form::Binary => self.flow.pass(data, &mut |data| out(Part::Data(data))),
            Form::Text => {
                let mut part = self.text.begin();
                let passed = self.flow.pass(data, &mut |data| part.add(data));
                if let Some(text) = part.end(self.flow.is_aligned()) {
                    out(Part::Data(text));
                }
                passed
            }
        }
    }

    fn end(&mut self, told: &Told, trailers: Box<HeaderMap>, out: &mut impl FnMut(Part)) {
        let frame = frame(told, &trailers);
        self.dropped_fields = self.dropped_fields.saturating_add(frame.dropped_fields);
        out(Part::Data(self.written(frame)));
        out(Part::End(None));
    }

    /// All of it is told by one frame under a head of ours.
    fn alone(
        &mut self,
        head: Box<ResponseHead>,
        trailers: HeaderMap,
        told: &Told,
        out: &mut impl FnMut(Part),
    ) {
        let content_type = self.content_type(Said::by(&head.headers).media);
        let (head_fields, frame_fields) = split_fields(head.headers, trailers);
        self.send_whole(head_fields, content_type, frame(told, &frame_fields), out);
    }

    fn whole(
        &mut self,
        head_fields: HeaderMap,
        end_fields: HeaderMap,
        told: &Told,
        out: &mut impl FnMut(Part),
    ) {
        let write = |suffix: Option<&str>| media_type::grpc_web(self.form, suffix);
        let content_type = self.own_content_type.value(write);
        self.send_whole(head_fields, content_type, frame(told, &end_fields), out);
    }

    fn is_whole(&self) -> bool {
        match &self.flow {
            Flow::Pass(gate) => gate.is_whole(),
            Flow::Inflate(inflater) => inflater.is_whole(),
        }
    }

    fn is_aligned(&self) -> bool {
        self.flow.is_aligned()
    }

    fn messages(&self) -> u64 {
        match &self.flow {
            Flow::Pass(gate) => gate.messages(),
            Flow::Inflate(inflater) => inflater.messages(),
        }
    }

    fn bytes(&self) -> u64 {
        match &self.flow {
            Flow::Pass(gate) => gate.bytes(),
            Flow::Inflate(inflater) => inflater.bytes(),
        }
    }

    fn dropped_fields(&self) -> u32 {
        self.dropped_fields
    }
}

impl Flow {
    fn pass(&mut self, data: Bytes, emit: &mut impl FnMut(Bytes)) -> Result<(), Reset> {
        match self {
            Self::Pass(gate) => {
                let message_bytes_max = gate.message_bytes_max();
                gate.pass(data, emit)
                    .map_err(|fault| fault.of_answer(message_bytes_max))
            }
            Self::Inflate(inflater) => inflater.pass(data, emit),
        }
    }

    fn is_aligned(&self) -> bool {
        match self {
            Self::Pass(gate) => gate.is_aligned(),
            Self::Inflate(inflater) => inflater.is_aligned(),
        }
    }
}

/// The frame that tells it.
fn frame(told: &Told, fields: &HeaderMap) -> TrailerFrame {
    TrailerFrame::new(
        told.code(),
        told.message().map(|message| &message[..]),
        fields,
    )
}

/// Makes a head ours by nothing but that content type in the place of its own, where all else in it is initial metadata, as in
/// nearly every one. If not, the long way is to be gone, whatever has been done here: it leaves the same where this would do.
fn becomes_ours(fields: &mut HeaderMap, content_type: &HeaderValue) -> bool {
    let mut types = 0;
    let crosses = |name: &HeaderName| {
        let codecs = matches!(
            name.as_str(),
            "grpc-encoding" | "grpc-status" | "grpc-message" | "grpc-status-details-bin"
        );
        !codecs && crosses_to_client(name)
    };
    for (name, value) in fields.iter_mut() {
        if *name == CONTENT_TYPE {
            *value = content_type.clone();
            types += 1;
        } else if !crosses(name) {
            return false;
        }
    }
    types == 1
}

/// Whether a `grpc-accept-encoding` names that coding.
fn names(accepted: &[HeaderValue], coding: &HeaderValue) -> bool {
    accepted
        .iter()
        .flat_map(|list| list.as_bytes().split(|&byte| byte == b','))
        .any(|member| member.trim_ascii() == coding.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_of_a_head_leads_where_the_long_one_does() {
        let ours = HeaderValue::from_static("application/grpc-web+proto");
        let long = |fields: HeaderMap| {
            let mut fields = initial_metadata(fields);
            fields.insert(CONTENT_TYPE, ours.clone());
            fields
        };
        for (names, is_short) in [
            (&["content-type"][..], true),
            (&["content-type", "x-own", "x-own", "date", "via"], true),
            (&["x-own", "content-type", "set-cookie", "vary"], true),
            (&["x-own"], false),
            (&["content-type", "content-type"], false),
            (&["content-type", "grpc-status"], false),
            (&["content-type", "grpc-message"], false),
            (&["content-type", "grpc-status-details-bin"], false),
            (&["content-type", "grpc-encoding"], false),
            (&["content-type", "connection", "x-own"], false),
            (&["x-own", "content-length", "content-type"], false),
            (&["content-type", "trailer", "x-own"], false),
            (&["content-type", "content-encoding"], false),
        ] {
            let mut fields = HeaderMap::new();
            for name in names {
                let value = HeaderValue::from_static("x-own");
                fields.append(HeaderName::from_static(name), value);
            }
            let expected = long(fields.clone());
            assert_eq!(becomes_ours(&mut fields, &ours), is_short, "{names:?}");
            if is_short {
                assert_eq!(fields, expected, "{names:?}");
            }
            // What it has done where it would not do has no consequence.
            assert_eq!(long(fields), expected, "{names:?}");
        }
    }
}
