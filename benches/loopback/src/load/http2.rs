//! Clients that speak HTTP/2, several calls at a time on each connection: gRPC, or gRPC-Web as browsers send it where they may.
//! Owns their sockets, streams, flow control and HPACK, and looks at every answer: status, content type, messages, and the
//! gRPC status in the trailers or in the frame that ends a body.
//!
//! Requests are all alike: the first one of a connection puts its fields into the server's table, those after it name them
//! there, as clients of gRPC do.
//!
//! Source: RFC 9113; RFC 7541 (literals 6.2, integers 5.1, the table's size 4.2); the gRPC over HTTP/2 protocol page.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use httlib_hpack::Decoder;
use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use super::tally::Tally;
use super::{CONNECTING_MAX, Crowd, READ_BYTES, REST_NS};
use crate::answer::{self, Envelopes, Expected, Fault};
use crate::clock;
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FIRST_WINDOW, FRAME_BYTES_MAX, FRAME_HEAD,
    GOAWAY, HEADERS, IdHasher, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, unpadded, window_update,
};
use crate::socket::{self, Readout};

/// What a server may send on one stream, and on all together, before we say that it was read. In bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// HPACK's table before anybody has said anything, in bytes. We announce no other.
const TABLE_BYTES: usize = 4096;

/// What an entry of the table weighs beside its name and value (RFC 7541 4.1), in bytes.
const ENTRY_BYTES: usize = 32;

/// The last index of the static table.
const STATIC_LAST: usize = 61;

/// A head that is longer is none, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// HTTP/2's word for "I do not want this any more".
const CANCEL: u32 = 8;

/// What these clients do.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    pub(super) connections: usize,
    /// Calls at a time on each.
    pub(super) streams: usize,
    /// The head of each request.
    pub(super) fields: Vec<(String, String)>,
    /// Its content; it has to fit into the window that a server gives unasked.
    pub(super) body: Vec<u8>,
    /// What each answer has to be.
    pub(super) expected: Expected,
    /// A client that has its answer calls again at once.
    pub(super) again: bool,
}

/// One call.
#[derive(Debug)]
struct Call {
    since_ns: u64,
    has_head: bool,
    /// Bytes read of which the server was not told yet.
    untold: u32,
    envelopes: Envelopes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Broken,
    /// On its way.
    Connecting,
    /// The server's SETTINGS have not come.
    Greeting,
    /// Calls may be made.
    Open,
    /// The server has said that it takes no more.
    Leaving,
}

/// The connection is of no use any more.
#[derive(Debug)]
struct Broken;

/// What a request's head is on the wire: the first one of a connection, and the others.
#[derive(Debug)]
struct Blocks {
    first: Vec<u8>,
    later: Vec<u8>,
    /// For a server whose table has no room for it.
    plain: Vec<u8>,
    /// What the fields weigh in the table, in bytes.
    weight: usize,
}

