//! The two codecs of a call: the caller's dialect to gRPC, and gRPC back to the caller's dialect.
//!
//! Owns the choice between dialects, and the stickiness of a fault. What a dialect does stands in its own file; a new one is
//! one variant here. A codec never waits, never asks for more, and hands every part on at once, as far as its dialect lets it.

use bytes::Bytes;
use http::HeaderMap;

use crate::rpc::dialect::Dialect;
use crate::rpc::ending::{Closing, Ending};
use crate::rpc::grpc::{GrpcRequest, GrpcResponse, GrpcWriter};
use crate::rpc::grpc_web::{GrpcWebRequest, GrpcWebResponse, GrpcWebWriter};
use crate::rpc::plain::{self, PlainResponse};
use crate::wire::{Fields, Part, Reason, Reset, Status};

/// What a caller sends, on its way to the backend.
#[derive(Debug)]
pub struct RequestCodec {
    dialect: RequestDialect,
    fault: Option<Box<Reset>>,
}

#[derive(Debug)]
enum RequestDialect {
    Grpc(GrpcRequest),
    GrpcWeb(GrpcWebRequest),
    Plain { bytes: u64 },
}

impl RequestCodec {
    /// A codec for one request. `message_bytes_max` limits each message by its declared length.
    pub fn new(dialect: Dialect, message_bytes_max: u32) -> Self {
        let dialect = match dialect {
            Dialect::Grpc => RequestDialect::Grpc(GrpcRequest::new(message_bytes_max)),
            Dialect::GrpcWeb { request, .. } => {
                RequestDialect::GrpcWeb(GrpcWebRequest::new(request, message_bytes_max))
            }
            Dialect::Plain => RequestDialect::Plain { bytes: 0 },
        };
        Self {
            dialect,
            fault: None,
        }
    }

    /// Adds to `forwarded`, which holds what crosses of the caller's `original` fields, what the dialect knows about the
    /// call: its content type in gRPC's words, `te: trailers`, and, for a caller of gRPC-Web that has no
    /// `grpc-accept-encoding`, `identity` as that. `grpc-timeout` and `via` are for others to set.
    pub fn request_fields(&self, original: &Fields, forwarded: &mut HeaderMap) {
        match &self.dialect {
            RequestDialect::Grpc(_) => GrpcRequest::request_fields(original, forwarded),
            RequestDialect::GrpcWeb(_) => GrpcWebRequest::request_fields(original, forwarded),
            RequestDialect::Plain { .. } => plain::request_fields(original, forwarded),
        }
    }

    /// One part of the request in, parts for the backend out. What stood before a fault in the same part may have been handed
    /// on; an end never has. A fault is sticky.
    pub fn translate(&mut self, part: Part, out: &mut impl FnMut(Part)) -> Result<(), Reset> {
        if let Some(fault) = &self.fault {
            return Err(**fault);
        }
        let translated = match (&mut self.dialect, part) {
            (_, Part::Head(_)) => Err(Reset::downstream(Reason::ClientProtocol(
                "a head inside the request",
            ))),
            (RequestDialect::Grpc(request), Part::Data(data)) => request.data(data, out),
            (RequestDialect::Grpc(request), Part::End(_)) => request.end(out),
            (RequestDialect::GrpcWeb(request), Part::Data(data)) => request.data(data, out),
            (RequestDialect::GrpcWeb(request), Part::End(_)) => request.end(out),
            (RequestDialect::Plain { bytes }, Part::Data(data)) => {
                *bytes += data.len() as u64;
                pass(data, out);
                Ok(())
            }
            (RequestDialect::Plain { .. }, Part::End(_)) => {
                out(Part::End(None));
                Ok(())
            }
        };
        self.fault = translated.err().map(Box::new);
        translated
    }

    /// Whether the caller stands between two messages, where it may rest as long as it likes. A plain body has no such place.
    pub fn at_boundary(&self) -> bool {
        match &self.dialect {
            RequestDialect::Grpc(request) => request.at_boundary(),
            RequestDialect::GrpcWeb(request) => request.at_boundary(),
            RequestDialect::Plain { .. } => false,
        }
    }

    /// Whether a message has begun and not ended. A plain body has no messages.
    pub fn in_message(&self) -> bool {
        match &self.dialect {
            RequestDialect::Grpc(request) => !request.at_boundary(),
            RequestDialect::GrpcWeb(request) => !request.at_boundary(),
            RequestDialect::Plain { .. } => false,
        }
    }

    /// Whole messages so far.
    pub fn messages(&self) -> u64 {
        match &self.dialect {
            RequestDialect::Grpc(request) => request.messages(),
            RequestDialect::GrpcWeb(request) => request.messages(),
            RequestDialect::Plain { .. } => 0,
        }
    }

