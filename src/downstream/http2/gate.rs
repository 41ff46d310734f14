//! What stands between a client's bytes and `h2`: does it speak HTTP/2, and does it ask for more work than it does itself?
//!
//! A frame costs its sender a few bytes, and may cost us a walk, an answer, a call. `h2` counts some of that; what it does not count
//! is counted here, by the second, and whoever sends too much is told to calm down and closed. It never changes what a frame
//! means.
//!
//! Sources: RFC 9113 §3.4, §10.5; CVE-2019-9512, -9515, -9516, -9518 (PING, SETTINGS and empty frames), CVE-2023-44487 (Rapid
//! Reset), CVE-2024-27316 (CONTINUATION).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h2::Reason as H2Reason;

use crate::downstream::Share;
use crate::downstream::http2::settings::{STREAM_WINDOW_BYTES, STREAMS_MAX};
use crate::http2::{Entering, Fate, Gone, Loans, Met, Passing, TOGETHER_MAX};
use crate::net::Sieve;
use crate::wire::http2::{FRAME_HEAD_BYTES, FrameHead, PREFACE, flag, kind};
use crate::wire::{Reason, Reset};

/// Streams that a client resets in one second. Twice what it may have open: a page that is closed resets all it has.
const RESETS_PER_SECOND_MAX: u32 = 2 * STREAMS_MAX;
/// Those among them that had no answer yet: each is a call that was begun for nothing.
const UNANSWERED_RESETS_PER_SECOND_MAX: u32 = STREAMS_MAX;
/// PING frames in one second. Each is answered.
const PINGS_PER_SECOND_MAX: u32 = 100;
/// How many more for each DATA frame of ours: a reader that wants to know how much it should let us send (grpc-go and the C core
/// do, unasked) sends one behind what it has read, as soon as the last one has been answered.
const PINGS_PER_DATA: u32 = 1;
/// SETTINGS frames in one second. Each is answered, and may change the window of every stream.
const SETTINGS_PER_SECOND_MAX: u32 = 50;
/// Frames in one second in which nothing stands: DATA without content or end, HEADERS and CONTINUATION without a byte.
const EMPTY_PER_SECOND_MAX: u32 = 100;
/// Frames in one second that say something about the connection or nothing at all (WINDOW_UPDATE, PRIORITY, types that nobody
/// knows), and how many more for each DATA frame of ours, which a reader may well answer for its stream and its connection.
const CHATTER_PER_SECOND_MAX: u32 = 1000;
const CHATTER_PER_DATA: u32 = 2;
/// DATA frames of ours that a reader may still answer in a later second than theirs.
const DATA_KEPT_MAX: u32 = 10_000;
/// CONTINUATION frames of one head. `h2` allows fewer that do not end it where heads are smaller: as many as fill four times the
/// limit, and a quarter more.
const CONTINUATIONS_MAX: u32 = 20;
/// A head as it comes, heads of its frames included, bytes: the largest that may be configured, and room for those. A field costs
/// less here than what it counts against our limit.
const HEADER_BLOCK_BYTES_MAX: usize = (64 << 10) + 1024;
/// Above this number streams run out soon (RFC 9113 §5.1.1): the client is asked to come again.
const STREAM_ID_MAX: u32 = (1 << 31) - (1 << 16);
/// Heads in one second that are refused because they are none. `h2` counts those that it finds by itself, in the life of a connection,
/// see [`crate::downstream::http2::settings`]; these are the others. Each costs an answer and a line, and honest callers who share a
/// connection may send one now and then: a cookie that has grown too large, a path that is too long.
const FAULTS_PER_SECOND_MAX: u32 = 100;
/// What a frame of a client may carry, bytes: what RFC 9113 §4.2 allows whoever was told nothing else.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Streams without an answer that are remembered. There are more only of those that `h2` ignores.
const UNANSWERED_MAX: usize = 4 * STREAMS_MAX as usize;

/// Why the gate has a connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the client is told in GOAWAY; NO_ERROR: its calls may end first.
    pub reason: H2Reason,
    /// In a few words, for people.
    pub words: &'static str,
}

