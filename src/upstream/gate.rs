//! What stands between a backend's bytes and `h2`: is this HTTP/2 at all, and does it cost more than it may?
//!
//! The first bytes decide whether the peer speaks HTTP/2 (RFC 9113 §3.4: its preface is a SETTINGS frame): what does not is never
//! shown to `h2`, so that the reason can be told to a person. And a head that is far too long, a flood of SETTINGS, or one of
//! padding ends the connection before `h2` has paid for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::http2::{Entering, Fate, Gone, Loans, Met, Passing};
use crate::net::Sieve;
use crate::upstream::cancelled::Cancelled;
use crate::upstream::settings::{STREAM_WINDOW_BYTES, STREAMS_MAX};
use crate::wire::Reason;
use crate::wire::http2::{
    FRAME_HEAD_BYTES, FrameHead, PREFACE, SETTING_BYTES, flag, kind, setting,
};

/// How much of a first line is kept for people, bytes.
const LINE_BYTES_MAX: usize = 60;
/// A head or trailer section as it comes, heads of its frames included, bytes. Over it: the connection ends, its own call as
/// RESOURCE_EXHAUSTED, the others as UNAVAILABLE. The largest that may be configured fits well; see also
/// [`crate::upstream::settings::HEADER_LIST_BYTES_MAX`].
pub const HEADER_BLOCK_BYTES_MAX: usize = 96 << 10;
/// SETTINGS frames in one second. Over it: the connection ends. Each may change the window of every stream, so a few bytes
/// of them cost a walk over all.
pub const SETTINGS_PER_SECOND_MAX: u32 = 100;

/// A frame of SETTINGS, as large as any frame may be that we take, bytes.
const SETTINGS_BYTES_MAX: usize = 16 << 10;
/// How large a list of fields the peer takes, bytes (SETTINGS_MAX_HEADER_LIST_SIZE, RFC 9113 §6.5.2). `h2` heeds it not (0.4.20).
const HEADER_LIST_BYTES: u16 = 6;

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
    /// How large a head the peer takes, bytes.
    head_bytes_max: Cell<Option<u32>>,
    /// Whose end the peer is not told yet.
    cancelled: Cancelled,
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

    /// How large a head the peer takes, bytes. It may count the list of fields, or the block that has come.
    pub fn head_bytes_max(&self) -> u32 {
        self.head_bytes_max.get().unwrap_or(u32::MAX)
    }

    /// Whose end the peer is not told yet.
    pub(super) fn cancelled(&self) -> &Cancelled {
        &self.cancelled
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
        if Passing::is_worth_it(piece) {
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
    entering: Entering,
    /// Bytes of the present head or trailer section, so far.
    block: usize,
    passing: Passing,
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
            entering: Entering::default(),
            block: 0,
            passing: Passing::new(PREFACE.len()),
        }
    }

    /// What it has seen.
    pub fn notes(&self) -> Rc<Notes> {
        Rc::clone(&self.notes)
    }
}

/// Why a frame is not handed on.
enum Stop {
    /// It has not come whole.
    Waits,
    /// The connection is given up.
    Fails(io::Error),
}

/// Gives the connection up.
#[cold]
fn fail(notes: &Notes, stream: u32, reason: Reason) -> Stop {
    notes.fault.set(Some(Fault { stream, reason }));
    Stop::Fails(io::ErrorKind::InvalidData.into())
}

/// The peer says something of itself, or has heard of what we said.
#[cold]
fn note_settings(frame: FrameHead, rest: &[u8], notes: &Notes) -> Result<(), Stop> {
    if frame.has(flag::ACK) {
        notes.cancelled.note_answer();
        return Ok(());
    }
    // Of a length that may not be `h2` judges by the head alone.
    if frame.length.is_multiple_of(SETTING_BYTES) && frame.length <= SETTINGS_BYTES_MAX {
        let payload = rest.get(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + frame.length);
        if let Some(takes) = setting(payload.ok_or(Stop::Waits)?, HEADER_LIST_BYTES) {
            notes.head_bytes_max.set(Some(takes));
        }
    }
    let settings = notes.settings.get() + 1;
    notes.settings.set(settings);
    if settings > SETTINGS_PER_SECOND_MAX {
        let reason = Reason::BackendProtocol("it floods SETTINGS");
        return Err(fail(notes, 0, reason));
    }
    Ok(())
}

