//! What stands between a backend's bytes and `h2`: is this HTTP/2 at all, and frames that would end the connection for
//! nothing, or cost it more than it may.
//!
//! `h2` ends a connection at the 101st empty DATA frame of its life (0.4.20, not configurable); a backend that sends one with
//! every answer would lose every hundredth call. Such frames mean nothing, so they are taken out here and counted, and the
//! window that the padding of one has used is given back from here. The first bytes decide whether the peer speaks HTTP/2
//! (RFC 9113 §3.4: its preface is a SETTINGS frame): what does not is never shown to `h2`, so that the reason can be told to a
//! person. And a head that is far too long, or a flood of SETTINGS, ends the connection before `h2` has paid for it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::net::Sieve;
use crate::upstream::loans::{Loans, PIECE_BYTES_MIN};
use crate::upstream::settings::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_MAX};
use crate::wire::Reason;

/// RFC 9113 §4.1.
const FRAME_HEAD_BYTES: usize = 9;
/// What a client says before its first frame (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
const FRAME_DATA: u8 = 0;
const FRAME_HEADERS: u8 = 1;
const FRAME_SETTINGS: u8 = 4;
const FRAME_PUSH_PROMISE: u8 = 5;
const FRAME_WINDOW_UPDATE: u8 = 8;
const FRAME_CONTINUATION: u8 = 9;
const FLAG_END_STREAM: u8 = 1;
const FLAG_PADDED: u8 = 8;
const FLAG_ACK: u8 = 1;
/// The head of a DATA frame with so much content goes first and by itself: `h2` then makes room for the whole, and does not
/// move what it had room for already. Bytes; just under what its buffer begins with.
const LARGE_BYTES: usize = 4 << 10;
/// How much of a first line is kept for people, bytes.
const LINE_BYTES_MAX: usize = 60;
/// A head or trailer section as it comes, heads of its frames included, bytes. Over it: the connection ends, its own call as
/// RESOURCE_EXHAUSTED, the others as UNAVAILABLE. The largest that may be configured fits well; see also
/// [`crate::upstream::settings::HEADER_LIST_BYTES_MAX`].
pub const HEADER_BLOCK_BYTES_MAX: usize = 96 << 10;
/// SETTINGS frames in one second. Over it: the connection ends. Each may change the window of every stream, so a few bytes
/// of them cost a walk over all.
pub const SETTINGS_PER_SECOND_MAX: u32 = 100;

/// What a peer's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A SETTINGS frame: HTTP/2.
    Http2,
    /// A TLS record: it wants TLS.
    Tls,
    /// An HTTP/1 status line.
    Http1(String),
    /// Something else.
    Noise,
}

/// What the gate has seen; the connection looks at it after each poll, and its streams when they are lost.
#[derive(Debug, Default)]
pub struct Notes {
    opening: RefCell<Option<Opening>>,
    dropped: Cell<u64>,
    /// The stream of the frame that was handed on last.
    stream: Cell<u32>,
    fault: Cell<Option<Fault>>,
    /// SETTINGS frames of the present second.
    settings: Cell<u32>,
    /// How many bytes had left when the connection was lost.
    lost_after: Cell<Option<u64>>,
    /// Heads that `h2` was given and has not written.
    heads: Cell<usize>,
    /// Content that `h2` was given and has not written.
    loans: RefCell<Loans>,
    /// Streams whose end `h2` was given ahead of their window and has not written, in their order.
    ahead: RefCell<VecDeque<u32>>,
}

/// What the gate gave a connection up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// On which stream; 0: on the connection.
    pub stream: u32,
    /// Why.
    pub reason: Reason,
}

impl Notes {
    /// What the first bytes said; `None` until there were enough.
    pub fn opening(&self) -> Option<Opening> {
        self.opening.borrow().clone()
    }

    /// How many empty frames were taken out.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// The stream of the frame that was handed on last: `h2` looks at each before it asks for another, so what it finds wrong
    /// with the connection, it found there.
    pub fn stream(&self) -> u32 {
        self.stream.get()
    }

    /// What the gate itself gave the connection up for.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// A second is over.
    pub fn next_second(&self) {
        self.settings.set(0);
    }