/// What the gate has seen; the connection looks at it after each poll.
#[derive(Debug, Default)]
pub struct Notes {
    verdict: Cell<Option<Verdict>>,
    /// The client has acknowledged our SETTINGS.
    acknowledged: Cell<bool>,
    /// Streams whose answer has not begun.
    unanswered: RefCell<BTreeMap<u32, Seen>>,
    /// Those among them that were told to go on (100): that head is no answer.
    told_to_go_on: RefCell<BTreeSet<u32>>,
    /// Streams that `h2` has ended before they were given out as requests; it may still give them out.
    turned_away: RefCell<BTreeSet<u32>>,
    counts: Cell<Counts>,
    /// How much has come of a head that is not whole, bytes.
    head_bytes: Cell<usize>,
    /// A head has come whole.
    head_whole: Cell<bool>,
    /// A head has been handed on that may not have been given out.
    head_ahead: Cell<bool>,
    /// Another one waits for that.
    held_back: Cell<bool>,
    /// How many frames may still be handed on in this turn.
    frames_left: Cell<u32>,
    /// One waits for the next turn.
    out_of_frames: Cell<bool>,
    /// Content that `h2` was given and has not written, to be found again.
    loans: RefCell<Loans>,
    /// What `h2` was given of answers and has not written, by stream. There are as many as there are streams at most, and mostly one.
    unwritten: RefCell<Vec<Unwritten>>,
    /// All of their content, bytes.
    unwritten_bytes: Cell<usize>,
    /// That, as a part of what all calls hold.
    share: RefCell<Option<Share>>,
    socket: Cell<SocketTime>,
    /// The head that is being written ends its stream, and more frames of it follow.
    ends_behind_head: Cell<bool>,
    /// The last stream that has begun.
    begun: Cell<u32>,
    /// Why we have ended the connection, where its calls are to be told.
    ended: Cell<Option<Reset>>,
    /// The first step of a GOAWAY has been written, and waits for its answer.
    says_goodbye: Cell<bool>,
    /// The answer has come: `h2` ignores streams beyond this one.
    last: Cell<Option<u32>>,
}

/// How far a stream without an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Its head is coming, or is with `h2`.
    Head,
    /// `h2` has given it out as a request.
    Request,
}

/// What `h2` holds of one answer.
#[derive(Clone, Copy, Debug, Default)]
struct Unwritten {
    stream: u32,
    /// Its content, bytes.
    bytes: usize,
    /// Its end is among it.
    ends: bool,
}

/// How long `h2` could not write all that its windows allowed.
#[derive(Clone, Copy, Debug, Default)]
struct SocketTime {
    /// Since when that is so.
    full_since: Option<Instant>,
    /// For how long it was before.
    full_before: Duration,
}

impl SocketTime {
    /// For how long in all until `now`.
    fn full(self, now: Instant) -> Duration {
        let since = self.full_since.map(|at| now.saturating_duration_since(at));
        self.full_before + since.unwrap_or_default()
    }
}

/// What came in the present second.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resets: u32,
    unanswered_resets: u32,
    pings: u32,
    settings: u32,
    empty: u32,
    chatter: u32,
    /// Heads that were none.
    faults: u32,
    /// DATA frames of ours.
    data: u32,
}

impl Counts {
    /// So many of one kind, and so many more for each DATA frame of ours.
    const fn allows(self, most: u32, per_data: u32) -> u32 {
        most.saturating_add(self.data.saturating_mul(per_data))
    }
}

impl Notes {
    /// What the gate has found; `None`: nothing that the connection would end for.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }

    /// Whether the client has acknowledged our SETTINGS.
    pub fn acknowledged(&self) -> bool {
        self.acknowledged.get()
    }

    /// That stream is a request, however it stands by now.
    pub fn note_request(&self, stream: u32) {
        self.turned_away.borrow_mut().remove(&stream);
        if let Some(seen) = self.unanswered.borrow_mut().get_mut(&stream) {
            *seen = Seen::Request;
        }
    }