impl Blocks {
    fn new(fields: &[(String, String)]) -> Self {
        let (mut first, mut later, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let mut weight = 0;
        for (at, (name, value)) in fields.iter().enumerate() {
            for (block, kind) in [(&mut first, 0x40), (&mut plain, 0)] {
                block.push(kind);
                for text in [name, value] {
                    integer(block, 0, text.len());
                    block.extend_from_slice(text.as_bytes());
                }
            }
            // The newest entry has the lowest number.
            integer(&mut later, 0x80, STATIC_LAST + fields.len() - at);
            weight += name.len() + value.len() + ENTRY_BYTES;
        }
        Self {
            first,
            later,
            plain,
            weight,
        }
    }
}

/// An integer with a prefix of seven bits (RFC 7541 5.1), `flag` in the eighth.
fn integer(block: &mut Vec<u8>, flag: u8, value: usize) {
    if value < 0x7f {
        block.push(flag | value as u8);
        return;
    }
    block.push(flag | 0x7f);
    let mut rest = value - 0x7f;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// What all connections share.
#[derive(Debug)]
struct Common {
    plan: Plan,
    blocks: Blocks,
    tally: Tally,
    again: bool,
}

/// One connection.
struct Link {
    socket: Option<TcpStream>,
    state: State,
    is_readable: bool,
    /// The server has ended: it is read until nothing is left, since no edge will come for it any more.
    has_ended: bool,
    is_writable: bool,
    out: Vec<u8>,
    sent: usize,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
    decoder: Decoder<'static>,
    /// A head that is on its way: of which stream, whether that ends with it, and what has come.
    block: Option<(u32, bool, Vec<u8>)>,
    fields: Vec<(Vec<u8>, Vec<u8>, u8)>,
    calls: HashMap<u32, Call, BuildHasherDefault<IdHasher>>,
    /// What ended calls have left to be used again.
    spare: Vec<Call>,
    next_id: u32,
    /// What we may send, on all streams together and on a new one, in bytes.
    window: i64,
    stream_window: i64,
    streams_max: usize,
    table_bytes: usize,
    untold: u32,
    /// Calls that are still to be made.
    owed: usize,
}

impl Link {
    fn new(owed: usize) -> Self {
        Self {
            socket: None,
            state: State::Broken,
            is_readable: false,
            has_ended: false,
            is_writable: false,
            out: Vec::new(),
            sent: 0,
            partial: Vec::new(),
            decoder: Decoder::with_dynamic_size(TABLE_BYTES as u32),
            block: None,
            fields: Vec::new(),
            calls: HashMap::default(),
            spare: Vec::new(),
            next_id: 1,
            window: FIRST_WINDOW,
            stream_window: FIRST_WINDOW,
            streams_max: usize::MAX,
            table_bytes: TABLE_BYTES,
            untold: 0,
            owed,
        }
    }

    /// It is there: what every client says first.
    fn greet(&mut self) {
        self.state = State::Greeting;
        self.out.extend_from_slice(PREFACE);
        frame(&mut self.out, SETTINGS, 0, 0, 12);
        // No pushes; and the window of a stream.
        self.out.extend_from_slice(&[0, 2, 0, 0, 0, 0, 0, 4]);
        self.out.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
        window_update(&mut self.out, 0, CONNECTION_WINDOW - FIRST_WINDOW as u32);
    }

    /// Makes the calls that are owed, as far as the server allows it.
    fn call(&mut self, common: &Common, now_ns: u64) -> Result<(), Broken> {
        let body = &common.plan.body;
        let length = body.len() as i64;
        if self.state == State::Open && self.stream_window < length {
            return Err(Broken);
        }
        while self.state == State::Open
            && self.owed > 0
            && self.calls.len() < common.plan.streams.min(self.streams_max)
            && self.window >= length
        {
            let id = self.next_id;
            self.next_id += 2;
            let fits = common.blocks.weight <= self.table_bytes;
            let block = match (fits, id) {
                (true, 1) => &common.blocks.first,
                (true, _) => &common.blocks.later,
                (false, _) => &common.blocks.plain,
            };
            // "The table has no room", said once where the server has made it smaller than it begins.
            let size: &[u8] = match id {
                1 if self.table_bytes < TABLE_BYTES && !fits => &[0x20],
                1 if self.table_bytes < TABLE_BYTES => return Err(Broken),
                _ => &[],
            };
            frame(
                &mut self.out,
                HEADERS,
                END_HEADERS,
                id,
                size.len() + block.len(),
            );
            self.out.extend_from_slice(size);
            self.out.extend_from_slice(block);
            let mut pieces = body.chunks(FRAME_BYTES_MAX).peekable();
            while let Some(piece) = pieces.next() {
                let flags = if pieces.peek().is_none() {
                    END_STREAM
                } else {
                    0
                };
                frame(&mut self.out, DATA, flags, id, piece.len());
                self.out.extend_from_slice(piece);
            }
            self.window -= length;
            self.owed -= 1;
            let mut call = self.spare.pop().unwrap_or_else(|| Call {
                since_ns: 0,
                has_head: false,
                untold: 0,
                envelopes: Envelopes::new(),
            });
            call.since_ns = now_ns;
            call.has_head = false;
            call.untold = 0;
            call.envelopes.reset();
            self.calls.insert(id, call);
        }
        Ok(())
    }

    /// Takes what came.
    fn hear(&mut self, bytes: &[u8], common: &mut Common, now_ns: u64) -> Result<(), Broken> {
        let mut before = std::mem::take(&mut self.partial);
        let whole = if before.is_empty() {
            bytes
        } else {
            before.extend_from_slice(bytes);
            &before
        };
        let mut at = 0;
        while let Some(&[l0, l1, l2, kind, flags, i0, i1, i2, i3]) =
            whole[at..].first_chunk::<FRAME_HEAD>()
        {
            let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(Broken);
            }
            let Some(payload) = whole.get(at + FRAME_HEAD..at + FRAME_HEAD + length) else {
                break;
            };
            let id = u32::from_be_bytes([i0, i1, i2, i3]) & 0x7fff_ffff;
            self.obey(kind, flags, id, payload, common, now_ns)?;
            at += FRAME_HEAD + length;
        }
        self.partial.extend_from_slice(&whole[at..]);
        if self.untold >= CONNECTION_WINDOW / 2 {
            window_update(&mut self.out, 0, std::mem::take(&mut self.untold));
        }
        self.call(common, now_ns)
    }

    fn obey(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        common: &mut Common,
        now_ns: u64,
    ) -> Result<(), Broken> {
        // Nothing may come between the pieces of a head.
        if self.block.is_some() != (kind == CONTINUATION) {
            return Err(Broken);
        }
        match kind {
            DATA => self.data(flags, id, payload, common, now_ns)?,
            HEADERS => {
                let mut block = unpadded(flags, payload).ok_or(Broken)?;
                if flags & PRIORITY != 0 {
                    block = block.get(5..).ok_or(Broken)?;
                }
                self.block = Some((id, flags & END_STREAM != 0, block.to_vec()));
            }
            CONTINUATION => {
                let (of, _, block) = self.block.as_mut().ok_or(Broken)?;
                if *of != id || block.len() > HEAD_BYTES_MAX {
                    return Err(Broken);
                }
                block.extend_from_slice(payload);
            }
            RST_STREAM => {
                let code = payload.first_chunk::<4>().ok_or(Broken)?;
                self.fail(id, Fault::Reset(u32::from_be_bytes(*code)), common);
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload)?,
            PING if flags & ACK == 0 => {
                frame(&mut self.out, PING, ACK, 0, payload.len());
                self.out.extend_from_slice(payload);
            }
            GOAWAY if payload.get(4..8) == Some(&[0; 4]) => self.state = State::Leaving,
            GOAWAY | PUSH_PROMISE => return Err(Broken),
            WINDOW_UPDATE if id == 0 => {
                let more = payload.first_chunk::<4>().ok_or(Broken)?;
                self.window += i64::from(u32::from_be_bytes(*more) & 0x7fff_ffff);
            }
            // A request is sent whole: more window of its stream means nothing. PRIORITY asks nothing of us.
            _ => {}
        }
        if matches!(kind, HEADERS | CONTINUATION)
            && flags & END_HEADERS != 0
            && let Some((id, ends, mut block)) = self.block.take()
        {
            self.fields.clear();
            // Also a head of a stream that is gone changes the table.
            let decoded = self.decoder.decode(&mut block, &mut self.fields);
            decoded.map_err(|_| Broken)?;
            self.head(id, ends, common, now_ns);
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
                1 if self.next_id == 1 => self.table_bytes = (value as usize).min(TABLE_BYTES),
                3 => self.streams_max = value as usize,
                4 => self.stream_window = i64::from(value),
                _ => {}
            }
        }
        frame(&mut self.out, SETTINGS, ACK, 0, 0);
        if self.state == State::Greeting {
            self.state = State::Open;
        }
        Ok(())
    }