    /// The connection is lost; so many bytes have left on it, and no more will.
    pub fn note_lost(&self, written: u64) {
        self.lost_after.set(Some(written));
        self.loans.borrow_mut().forget_all();
    }

    /// `h2` is given this to send on that stream. A piece that is worth it is held here until it has gone by, or the stream is
    /// forgotten.
    pub fn note_piece(&self, stream: u32, piece: &Bytes) {
        if piece.len() >= PIECE_BYTES_MIN {
            self.loans.borrow_mut().note(stream, piece);
        }
    }

    /// `h2` is given the end of that stream, and there may be no window for what stands before it.
    pub fn note_ahead(&self, stream: u32) {
        let mut ahead = self.ahead.borrow_mut();
        if let Err(place) = ahead.binary_search(&stream) {
            ahead.insert(place, stream);
        }
    }

    /// The end of that stream is on its way, or nobody wants it any more. Whether it was still with `h2`.
    fn note_end(&self, stream: u32) -> bool {
        let mut ahead = self.ahead.borrow_mut();
        let place = ahead.binary_search(&stream);
        place.is_ok_and(|place| ahead.remove(place).is_some())
    }

    /// That stream is over. Whether `h2` still has its end, which was given to it ahead of the window.
    pub fn forget(&self, stream: u32) -> bool {
        self.loans.borrow_mut().forget(stream);
        self.note_end(stream)
    }

    /// `h2` was given a head to send.
    pub fn note_head(&self) {
        self.heads.set(self.heads.get() + 1);
    }

    /// `h2` has written all that it was given.
    pub fn note_no_heads(&self) {
        self.heads.set(0);
    }

    /// How many heads `h2` holds, because its socket takes no more.
    pub fn heads(&self) -> usize {
        self.heads.get()
    }

    /// How many bytes had left when the connection was lost; `None`: it is not.
    pub fn lost_after(&self) -> Option<u64> {
        self.lost_after.get()
    }
}

/// The sieve of an upstream connection.
#[derive(Debug)]
pub struct Gate {
    notes: Rc<Notes>,
    opened: bool,
    /// Bytes of the present frame that are still to be handed on.
    left: usize,
    /// Bytes of it that are handed on only when those are gone.
    behind: usize,
    /// Bytes of padding that are still to be thrown away.
    padding: usize,
    /// Bytes of the present head or trailer section, so far.
    block: usize,
    /// Window that padding has used and that is not given back yet, by stream.
    owed: BTreeMap<u32, u32>,
    sent: Sent,
}

/// Where in our own frames what was written last has ended.
#[derive(Debug)]
struct Sent {
    /// Bytes that are still to come of the present frame's payload.
    left: usize,
    /// Whose it is.
    stream: u32,
    /// What there is of the next frame's head.
    head: Vec<u8>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A gate before the first byte.
    pub fn new() -> Self {
        Self {
            notes: Rc::default(),
            opened: false,
            left: 0,
            behind: 0,
            padding: 0,
            block: 0,
            owed: BTreeMap::new(),
            sent: Sent {
                left: PREFACE_BYTES,
                stream: 0,
                head: Vec::new(),
            },
        }
    }

    /// What it has seen.
    pub fn notes(&self) -> Rc<Notes> {
        Rc::clone(&self.notes)
    }

    fn fail(&self, stream: u32, reason: Reason) -> io::Error {
        self.notes.fault.set(Some(Fault { stream, reason }));
        io::ErrorKind::InvalidData.into()
    }

    /// A frame begins that will be handed on.
    fn begin(&mut self, kind: u8, flags: u8, length: usize, stream: u32) -> io::Result<()> {
        let bytes = FRAME_HEAD_BYTES + length;
        match kind {
            FRAME_HEADERS | FRAME_PUSH_PROMISE => self.block = bytes,
            FRAME_CONTINUATION => self.block += bytes,
            FRAME_SETTINGS if flags & FLAG_ACK == 0 => {
                let settings = self.notes.settings.get() + 1;
                self.notes.settings.set(settings);
                if settings > SETTINGS_PER_SECOND_MAX {
                    return Err(self.fail(0, Reason::BackendProtocol("it floods SETTINGS")));
                }
            }
            _ => {}
        }
        if self.block > HEADER_BLOCK_BYTES_MAX {
            return Err(self.fail(stream, Reason::MetadataTooLarge));
        }
        self.notes.stream.set(stream);
        self.left = bytes;
        Ok(())
    }