    /// One more head that is none.
    pub fn note_fault(&self) {
        let mut counts = self.counts.get();
        counts.faults = counts.faults.saturating_add(1);
        self.weigh(counts);
    }

    /// How many streams `h2` has turned away since this was asked last.
    pub fn take_turned_away(&self) -> usize {
        self.turned_away.take().len()
    }

    /// All that was handed on has been given out. Whether a head was held back meanwhile, which may go on now.
    ///
    /// `h2` reads all heads that it can have before it gives out the first of them. A byte of a head can be a hundred bytes of a
    /// field's place in a table, so a read of heads would be many megabytes; held back, there is one of them at any time.
    pub fn let_heads_on(&self) -> bool {
        self.head_ahead.set(false);
        self.held_back.take()
    }

    /// Whether that frame begins a head that has not come whole. `h2` would read what there is of it, and a byte of a head can be
    /// a hundred of what it becomes: as long as it waits here it holds what has come.
    fn waits_for_whole_head(&self, met: Met, rest: &[u8]) -> bool {
        let Met::HandedOn(FrameHead {
            kind: kind::HEADERS,
            ..
        }) = met
        else {
            return false;
        };
        match head_at(rest) {
            HeadSoFar::Whole => {
                self.head_bytes.set(0);
                self.head_whole.set(true);
                false
            }
            HeadSoFar::Begun => {
                self.head_bytes.set(rest.len());
                true
            }
            // `h2` would find that, when the other frame has come whole, and keep what it has read until then.
            HeadSoFar::Broken => {
                self.head_bytes.set(0);
                self.judge(H2Reason::PROTOCOL_ERROR, "a frame stands inside a head");
                true
            }
            HeadSoFar::Endless => {
                self.head_bytes.set(0);
                self.calm("a head without end");
                true
            }
        }
    }

    /// Whether that frame waits until the head before it was given out.
    fn hold_back(&self, met: Met) -> bool {
        let Met::HandedOn(FrameHead {
            kind: kind::HEADERS,
            ..
        }) = met
        else {
            return false;
        };
        let waits = self.head_ahead.replace(true);
        self.held_back.set(waits);
        waits
    }

    /// From now on so many frames may be handed on.
    pub fn allow_frames(&self, frames: u32) {
        self.frames_left.set(frames);
        self.out_of_frames.set(false);
    }

    /// How many more frames may be handed on.
    pub fn frames_left(&self) -> u32 {
        self.frames_left.get()
    }

    /// Whether a frame waits until more may be handed on.
    pub fn is_out_of_frames(&self) -> bool {
        self.out_of_frames.get()
    }

    /// How much has come of a head that is not whole, heads of its frames included, bytes.
    pub fn head_bytes(&self) -> usize {
        self.head_bytes.get()
    }

    /// Whether a head has come whole since this was asked last.
    pub fn take_head_whole(&self) -> bool {
        self.head_whole.take()
    }

    /// We end the connection for that.
    pub fn note_end(&self, reset: Reset) {
        self.ended.set(Some(reset));
    }

    /// Why nobody is there any more.
    pub fn why_gone(&self) -> Reset {
        let left = Reset::downstream(Reason::ClientLeft);
        self.ended.get().unwrap_or(left)
    }

    /// A second is over. A reader may answer late what we have sent.
    pub fn next_second(&self) {
        let before = self.counts.take();
        let answered = before.chatter / CHATTER_PER_DATA;
        let data = before.data.saturating_sub(answered).min(DATA_KEPT_MAX);
        self.counts.set(Counts {
            data,
            ..Counts::default()
        });
    }

    /// `h2` is given this to send on that stream.
    pub fn note_piece(&self, stream: u32, piece: &Bytes) {
        if Passing::is_worth_it(piece) {
            self.loans.borrow_mut().note(stream, piece);
        }
        self.with_unwritten(stream, |own| own.bytes += piece.len());
        self.hold(self.unwritten_bytes.get() + piece.len());
    }