    fn data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        common: &mut Common,
        now_ns: u64,
    ) -> Result<(), Broken> {
        self.untold += payload.len() as u32;
        let bytes = unpadded(flags, payload).ok_or(Broken)?;
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        let fed = if call.has_head {
            call.envelopes.feed(bytes, &common.plan.expected)
        } else {
            Err(Fault::Head)
        };
        common.tally.messages(call.envelopes.take_messages());
        if let Err(fault) = fed {
            self.fail(id, fault, common);
        } else if flags & END_STREAM != 0 {
            // gRPC has a status behind its messages.
            let ended = if common.plan.expected.native {
                Err(Fault::GrpcStatus(None))
            } else {
                call.envelopes.end(&common.plan.expected)
            };
            self.end(id, ended, common, now_ns);
        } else {
            call.untold += payload.len() as u32;
            if call.untold >= STREAM_WINDOW / 2 {
                window_update(&mut self.out, id, std::mem::take(&mut call.untold));
            }
        }
        Ok(())
    }

    /// A head, or what stands behind a body; its fields have just been read.
    fn head(&mut self, id: u32, ends: bool, common: &mut Common, now_ns: u64) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let expected = &common.plan.expected;
        let field = |wanted: &[u8]| {
            let mut found = self.fields.iter().filter(|(name, ..)| name == wanted);
            found.next().map(|(_, value, _)| &value[..])
        };
        let grpc_status = field(b"grpc-status").map(answer::status);
        let mut outcome = Ok(());
        if !call.has_head {
            let status = field(b":status").and_then(answer::status);
            // What only announces is no answer yet.
            if let Some(100..=199) = status {
                return;
            }
            let kind = field(b"content-type").unwrap_or_default();
            let is_web = kind.starts_with(b"application/grpc-web")
                && !kind.starts_with(b"application/grpc-web-text");
            let is_native = kind == b"application/grpc" || kind.starts_with(b"application/grpc+");
            outcome = match status {
                Some(200) if expected.native && !is_native => Err(Fault::ContentType),
                Some(200) if !expected.native && !is_web => Err(Fault::ContentType),
                Some(200) => match grpc_status {
                    None | Some(Some(0)) => Ok(()),
                    Some(other) => Err(Fault::GrpcStatus(other)),
                },
                Some(status) => Err(Fault::Status(status as u16)),
                None => Err(Fault::Head),
            };
            call.has_head = true;
        } else if !ends {
            outcome = Err(Fault::Head);
        }
        if ends {
            let ended = match (expected.native, grpc_status) {
                (true, Some(Some(0))) | (false, _) => call.envelopes.end(expected),
                (true, other) => Err(Fault::GrpcStatus(other.flatten())),
            };
            self.end(id, outcome.and(ended), common, now_ns);
        } else if let Err(fault) = outcome {
            self.fail(id, fault, common);
        }
    }

    /// The stream has ended by itself.
    fn end(&mut self, id: u32, outcome: Result<(), Fault>, common: &mut Common, now_ns: u64) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        match outcome {
            Ok(()) => common.tally.call(now_ns.saturating_sub(call.since_ns)),
            Err(fault) => common.tally.failure(fault),
        }
        self.spare.push(call);
        self.owed += usize::from(common.again);
    }

    /// A call went wrong before its end.
    fn fail(&mut self, id: u32, fault: Fault, common: &mut Common) {
        if !self.calls.contains_key(&id) {
            return;
        }
        if !matches!(fault, Fault::Reset(_)) {
            frame(&mut self.out, RST_STREAM, 0, id, 4);
            self.out.extend_from_slice(&CANCEL.to_be_bytes());
        }
        self.end(id, Err(fault), common, 0);
    }
}

