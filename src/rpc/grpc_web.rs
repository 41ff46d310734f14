//! gRPC-Web to gRPC and back. Messages are the same on both sides and pass untouched; what differs is the end: gRPC's trailer
//! section becomes one frame with flag 0x80, the last bytes of the body.
//!
//! Owns the shape of a gRPC-Web answer: HTTP 200, whatever happened; exactly one trailer frame, last; no `grpc-status` in the
//! head. That is the only shape that all client libraries read rightly. It never ends an answer that stands inside a message.
//!
//! Sources: grpc/grpc `doc/PROTOCOL-WEB.md`, `doc/PROTOCOL-HTTP2.md` (Responses), `doc/http-grpc-status-mapping.md`,
//! `doc/compression.md`.

use std::mem;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::rpc::dialect::Form;
use crate::rpc::ending::{Closing, Ending};
use crate::rpc::gate::{Compressed, Gate, GateFault};
use crate::rpc::grpc_web_text::{TextIn, TextOut};
use crate::rpc::inflate::{Coding, Inflater};
use crate::rpc::media_type::{self, MediaType};
use crate::rpc::trailer_frame::TrailerFrame;
use crate::wire::metadata::{crosses_to_client, forward_response, forward_trailers};
use crate::wire::status::{
    GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, decode_message, encode_message, repair_message,
};
use crate::wire::{Code, Fields, Part, Reason, Reset, ResponseHead, Status};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// How much of an answer that is not gRPC is kept, to be the status's message.
const FOREIGN_KEPT_BYTES_MAX: usize = 4 << 10;
/// How much of it is read before the call is ended without waiting for more.
const FOREIGN_BYTES_MAX: usize = 64 << 10;

/// Of a trailers-only answer, whose fields all go into the frame, the ones that say something to HTTP and mean nothing there.
static HEAD_FIELDS: [HeaderName; 10] = [
    http::header::CACHE_CONTROL,
    http::header::DATE,
    http::header::RETRY_AFTER,
    http::header::SERVER,
    http::header::SET_COOKIE,
    http::header::STRICT_TRANSPORT_SECURITY,
    http::header::VARY,
    http::header::VIA,
    http::header::WWW_AUTHENTICATE,
    GRPC_ACCEPT_ENCODING,
];

/// The request's direction.
#[derive(Debug)]
pub(super) struct GrpcWebRequest {
    text: Option<TextIn>,
    gate: Gate,
    message_bytes_max: u32,
}

impl GrpcWebRequest {
    pub(super) fn new(form: Form, message_bytes_max: u32) -> Self {
        Self {
            text: match form {
                Form::Binary => None,
                Form::Text => Some(TextIn::default()),
            },
            // Whether `grpc-encoding` fits is for the backend to say.
            gate: Gate::new(Compressed::Allowed, message_bytes_max),
            message_bytes_max,
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
        self.gate
            .pass(data, &mut |data| out(Part::Data(data)))
            .map_err(|fault| {
                Reset::downstream(match fault {
                    GateFault::TooLarge => Reason::MessageTooLarge(self.message_bytes_max),
                    GateFault::Flags(_) => {
                        Reason::ClientProtocol("a message has flags that gRPC does not know")
                    }
                })
            })
    }

    /// The request's own trailers, if any, go nowhere: gRPC has none.
    pub(super) fn end(&self, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        if let Some(text) = &self.text {
            text.finish()?;
        }
        if !self.gate.is_whole() {
            return Err(Reset::downstream(Reason::ClientProtocol(
                "the request ends inside a message",
            )));
        }
        out(Part::End(None));
        Ok(())
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.gate.is_whole() && self.text.as_ref().is_none_or(|text| text.finish().is_ok())
    }

    pub(super) fn messages(&self) -> u64 {
        self.gate.messages()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.gate.bytes()
    }
}

/// The answer's direction.
#[derive(Debug)]
pub(super) struct GrpcWebResponse {
    form: Form,
    /// For an answer that is our own: the backend's suffix is not known then.
    own_content_type: OwnType,
    /// The request's `grpc-accept-encoding`. Browsers have none.
    accepted: Vec<HeaderValue>,
    message_bytes_max: u32,
    phase: Phase,
    flow: Flow,
    text: TextOut,
    dropped_fields: u32,
}

/// The caller's own content type. Nearly all are one of two, and a call may be open for hours.
#[derive(Debug)]
enum OwnType {
    Plain,
    Proto,
    Other(Box<HeaderValue>),
}

impl OwnType {
    fn of(form: Form, suffix: Option<&str>) -> Self {
        match suffix {
            None => Self::Plain,
            Some("proto") => Self::Proto,
            suffix => Self::Other(Box::new(media_type::grpc_web(form, suffix))),
        }
    }