    /// Takes out a frame of which nothing but `padding` and its length is left.
    fn take_out(&mut self, padding: usize, stream: u32) -> io::Result<()> {
        self.notes.dropped.set(self.notes.dropped.get() + 1);
        self.padding = padding;
        if padding > 0 {
            let owed = self.owed.entry(stream).or_default();
            *owed = owed.saturating_add(padding as u32);
            // Whoever keeps to its windows has no more under way.
            if *owed > STREAM_WINDOW_BYTES || self.owed.len() > STREAMS_MAX {
                return Err(self.fail(stream, Reason::BackendProtocol("it floods padding")));
            }
        }
        Ok(())
    }
}

impl Sieve for Gate {
    fn pass(&mut self, unread: &mut impl Buf) -> io::Result<usize> {
        if !self.opened {
            match opening(unread.chunk()) {
                Some(Opening::Http2) => self.opened = true,
                Some(other) => {
                    *self.notes.opening.borrow_mut() = Some(other);
                    return Ok(0);
                }
                None => return Ok(0),
            }
        }
        loop {
            if self.padding > 0 {
                let gone = self.padding.min(unread.remaining());
                unread.advance(gone);
                self.padding -= gone;
            }
            if self.left == 0 {
                self.left = mem::take(&mut self.behind);
            }
            if self.left > 0 {
                return Ok(self.left.min(unread.remaining()));
            }
            let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = unread.chunk().first_chunk() else {
                return Ok(0);
            };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            let padding = match (kind, flags & (FLAG_PADDED | FLAG_END_STREAM)) {
                // The connection has no DATA of its own: `h2` shall find that, and end it (RFC 9113 §6.1).
                _ if stream == 0 => None,
                (FRAME_DATA, 0) if length == 0 => Some(0),
                (FRAME_DATA, FLAG_PADDED) if length > 0 => {
                    match unread.chunk().get(FRAME_HEAD_BYTES) {
                        // The length of the padding counts as padding.
                        Some(&pad) if usize::from(pad) + 1 == length => Some(length),
                        Some(_) => None,
                        None => return Ok(0),
                    }
                }
                _ => None,
            };
            match padding {
                Some(padding) => {
                    unread.advance(FRAME_HEAD_BYTES);
                    self.take_out(padding, stream)?;
                }
                None => {
                    self.begin(kind, flags, length, stream)?;
                    if kind == FRAME_DATA && length >= LARGE_BYTES {
                        self.behind =
                            mem::replace(&mut self.left, FRAME_HEAD_BYTES) - FRAME_HEAD_BYTES;
                    } else if kind == FRAME_DATA && flags == 0 {
                        self.left += same_data_behind(unread.chunk(), self.left, stream);
                    }
                }
            }
        }
    }

    fn passed(&mut self, bytes: usize) {
        self.left -= bytes;
        if self.opened
            && self.left == 0
            && self.behind == 0
            && self.notes.opening.borrow().is_none()
        {
            // Not before the whole of the first SETTINGS has gone by: they say how many calls the peer takes.
            *self.notes.opening.borrow_mut() = Some(Opening::Http2);
        }
    }

    fn owes_answer(&self) -> bool {
        !self.owed.is_empty()
    }

    fn take_answer(&mut self) -> Option<Vec<u8>> {
        if self.owed.is_empty() {
            return None;
        }
        let owed = mem::take(&mut self.owed);
        let all: u64 = owed.values().map(|&bytes| u64::from(bytes)).sum();
        let all = all.min(u64::from(CONNECTION_WINDOW_BYTES)) as u32;
        let mut answer = Vec::new();
        for (stream, bytes) in owed.into_iter().chain([(0, all)]) {
            answer.extend([0, 0, 4, FRAME_WINDOW_UPDATE, 0]);
            answer.extend(stream.to_be_bytes());
            answer.extend(bytes.to_be_bytes());
        }
        Some(answer)
    }

    fn find(&self, bytes: &[u8]) -> Option<Bytes> {
        // Content alone: no byte of a frame's head.
        let whole = bytes.len() <= self.sent.left;
        let mut loans = self.notes.loans.borrow_mut();
        whole.then(|| loans.find(self.sent.stream, bytes)).flatten()
    }