/// All clients of a load.
pub(super) struct Clients {
    common: Common,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
    readable: Vec<usize>,
    broken: VecDeque<usize>,
    mend_ns: u64,
    /// Connections on which calls cannot be made yet.
    coming: usize,
    reconnects: u64,
}

impl Clients {
    /// Connects all, until `until_ns` at the latest: connected is who has the server's SETTINGS.
    pub(super) fn connect(plan: Plan, until_ns: u64) -> io::Result<Self> {
        if plan.body.len() as i64 > FIRST_WINDOW {
            return Err(io::Error::other(
                "over HTTP/2 a request has to fit into the first window, 65,535 bytes",
            ));
        }
        let connections = plan.connections;
        let mut all = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(4096),
            links: (0..connections).map(|_| Link::new(0)).collect(),
            buffer: vec![0; READ_BYTES],
            readable: Vec::new(),
            broken: (0..connections).collect(),
            mend_ns: 0,
            coming: 0,
            reconnects: 0,
            common: Common {
                blocks: Blocks::new(&plan.fields),
                tally: Tally::new(),
                // Nobody calls before all are there.
                again: false,
                plan,
            },
        };
        all.mend(until_ns)?;
        let there = all.there();
        if there < connections {
            return Err(io::Error::other(format!(
                "{} of {connections} connections to {} could not be made: does anybody who speaks HTTP/2 listen there?",
                connections - there,
                all.common.plan.target,
            )));
        }
        all.reconnects = 0;
        all.common.again = all.common.plan.again;
        Ok(all)
    }

    fn there(&self) -> usize {
        let open = |link: &&Link| link.state == State::Open;
        self.links.iter().filter(open).count()
    }

    fn calling(&self) -> usize {
        self.links.iter().map(|link| link.calls.len()).sum()
    }

    /// Makes what connections are missing, a few at a time.
    fn reconnect(&mut self, now_ns: u64) {
        while self.coming < CONNECTING_MAX {
            let Some(key) = self.broken.pop_front() else {
                return;
            };
            let made = socket::connect(self.common.plan.target, None).and_then(|mut stream| {
                socket::register(self.poll.registry(), &mut stream, Token(key))?;
                Ok(stream)
            });
            match made {
                Ok(stream) => {
                    // A load that goes on has its calls open again on the new connection.
                    let owed = if self.common.again {
                        self.common.plan.streams
                    } else {
                        0
                    };
                    let mut link = Link::new(owed);
                    link.socket = Some(stream);
                    link.state = State::Connecting;
                    self.links[key] = link;
                    self.coming += 1;
                    self.reconnects += 1;
                }
                Err(_) => {
                    self.broken.push_back(key);
                    self.mend_ns = now_ns + REST_NS;
                    return;
                }
            }
        }
        // The next ones follow as soon as these are there.
        self.mend_ns = now_ns + 1_000_000;
    }

    /// The connection is given up, and with it all its calls; another one takes its place in a while.
    fn close(&mut self, key: usize) {
        let link = &mut self.links[key];
        if link.state == State::Broken {
            return;
        }
        if matches!(link.state, State::Connecting | State::Greeting) {
            self.coming -= 1;
        }
        for _ in link.calls.drain() {
            self.common.tally.failure(Fault::Closed);
        }
        *link = Link::new(0);
        self.broken.push_back(key);
        self.mend_ns = clock::now_ns() + REST_NS;
    }

    /// The socket takes bytes, perhaps for the first time.
    fn resume(&mut self, key: usize) {
        let link = &mut self.links[key];
        if link.state == State::Connecting {
            let is_there = link.socket.as_ref().is_some_and(|stream| {
                matches!(stream.take_error(), Ok(None)) && stream.peer_addr().is_ok()
            });
            if !is_there {
                self.close(key);
                return;
            }
            link.greet();
        }
        self.write(key);
    }

    fn write(&mut self, key: usize) {
        let link = &mut self.links[key];
        let (Some(stream), true) = (&link.socket, link.is_writable) else {
            return;
        };
        let rest = &link.out[link.sent..];
        if rest.is_empty() {
            return;
        }
        match socket::write(stream, rest) {
            Ok(taken) if taken == rest.len() => {
                link.out.clear();
                link.sent = 0;
            }
            Ok(taken) => {
                link.is_writable = false;
                link.sent += taken;
            }
            Err(_) => self.close(key),
        }
    }

    /// Reads once, looks at what came, and says what there is to say.
    fn read(&mut self, key: usize) {
        let link = &mut self.links[key];
        let Some(stream) = link.socket.as_ref().filter(|_| link.is_readable) else {
            return;
        };
        if link.state == State::Connecting {
            // It cannot be there before it is writable: `resume` will see what became of it.
            link.is_readable = false;
            return;
        }
        let bytes = match socket::read(stream, &mut self.buffer) {
            Readout::Bytes(bytes) => bytes,
            Readout::Empty => {
                link.is_readable = false;
                return;
            }
            Readout::Closed => return self.close(key),
        };
        link.is_readable = link.has_ended || bytes == self.buffer.len();
        if link.is_readable {
            self.readable.push(key);
        }
        let greeted = link.state == State::Greeting;
        let heard = link.hear(&self.buffer[..bytes], &mut self.common, clock::now_ns());
        let is_left = link.state == State::Leaving && link.calls.is_empty();
        if greeted && link.state != State::Greeting {
            self.coming -= 1;
        }
        if heard.is_err() || is_left {
            self.close(key);
        } else {
            self.write(key);
        }
    }
}