    /// From now on what `h2` holds is counted there; `None`: nowhere, since it holds it no more.
    pub fn count_in(&self, share: Option<Share>) {
        *self.share.borrow_mut() = share;
        self.hold(self.unwritten_bytes.get());
    }

    fn hold(&self, bytes: usize) {
        self.unwritten_bytes.set(bytes);
        if let Some(share) = &mut *self.share.borrow_mut() {
            share.hold(bytes);
        }
    }

    /// `h2` is given the end of that stream's answer.
    pub fn note_answer_end(&self, stream: u32) {
        self.with_unwritten(stream, |own| own.ends = true);
    }

    fn with_unwritten(&self, stream: u32, change: impl FnOnce(&mut Unwritten)) {
        let mut all = self.unwritten.borrow_mut();
        let at = find(&all, stream).unwrap_or_else(|at| {
            let own = Unwritten {
                stream,
                ..Unwritten::default()
            };
            all.insert(at, own);
            at
        });
        change(&mut all[at]);
    }

    /// How much `h2` holds of the content of that stream's answer, bytes; `None`: all that it was given has been written.
    pub fn unwritten(&self, stream: u32) -> Option<usize> {
        let all = self.unwritten.borrow();
        let at = find(&all, stream).ok()?;
        Some(all[at].bytes)
    }

    /// How much it holds of all answers, as far as that is counted, bytes.
    pub fn unwritten_bytes(&self) -> usize {
        self.share.borrow().as_ref().map_or(0, Share::bytes)
    }

    /// `h2` was polled. `all`: nothing but windows has kept it from writing more.
    pub fn note_writes(&self, all: bool, now: Instant) {
        let mut socket = self.socket.get();
        match (all, socket.full_since) {
            (true, Some(_)) => {
                socket = SocketTime {
                    full_since: None,
                    full_before: socket.full(now),
                };
            }
            (false, None) => socket.full_since = Some(now),
            (true, None) | (false, Some(_)) => {}
        }
        self.socket.set(socket);
    }

    /// Whether what it still holds waits for windows alone.
    pub fn has_written_all(&self) -> bool {
        self.socket.get().full_since.is_none()
    }

    /// For how long the socket has not taken all until `now`, in all.
    pub fn socket_time(&self, now: Instant) -> Duration {
        self.socket.get().full(now)
    }

    /// A frame of ours has been written whole.
    fn note_whole(&self, frame: FrameHead) {
        let ends = frame.has(flag::END_STREAM);
        let is_head_whole = frame.has(flag::END_HEADERS);
        match frame.kind {
            kind::DATA => self.note_written(frame.stream, frame.length, ends),
            // An end that is said in a head is said when the last frame of that head has gone.
            kind::HEADERS if ends && is_head_whole => self.note_written(frame.stream, 0, true),
            kind::HEADERS => self.ends_behind_head.set(ends),
            kind::CONTINUATION if is_head_whole && self.ends_behind_head.take() => {
                self.note_written(frame.stream, 0, true);
            }
            kind::RST_STREAM => self.note_written(frame.stream, 0, true),
            _ => {}
        }
    }

    /// So much content of that stream has been written. `over`: `h2` holds no more of it.
    fn note_written(&self, stream: u32, bytes: usize, over: bool) {
        let mut all = self.unwritten.borrow_mut();
        let Ok(at) = find(&all, stream) else {
            return;
        };
        let own = &mut all[at];
        let written = bytes.min(own.bytes);
        own.bytes -= written;
        let mut gone = written;
        if over || (own.bytes == 0 && !own.ends) {
            gone += all.remove(at).bytes;
        }
        drop(all);
        self.hold(self.unwritten_bytes.get() - gone);
    }

    /// `h2` is given an interim head (100) to send on that stream.
    pub fn note_interim(&self, stream: u32) {
        self.told_to_go_on.borrow_mut().insert(stream);
    }

    /// Nothing of that stream is written any more, or what is can be copied.
    pub fn forget(&self, stream: u32) {
        self.told_to_go_on.borrow_mut().remove(&stream);
        self.loans.borrow_mut().forget(stream);
        self.note_written(stream, 0, true);
    }