    /// Bytes handed on so far.
    pub fn bytes(&self) -> u64 {
        match &self.dialect {
            RequestDialect::Grpc(request) => request.bytes(),
            RequestDialect::GrpcWeb(request) => request.bytes(),
            RequestDialect::Plain { bytes } => *bytes,
        }
    }
}

/// What a backend answers, on its way to the caller.
#[derive(Debug)]
pub struct ResponseCodec {
    dialect: ResponseDialect,
    fault: Option<Box<Reset>>,
}

#[derive(Debug)]
enum ResponseDialect {
    Grpc(Box<GrpcResponse>),
    GrpcWeb(Box<GrpcWebResponse>),
    Plain(PlainResponse),
}

impl ResponseCodec {
    /// A codec for the answer to a request with those `request` fields, as the caller sent them. `message_bytes_max` limits
    /// each message by its declared length, and once more after unpacking.
    pub fn new(dialect: Dialect, request: &Fields, message_bytes_max: u32) -> Self {
        let dialect = match dialect {
            Dialect::Grpc => {
                let writer = GrpcWriter::new(request, message_bytes_max);
                ResponseDialect::Grpc(Box::new(GrpcResponse::new(writer)))
            }
            Dialect::GrpcWeb { response, .. } => ResponseDialect::GrpcWeb(Box::new(
                GrpcWebResponse::new(GrpcWebWriter::new(response, request, message_bytes_max)),
            )),
            Dialect::Plain => ResponseDialect::Plain(PlainResponse::default()),
        };
        Self {
            dialect,
            fault: None,
        }
    }

    /// One part of the backend's answer in, parts of the caller's answer out. `Some`: the answer has been written to its end,
    /// and so the call ended; more parts change nothing. A fault is sticky, and [`ResponseCodec::end`] is what is left to do.
    pub fn translate(
        &mut self,
        part: Part,
        out: &mut impl FnMut(Part),
    ) -> Result<Option<Ending>, Reset> {
        if let Some(fault) = &self.fault {
            return Err(**fault);
        }
        let translated = match &mut self.dialect {
            ResponseDialect::Grpc(response) => response.translate(part, out),
            ResponseDialect::GrpcWeb(response) => response.translate(part, out),
            ResponseDialect::Plain(response) => response.translate(part, out),
        };
        self.fault = translated.as_ref().err().copied().map(Box::new);
        translated
    }

    /// Ends the answer with a status of our own, wherever it stands. After the end it writes nothing and says `Ended`.
    pub fn end(&mut self, status: &Status, out: &mut impl FnMut(Part)) -> Closing {
        match &mut self.dialect {
            ResponseDialect::Grpc(response) => response.end(status, out),
            ResponseDialect::GrpcWeb(response) => response.end(status, out),
            ResponseDialect::Plain(response) => response.end(status, out),
        }
    }

    /// Whether a head has been handed on.
    pub fn head_sent(&self) -> bool {
        match &self.dialect {
            ResponseDialect::Grpc(response) => response.head_sent(),
            ResponseDialect::GrpcWeb(response) => response.head_sent(),
            ResponseDialect::Plain(response) => response.head_sent(),
        }
    }

    /// Whether an end could be written now: nothing was begun, or the last message is whole.
    pub fn at_boundary(&self) -> bool {
        match &self.dialect {
            ResponseDialect::Grpc(response) => response.at_boundary(),
            ResponseDialect::GrpcWeb(response) => response.at_boundary(),
            ResponseDialect::Plain(response) => !response.head_sent(),
        }
    }

    /// Whole messages so far.
    pub fn messages(&self) -> u64 {
        match &self.dialect {
            ResponseDialect::Grpc(response) => response.messages(),
            ResponseDialect::GrpcWeb(response) => response.messages(),
            ResponseDialect::Plain(_) => 0,
        }
    }

    /// Bytes of messages handed on so far, prefixes included, before text mode and without the trailer frame.
    pub fn bytes(&self) -> u64 {
        match &self.dialect {
            ResponseDialect::Grpc(response) => response.bytes(),
            ResponseDialect::GrpcWeb(response) => response.bytes(),
            ResponseDialect::Plain(response) => response.bytes(),
        }
    }

    /// Trailer fields that were left out because their values are not printable.
    pub fn dropped_fields(&self) -> u32 {
        match &self.dialect {
            ResponseDialect::Grpc(response) => response.dropped_fields(),
            ResponseDialect::GrpcWeb(response) => response.dropped_fields(),
            ResponseDialect::Plain(_) => 0,
        }
    }
}

fn pass(data: Bytes, out: &mut impl FnMut(Part)) {
    if !data.is_empty() {
        out(Part::Data(data));
    }
}

#[cfg(test)]
mod tests;
