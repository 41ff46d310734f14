//! One connection of the backend: the server's half of HTTP/2, as much of it as a proxy's client half needs. Owns frames,
//! streams, both flow controls and what is still to be written. Heads are skipped as they are, so HPACK's table is never
//! kept; own heads use literals and the static table alone. A peer that breaks the protocol is hung up on.
//!
//! Source: RFC 9113 (frames 4.1 and 6, flow control 5.2), RFC 7541 (literals 6.2.2, the table's size 6.3).

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use mio::net::TcpStream;

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, FIRST_WINDOW, FRAME_BYTES_MAX, FRAME_HEAD, HEADERS,
    IdHasher, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, unpadded, window_update,
};
use crate::socket::{self, Readout};

/// What a client may send on one stream, and on all together, before we say that it was read. In bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Calls that a client may have open at once.
const STREAMS_MAX: u32 = 1_000_000;

/// No more is made ready to be written while so much waits, in bytes.
const OUT_BYTES_HIGH: usize = 256 * 1024;

/// What one stream may say before it is the next one's turn, in bytes.
const SHARE_BYTES: usize = 64 * 1024;

/// The room for writing that a connection with nothing to say may keep, in bytes.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// `:status: 200` and `content-type: application/grpc`.
const HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";

/// `grpc-status: 0`.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// "The table is empty from here on": owed to a client that allowed less than the table's first size.
const TABLE_EMPTY: &[u8] = b"\x20";

/// What calls do.
#[derive(Debug, Clone)]
pub(super) enum Conduct {
    /// The request's body is the answer's.
    Echo,
    /// This envelope, so often.
    Messages(Arc<[u8]>, u64),
    /// This envelope with the time in it, every so many nanoseconds, for ever.
    Ticks(Arc<[u8]>, u64),
    /// A head, and nothing after it.
    Silence,
}

/// One call.
#[derive(Debug, Default)]
struct Stream {
    /// What the client lets us send, in bytes; below zero where it has lowered its setting.
    window: i64,
    body: Vec<u8>,
    /// Bytes read of which the client was not told yet.
    untold: u32,
    /// How much of the body, or of the present message, is sent.
    at: usize,
    /// Messages still to be sent, the present one counted.
    left: u64,
    /// When the next message is due, for what ticks.
    due_ns: u64,
    /// The request has ended and the answer has begun.
    answers: bool,
    /// It stands in the queue of those that send.
    is_queued: bool,
}

/// The client did what HTTP/2 does not allow.
#[derive(Debug)]
struct Broken;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    is_readable: bool,
    /// The client has ended: it is read until nothing is left, since no edge will come for it any more.
    has_ended: bool,
    is_writable: bool,
    /// It stands in the turn's list of those that have something to say.
    pub(super) is_listed: bool,
    speech: Speech,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
}

impl Connection {
    /// What was accepted; our SETTINGS are ready to be written.
    pub(super) fn new(socket: TcpStream, conduct: Conduct) -> Self {
        Self {
            socket,
            is_readable: false,
            has_ended: false,
            is_writable: true,
            is_listed: false,
            speech: Speech::new(conduct),
            partial: Vec::new(),
        }
    }

    /// `true` if it was not known to be readable before. `ended` says that the last byte is there already.
    pub(super) fn make_readable(&mut self, ended: bool) -> bool {
        self.has_ended |= ended;
        !std::mem::replace(&mut self.is_readable, true)
    }

    /// `true` if it was not known to be writable before.
    pub(super) fn make_writable(&mut self) -> bool {
        !std::mem::replace(&mut self.is_writable, true)
    }

    /// Reads once: whether there may be more, or `None` where it has ended.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<bool> {
        let bytes = match socket::read(&self.socket, buffer) {
            Readout::Bytes(bytes) => bytes,
            Readout::Empty => {
                self.is_readable = false;
                return Some(false);
            }
            Readout::Closed => return None,
        };
        self.is_readable = self.has_ended || bytes == buffer.len();
        if self.partial.is_empty() {
            let taken = self.speech.hear(&buffer[..bytes]).ok()?;
            self.partial.extend_from_slice(&buffer[taken..bytes]);
        } else {
            self.partial.extend_from_slice(&buffer[..bytes]);
            let taken = self.speech.hear(&self.partial).ok()?;
            self.partial.drain(..taken);
        }
        Some(self.is_readable)
    }

    /// Lets streams tick whose time has come: whether any did.
    pub(super) fn tick(&mut self, now_ns: u64) -> bool {
        self.speech.tick(now_ns)
    }

    /// Writes once: whether it has more to say at once, or `None` where it is broken.
    pub(super) fn write(&mut self) -> Option<bool> {
        if !self.is_writable {
            return Some(false);
        }
        self.speech.fill();
        let speech = &mut self.speech;
        let waiting = &speech.out[speech.sent..];
        if waiting.is_empty() {
            return Some(false);
        }
        let taken = socket::write(&self.socket, waiting).ok()?;
        self.is_writable = taken == waiting.len();
        speech.sent += taken;
        if self.is_writable {
            speech.sent = 0;
            speech.out.clear();
            speech.out.shrink_to(OUT_BYTES_KEPT);
        }
        Some(self.is_writable && speech.can_send())
    }

    /// Calls and messages answered since this was asked last.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        let counts = (self.speech.calls, self.speech.messages);
        (self.speech.calls, self.speech.messages) = (0, 0);
        counts
    }
}