    fn judge(&self, reason: H2Reason, words: &'static str) {
        if self
            .verdict
            .get()
            .is_none_or(|own| own.reason == H2Reason::NO_ERROR)
        {
            self.verdict.set(Some(Verdict { reason, words }));
        }
    }

    fn calm(&self, words: &'static str) {
        self.judge(H2Reason::ENHANCE_YOUR_CALM, words);
    }

    /// Nothing more of this client is looked at.
    fn is_closed(&self) -> bool {
        self.verdict
            .get()
            .is_some_and(|own| own.reason != H2Reason::NO_ERROR)
    }

    fn see(&self, met: Met) {
        let frame = match met {
            Met::HandedOn(frame) => frame,
            Met::TakenOut {
                owed, streams_owed, ..
            } => {
                let mut counts = self.counts.get();
                counts.empty += 1;
                self.counts.set(counts);
                // Whoever keeps to its windows has no more under way.
                let streams_owed = u32::try_from(streams_owed).unwrap_or(u32::MAX);
                if owed > STREAM_WINDOW_BYTES || streams_owed > STREAMS_MAX {
                    self.calm("it floods padding");
                }
                return self.weigh(counts);
            }
        };
        if !is_sized(frame) {
            return self.judge(H2Reason::FRAME_SIZE_ERROR, "a frame of a wrong size");
        }
        let mut counts = self.counts.get();
        match frame.kind {
            kind::DATA => return,
            kind::HEADERS => {
                counts.empty += u32::from(frame.length == 0);
                self.begin(frame.stream);
            }
            kind::CONTINUATION => {
                counts.empty += u32::from(frame.length == 0);
            }
            // RFC 9113 §8.4; on a stream that we have reset `h2` would take it for that stream's fault alone (0.4.20).
            kind::PUSH_PROMISE => return self.judge(H2Reason::PROTOCOL_ERROR, "it pushes"),
            kind::RST_STREAM => {
                counts.resets += 1;
                let unanswered = self.unanswered.borrow_mut().remove(&frame.stream);
                counts.unanswered_resets += u32::from(unanswered.is_some());
                // `h2` lets go of what it held, and would not say so where windows were what that waited for (0.4.20).
                self.note_written(frame.stream, 0, true);
            }
            // Whoever acknowledges what was never asked makes us deaf to its own streams, and to nobody else's.
            kind::PING if frame.has(flag::ACK) => {
                if self.says_goodbye.get() && self.last.get().is_none() {
                    self.last.set(Some(self.begun.get()));
                }
            }
            kind::PING => counts.pings += 1,
            kind::SETTINGS if frame.has(flag::ACK) => self.acknowledged.set(true),
            kind::SETTINGS => counts.settings += 1,
            _ => counts.chatter += 1,
        }
        self.weigh(counts);
    }

    /// Whether `h2` must not hear of it. It ignores the heads of streams that come behind the second step of a GOAWAY, and would end
    /// the connection, with all calls that may still go on, at the next word on one of them (0.4.20).
    fn falls(&self, frame: FrameHead) -> bool {
        let ignored = self.last.get().is_some_and(|last| frame.stream > last);
        ignored
            && frame.stream <= self.begun.get()
            && matches!(frame.kind, kind::WINDOW_UPDATE | kind::RST_STREAM)
    }

    fn begin(&self, stream: u32) {
        if stream <= self.begun.get() {
            // Trailers are on a stream that is known, and say nothing new.
            return;
        }
        self.begun.set(stream);
        let mut unanswered = self.unanswered.borrow_mut();
        unanswered.insert(stream, Seen::Head);
        if unanswered.len() > UNANSWERED_MAX {
            unanswered.pop_first();
        }
        if stream > STREAM_ID_MAX {
            self.judge(H2Reason::NO_ERROR, "its streams run out");
        }
    }