    fn wrote(&mut self, mut bytes: &[u8]) {
        let Self { notes, sent, .. } = self;
        loop {
            let gone = sent.left.min(bytes.len());
            bytes = &bytes[gone..];
            sent.left -= gone;
            let missing = FRAME_HEAD_BYTES - sent.head.len();
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            sent.head.extend_from_slice(head);
            bytes = rest;
            let Some(&[a, b, c, kind, flags, s0, s1, s2, s3]) = sent.head.first_chunk() else {
                return;
            };
            sent.left = u32::from_be_bytes([0, a, b, c]) as usize;
            sent.stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            if kind == FRAME_HEADERS {
                notes.heads.set(notes.heads.get().saturating_sub(1));
            } else if kind == FRAME_DATA && flags & FLAG_END_STREAM != 0 {
                notes.note_end(sent.stream);
            }
            sent.head.clear();
        }
    }
}

/// How long the plain DATA frames of that stream are that follow one another from `at` on, the last maybe only begun. Handed on
/// together they cost `h2` one read, and what it finds wrong it still found on that stream.
fn same_data_behind(unread: &[u8], at: usize, stream: u32) -> usize {
    let mut end = at;
    while let Some(&[a, b, c, FRAME_DATA, 0, s0, s1, s2, s3]) =
        unread.get(end..).and_then(<[u8]>::first_chunk)
    {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        // An empty one is taken out, and a large one begins by itself.
        if length == 0
            || length >= LARGE_BYTES
            || u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) != stream
        {
            break;
        }
        end += FRAME_HEAD_BYTES + length;
    }
    end - at
}

/// What those first bytes say; `None`: too few to tell.
fn opening(bytes: &[u8]) -> Option<Opening> {
    match bytes {
        // A TLS record of type alert or handshake, version 3.x. As the length of a SETTINGS frame it would be over a mebibyte.
        [0x15 | 0x16, 0x03, ..] => Some(Opening::Tls),
        _ if bytes.starts_with(b"HTTP/") => {
            let line = bytes
                .split(|&byte| byte == b'\r' || byte == b'\n')
                .next()
                .unwrap_or(bytes);
            if line.len() == bytes.len() && bytes.len() < LINE_BYTES_MAX {
                return None;
            }
            let line = line.get(..LINE_BYTES_MAX).unwrap_or(line);
            Some(Opening::Http1(String::from_utf8_lossy(line).into_owned()))
        }
        _ if b"HTTP/".starts_with(bytes) => None,
        [_, _, _, kind, flags, rest @ ..] if *kind != FRAME_SETTINGS || rest.len() >= 4 => {
            let on_connection = rest.get(..4).is_some_and(|stream| stream == [0; 4]);
            // An acknowledgement says nothing of the peer's own settings.
            let settings = *kind == FRAME_SETTINGS && flags & FLAG_ACK == 0 && on_connection;
            Some(if settings {
                Opening::Http2
            } else {
                Opening::Noise
            })
        }
        _ => None,
    }
}