impl Crowd for Clients {
    fn mend(&mut self, until_ns: u64) -> io::Result<()> {
        while (!self.broken.is_empty() || self.coming > 0) && clock::now_ns() < until_ns {
            self.turn(until_ns)?;
        }
        Ok(())
    }

    fn call_all(&mut self) {
        let now_ns = clock::now_ns();
        for key in 0..self.links.len() {
            let link = &mut self.links[key];
            link.owed = self.common.plan.streams;
            if link.call(&self.common, now_ns).is_err() {
                // Nothing was sent: the server's windows are too small for a request.
                self.common.tally.failure(Fault::Unanswered);
                self.close(key);
            } else {
                self.write(key);
            }
        }
    }

    fn begin(&mut self) {
        self.common.tally.begin();
    }

    fn end(&mut self) -> Value {
        self.common.tally.end()
    }

    fn finish(&mut self, until_ns: u64) -> io::Result<()> {
        let again = std::mem::replace(&mut self.common.again, false);
        if again {
            for link in &mut self.links {
                link.owed = 0;
            }
        }
        let rests = |link: &Link| link.calls.is_empty() && link.owed == 0;
        while !self.links.iter().all(rests) && clock::now_ns() < until_ns {
            self.turn(until_ns)?;
        }
        for link in &mut self.links {
            for _ in link
                .calls
                .drain()
                .map(|_| ())
                .chain((0..link.owed).map(|_| ()))
            {
                self.common.tally.failure(Fault::Unanswered);
            }
            link.owed = 0;
        }
        self.common.again = again;
        Ok(())
    }