    fn weigh(&self, counts: Counts) {
        self.counts.set(counts);
        for (count, most, words) in [
            (counts.resets, RESETS_PER_SECOND_MAX, "it floods RST_STREAM"),
            (
                counts.unanswered_resets,
                UNANSWERED_RESETS_PER_SECOND_MAX,
                "it resets calls before they are answered",
            ),
            (
                counts.pings,
                counts.allows(PINGS_PER_SECOND_MAX, PINGS_PER_DATA),
                "it floods PING",
            ),
            (
                counts.settings,
                SETTINGS_PER_SECOND_MAX,
                "it floods SETTINGS",
            ),
            (counts.empty, EMPTY_PER_SECOND_MAX, "it floods empty frames"),
            (
                counts.chatter,
                counts.allows(CHATTER_PER_SECOND_MAX, CHATTER_PER_DATA),
                "it floods frames that say nothing",
            ),
            (
                counts.faults,
                FAULTS_PER_SECOND_MAX,
                "it sends one head after another that is none",
            ),
        ] {
            if count > most {
                self.calm(words);
            }
        }
    }

    /// A frame of ours begins.
    fn note_sent(&self, frame: FrameHead) {
        match frame.kind {
            kind::DATA => {
                let mut counts = self.counts.get();
                counts.data = counts.data.saturating_add(1);
                self.counts.set(counts);
            }
            // `h2` has none of its own but the one that goes with a GOAWAY.
            kind::PING if !frame.has(flag::ACK) => self.says_goodbye.set(true),
            kind::HEADERS if self.told_to_go_on.borrow_mut().remove(&frame.stream) => {}
            kind::HEADERS | kind::RST_STREAM => {
                let seen = self.unanswered.borrow_mut().remove(&frame.stream);
                if seen == Some(Seen::Head) {
                    self.turned_away.borrow_mut().insert(frame.stream);
                }
            }
            _ => {}
        }
    }
}

/// Whether `h2` would hear of something new by it. A head that begins goes on to its end, so that `h2` never holds half of one.
const fn begins_something(met: Met) -> bool {
    match met {
        Met::HandedOn(frame) => frame.kind != kind::CONTINUATION,
        Met::TakenOut { .. } => false,
    }
}

/// Whether that is a reset that has not come whole: it is believed when `h2` hears of it.
const fn is_half_a_reset(met: Met, rest: &[u8]) -> bool {
    match met {
        Met::HandedOn(frame) => {
            frame.kind == kind::RST_STREAM
                && is_sized(frame)
                && rest.len() < FRAME_HEAD_BYTES + frame.length
        }
        Met::TakenOut { .. } => false,
    }
}

/// Where that stream is among them, or would be.
fn find(all: &[Unwritten], stream: u32) -> Result<usize, usize> {
    all.binary_search_by_key(&stream, |own| own.stream)
}

/// Whether it is as long as its type says (RFC 9113 §6). `h2` finds that too, and calls it by another name.
const fn is_sized(frame: FrameHead) -> bool {
    let length = frame.length;
    match frame.kind {
        kind::PRIORITY => length == 5,
        kind::RST_STREAM | kind::WINDOW_UPDATE => length == 4,
        kind::PING => length == 8,
        kind::SETTINGS if frame.has(flag::ACK) => length == 0,
        kind::SETTINGS => length.is_multiple_of(6) && length <= FRAME_BYTES_MAX,
        kind::GOAWAY => length >= 8 && length <= FRAME_BYTES_MAX,
        _ => length <= FRAME_BYTES_MAX,
    }
}

/// How a head stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadSoFar {
    Whole,
    Begun,
    /// A frame that is no part of it stands inside it.
    Broken,
    /// It will be larger than any may be, or comes in more pieces.
    Endless,
}