/// What is known of a peer that ended its side before that much: its first line, if it looks like one.
pub fn opening_at_end(bytes: &[u8]) -> Option<Opening> {
    match bytes {
        [] => None,
        // What may be the beginning of a SETTINGS frame says nothing but that the connection was lost.
        [0, rest @ ..]
            if rest.len() < FRAME_HEAD_BYTES - 1
                && rest.get(2).is_none_or(|&kind| kind == FRAME_SETTINGS) =>
        {
            None
        }
        _ if bytes.starts_with(b"HTTP/") => {
            Some(Opening::Http1(String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => Some(opening(bytes).unwrap_or(Opening::Noise)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn content_on_its_way_is_found_where_it_lies_and_heads_are_not() {
        let mut gate = Gate::new();
        let notes = gate.notes();
        let piece = Bytes::from(vec![5; 20_000]);
        notes.note_piece(7, &piece);
        let small = Bytes::from(vec![5; 2_000]);
        notes.note_piece(7, &small);
        assert!(small.is_unique(), "it is not worth it");
        gate.wrote(&[0; PREFACE_BYTES]);
        let frame = frame(FRAME_DATA, 0, 7, &piece[..16_384]);
        let (head, payload) = frame.split_at(FRAME_HEAD_BYTES);
        assert!(gate.find(&piece[..1_024]).is_none(), "no frame has begun");
        gate.wrote(head);
        gate.wrote(&payload[..1_015]);
        let found = gate.find(&piece[1_015..16_384]).unwrap();
        assert_eq!(found.as_ptr(), piece[1_015..].as_ptr());
        assert!(
            gate.find(&piece[1_015..16_385]).is_none(),
            "it ends within the next frame"
        );
        gate.wrote(&found);
        assert!(gate.find(&piece[16_384..]).is_none(), "no frame has begun");
        drop(found);
        assert!(!notes.forget(7), "its end was not given ahead");
        assert!(piece.is_unique());
    }

    fn through(pieces: &[&[u8]]) -> (Vec<u8>, Rc<Notes>) {
        let mut gate = Gate::new();
        let mut unread = BytesMut::new();
        let mut out = Vec::new();
        for piece in pieces {
            unread.extend_from_slice(piece);
            loop {
                let n = gate.pass(&mut unread).unwrap();
                if n == 0 {
                    break;
                }
                // Hand on unevenly, as a small ReadBuf would.
                let n = n.min(7);
                out.extend_from_slice(&unread[..n]);
                unread.advance(n);
                gate.passed(n);
            }
        }
        (out, gate.notes())
    }

    #[test]
    fn empty_data_is_taken_out_at_every_split_and_all_else_passes() {
        let mut input = frame(FRAME_SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let mut expected = input.clone();
        for (kind, flags, payload, passes) in [
            (FRAME_DATA, 0, &b""[..], false),
            (FRAME_DATA, 0, b"hello", true),
            (FRAME_DATA, FLAG_END_STREAM, b"", true),
            (FRAME_DATA, 0, b"", false),
            (FRAME_DATA, 0, b"", false),
            (1, 4, b"head", true),
            (FRAME_SETTINGS, 1, b"", true),
        ] {
            let frame = frame(kind, flags, 1, payload);
            input.extend(&frame);
            if passes {
                expected.extend(&frame);
            }
        }
        let (whole, notes) = through(&[&input]);
        assert_eq!(whole, expected);
        assert_eq!(notes.dropped(), 3);
        for cut in 0..=input.len() {
            let (a, b) = input.split_at(cut);
            let (out, notes) = through(&[a, b]);
            assert_eq!(out, expected, "cut at {cut}");
            assert_eq!(notes.dropped(), 3);
        }
        let bytes: Vec<_> = input.chunks(1).collect();
        assert_eq!(through(&bytes).0, expected);
    }

    #[test]
    fn plain_data_of_one_stream_passes_together_and_nothing_else_with_it() {
        let data = |stream, payload: &[u8]| frame(FRAME_DATA, 0, stream, payload);
        let run = [data(1, b"one"), data(1, b"two"), data(1, b"three")].concat();
        for (behind, joins) in [
            (data(1, b"four"), true),
            (data(3, b"other"), false),
            (data(1, b""), false),
            (frame(FRAME_DATA, FLAG_END_STREAM, 1, b"last"), false),
            (frame(FRAME_DATA, FLAG_PADDED, 1, &[1, b'x', 0]), false),
            (frame(FRAME_HEADERS, 4, 1, b"end"), false),
        ] {
            let whole = [&run[..], &behind].concat();
            let expected = if joins { whole.len() } else { run.len() };
            let mut gate = open_gate();
            let passing = gate.pass(&mut BytesMut::from(&whole[..])).unwrap();
            assert_eq!(passing, expected, "{behind:?}");
            assert_eq!(gate.notes().stream(), 1);
            // Of a frame that is only begun, what there is.
            let mut gate = open_gate();
            let passing = gate
                .pass(&mut BytesMut::from(&whole[..run.len() - 2]))
                .unwrap();
            assert_eq!(passing, run.len() - 2);
        }
    }

    #[test]
    fn the_head_of_a_large_data_frame_passes_by_itself() {
        let small = frame(FRAME_DATA, 0, 1, b"small");
        for flags in [0, FLAG_END_STREAM] {
            let large = frame(FRAME_DATA, flags, 1, &[7; LARGE_BYTES]);
            let mut unread = BytesMut::from(&[&small[..], &large, &small].concat()[..]);
            let mut gate = open_gate();
            for expected in [small.len(), FRAME_HEAD_BYTES, LARGE_BYTES, small.len()] {
                assert_eq!(gate.pass(&mut unread).unwrap(), expected);
                unread.advance(expected);
                gate.passed(expected);
            }
        }
    }

    /// A gate that has seen a peer's SETTINGS.
    fn open_gate() -> Gate {
        let mut gate = Gate::new();
        let mut unread = BytesMut::from(&frame(FRAME_SETTINGS, 0, 0, &[])[..]);
        let n = gate.pass(&mut unread).unwrap();
        gate.passed(n);
        gate
    }

    /// Hands on what it lets pass; the error it ends with, if it does.
    fn feed(gate: &mut Gate, input: &[u8]) -> io::Result<Vec<u8>> {
        let mut unread = BytesMut::from(input);
        let mut out = Vec::new();
        loop {
            let n = gate.pass(&mut unread)?;
            if n == 0 {
                return Ok(out);
            }
            out.extend_from_slice(&unread.split_to(n));
            gate.passed(n);
        }
    }

    fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
        frame(FRAME_WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    #[test]
    fn u_22_padding_around_nothing_is_taken_out_at_every_split_and_its_window_given_back() {
        let padded = |stream, flags, data: &[u8], padding: u8| {
            let zeros = vec![0; padding.into()];
            let payload = [&[padding][..], data, &zeros].concat();
            frame(FRAME_DATA, FLAG_PADDED | flags, stream, &payload)
        };
        let mut input = frame(FRAME_SETTINGS, 0, 0, &[]);
        let mut expected = input.clone();
        for (frame, passes) in [
            (padded(1, 0, b"", 0), false),
            (padded(3, 0, b"", 255), false),
            (padded(1, 0, b"hello", 7), true),
            (padded(1, 0, b"", 9), false),
            // The end of an answer, and what breaks the rules: `h2` is to see that.
            (padded(1, FLAG_END_STREAM, b"", 9), true),
            (frame(FRAME_DATA, FLAG_PADDED, 1, b""), true),
            (frame(FRAME_DATA, 0, 0, b""), true),
            (frame(FRAME_DATA, FLAG_PADDED, 0, &[0]), true),
            (frame(FRAME_DATA, FLAG_PADDED, 1, &[2, 0]), true),
            // On other frames the flag means something else.
            (frame(FRAME_HEADERS, FLAG_PADDED, 1, &[0]), true),
        ] {
            input.extend(&frame);
            if passes {
                expected.extend(&frame);
            }
        }
        let told = [
            window_update(1, 11),
            window_update(3, 256),
            window_update(0, 267),
        ];
        for cut in 0..=input.len() {
            let (a, b) = input.split_at(cut);
            let mut gate = Gate::new();
            let mut unread = BytesMut::new();
            let mut out = Vec::new();
            for piece in [a, b] {
                unread.extend_from_slice(piece);
                loop {
                    let n = gate.pass(&mut unread).unwrap();
                    if n == 0 {
                        break;
                    }
                    out.extend_from_slice(&unread.split_to(n));
                    gate.passed(n);
                }
            }
            assert_eq!(out, expected, "cut at {cut}");
            assert_eq!(gate.notes().dropped(), 3);
            assert_eq!(gate.take_answer(), Some(told.concat()));
            assert_eq!(gate.take_answer(), None, "once");
        }
    }

    #[test]
    fn u_22_more_padding_than_a_window_is_a_fault() {
        let mut gate = open_gate();
        let notes = gate.notes();
        let padded = frame(FRAME_DATA, FLAG_PADDED, 5, &[255; 256]);
        for _ in 0..STREAM_WINDOW_BYTES / 256 {
            assert_eq!(feed(&mut gate, &padded).unwrap(), b"");
        }
        assert!(gate.take_answer().is_some());
        for _ in 0..STREAM_WINDOW_BYTES / 256 {
            feed(&mut gate, &padded).unwrap();
        }
        assert_eq!(notes.fault(), None);
        assert!(feed(&mut gate, &padded).is_err());
        let reason = Reason::BackendProtocol("it floods padding");
        assert_eq!(notes.fault(), Some(Fault { stream: 5, reason }));
    }

    #[test]
    fn u_16_a_head_is_given_up_at_its_limit_however_it_is_cut() {
        // As few frames as can be, pieces of a kilobyte, and nothing but frame heads.
        for piece in [16 << 10, 1 << 10, 0] {
            let mut gate = open_gate();
            let notes = gate.notes();
            // A head within the limit is forgotten at the next one.
            feed(&mut gate, &frame(FRAME_HEADERS, 4, 3, &[0; 16 << 10])).unwrap();
            let mut passed = feed(&mut gate, &frame(FRAME_HEADERS, 0, 7, &vec![0; piece]))
                .unwrap()
                .len();
            let error = loop {
                match feed(&mut gate, &frame(FRAME_CONTINUATION, 0, 7, &vec![0; piece])) {
                    Ok(more) => passed += more.len(),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(passed <= HEADER_BLOCK_BYTES_MAX);
            assert!(passed + FRAME_HEAD_BYTES + piece > HEADER_BLOCK_BYTES_MAX);
            let reason = Reason::MetadataTooLarge;
            assert_eq!(notes.fault(), Some(Fault { stream: 7, reason }));
            assert_eq!(notes.stream(), 7);
        }
    }

    #[test]
    fn u_22_settings_are_counted_by_the_second_and_acknowledgements_are_not() {
        let mut gate = open_gate();
        let notes = gate.notes();
        let settings = frame(FRAME_SETTINGS, 0, 0, &[]);
        let acknowledgement = frame(FRAME_SETTINGS, FLAG_ACK, 0, &[]);
        for _ in 1..SETTINGS_PER_SECOND_MAX {
            feed(&mut gate, &settings).unwrap();
            feed(&mut gate, &acknowledgement).unwrap();
        }
        notes.next_second();
        for _ in 0..SETTINGS_PER_SECOND_MAX {
            feed(&mut gate, &settings).unwrap();
        }
        assert!(feed(&mut gate, &settings).is_err());
        assert_eq!(notes.fault().map(|fault| fault.stream), Some(0));
    }

    #[test]
    fn http2_is_noted_when_the_whole_of_the_first_settings_has_gone_by() {
        let settings = frame(FRAME_SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
        for cut in 0..=settings.len() {
            let (_, notes) = through(&[&settings[..cut]]);
            let whole = cut == settings.len();
            assert_eq!(notes.opening().is_some(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_first_bytes_tell_who_answers() {
        let settings = frame(FRAME_SETTINGS, 0, 0, &[]);
        let acknowledgement = frame(FRAME_SETTINGS, FLAG_ACK, 0, &[]);
        let on_a_stream = frame(FRAME_SETTINGS, 0, 1, &[]);
        for (bytes, expected) in [
            (&settings[..], Some(Opening::Http2)),
            (&settings[..8], None),
            (&acknowledgement[..], Some(Opening::Noise)),
            (&on_a_stream[..], Some(Opening::Noise)),
            (&[0x15, 0x03, 0x03, 0, 2, 2, 70], Some(Opening::Tls)),
            (
                b"HTTP/1.1 400 Bad Request\r\n",
                Some(Opening::Http1("HTTP/1.1 400 Bad Request".into())),
            ),
            (b"HTT", None),
            (b"SSH-2.0-OpenSSH", Some(Opening::Noise)),
            (b"", None),
        ] {
            assert_eq!(opening(bytes), expected, "{bytes:?}");
        }
        let (out, notes) = through(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]);
        assert!(out.is_empty(), "h2 never sees what is not HTTP/2");
        assert!(matches!(notes.opening(), Some(Opening::Http1(_))));
    }

    #[test]
    fn a_peer_that_ends_inside_its_settings_is_lost_and_not_foreign() {
        let settings = frame(FRAME_SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        for cut in 0..FRAME_HEAD_BYTES {
            assert_eq!(opening_at_end(&settings[..cut]), None, "cut at {cut}");
        }
        for noise in [&b"SSH"[..], b"\x00\x00\x06\x01", b"\x15", b"HT"] {
            assert_eq!(opening_at_end(noise), Some(Opening::Noise), "{noise:?}");
        }
    }
}