    fn value(&self, form: Form) -> HeaderValue {
        match self {
            Self::Plain => media_type::grpc_web(form, None),
            Self::Proto => media_type::grpc_web(form, Some("proto")),
            Self::Other(value) => (**value).clone(),
        }
    }
}

/// Where the answer stands.
#[derive(Debug)]
enum Phase {
    /// Before the backend's head.
    Waiting,
    /// A gRPC head with a status, but without END_STREAM. What comes next says whether it was all.
    Held(Box<ResponseHead>),
    /// A head that is not gRPC's. Its content is read for the message.
    Foreign(Box<Foreign>),
    /// Our head has been sent; messages, then the end.
    Streaming,
    /// Our end has been sent, or the answer was cut.
    Ended,
}

/// An answer of something that does not speak gRPC.
#[derive(Debug)]
struct Foreign {
    head: ResponseHead,
    start: BytesMut,
    seen_bytes: usize,
}

/// How messages go through.
#[derive(Debug)]
enum Flow {
    Pass(Gate),
    Inflate(Box<Inflater>),
}

impl GrpcWebResponse {
    pub(super) fn new(form: Form, request: &Fields, message_bytes_max: u32) -> Self {
        let suffix = request
            .get(CONTENT_TYPE)
            .and_then(|value| MediaType::parse(value).suffix());
        Self {
            form,
            own_content_type: OwnType::of(form, suffix),
            accepted: request.get_all(GRPC_ACCEPT_ENCODING).cloned().collect(),
            message_bytes_max,
            phase: Phase::Waiting,
            flow: Flow::Pass(Gate::new(Compressed::Refused, message_bytes_max)),
            text: TextOut::default(),
            dropped_fields: 0,
        }
    }

    pub(super) fn translate(
        &mut self,
        part: Part,
        out: &mut impl FnMut(Part),
    ) -> Result<Option<Ending>, Reset> {
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Waiting => self.begin(part, out),
            Phase::Held(head) => self.release(head, part, out),
            Phase::Foreign(foreign) => self.collect(foreign, part, out),
            Phase::Streaming => self.stream(part, out),
            Phase::Ended => Ok(None),
        }
    }

