//! HTTP/2 by hand (RFC 9113 §4, §6): what whoever writes its own frames needs, on either side of the core. Knows no rule of what
//! may follow what.

pub(crate) use wharf::wire::http2::PREFACE;
pub(crate) use wharf::wire::http2::flag::{ACK, END_HEADERS, END_STREAM, PADDED};
pub(crate) use wharf::wire::http2::kind::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

/// What a frame may hold where nobody has said otherwise, bytes.
pub(crate) const FRAME_MAX: usize = 16 << 10;
/// What a window is where nobody has said otherwise, bytes.
pub(crate) const WINDOW: i64 = 65_535;

/// Writes one frame.
pub(crate) fn write(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// One frame alone.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write(kind, flags, stream, payload, &mut frame);
    frame
}

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// Takes the frames that have come whole out of `inbox`.
pub(crate) fn take_whole(inbox: &mut Vec<u8>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = &inbox[..];
    while let [a, b, c, kind, flags, s @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if s.len() < 4 + length {
            break;
        }
        frames.push(Frame {
            kind: *kind,
            flags: *flags,
            stream: number(s),
            payload: s[4..4 + length].to_vec(),
        });
        rest = &s[4 + length..];
    }
    *inbox = rest.to_vec();
    frames
}

/// A field as a literal that nobody remembers (RFC 7541 §6.2.2).
pub(crate) fn field(name: &str, value: &str, block: &mut Vec<u8>) {
    literal(0, name, value, block);
}

/// A field as a literal of the form that those first bits name (RFC 7541 §6.2).
pub(crate) fn literal(form: u8, name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(form);
    for text in [name, value] {
        assert!(text.len() < 127, "a length of one byte");
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

/// The four bytes of a stream's number, a window or a code, without the bit that is reserved.
pub(crate) fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0] & 0x7f, bytes[1], bytes[2], bytes[3]])
}
