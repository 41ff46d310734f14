//! A backend's answer, read in one way for every dialect of gRPC: what kind of answer its head begins, where it stands, what it
//! says at its end, and what is told where it says nothing or is not gRPC at all.
//!
//! Owns the status that a caller is told, and when an answer may be ended: never inside a message. It never writes a part by
//! itself; how an answer looks is its [`Writer`]'s.
//!
//! Sources: grpc/grpc `doc/PROTOCOL-HTTP2.md` (Responses), `doc/http-grpc-status-mapping.md`, `doc/statuscodes.md`.

use std::mem;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::rpc::ending::{Closing, Ending};
use crate::rpc::media_type::MediaType;
use crate::wire::metadata::{forward_response, forward_trailers};
use crate::wire::status::{
    GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, decode_message, encode_message, repair_message,
};
use crate::wire::{Code, Fields, Part, Reason, Reset, ResponseHead, Status};

pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// How much of an answer that is not gRPC is kept, to be the status's message.
const FOREIGN_KEPT_BYTES_MAX: usize = 4 << 10;
/// How much of it is read before the call is ended without waiting for more.
const FOREIGN_BYTES_MAX: usize = 64 << 10;

/// Of a section that is a head and trailers in one, the ones that say something to HTTP and mean nothing in trailers.
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

/// How a dialect writes an answer. It is asked for one head, then data, then one end; or for a whole answer at once.
pub(super) trait Writer {
    /// What it makes of a backend's content type.
    type ContentType;