/// How the head stands that begins with the first frame there.
fn head_at(unread: &[u8]) -> HeadSoFar {
    let mut end = 0;
    let mut continuations = 0;
    let mut stream = None;
    while let Some(frame) = unread.get(end..).and_then(FrameHead::parse) {
        let belongs = match stream.replace(frame.stream) {
            None => true,
            Some(stream) => frame.kind == kind::CONTINUATION && frame.stream == stream,
        };
        if !belongs {
            return HeadSoFar::Broken;
        }
        if !is_sized(frame) {
            // It is judged as soon as it is met.
            return HeadSoFar::Whole;
        }
        continuations += u32::from(frame.kind == kind::CONTINUATION);
        end += FRAME_HEAD_BYTES + frame.length;
        if end > HEADER_BLOCK_BYTES_MAX || continuations > CONTINUATIONS_MAX {
            return HeadSoFar::Endless;
        }
        if frame.has(flag::END_HEADERS) && end <= unread.len() {
            return HeadSoFar::Whole;
        }
        if end > unread.len() {
            break;
        }
    }
    HeadSoFar::Begun
}

/// The sieve of a client's connection.
#[derive(Debug)]
pub struct Gate {
    notes: Rc<Notes>,
    /// What of the preface has not been handed on, bytes.
    preface: usize,
    /// The client's SETTINGS have begun.
    opened: bool,
    entering: Entering,
    passing: Passing,
}

impl Gate {
    /// A gate before the preface.
    pub fn new() -> Self {
        let notes = Rc::new(Notes::default());
        // Until somebody counts them.
        notes.allow_frames(u32::MAX);
        Self {
            notes,
            preface: PREFACE.len(),
            opened: false,
            entering: Entering::default(),
            passing: Passing::new(0),
        }
    }

    /// What it has seen.
    pub fn notes(&self) -> Rc<Notes> {
        Rc::clone(&self.notes)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Sieve for Gate {
    fn pass(&mut self, unread: &mut impl Buf) -> io::Result<usize> {
        if self.preface > 0 {
            // The connection was made because it is there.
            return Ok(self.preface.min(unread.remaining()));
        }
        let Self {
            notes,
            opened,
            entering,
            ..
        } = self;
        let mut passing = 0;
        // On a stream that has not begun nothing may stand: `h2` shall find that.
        entering.known = notes.begun.get();
        entering.together_max = notes.frames_left.get().min(TOGETHER_MAX);
        if !notes.is_closed() {
            passing = entering
                .pass(unread, |met, rest| {
                    if !*opened {
                        *opened = true;
                        // RFC 9113 §3.4; `h2` takes any frame.
                        let settings = matches!(met, Met::HandedOn(frame)
                        if frame.kind == kind::SETTINGS && !frame.has(flag::ACK));
                        if !settings {
                            notes
                                .judge(H2Reason::PROTOCOL_ERROR, "it does not begin with SETTINGS");
                            return Err(());
                        }
                    }
                    if notes.waits_for_whole_head(met, rest) || is_half_a_reset(met, rest) {
                        return Err(());
                    }
                    if notes.frames_left.get() == 0 && begins_something(met) {
                        notes.out_of_frames.set(true);
                        return Err(());
                    }
                    if notes.hold_back(met) {
                        return Err(());
                    }
                    notes.see(met);
                    match met {
                        _ if notes.is_closed() => Err(()),
                        Met::HandedOn(frame) if notes.falls(frame) => Ok(Fate::Falls),
                        Met::HandedOn(_) | Met::TakenOut { .. } => Ok(Fate::Passes),
                    }
                })
                .unwrap_or_default();
            let left = notes.frames_left.get();
            let left = left.saturating_sub(entering.take_frames());
            notes.frames_left.set(left);
        }
        if notes.is_closed() {
            unread.advance(unread.remaining());
            return Ok(0);
        }
        Ok(passing)
    }

    fn passed(&mut self, bytes: usize) {
        if self.preface > 0 {
            self.preface -= bytes;
            return;
        }
        self.entering.passed(bytes);
    }

    fn holds_back(&self) -> bool {
        self.notes.held_back.get() || self.notes.out_of_frames.get()
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
        passing.wrote(bytes, |gone| match gone {
            Gone::Begun(frame) => notes.note_sent(frame),
            Gone::Whole(frame) => notes.note_whole(frame),
        });
    }
}

#[cfg(test)]
mod tests;
