//! gRPC-Web's text mode as a layer around the binary form: base64 in, base64 out.
//!
//! Knows nothing of messages but where its user says that one ends. It pads only there: a client decodes four characters at a
//! time, so a whole message must not leave one or two bytes behind in the encoder.

use bytes::{Bytes, BytesMut};

use crate::wire::base64::{Base64Fault, Decoder, Encoder, encoded_length};
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
pub(super) struct TextOut {
    encoder: Encoder,
    text: BytesMut,
}

impl TextOut {
    /// Adds bytes to the text that is being made.
    pub(super) fn encode(&mut self, bytes: &[u8]) {
        let length = encoded_length(bytes.len() + 2);
        if self.text.capacity() - self.text.len() < length {
            // The frame that ends the answer will fit behind its message.
            self.text.reserve(length + TAIL_BYTES);
        }
        self.encoder.encode(bytes, &mut self.text);
    }

    /// Pads: a message ends here.
    pub(super) fn pad(&mut self) {
        self.encoder.flush(&mut self.text);
    }

    /// The text made so far, if there is any.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        (!self.text.is_empty()).then(|| self.text.split().freeze())
    }
}

/// What is made room for behind a text, bytes.
const TAIL_BYTES: usize = 256;

const fn blame(fault: Base64Fault) -> Reset {
    Reset::downstream(Reason::ClientProtocol(fault.detail()))
}