    fn counts(&self) -> Value {
        self.common.tally.counts(self.there(), self.calling())
    }

    fn report(&self) -> Value {
        let expected = &self.common.plan.expected;
        let streams = expected.messages != Some(1);
        let mut report = self.common.tally.report(expected.payload.len(), streams);
        report["reconnects"] = json!(self.reconnects);
        report["request_bytes"] = json!(self.common.plan.body.len());
        report
    }

    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        let now_ns = clock::now_ns();
        if !self.broken.is_empty() && now_ns >= self.mend_ns {
            self.reconnect(now_ns);
        }
        let mut timeout_ns = until_ns.saturating_sub(now_ns);
        if !self.readable.is_empty() {
            timeout_ns = 0;
        } else if !self.broken.is_empty() {
            timeout_ns = timeout_ns.min(self.mend_ns.saturating_sub(now_ns).max(100_000));
        }
        socket::wait(
            &mut self.poll,
            &mut self.events,
            Duration::from_nanos(timeout_ns),
        )?;
        let mut writable = Vec::new();
        for event in &self.events {
            let Token(key) = event.token();
            let Some(link) = self.links.get_mut(key) else {
                continue;
            };
            if event.is_writable() && !std::mem::replace(&mut link.is_writable, true) {
                writable.push(key);
            }
            link.has_ended |= event.is_read_closed();
            if event.is_readable() && !std::mem::replace(&mut link.is_readable, true) {
                self.readable.push(key);
            }
        }
        for key in writable {
            self.resume(key);
        }
        for key in std::mem::take(&mut self.readable) {
            self.read(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
