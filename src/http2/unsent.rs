//! What a stream is to say and has no window for yet.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use crate::wire::Pieces;

/// What `h2` holds of one stream for want of window or of a socket that takes it, bytes. A setting of every connection.
pub const SEND_BUFFER_BYTES: usize = 64 << 10;
/// What is held here for want of window, bytes. Beyond it whoever sends waits.
const UNSENT_BYTES_MAX: usize = 64 << 10;

/// What is held of a message until there is window for it.
#[derive(Debug, Default)]
pub struct Unsent {
    pieces: Pieces,
    trailers: Option<Box<HeaderMap>>,
    progress: Progress,
    /// Whoever sends waits for less to be here.
    refused: bool,
}

/// How far a message has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Open,
    /// Its end is known and waits behind what is here.
    Ending,
    /// Its end has been handed to `h2`.
    Ended,
    /// The peer wants no more of it.
    Refused,
}

/// What was handed to `h2`.
#[derive(Debug)]
pub enum HandedOn<'a> {
    /// Content for which there was window.
    Piece(&'a Bytes),
    /// The end, with the content before it, whether or not there was window.
    Ahead,
}

impl Unsent {
    /// How much more may be pushed now, bytes, never zero; `None`: wait for [`Unsent::send`] to wake. `Err`: the peer wants no
    /// more.
    pub fn room(&mut self) -> Result<Option<usize>, Unwanted> {
        match self.progress {
            Progress::Refused => Err(Unwanted),
            // `send` wakes whoever was refused here.
            _ if self.pieces.bytes() >= UNSENT_BYTES_MAX => {
                self.refused = true;
                Ok(None)
            }
            _ => Ok(Some(UNSENT_BYTES_MAX - self.pieces.bytes())),
        }
    }

    /// Content, behind all that is here.
    pub fn push(&mut self, bytes: Bytes) {
        self.pieces.push(bytes);
    }

    /// Nothing more is pushed.
    pub fn end(&mut self, trailers: Option<Box<HeaderMap>>) {
        if self.progress == Progress::Open {
            self.progress = Progress::Ending;
            self.trailers = trailers;
        }
    }

    /// Hands to `h2` what there is window for, and of a message that is here to its end up to `ahead_max` bytes without. `told` is
    /// what has been handed on.
    pub fn send(
        &mut self,
        body: &mut SendStream<Bytes>,
        ahead_max: usize,
        mut told: impl FnMut(HandedOn<'_>),
        cx: &mut Context<'_>,
    ) {
        self.send_all(body, ahead_max, &mut told, cx);
        if self.refused && self.pieces.bytes() < UNSENT_BYTES_MAX {
            self.refused = false;
            cx.waker().wake_by_ref();
        }
    }

    fn send_all(
        &mut self,
        body: &mut SendStream<Bytes>,
        ahead_max: usize,
        told: &mut impl FnMut(HandedOn<'_>),
        cx: &mut Context<'_>,
    ) {
        while matches!(self.progress, Progress::Open | Progress::Ending) {
            if self.pieces.is_empty() {
                if self.progress == Progress::Ending {
                    // The last content had gone before the end was known, or trailers follow it.
                    let sent = match self.trailers.take() {
                        Some(trailers) => body.send_trailers(*trailers),
                        None => body.send_data(Bytes::new(), true),
                    };
                    self.note(sent.is_ok(), true);
                }
                return;
            }
            let whole = self.progress == Progress::Ending && self.trailers.is_none();
            if whole && self.pieces.bytes() <= ahead_max {
                let bytes = self.pieces.take(ahead_max);
                let last = self.pieces.is_empty();
                let sent = body.send_data(bytes, last).is_ok();
                self.note(sent, last);
                if sent && last {
                    told(HandedOn::Ahead);
                }
                continue;
            }
            body.reserve_capacity(self.pieces.bytes());
            let mut capacity = body.capacity();
            if capacity == 0 {
                capacity = match body.poll_capacity(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(capacity))) => capacity,
                    Poll::Ready(None | Some(Err(_))) => return self.refuse(),
                };
                if capacity == 0 {
                    continue;
                }
            }
            let bytes = self.pieces.take(capacity);
            let last = whole && self.pieces.is_empty();
            told(HandedOn::Piece(&bytes));
            let sent = body.send_data(bytes, last).is_ok();
            self.note(sent, last);
        }
    }

    fn note(&mut self, sent: bool, last: bool) {
        match (sent, last) {
            (true, true) => self.progress = Progress::Ended,
            (true, false) => {}
            (false, _) => self.refuse(),
        }
    }

    /// The peer wants no more of it.
    fn refuse(&mut self) {
        self.finish(Progress::Refused);
    }

    /// Nothing waits any more.
    fn finish(&mut self, progress: Progress) {
        self.progress = progress;
        self.pieces = Pieces::default();
        self.trailers = None;
    }

    /// How much waits for window, bytes.
    pub fn bytes(&self) -> usize {
        self.pieces.bytes()
    }

    /// Whether something waits for window: content, or the end behind it.
    pub fn waits(&self) -> bool {
        !self.pieces.is_empty() || self.progress == Progress::Ending
    }

    /// Whether its end is known and waits.
    pub fn is_ending(&self) -> bool {
        self.progress == Progress::Ending
    }

    /// Whether there is neither content here nor trailers.
    pub fn is_bare(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none()
    }

    /// Its end has left with its head.
    pub fn note_ended(&mut self) {
        self.finish(Progress::Ended);
    }

    /// Whether it has not ended: `h2` has been told neither its end nor that nobody wants it.
    pub fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Open | Progress::Ending)
    }

    /// Whether its end has been handed to `h2`.
    pub fn has_ended(&self) -> bool {
        self.progress == Progress::Ended
    }
}

/// The peer wants no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwanted;