/// A frame begins; `rest` is what has come from there on. `block`: bytes of the present head or trailer section, so far.
#[inline]
fn judge(met: Met, rest: &[u8], notes: &Notes, block: &mut usize) -> Result<(), Stop> {
    let frame = match met {
        Met::HandedOn(frame) => frame,
        Met::TakenOut {
            frame,
            owed,
            streams_owed,
        } => {
            notes.dropped.set(notes.dropped.get() + 1);
            // Whoever keeps to its windows has no more under way.
            if owed > STREAM_WINDOW_BYTES || streams_owed > STREAMS_MAX {
                let reason = Reason::BackendProtocol("it floods padding");
                return Err(fail(notes, frame.stream, reason));
            }
            return Ok(());
        }
    };
    let bytes = FRAME_HEAD_BYTES + frame.length;
    match frame.kind {
        kind::HEADERS | kind::PUSH_PROMISE => *block = bytes,
        kind::CONTINUATION => *block += bytes,
        kind::SETTINGS => note_settings(frame, rest, notes)?,
        _ => {}
    }
    if *block > HEADER_BLOCK_BYTES_MAX {
        return Err(fail(notes, frame.stream, Reason::MetadataTooLarge));
    }
    notes.stream.set(frame.stream);
    Ok(())
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
        let Self {
            entering,
            notes,
            block,
            ..
        } = self;
        let passing = entering.pass(unread, |met, rest| {
            judge(met, rest, notes, block).map(|()| Fate::Passes)
        });
        match passing {
            Ok(passing) => Ok(passing),
            Err(Stop::Waits) => Ok(0),
            Err(Stop::Fails(error)) => Err(error),
        }
    }

    fn passed(&mut self, bytes: usize) {
        let whole = self.entering.passed(bytes);
        if self.opened && whole && self.notes.opening.borrow().is_none() {
            // Not before the whole of the first SETTINGS has gone by: they say how many calls the peer takes.
            *self.notes.opening.borrow_mut() = Some(Opening::Http2);
        }
    }

    fn owes_answer(&self) -> bool {
        self.entering.owes_answer()
    }

    fn take_answer(&mut self) -> Option<Vec<u8>> {
        self.entering.take_answer()
    }

    fn find(&self, bytes: &[u8]) -> Option<Bytes> {
        let mut loans = self.notes.loans.borrow_mut();
        self.passing.find(bytes, &mut loans)
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let Self { notes, passing, .. } = self;
        passing.wrote(bytes, |gone| {
            let Gone::Begun(frame) = gone else {
                return;
            };
            match frame.kind {
                kind::HEADERS => notes.heads.set(notes.heads.get().saturating_sub(1)),
                kind::DATA if frame.has(flag::END_STREAM) => {
                    notes.note_end(frame.stream);
                }
                _ => {}
            }
        });
    }
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
        [_, _, _, kind, flags, rest @ ..] if *kind != kind::SETTINGS || rest.len() >= 4 => {
            let on_connection = rest.get(..4).is_some_and(|stream| stream == [0; 4]);
            // An acknowledgement says nothing of the peer's own settings.
            let settings = *kind == kind::SETTINGS && flags & flag::ACK == 0 && on_connection;
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
                && rest.get(2).is_none_or(|&kind| kind == kind::SETTINGS) =>
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

    use crate::http2::LARGE_BYTES;

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
        gate.wrote(&[0; PREFACE.len()]);
        let frame = frame(kind::DATA, 0, 7, &piece[..16_384]);
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
        let mut input = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        let mut expected = input.clone();
        for (kind, flags, payload, passes) in [
            (kind::DATA, 0, &b""[..], false),
            (kind::DATA, 0, b"hello", true),
            (kind::DATA, flag::END_STREAM, b"", true),
            (kind::DATA, 0, b"", false),
            (kind::DATA, 0, b"", false),
            (1, 4, b"head", true),
            (kind::SETTINGS, 1, b"", true),
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
        let data = |stream, payload: &[u8]| frame(kind::DATA, 0, stream, payload);
        let run = [data(1, b"one"), data(1, b"two"), data(1, b"three")].concat();
        for (behind, joins) in [
            (data(1, b"four"), true),
            (data(3, b"other"), false),
            (data(1, b""), false),
            (frame(kind::DATA, flag::END_STREAM, 1, b"last"), false),
            (frame(kind::DATA, flag::PADDED, 1, &[1, b'x', 0]), false),
            (frame(kind::HEADERS, 4, 1, b"end"), false),
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
        let small = frame(kind::DATA, 0, 1, b"small");
        for flags in [0, flag::END_STREAM] {
            let large = frame(kind::DATA, flags, 1, &[7; LARGE_BYTES]);
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
        let mut unread = BytesMut::from(&frame(kind::SETTINGS, 0, 0, &[])[..]);
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
        frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    #[test]
    fn u_22_padding_around_nothing_is_taken_out_at_every_split_and_its_window_given_back() {
        let padded = |stream, flags, data: &[u8], padding: u8| {
            let zeros = vec![0; padding.into()];
            let payload = [&[padding][..], data, &zeros].concat();
            frame(kind::DATA, flag::PADDED | flags, stream, &payload)
        };
        let mut input = frame(kind::SETTINGS, 0, 0, &[]);
        let mut expected = input.clone();
        for (frame, passes) in [
            (padded(1, 0, b"", 0), false),
            (padded(3, 0, b"", 255), false),
            (padded(1, 0, b"hello", 7), true),
            (padded(1, 0, b"", 9), false),
            // The end of an answer, and what breaks the rules: `h2` is to see that.
            (padded(1, flag::END_STREAM, b"", 9), true),
            (frame(kind::DATA, flag::PADDED, 1, b""), true),
            (frame(kind::DATA, 0, 0, b""), true),
            (frame(kind::DATA, flag::PADDED, 0, &[0]), true),
            (frame(kind::DATA, flag::PADDED, 1, &[2, 0]), true),
            // On other frames the flag means something else.
            (frame(kind::HEADERS, flag::PADDED, 1, &[0]), true),
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
        let padded = frame(kind::DATA, flag::PADDED, 5, &[255; 256]);
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
            feed(&mut gate, &frame(kind::HEADERS, 4, 3, &[0; 16 << 10])).unwrap();
            let mut passed = feed(&mut gate, &frame(kind::HEADERS, 0, 7, &vec![0; piece]))
                .unwrap()
                .len();
            let error = loop {
                match feed(&mut gate, &frame(kind::CONTINUATION, 0, 7, &vec![0; piece])) {
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
        let settings = frame(kind::SETTINGS, 0, 0, &[]);
        let acknowledgement = frame(kind::SETTINGS, flag::ACK, 0, &[]);
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
    fn m_19_what_the_peer_takes_is_known_when_its_settings_have_gone_by_however_they_are_cut() {
        let table = [0, 1, 0, 0, 16, 0];
        let takes = |bytes: u32| {
            let [a, b, c, d] = bytes.to_be_bytes();
            [0, 6, a, b, c, d]
        };
        let first = frame(
            kind::SETTINGS,
            0,
            0,
            &[takes(7), table, takes(8192)].concat(),
        );
        for cut in 0..=first.len() {
            let mut gate = Gate::new();
            let notes = gate.notes();
            let mut unread = BytesMut::from(&first[..cut]);
            let passing = gate.pass(&mut unread).unwrap();
            let (length, known) = match cut == first.len() {
                true => (cut, 8192),
                false => (0, u32::MAX),
            };
            assert_eq!((passing, notes.head_bytes_max()), (length, known), "{cut}");
        }
        let mut gate = open_gate();
        let notes = gate.notes();
        for (flags, settings, known) in [
            (0, &[takes(100)][..], 100),
            (0, &[table], 100),
            // What it says it has seen is ours.
            (flag::ACK, &[takes(5)], 100),
            (0, &[takes(0)], 0),
            (0, &[takes(u32::MAX)], u32::MAX),
        ] {
            feed(
                &mut gate,
                &frame(kind::SETTINGS, flags, 0, &settings.concat()),
            )
            .unwrap();
            assert_eq!(notes.head_bytes_max(), known);
        }
        // What may not be `h2` finds by the head alone.
        for length in [7, 6 * 3_000] {
            let mut gate = open_gate();
            let broken = frame(kind::SETTINGS, 0, 0, &vec![0; length]);
            let begun = &broken[..FRAME_HEAD_BYTES];
            assert_eq!(feed(&mut gate, begun).unwrap(), begun);
        }
    }

    #[test]
    fn http2_is_noted_when_the_whole_of_the_first_settings_has_gone_by() {
        let settings = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
        for cut in 0..=settings.len() {
            let (_, notes) = through(&[&settings[..cut]]);
            let whole = cut == settings.len();
            assert_eq!(notes.opening().is_some(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_first_bytes_tell_who_answers() {
        let settings = frame(kind::SETTINGS, 0, 0, &[]);
        let acknowledgement = frame(kind::SETTINGS, flag::ACK, 0, &[]);
        let on_a_stream = frame(kind::SETTINGS, 0, 1, &[]);
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
        let settings = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        for cut in 0..FRAME_HEAD_BYTES {
            assert_eq!(opening_at_end(&settings[..cut]), None, "cut at {cut}");
        }
        for noise in [&b"SSH"[..], b"\x00\x00\x06\x01", b"\x15", b"HT"] {
            assert_eq!(opening_at_end(noise), Some(Opening::Noise), "{noise:?}");
        }
    }
}