/// A connection without its socket: bytes in, bytes out.
#[derive(Debug)]
struct Speech {
    conduct: Conduct,
    /// What is to be written, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    greeted: bool,
    streams: HashMap<u32, Stream, BuildHasherDefault<IdHasher>>,
    /// Streams with something to send and a window to send it in.
    queue: VecDeque<u32>,
    /// What the client lets us send on all streams together, and on a new one. In bytes.
    window: i64,
    stream_window: i64,
    /// Bytes read of which the client was not told yet.
    untold: u32,
    /// The client allows no table of HPACK's first size, and was not answered yet.
    owes_table: bool,
    /// Bodies that are free to be used again.
    bodies: Vec<Vec<u8>>,
    calls: u64,
    messages: u64,
}

impl Speech {
    fn new(conduct: Conduct) -> Self {
        let mut out = Vec::new();
        frame(&mut out, SETTINGS, 0, 0, 12);
        for (name, value) in [(3_u16, STREAMS_MAX), (4, STREAM_WINDOW)] {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        window_update(&mut out, 0, CONNECTION_WINDOW - FIRST_WINDOW as u32);
        Self {
            conduct,
            out,
            sent: 0,
            greeted: false,
            streams: HashMap::default(),
            queue: VecDeque::new(),
            window: FIRST_WINDOW,
            stream_window: FIRST_WINDOW,
            untold: 0,
            owes_table: false,
            bodies: Vec::new(),
            calls: 0,
            messages: 0,
        }
    }

    /// Takes whole frames, and says how many bytes they were.
    fn hear(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        if !self.greeted {
            let seen = bytes.len().min(PREFACE.len());
            if bytes[..seen] != PREFACE[..seen] {
                return Err(Broken);
            }
            if seen < PREFACE.len() {
                return Ok(0);
            }
            self.greeted = true;
            at = seen;
        }
        while let Some(&[l0, l1, l2, kind, flags, i0, i1, i2, i3]) =
            bytes[at..].first_chunk::<FRAME_HEAD>()
        {
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(Broken);
            }
            let Some(payload) = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + length) else {
                break;
            };
            let id = u32::from_be_bytes([i0, i1, i2, i3]) & 0x7fff_ffff;
            self.obey(kind, flags, id, payload)?;
            at += FRAME_HEAD + length;
        }
        if self.untold >= CONNECTION_WINDOW / 2 {
            window_update(&mut self.out, 0, std::mem::take(&mut self.untold));
        }
        Ok(at)
    }

    fn obey(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<(), Broken> {
        match kind {
            DATA => self.data(flags, id, payload)?,
            HEADERS => {
                let window = self.stream_window;
                let bodies = &mut self.bodies;
                self.streams.entry(id).or_insert_with(|| Stream {
                    window,
                    body: bodies.pop().unwrap_or_default(),
                    ..Stream::default()
                });
                if flags & END_STREAM != 0 {
                    self.answer(id);
                }
            }
            RST_STREAM => self.forget(id),
            SETTINGS if flags & ACK == 0 => self.settings(payload)?,
            PING if flags & ACK == 0 => {
                frame(&mut self.out, PING, ACK, 0, payload.len());
                self.out.extend_from_slice(payload);
            }
            WINDOW_UPDATE => {
                let more = payload.first_chunk::<4>().ok_or(Broken)?;
                let more = i64::from(u32::from_be_bytes(*more) & 0x7fff_ffff);
                if id == 0 {
                    self.window += more;
                } else if let Some(stream) = self.streams.get_mut(&id) {
                    stream.window += more;
                    if stream.answers {
                        self.enqueue(id);
                    }
                }
            }
            // CONTINUATION is more of a head that we do not read; PRIORITY and GOAWAY ask nothing of us.
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, flags: u8, id: u32, payload: &[u8]) -> Result<(), Broken> {
        self.untold += payload.len() as u32;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        let bytes = unpadded(flags, payload).ok_or(Broken)?;
        if let Conduct::Echo = self.conduct {
            stream.body.extend_from_slice(bytes);
        }
        if flags & END_STREAM != 0 {
            self.answer(id);
            return Ok(());
        }
        stream.untold += payload.len() as u32;
        if stream.untold >= STREAM_WINDOW / 2 {
            window_update(&mut self.out, id, std::mem::take(&mut stream.untold));
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Broken> {
        for setting in payload.chunks(6) {
            let &[n0, n1, v0, v1, v2, v3] = setting else {
                return Err(Broken);
            };
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([n0, n1]) {
                1 => self.owes_table = value < 4096,
                4 => {
                    let change = i64::from(value) - self.stream_window;
                    self.stream_window = i64::from(value);
                    let mut opened = Vec::new();
                    for (id, stream) in &mut self.streams {
                        stream.window += change;
                        if stream.answers {
                            opened.push(*id);
                        }
                    }
                    for id in opened {
                        self.enqueue(id);
                    }
                }
                _ => {}
            }
        }
        frame(&mut self.out, SETTINGS, ACK, 0, 0);
        Ok(())
    }

    /// The request is whole: the answer begins.
    fn answer(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut stream.answers, true) {
            return;
        }
        let table: &[u8] = if std::mem::take(&mut self.owes_table) {
            TABLE_EMPTY
        } else {
            &[]
        };
        frame(
            &mut self.out,
            HEADERS,
            END_HEADERS,
            id,
            table.len() + HEAD.len(),
        );
        self.out.extend_from_slice(table);
        self.out.extend_from_slice(HEAD);
        match &self.conduct {
            Conduct::Echo => stream.left = 1,
            Conduct::Messages(_, count) => stream.left = *count,
            Conduct::Ticks(..) | Conduct::Silence => return,
        }
        self.enqueue(id);
    }

    fn enqueue(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.left > 0 && !std::mem::replace(&mut stream.is_queued, true) {
            self.queue.push_back(id);
        }
    }

    fn forget(&mut self, id: u32) {
        if let Some(mut stream) = self.streams.remove(&id)
            && stream.body.capacity() > 0
        {
            stream.body.clear();
            self.bodies.push(stream.body);
        }
    }

    fn can_send(&self) -> bool {
        !self.queue.is_empty() && self.window > 0
    }

    /// Makes ready what streams have to send, in turns, until enough waits to be written or no window is open.
    fn fill(&mut self) {
        while self.out.len() - self.sent < OUT_BYTES_HIGH && self.window > 0 {
            let Some(id) = self.queue.pop_front() else {
                return;
            };
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.is_queued = false;
            let message: &[u8] = match &self.conduct {
                Conduct::Messages(message, _) => message,
                _ => &stream.body,
            };
            let share_end = self.out.len() + SHARE_BYTES;
            while stream.left > 0 && self.out.len() < share_end {
                let window = self.window.min(stream.window).max(0);
                let rest = &message[stream.at..];
                let length = rest.len().min(FRAME_BYTES_MAX).min(window as usize);
                if length == 0 && !rest.is_empty() {
                    break;
                }
                if length > 0 {
                    frame(&mut self.out, DATA, 0, id, length);
                    self.out.extend_from_slice(&rest[..length]);
                    stream.window -= length as i64;
                    self.window -= length as i64;
                    stream.at += length;
                }
                if stream.at == message.len() {
                    stream.at = 0;
                    stream.left -= 1;
                    self.messages += 1;
                }
            }
            if stream.left == 0 {
                frame(
                    &mut self.out,
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    id,
                    TRAILERS.len(),
                );
                self.out.extend_from_slice(TRAILERS);
                self.calls += 1;
                self.forget(id);
            } else if stream.window > 0 {
                self.enqueue(id);
            }
        }
    }

    /// A message on each stream whose time has come, where the windows allow it whole; one that they do not is left out.
    fn tick(&mut self, now_ns: u64) -> bool {
        let Conduct::Ticks(message, every_ns) = &self.conduct else {
            return false;
        };
        let length = message.len() as i64;
        let mut ticked = false;
        for (id, stream) in &mut self.streams {
            if !stream.answers || now_ns < stream.due_ns {
                continue;
            }
            // The first one is sent as soon as it is seen, and sets the time for all others.
            stream.due_ns = if stream.due_ns == 0 {
                now_ns + every_ns
            } else {
                stream.due_ns + every_ns
            };
            if stream.window < length || self.window < length {
                continue;
            }
            stream.window -= length;
            self.window -= length;
            frame(&mut self.out, DATA, 0, *id, message.len());
            let begin = self.out.len();
            self.out.extend_from_slice(message);
            self.out[begin + 5..begin + 13].copy_from_slice(&now_ns.to_be_bytes());
            self.messages += 1;
            ticked = true;
        }
        ticked
    }
}

#[cfg(test)]
mod tests;
