//! gRPC-Web's text mode as a layer around the binary form: base64 in, base64 out.
//!
//! Knows nothing of messages but where its user says that one ends. It pads only there: a client decodes four characters at a
//! time, so a whole message must not leave one or two bytes behind in the encoder.

use std::mem;

use bytes::{Bytes, BytesMut};

use crate::rpc::trailer_frame::TrailerFrame;
use crate::wire::base64::{Base64Fault, Decoder, Encoder};
use crate::wire::{Reason, Reset};

/// A request's text, on its way in.
#[derive(Debug, Default)]
pub(super) struct TextIn(Decoder);

impl TextIn {
    /// The bytes that so much text stands for; maybe none yet.
    pub(super) fn decode(&mut self, text: &[u8]) -> Result<Bytes, Reset> {
        let mut bytes = BytesMut::new();
        self.0.decode(text, &mut bytes).map_err(blame)?;
        Ok(bytes.freeze())
    }

    /// The text is over.
    pub(super) fn finish(&self) -> Result<(), Reset> {
        self.0.finish().map_err(blame)
    }
}

/// An answer's text, on its way out.
#[derive(Debug, Default)]
pub(super) struct TextOut(Encoder);

impl TextOut {
    /// Begins the text of one part.
    pub(super) fn begin(&mut self) -> TextPart<'_> {
        TextPart {
            encoder: &mut self.0,
            last: Bytes::new(),
            text: BytesMut::new(),
        }
    }

    /// The text of a trailer frame. It stands where a message has ended, so that it is a text of its own.
    pub(super) fn frame(&mut self, frame: TrailerFrame) -> Bytes {
        match frame.usual_text() {
            Some(text) if self.0.is_empty() => Bytes::from_static(text.as_bytes()),
            _ => {
                let mut part = self.begin();
                part.add(frame.bytes);
                part.end(true).unwrap_or_default()
            }
        }
    }
}

/// The text of one part, in a buffer of its own that is as large as the text: nothing stays behind where a stream rests.
///
/// The last bytes are kept back until it is known whether a message ends with them: text and padding are made in one go.
#[derive(Debug)]
pub(super) struct TextPart<'a> {
    encoder: &'a mut Encoder,
    last: Bytes,
    text: BytesMut,
}

impl TextPart<'_> {
    /// Adds bytes.
    pub(super) fn add(&mut self, bytes: Bytes) {
        let before = mem::replace(&mut self.last, bytes);
        self.encoder.encode(&before, &mut self.text);
    }

    /// The text, if there is any; padded if `aligned`: a message ends here.
    pub(super) fn end(mut self, aligned: bool) -> Option<Bytes> {
        if aligned {
            self.encoder.encode_padded(&self.last, &mut self.text);
        } else {
            self.encoder.encode(&self.last, &mut self.text);
        }
        (!self.text.is_empty()).then(|| self.text.freeze())
    }
}

const fn blame(fault: Base64Fault) -> Reset {
    Reset::downstream(Reason::ClientProtocol(fault.detail()))
}
