//! HTTP/1.1 as bytes: request heads in, response heads out, and bodies both ways (RFC 9112).

pub mod body;
pub mod head;
pub use body::{BodyDecoder, BodyFault, BodyLimits, CHUNK_END, LAST_CHUNK, Step, write_chunk_head};
pub use head::{
    Framing, HeadFault, HeadLimits, Http1Request, ResponseFraming, glean, names_protocol,
    parse_request, scan, write_continue, write_response,
};