    /// Asked as long as the fields are there that it stands in.
    fn content_type(&self, backend: MediaType<'_>) -> Self::ContentType;

    /// The head of an answer that goes on, with all fields that the backend has sent.
    fn head(
        &mut self,
        head: Box<ResponseHead>,
        content_type: Self::ContentType,
        out: &mut impl FnMut(Part),
    );

    /// Messages, as far as they may pass.
    fn data(&mut self, data: Bytes, out: &mut impl FnMut(Part)) -> Result<(), Reset>;

    /// The end behind a head. Of `trailers`, which hold nothing that may not cross, `told` overrules the status.
    fn end(&mut self, told: &Told, trailers: Box<HeaderMap>, out: &mut impl FnMut(Part));

    /// A whole answer that a backend has sent without a message, in one section or in two, with all their fields.
    fn alone(
        &mut self,
        head: Box<ResponseHead>,
        trailers: HeaderMap,
        told: &Told,
        out: &mut impl FnMut(Part),
    );

    /// A whole answer in the place of what came, with those of its fields that cross.
    fn whole(
        &mut self,
        head_fields: HeaderMap,
        end_fields: HeaderMap,
        told: &Told,
        out: &mut impl FnMut(Part),
    );

    /// The backend has ended a message, and its answer may end here.
    fn is_whole(&self) -> bool;

    /// What was written ends with a whole message.
    fn is_aligned(&self) -> bool;

    /// Whole messages that were written.
    fn messages(&self) -> u64;

    /// Bytes of messages that were written, with their prefixes and before any text.
    fn bytes(&self) -> u64;

    /// Fields of an end that could not be written.
    fn dropped_fields(&self) -> u32;
}

/// The answer's direction of a call.
#[derive(Debug)]
pub(super) struct Answer<W> {
    writer: W,
    phase: Phase,
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

impl<W: Writer> Answer<W> {
    pub(super) fn new(writer: W) -> Self {
        Self {
            writer,
            phase: Phase::Waiting,
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
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Waiting | Phase::Held(_) | Phase::Foreign(_) => {
                let told = Told::own(status);
                self.writer
                    .whole(HeaderMap::new(), HeaderMap::new(), &told, out);
                Closing::Ended
            }
            Phase::Streaming if self.writer.is_aligned() => {
                self.writer.end(&Told::own(status), Box::default(), out);
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
        self.writer.is_aligned()
    }

    pub(super) fn messages(&self) -> u64 {
        self.writer.messages()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    pub(super) fn dropped_fields(&self) -> u32 {
        self.writer.dropped_fields()
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
            return Ok(Some(self.finish_alone(head, HeaderMap::new(), out)));
        } else if said.has_status {
            self.phase = Phase::Held(head);
        } else {
            let content_type = self.writer.content_type(said.media);
            self.phase = Phase::Streaming;
            self.writer.head(head, content_type, out);
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
            Part::End(None) => Ok(Some(self.finish_alone(head, HeaderMap::new(), out))),
            Part::End(Some(trailers)) if !trailers.contains_key(GRPC_STATUS) => {
                Ok(Some(self.finish_alone(head, *trailers, out)))
            }
            Part::Data(_) | Part::End(Some(_)) => {
                let content_type = self.writer.content_type(Said::by(&head.headers).media);
                self.writer.head(head, content_type, out);
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

    /// *Streaming*: messages pass, the end is told.
    fn stream(&mut self, part: Part, out: &mut impl FnMut(Part)) -> Result<Option<Ending>, Reset> {
        self.phase = Phase::Streaming;
        match part {
            Part::Data(data) => self.writer.data(data, out).map(|()| None),
            Part::End(_) if !self.writer.is_whole() => {
                Err(broken("the answer ends inside a message"))
            }
            Part::End(Some(trailers)) => self.finish(trailers, out).map(Some),
            // A gRPC head and nothing behind it: the HTTP status, 200, says UNKNOWN.
            Part::End(None) if self.writer.messages() == 0 => {
                self.phase = Phase::Ended;
                let told = Told::nothing(Reason::BackendNoTrailers);
                self.writer.end(&told, Box::default(), out);
                Ok(Some(told.ending()))
            }
            Part::End(None) => Err(Reset::upstream(Reason::BackendNoTrailers)),
            Part::Head(_) => Err(broken("the answer has two heads")),
        }
    }

    /// The ordinary end: trailers after messages.
    fn finish(
        &mut self,
        trailers: Box<HeaderMap>,
        out: &mut impl FnMut(Part),
    ) -> Result<Ending, Reset> {
        let trailers = forward_trailers(trailers).map_err(|fault| broken(fault.detail()))?;
        self.phase = Phase::Ended;
        let told = Told::by(&trailers).unwrap_or_else(|| {
            let mut told = Told::nothing(Reason::BackendProtocol("trailers without grpc-status"));
            if let Some(message) = trailers.get(GRPC_MESSAGE) {
                told.message = Some(repair_message(message.as_bytes()));
            }
            told
        });
        self.writer.end(&told, trailers, out);
        Ok(told.ending())
    }

    /// Trailers-only, in one section or in two.
    fn finish_alone(
        &mut self,
        head: Box<ResponseHead>,
        trailers: HeaderMap,
        out: &mut impl FnMut(Part),
    ) -> Ending {
        self.phase = Phase::Ended;
        let told =
            Told::by(&head.headers).unwrap_or_else(|| Told::nothing(Reason::BackendNoTrailers));
        self.writer.alone(head, trailers, &told, out);
        told.ending()
    }

    /// An answer that is not gRPC's. A `grpc-status` must be believed all the same, but for an OK behind content that was
    /// dropped: a caller would take for whole what it never got. Else the HTTP status is mapped.
    fn finish_foreign(
        &mut self,
        foreign: Foreign,
        trailers: Option<Box<HeaderMap>>,
        out: &mut impl FnMut(Part),
    ) -> Ending {
        self.phase = Phase::Ended;
        let trailers = trailers.map(|trailers| *trailers).unwrap_or_default();
        let said = |fields: &HeaderMap| {
            let told = Told::by(fields)?;
            let lost = told.code == Code::OK && foreign.seen_bytes > 0;
            Some(if lost { foreign.lost() } else { told })
        };
        let (told, head_fields, end_fields) = if let Some(told) = said(&trailers) {
            let head_fields = initial_metadata(foreign.head.headers);
            (told, head_fields, forward_response(trailers))
        } else if let Some(told) = said(&foreign.head.headers) {
            let (head_fields, end_fields) = split_fields(foreign.head.headers, trailers);
            (told, head_fields, end_fields)
        } else {
            let told = foreign.told();
            let (head_fields, _) = split_fields(foreign.head.headers, HeaderMap::new());
            (told, head_fields, HeaderMap::new())
        };
        self.writer.whole(head_fields, end_fields, &told, out);
        told.ending()
    }
}

/// What the caller is told at the end, and why.
#[derive(Debug)]
pub(super) struct Told {
    code: Code,
    /// As it stands on the wire: printable ASCII.
    message: Option<Bytes>,
    reason: Reason,
}

impl Told {
    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn message(&self) -> Option<&Bytes> {
        self.message.as_ref()
    }

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

    /// What we say ourselves. The reason is the exchange's, which asks for no ending.
    fn own(status: &Status) -> Self {
        let message = encode_message(&status.message);
        Self {
            code: status.code,
            message: (!message.is_empty()).then(|| Bytes::copy_from_slice(message.as_bytes())),
            reason: Reason::Ok,
        }
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

/// The caller's own content type, for an answer that is our own. Nearly all are one of two, and a call may be open for hours.
#[derive(Debug)]
pub(super) enum OwnType {
    Plain,
    Proto,
    Other(Box<HeaderValue>),
}

impl OwnType {
    /// Of a request with those fields. `write` makes a type of the dialect's with that suffix.
    pub(super) fn of(request: &Fields, write: impl Fn(Option<&str>) -> HeaderValue) -> Self {
        let suffix = request
            .get(CONTENT_TYPE)
            .and_then(|value| MediaType::parse(value).suffix());
        match suffix {
            None => Self::Plain,
            Some("proto") => Self::Proto,
            suffix => Self::Other(Box::new(write(suffix))),
        }
    }

    /// The value, with the same `write`.
    pub(super) fn value(&self, write: impl Fn(Option<&str>) -> HeaderValue) -> HeaderValue {
        match self {
            Self::Plain => write(None),
            Self::Proto => write(Some("proto")),
            Self::Other(value) => (**value).clone(),
        }
    }
}

/// What a backend's head says of itself, found in one walk: most have fewer fields than there are questions.
pub(super) struct Said<'a> {
    /// Its first content type.
    pub(super) media: MediaType<'a>,
    has_status: bool,
}

impl<'a> Said<'a> {
    pub(super) fn by(fields: &'a HeaderMap) -> Self {
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

/// What a backend's head says where more follows. A status there is not the call's end, but clients would take it for one.
pub(super) fn initial_metadata(fields: HeaderMap) -> HeaderMap {
    let mut fields = forward_response(fields);
    for status_field in [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS] {
        fields.remove(status_field);
    }
    fields
}

/// Of a section that is a head and trailers in one, and trailers behind it: what belongs to a head, and what to an end.
pub(super) fn split_fields(fields: HeaderMap, trailers: HeaderMap) -> (HeaderMap, HeaderMap) {
    let mut head_fields = HeaderMap::new();
    let mut end_fields = HeaderMap::new();
    for (name, value) in &forward_response(fields) {
        if HEAD_FIELDS.contains(name) {
            head_fields.append(name, value.clone());
        } else if name != GRPC_ENCODING {
            end_fields.append(name, value.clone());
        }
    }
    append_all(&mut end_fields, forward_response(trailers));
    (head_fields, end_fields)
}

pub(super) fn append_all(fields: &mut HeaderMap, more: HeaderMap) {
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