    pub(super) fn end(&mut self, status: &Status, out: &mut impl FnMut(Part)) -> Closing {
        let encoded;
        let message = if status.message.is_empty() {
            None
        } else {
            encoded = encode_message(&status.message);
            Some(encoded.as_bytes())
        };
        let frame = TrailerFrame::new(status.code, message, &HeaderMap::new());
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Waiting | Phase::Held(_) | Phase::Foreign(_) => {
                let content_type = self.own_content_type.value(self.form);
                self.send_whole(HeaderMap::new(), content_type, frame, out);
                Closing::Ended
            }
            Phase::Streaming if self.flow.is_aligned() => {
                self.send_frame(frame, out);
                out(Part::End(None));
                Closing::Ended
            }
            Phase::Streaming => Closing::Cut,
            Phase::Ended => Closing::Ended,
        }
    }

    pub(super) fn head_sent(&self) -> bool {
        matches!(self.phase, Phase::Streaming | Phase::Ended)
    }

    pub(super) fn at_boundary(&self) -> bool {
        self.flow.is_aligned()
    }

    pub(super) fn messages(&self) -> u64 {
        match &self.flow {
            Flow::Pass(gate) => gate.messages(),
            Flow::Inflate(inflater) => inflater.messages(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match &self.flow {
            Flow::Pass(gate) => gate.bytes(),
            Flow::Inflate(inflater) => inflater.bytes(),
        }
    }

    pub(super) fn dropped_fields(&self) -> u32 {
        self.dropped_fields
    }

    /// *Waiting*: the head decides what kind of answer it is.
    fn begin(&mut self, part: Part, out: &mut impl FnMut(Part)) -> Result<Option<Ending>, Reset> {
        self.phase = Phase::Waiting;
        let Part::Head(head) = part else {
            return Err(broken("the answer does not begin with a head"));
        };
        if head.status.is_informational() {
            return Ok(None);
        }
        let said = Said::by(&head.headers);
        let is_grpc = head.status == StatusCode::OK && matches!(said.media, MediaType::Grpc(_));
        if !is_grpc {
            let foreign = Box::new(Foreign {
                start: BytesMut::new(),
                seen_bytes: 0,
                head: *head,
            });
            if foreign.head.end {
                return Ok(Some(self.finish_foreign(*foreign, None, out)));
            }
            self.phase = Phase::Foreign(foreign);
        } else if head.end {
            return Ok(Some(self.finish_alone(*head, HeaderMap::new(), out)));
        } else if said.has_status {
            self.phase = Phase::Held(head);
        } else {
            let content_type = media_type::grpc_web(self.form, said.media.suffix());
            self.send_head(head, content_type, out);
        }
        Ok(None)
    }

    /// *Held*: content shows that the head was an ordinary one, an end that it was the whole answer.
    fn release(
        &mut self,
        head: Box<ResponseHead>,
        part: Part,
        out: &mut impl FnMut(Part),
    ) -> Result<Option<Ending>, Reset> {
        match part {
            Part::Data(data) if data.is_empty() => {
                self.phase = Phase::Held(head);
                Ok(None)
            }
            Part::End(None) => Ok(Some(self.finish_alone(*head, HeaderMap::new(), out))),
            Part::End(Some(trailers)) if !trailers.contains_key(GRPC_STATUS) => {
                Ok(Some(self.finish_alone(*head, *trailers, out)))
            }
            Part::Data(_) | Part::End(Some(_)) => {
                let content_type = self.content_type(&head.headers);
                self.send_head(head, content_type, out);
                self.stream(part, out)
            }
            Part::Head(_) => {
                self.phase = Phase::Held(head);
                Err(broken("the answer has two heads"))
            }
        }
    }

    /// *Foreign*: keeps the start of the content until there is an end, or enough.
    fn collect(
        &mut self,
        mut foreign: Box<Foreign>,
        part: Part,
        out: &mut impl FnMut(Part),
    ) -> Result<Option<Ending>, Reset> {
        match part {
            Part::Data(data) => {
                let room = FOREIGN_KEPT_BYTES_MAX.saturating_sub(foreign.start.len());
                let kept = data.get(..room).unwrap_or(&data);
                foreign.start.extend_from_slice(kept);
                foreign.seen_bytes = foreign.seen_bytes.saturating_add(data.len());
                if foreign.seen_bytes > FOREIGN_BYTES_MAX {
                    return Ok(Some(self.finish_foreign(*foreign, None, out)));
                }
                self.phase = Phase::Foreign(foreign);
                Ok(None)
            }
            Part::End(trailers) => Ok(Some(self.finish_foreign(*foreign, trailers, out))),
            Part::Head(_) => {
                self.phase = Phase::Foreign(foreign);
                Err(broken("the answer has two heads"))
            }
        }
    }

    /// *Streaming*: messages pass, the end becomes the frame.
    fn stream(&mut self, part: Part, out: &mut impl FnMut(Part)) -> Result<Option<Ending>, Reset> {
        self.phase = Phase::Streaming;
        match part {
            Part::Data(data) => self.send_data(data, out).map(|()| None),
            Part::End(_) if !self.flow.is_whole() => {
                Err(broken("the answer ends inside a message"))
            }
            Part::End(Some(trailers)) => self.finish(*trailers, out).map(Some),
            // A gRPC head and nothing behind it: the HTTP status, 200, says UNKNOWN.
            Part::End(None) if self.flow.messages() == 0 => {
                self.phase = Phase::Ended;
                let told = Told::nothing(Reason::BackendNoTrailers);
                self.send_frame(told.frame(&HeaderMap::new()), out);
                out(Part::End(None));
                Ok(Some(told.ending()))
            }
            Part::End(None) => Err(Reset::upstream(Reason::BackendNoTrailers)),
            Part::Head(_) => Err(broken("the answer has two heads")),
        }
    }

    /// The ordinary end: trailers after messages.
    fn finish(&mut self, trailers: HeaderMap, out: &mut impl FnMut(Part)) -> Result<Ending, Reset> {
        let trailers = forward_trailers(trailers).map_err(|fault| broken(fault.detail()))?;
        self.phase = Phase::Ended;
        let told = Told::by(&trailers).unwrap_or_else(|| {
            let mut told = Told::nothing(Reason::BackendProtocol("trailers without grpc-status"));
            if let Some(message) = trailers.get(GRPC_MESSAGE) {
                told.message = Some(repair_message(message.as_bytes()));
            }
            told
        });
        self.send_frame(told.frame(&trailers), out);
        out(Part::End(None));
        Ok(told.ending())
    }

    /// Trailers-only, in one section or in two: all of it is told by one frame under a head of ours.
    fn finish_alone(
        &mut self,
        head: ResponseHead,
        trailers: HeaderMap,
        out: &mut impl FnMut(Part),
    ) -> Ending {
        let content_type = self.content_type(&head.headers);
        let told =
            Told::by(&head.headers).unwrap_or_else(|| Told::nothing(Reason::BackendNoTrailers));
        self.finish_with(head.headers, trailers, content_type, &told, out)
    }

    /// An answer that is not gRPC's. A `grpc-status` must be believed all the same, but for an OK behind content that was
    /// dropped: a caller would take for whole what it never got. Else the HTTP status is mapped.
    fn finish_foreign(
        &mut self,
        foreign: Foreign,
        trailers: Option<Box<HeaderMap>>,
        out: &mut impl FnMut(Part),
    ) -> Ending {
        let trailers = trailers.map(|trailers| *trailers).unwrap_or_default();
        let content_type = self.own_content_type.value(self.form);
        let said = |fields: &HeaderMap| {
            let told = Told::by(fields)?;
            let lost = told.code == Code::OK && foreign.seen_bytes > 0;
            Some(if lost { foreign.lost() } else { told })
        };
        if let Some(told) = said(&trailers) {
            let head_fields = initial_metadata(foreign.head.headers);
            let frame = told.frame(&forward_response(trailers));
            self.send_whole(head_fields, content_type, frame, out);
            return told.ending();
        }
        if let Some(told) = said(&foreign.head.headers) {
            return self.finish_with(foreign.head.headers, trailers, content_type, &told, out);
        }
        let told = foreign.told();
        let (head_fields, _) = split_fields(foreign.head.headers);
        let frame = told.frame(&HeaderMap::new());
        self.send_whole(head_fields, content_type, frame, out);
        told.ending()
    }

    fn finish_with(
        &mut self,
        fields: HeaderMap,
        trailers: HeaderMap,
        content_type: HeaderValue,
        told: &Told,
        out: &mut impl FnMut(Part),
    ) -> Ending {
        let (head_fields, mut frame_fields) = split_fields(fields);
        append_all(&mut frame_fields, forward_response(trailers));
        self.send_whole(head_fields, content_type, told.frame(&frame_fields), out);
        told.ending()
    }

    /// Our head for a backend's gRPC head. It leaves at once: a page's `fetch` resolves by it.
    fn send_head(
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
        self.phase = Phase::Streaming;
        out(Part::Head(head));
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

    fn send_data(&mut self, data: Bytes, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
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

    fn send_frame(&mut self, frame: TrailerFrame, out: &mut impl FnMut(Part)) {
        self.dropped_fields = self.dropped_fields.saturating_add(frame.dropped_fields);
        out(Part::Data(self.written(frame)));
    }

    /// A whole answer in one go: a head with a length, the frame, the end.
    fn send_whole(
        &mut self,
        head_fields: HeaderMap,
        content_type: HeaderValue,
        frame: TrailerFrame,
        out: &mut impl FnMut(Part),
    ) {
        self.phase = Phase::Ended;
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

    /// gRPC-Web's content type with the suffix of the backend's, for `grpc+json` must not become proto on the way.
    fn content_type(&self, fields: &HeaderMap) -> HeaderValue {
        media_type::grpc_web(self.form, Said::by(fields).media.suffix())
    }
}

impl Flow {
    fn pass(&mut self, data: Bytes, emit: &mut impl FnMut(Bytes)) -> Result<(), Reset> {
        match self {
            Self::Pass(gate) => {
                let message_bytes_max = gate.message_bytes_max();
                gate.pass(data, emit).map_err(|fault| match fault {
                    GateFault::TooLarge => {
                        Reset::upstream(Reason::MessageTooLarge(message_bytes_max))
                    }
                    GateFault::Flags(1) => broken("a compressed message without grpc-encoding"),
                    GateFault::Flags(_) => broken("a message has flags that gRPC does not know"),
                })
            }
            Self::Inflate(inflater) => inflater.pass(data, emit),
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Pass(gate) => gate.is_whole(),
            Self::Inflate(inflater) => inflater.is_whole(),
        }
    }

    fn is_aligned(&self) -> bool {
        match self {
            Self::Pass(gate) => gate.is_aligned(),
            Self::Inflate(inflater) => inflater.is_aligned(),
        }
    }

    fn messages(&self) -> u64 {
        match self {
            Self::Pass(gate) => gate.messages(),
            Self::Inflate(inflater) => inflater.messages(),
        }
    }
}

/// What the frame says, and why.
#[derive(Debug)]
struct Told {
    code: Code,
    /// As it stands on the wire.
    message: Option<Bytes>,
    reason: Reason,
}

impl Told {
    /// What a backend's own fields say; `None` if they hold no status.
    fn by(fields: &HeaderMap) -> Option<Self> {
        let (code, message) = Code::with_message(fields)?;
        Some(Self {
            code,
            message: message.map(|message| repair_message(message.as_bytes())),
            reason: if code == Code::OK {
                Reason::Ok
            } else {
                Reason::BackendStatus
            },
        })
    }

    /// The backend ended and did not say how.
    fn nothing(reason: Reason) -> Self {
        Self {
            code: Code::UNKNOWN,
            message: Some(Bytes::from_static(
                b"the backend ended its answer without grpc-status",
            )),
            reason,
        }
    }

    fn frame(&self, fields: &HeaderMap) -> TrailerFrame {
        TrailerFrame::new(self.code, self.message.as_deref(), fields)
    }

    fn ending(&self) -> Ending {
        Ending {
            status: match self.message.as_deref() {
                None | Some([]) => Status::new(self.code, ""),
                Some(message) => Status::new(self.code, decode_message(message)),
            },
            reason: self.reason,
        }
    }
}

impl Foreign {
    /// What is told where its own status is OK and its content was dropped.
    fn lost(&self) -> Told {
        let http = self.head.status.as_u16();
        let message = encode_message(&format!(
            "the backend did not answer with gRPC, and its content is lost: HTTP status {http}"
        ));
        Told {
            code: Code::from_http(http),
            message: Some(Bytes::copy_from_slice(message.as_bytes())),
            reason: Reason::BackendNotGrpc(http),
        }
    }

    /// The HTTP status, mapped, with the start of the content as its message.
    fn told(&self) -> Told {
        let http = self.head.status.as_u16();
        let start = String::from_utf8_lossy(&self.start);
        let message = if start.trim().is_empty() || self.head.headers.contains_key(CONTENT_ENCODING)
        {
            let content_type = self.head.headers.get(CONTENT_TYPE);
            let content_type = content_type.map_or(&b"none"[..], HeaderValue::as_bytes);
            encode_message(&format!(
                "the backend did not answer with gRPC: HTTP status {http}, content-type {}",
                content_type.escape_ascii(),
            ))
        } else {
            encode_message(start.trim())
        };
        Told {
            code: Code::from_http(http),
            message: Some(Bytes::copy_from_slice(message.as_bytes())),
            reason: Reason::BackendNotGrpc(http),
        }
    }
}

/// What a backend's head says of itself, found in one walk: most have fewer fields than there are questions.
struct Said<'a> {
    /// Its first content type.
    media: MediaType<'a>,
    has_status: bool,
}

impl<'a> Said<'a> {
    fn by(fields: &'a HeaderMap) -> Self {
        let mut media = None;
        let mut has_status = false;
        for (name, value) in fields {
            match name.as_str() {
                "content-type" => {
                    media.get_or_insert(value);
                }
                "grpc-status" => has_status = true,
                _ => {}
            }
        }
        Self {
            media: media.map_or(MediaType::Other, MediaType::parse),
            has_status,
        }
    }
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

/// What a backend's head says where more follows. A status there is not the call's end, but clients would take it for one.
fn initial_metadata(fields: HeaderMap) -> HeaderMap {
    let mut fields = forward_response(fields);
    for status_field in [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS] {
        fields.remove(status_field);
    }
    fields
}

/// Of a section that is a head and trailers in one: what stays in the head, and what goes into the frame.
fn split_fields(fields: HeaderMap) -> (HeaderMap, HeaderMap) {
    let mut head_fields = HeaderMap::new();
    let mut frame_fields = HeaderMap::new();
    for (name, value) in &forward_response(fields) {
        if HEAD_FIELDS.contains(name) {
            head_fields.append(name, value.clone());
        } else if name != GRPC_ENCODING {
            frame_fields.append(name, value.clone());
        }
    }
    (head_fields, frame_fields)
}

fn append_all(fields: &mut HeaderMap, more: HeaderMap) {
    let mut last = None;
    for (name, value) in more {
        // A repeated name comes once, with its first value.
        last = name.or(last);
        if let Some(name) = &last {
            fields.append(name, value);
        }
    }
}

const fn broken(detail: &'static str) -> Reset {
    Reset::upstream(Reason::BackendProtocol(detail))
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
