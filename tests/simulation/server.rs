//! A gRPC server at the other end: `h2` over a link, and the ways in which servers go wrong.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wharf::net::sim::{Arrival, Dialled, End, Machine};

use crate::frames::RST_STREAM;
use crate::plan::{CutBy, Deed, Plan, Play, SharedLedger, frame};
use crate::raw::Raw;

/// What becomes of connections to one address, drawn per seed.
#[derive(Clone, Debug)]
pub(crate) struct Temper {
    /// Out of 256, each.
    pub(crate) refuses: u8,
    pub(crate) never_connects: u8,
    pub(crate) says_nothing: u8,
    pub(crate) foreign: u8,
    pub(crate) dies: u8,
    pub(crate) goes_away: u8,
    /// It writes its frames by itself.
    pub(crate) raw: u8,
    /// It does nothing that a call may not survive.
    pub(crate) harmless: bool,
    pub(crate) streams_max: Option<u32>,
    pub(crate) window: Option<u32>,
}

impl Temper {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        let mut chance = |max: u8| if rng.u8(..3) == 0 { rng.u8(1..=max) } else { 0 };
        Self {
            refuses: chance(120),
            never_connects: chance(60),
            says_nothing: chance(60),
            foreign: chance(60),
            dies: chance(150),
            goes_away: chance(150),
            raw: [0, 128, 255][rng.usize(..3)],
            harmless: rng.bool(),
            streams_max: (rng.u8(..4) == 0).then(|| rng.u32(1..3)),
            window: (rng.u8(..2) == 0).then(|| match rng.bool() {
                true => rng.u32(1..300),
                false => 1 << 22,
            }),
        }
    }

    pub(crate) fn clear_up(&mut self) {
        self.refuses = 0;
        self.never_connects = 0;
        self.says_nothing = 0;
        self.foreign = 0;
        self.dies = 0;
        self.goes_away = 0;
        self.harmless = true;
    }
}

/// One connection, from the server's side.
pub(crate) struct Tame {
    phase: Phase,
    address: SocketAddr,
    stage: Stage,
    wire: Rc<RefCell<Wire>>,
    calls: Vec<Call>,
    /// Streams beyond a GOAWAY's last id: never looked at.
    ignored: Vec<(Request<RecvStream>, SendResponse<Bytes>)>,
    last_id: Option<u32>,
    seen_id: u32,
    /// At which stream GOAWAY is sent, and whether it says that something is wrong.
    goaway_at: Option<u32>,
    lazy: u8,
    /// How often it has refused a stream because its call's plan says so, or by itself, which has been told.
    refused: u32,
    ledger: SharedLedger,
}

enum Phase {
    Waiting(Box<Handshake<Pipe, Bytes>>),
    Open(Box<Connection<Pipe, Bytes>>),
    /// Holds the connection and says nothing.
    Mute,
    Gone,
}

/// What becomes of a connection that the core makes.
pub(crate) fn welcome(
    dialled: Dialled,
    address: SocketAddr,
    temper: &Temper,
    rng: &mut fastrand::Rng,
    stage: &Stage,
    unfinished: &mut Vec<Dialled>,
) -> Option<Peer> {
    let mut roll = |of: u8| of > 0 && rng.u8(..) < of;
    if roll(temper.refuses) {
        stage.commit(address, Deed::Refuses);
        dialled.refuse(io::ErrorKind::ConnectionRefused);
        return None;
    }
    if roll(temper.never_connects) {
        stage.commit(address, Deed::Silent);
        unfinished.push(dialled);
        return None;
    }
    let silent = roll(temper.says_nothing);
    let foreign = roll(temper.foreign);
    let dies = roll(temper.dies);
    let goes = roll(temper.goes_away);
    let raw = roll(temper.raw);
    let end = dialled.accept();
    if raw && !silent && !foreign {
        let raw = Raw::new(end, address, temper.harmless, stage.clone(), rng);
        return Some(Peer::Raw(Box::new(raw)));
    }
    let wire = Rc::new(RefCell::new(Wire {
        end: Some(end),
        read_left: 0,
        write_left: 0,
        written: 0,
        dies_at: dies.then(|| match rng.u8(..3) {
            0 => rng.usize(..60),
            1 => rng.usize(..600),
            _ => rng.usize(..40_000),
        }),
        frame_head: Vec::new(),
        frame_left: 0,
        code: None,
        refused: 0,
        injected: Vec::new(),
        failed: false,
    }));
    let phase = if silent {
        stage.commit(address, Deed::Silent);
        Phase::Mute
    } else if foreign {
        let text: &[u8] = match rng.u8(..3) {
            0 => b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            1 => b"SSH-2.0-OpenSSH_9.6\r\n",
            _ => &[0x15, 3, 3, 0, 2, 2, 70],
        };
        if text[0] == 0x15 {
            stage.commit(address, Deed::Tls);
        } else {
            stage.commit(address, Deed::Foreign);
        }
        let wire = wire.borrow();
        if let Some(end) = &wire.end {
            let whole = end.write(text).is_ok_and(|n| n == text.len());
            // What does not fit is never sent: then nobody can tell what it was to be.
            if !whole {
                stage.commit(address, Deed::Foreign);
                stage.commit(address, Deed::Silent);
            }
            if rng.bool() {
                end.shutdown();
            }
        }
        Phase::Mute
    } else {
        let mut builder = h2::server::Builder::new();
        builder
            .reset_stream_duration(Duration::MAX)
            .max_concurrent_reset_streams(1 << 16)
            .max_pending_accept_reset_streams(1 << 16)
            // Small windows make small frames; that is no attack here.
            .data_frame_budget(usize::MAX);
        if let Some(window) = temper.window {
            builder.initial_window_size(window);
            builder.initial_connection_window_size(window.max(1 << 16));
        }
        if let Some(streams) = temper.streams_max {
            builder.max_concurrent_streams(streams);
        }
        let io = Pipe(Rc::clone(&wire));
        Phase::Waiting(Box::new(builder.handshake(io)))
    };
    Some(Peer::Tame(Box::new(Tame {
        phase,
        address,
        wire,
        calls: Vec::new(),
        ignored: Vec::new(),
        last_id: None,
        seen_id: 0,
        goaway_at: goes.then(|| rng.u32(1..12) * 2 - 1),
        lazy: if rng.bool() { 0 } else { rng.u8(..150) },
        refused: 0,
        ledger: Rc::clone(&stage.ledger),
        stage: stage.clone(),
    })))
}

/// A server's end of one connection.
pub(crate) enum Peer {
    /// `h2`'s.
    Tame(Box<Tame>),
    /// One that writes its frames by itself.
    Raw(Box<Raw>),
}

impl Peer {
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Tame(peer) => peer.is_gone(),
            Self::Raw(peer) => peer.is_gone(),
        }
    }

    pub(crate) fn kill(&mut self, rng: &mut fastrand::Rng) {
        match self {
            Self::Tame(peer) => peer.kill(rng),
            Self::Raw(peer) => peer.kill(rng),
        }
    }

    pub(crate) fn close(&mut self) {
        match self {
            Self::Tame(peer) => peer.close(false),
            Self::Raw(peer) => peer.close(false),
        }
    }

    /// Whether something has happened, and when something will.
    pub(crate) fn step(&mut self, rng: &mut fastrand::Rng) -> (bool, Option<Duration>) {
        match self {
            Self::Tame(peer) => (peer.step(rng.u8(..16) == 0, rng), None),
            Self::Raw(peer) => peer.step(rng),
        }
    }
}

/// Where the servers play: the clock, and the ledger that their deeds are written into.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) machine: Machine,
    pub(crate) ledger: SharedLedger,
}

impl Stage {
    pub(crate) fn commit(&self, address: SocketAddr, deed: Deed) {
        let at = self.machine.now();
        self.machine.note(format_args!("{address}: {deed:?}"));
        let deeds = &mut self.ledger.borrow_mut().weather.deeds;
        deeds.push((at, address, deed));
    }
}

impl Tame {
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    /// Ends it from outside.
    pub(crate) fn kill(&mut self, rng: &mut fastrand::Rng) {
        self.stage.commit(self.address, Deed::Dies);
        self.close(rng.bool());
    }

    pub(crate) fn close(&mut self, reset: bool) {
        // Its memory is left: `h2` asserts in debug builds that no stream was ever left half-done.
        if let Phase::Open(connection) = std::mem::replace(&mut self.phase, Phase::Gone) {
            std::mem::forget(connection);
        }
        for call in self.calls.drain(..) {
            call.close(&self.ledger);
        }
        self.ignored.clear();
        if let Some(end) = self.wire.borrow_mut().end.take()
            && reset
        {
            end.reset();
        }
    }

    /// Whether something has happened.
    pub(crate) fn step(&mut self, crumbs: bool, rng: &mut fastrand::Rng) -> bool {
        let before = {
            let mut wire = self.wire.borrow_mut();
            let mut most = || match rng.u8(..6) {
                0 if crumbs => 1,
                0 | 1 => rng.usize(1..200),
                _ => 1 << 20,
            };
            (wire.read_left, wire.write_left) = (most(), most());
            (wire.read_left, wire.write_left)
        };
        let acted = self.act(rng);
        let mut wire = self.wire.borrow_mut();
        let moved = (wire.read_left, wire.write_left) != before;
        let dead = wire.dies_at.is_some_and(|at| wire.written >= at);
        let failed = wire.failed;
        wire.push_injected();
        let refused = wire.refused;
        drop(wire);
        if refused > self.refused {
            // `h2` counts one that was reset until it has forgotten it; who writes its own frames holds the core to the limit.
            self.refused = refused;
            self.stage.commit(self.address, Deed::Crowded);
        }
        if dead && !self.is_gone() {
            self.kill(rng);
            return true;
        }
        if failed && !self.is_gone() {
            self.close(false);
            return true;
        }
        acted || moved
    }

    fn act(&mut self, rng: &mut fastrand::Rng) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        match &mut self.phase {
            Phase::Gone => false,
            Phase::Mute => {
                let wire = self.wire.borrow();
                let Some(end) = &wire.end else {
                    return false;
                };
                let mut bytes = Vec::new();
                match end.read(&mut bytes, 1 << 17) {
                    Arrival::Bytes(_) => true,
                    Arrival::Nothing => false,
                    Arrival::End | Arrival::Reset => {
                        drop(wire);
                        self.close(false);
                        true
                    }
                }
            }
            Phase::Waiting(handshake) => match Pin::new(&mut **handshake).poll(cx) {
                Poll::Pending => false,
                Poll::Ready(Ok(connection)) => {
                    self.phase = Phase::Open(Box::new(connection));
                    true
                }
                Poll::Ready(Err(_)) => {
                    self.close(false);
                    true
                }
            },
            Phase::Open(connection) => {
                let mut acted = false;
                let mut accepted = Vec::new();
                let over = loop {
                    match connection.poll_accept(cx) {
                        Poll::Pending => break false,
                        Poll::Ready(Some(Ok(pair))) => accepted.push(pair),
                        Poll::Ready(Some(Err(error))) => {
                            let ours = error.is_io() || error.is_remote();
                            assert!(ours, "the core broke HTTP/2: {error}");
                            break true;
                        }
                        Poll::Ready(None) => break true,
                    }
                };
                for (request, respond) in accepted {
                    acted = true;
                    self.take_up(request, respond, rng);
                }
                for call in &mut self.calls {
                    if rng.u8(..) >= self.lazy {
                        acted |= call.step(&self.ledger, rng);
                    } else {
                        acted = true;
                    }
                }
                let ledger = &self.ledger;
                self.calls.retain_mut(|call| {
                    if call.over {
                        call.leave(ledger);
                    }
                    !call.over
                });
                // What was said now leaves now.
                if let Phase::Open(connection) = &mut self.phase {
                    let _ = connection.poll_closed(cx);
                }
                if over {
                    self.close(false);
                    return true;
                }
                acted
            }
        }
    }

    fn take_up(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        rng: &mut fastrand::Rng,
    ) {
        let id = request.body().stream_id().as_u32();
        if self.goaway_at.is_some_and(|at| id >= at) && self.last_id.is_none() {
            // This one and those behind it were never seen.
            let last = self.seen_id;
            self.last_id = Some(last);
            let mut wire = self.wire.borrow_mut();
            if rng.bool() {
                wire.injected.extend(goaway(0x7fff_ffff, 0));
            }
            wire.injected.extend(goaway(last, 0));
            drop(wire);
            self.stage.commit(self.address, Deed::GoesAway);
        }
        if self.last_id.is_some_and(|last| id > last) {
            self.ignored.push((request, respond));
            return;
        }
        self.seen_id = id;
        let call = request.headers().get("x-call");
        let call = call.and_then(|call| call.to_str().ok()?.parse::<usize>().ok());
        let call = call.expect("a call bears its number");
        let mut ledger = self.ledger.borrow_mut();
        let facts = &mut ledger.calls[call];
        let plan = facts.plan.clone();
        assert_eq!(
            request.uri().path(),
            plan.path(),
            "the method that was called"
        );
        assert_eq!(request.headers()["content-type"], "application/grpc+proto");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(
            request.headers().contains_key("grpc-timeout"),
            plan.timeout.is_some()
        );
        if let Play::Refuse { times } = plan.play
            && facts.refused < times
        {
            facts.refused += 1;
            self.refused += 1;
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        facts.processed += 1;
        facts.open += 1;
        drop(ledger);
        self.calls
            .push(Call::new(plan, request.into_body(), respond, rng));
    }
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
    frame.extend(last.to_be_bytes());
    frame.extend(code.to_be_bytes());
    frame
}

/// A call that was taken up.
struct Call {
    plan: Plan,
    request: Option<RecvStream>,
    /// What the request must come to.
    expected: Vec<u8>,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    received: Vec<u8>,
    request_over: bool,
    /// How many messages of the request were echoed.
    echoed: usize,
    queue: Vec<u8>,
    queued: bool,
    said: bool,
    hold_request: bool,
    over: bool,
}

impl Call {
    fn new(
        plan: Plan,
        request: RecvStream,
        respond: SendResponse<Bytes>,
        rng: &mut fastrand::Rng,
    ) -> Self {
        Self {
            expected: plan.offered_bytes(),
            plan,
            request: Some(request),
            respond,
            send: None,
            received: Vec::new(),
            request_over: false,
            echoed: 0,
            queue: Vec::new(),
            queued: false,
            said: false,
            hold_request: rng.bool(),
            over: false,
        }
    }

    fn close(self, ledger: &SharedLedger) {
        self.leave(ledger);
    }

    fn leave(&self, ledger: &SharedLedger) {
        ledger.borrow_mut().calls[self.plan.id].open -= 1;
    }

    fn step(&mut self, ledger: &SharedLedger, rng: &mut fastrand::Rng) -> bool {
        if self.over {
            return false;
        }
        let read = self.read(ledger);
        let wrote = self.write(ledger, rng);
        let cx = &mut Context::from_waker(Waker::noop());
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        };
        if reset || (self.said && (self.request_over || !self.hold_request)) {
            self.over = true;
        }
        read || wrote || self.over
    }

    fn read(&mut self, ledger: &SharedLedger) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        let Some(body) = &mut self.request else {
            return false;
        };
        let mut read = false;
        loop {
            match body.poll_data(cx) {
                Poll::Pending => return read,
                Poll::Ready(Some(Ok(bytes))) => {
                    read = true;
                    let _ = body.flow_control().release_capacity(bytes.len());
                    let next = self.expected.get(self.received.len()..);
                    assert!(
                        next.is_some_and(|next| next.starts_with(&bytes)),
                        "call {}: the request's bytes are its own",
                        self.plan.id
                    );
                    self.received.extend_from_slice(&bytes);
                }
                Poll::Ready(Some(Err(_))) => {
                    self.request = None;
                    self.request_over = true;
                    return true;
                }
                Poll::Ready(None) => {
                    let trailers = body.poll_trailers(cx);
                    assert!(matches!(trailers, Poll::Ready(Ok(None) | Err(_))));
                    if matches!(trailers, Poll::Ready(Ok(None))) && body.is_end_stream() {
                        assert_eq!(
                            self.received, self.expected,
                            "call {}: what ends cleanly is whole",
                            self.plan.id
                        );
                        assert_eq!(self.plan.broken, None, "what is broken never ends cleanly");
                        ledger.borrow_mut().calls[self.plan.id].request_ended = true;
                    }
                    self.request_over = true;
                    self.request = None;
                    return true;
                }
            }
        }
    }

    /// Fills `queue` as the play goes. Whether it is the end of it.
    fn play(&mut self, ledger: &SharedLedger) -> bool {
        let request_ended = ledger.borrow().calls[self.plan.id].request_ended;
        match &self.plan.play {
            Play::Echo { .. } => {
                let mut at: usize = self.plan.requests[..self.echoed]
                    .iter()
                    .map(|size| size + 5)
                    .sum();
                while let Some(&size) = self.plan.requests.get(self.echoed) {
                    let Some(message) = self.received.get(at..at + 5 + size) else {
                        break;
                    };
                    self.queue.extend_from_slice(message);
                    at += 5 + size;
                    self.echoed += 1;
                }
                request_ended
            }
            Play::Stream { early, .. } if !early && !request_ended => false,
            Play::Refuse { .. } => true,
            Play::TrailersOnly { .. } => true,
            _ => {
                if !self.queued {
                    self.queued = true;
                    for message in self.plan.replies() {
                        self.queue.extend(frame(&message));
                    }
                    if let Play::Cut { sizes, .. } = &self.plan.play {
                        // At least a byte of the last message is missing, at most its whole payload.
                        let missing = sizes
                            .last()
                            .map_or(1, |size| 1 + self.plan.id % size.max(&1));
                        self.queue.truncate(self.queue.len() - missing);
                    }
                }
                true
            }
        }
    }

    fn write(&mut self, ledger: &SharedLedger, rng: &mut fastrand::Rng) -> bool {
        if self.said {
            return false;
        }
        let last = self.play(ledger);
        if let Play::Reset { sizes: None, h2 } = self.plan.play {
            self.respond.send_reset(h2.into());
            return self.say(ledger);
        }
        if self.queue.is_empty() && !last {
            return false;
        }
        if self.send.is_none() {
            let only = matches!(self.plan.play, Play::TrailersOnly { .. });
            let mut response = Response::new(());
            let grpc = HeaderValue::from_static("application/grpc+proto");
            response.headers_mut().insert("content-type", grpc);
            if only {
                response.headers_mut().extend(self.status());
            }
            let Ok(send) = self.respond.send_response(response, only) else {
                self.over = true;
                return true;
            };
            self.send = Some(send);
            if only {
                return self.say(ledger);
            }
            return true;
        }
        let (ends_on_data, trailers) = (self.ends_on_data(), self.status());
        let Some(send) = &mut self.send else {
            return false;
        };
        if !self.queue.is_empty() {
            let n = match rng.u8(..4) {
                0 => rng.usize(..=self.queue.len().min(20)),
                1 => rng.usize(1..=self.queue.len()),
                _ => self.queue.len(),
            };
            let bytes: Vec<u8> = self.queue.drain(..n).collect();
            let end = self.queue.is_empty() && last && ends_on_data;
            if send.send_data(bytes.into(), end).is_err() {
                self.over = true;
            } else if end {
                return self.say(ledger);
            }
            return true;
        }
        let said = match self.plan.play {
            Play::NoTrailers { .. } | Play::Cut { by: CutBy::End, .. } => {
                send.send_data(Bytes::new(), true).is_ok()
            }
            Play::Reset { h2, .. }
            | Play::Cut {
                by: CutBy::Reset(h2),
                ..
            } => {
                send.send_reset(h2.into());
                true
            }
            Play::Silent { .. } => return false,
            _ => send.send_trailers(trailers).is_ok(),
        };
        if said { self.say(ledger) } else { true }
    }

    fn ends_on_data(&self) -> bool {
        matches!(
            self.plan.play,
            Play::NoTrailers { .. } | Play::Cut { by: CutBy::End, .. }
        )
    }

    fn status(&self) -> HeaderMap {
        let code = match self.plan.play {
            Play::Cut { .. } => 0,
            // Refused before, taken up now.
            Play::Refuse { .. } => 0,
            _ => self.plan.code().unwrap_or_default(),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", u16::from(code).into());
        trailers.insert("x-call", self.plan.id.into());
        trailers
    }

    fn say(&mut self, ledger: &SharedLedger) -> bool {
        self.said = true;
        ledger.borrow_mut().calls[self.plan.id].finished = true;
        true
    }
}

/// The server's end of the link, as `h2` and the faults use it.
struct Wire {
    end: Option<End>,
    read_left: usize,
    write_left: usize,
    written: usize,
    dies_at: Option<usize>,
    frame_head: Vec<u8>,
    frame_left: usize,
    /// The payload of an RST_STREAM that is being written, and how many of them said REFUSED_STREAM.
    code: Option<Vec<u8>>,
    refused: u32,
    /// Frames that are slipped in between those of `h2`.
    injected: Vec<u8>,
    failed: bool,
}

impl Wire {
    fn push_injected(&mut self) -> bool {
        if self.injected.is_empty() || self.frame_left > 0 || !self.frame_head.is_empty() {
            return true;
        }
        if let Some(end) = &self.end
            && let Ok(n) = end.write(&self.injected)
        {
            self.injected.drain(..n);
            self.written += n;
        }
        self.injected.is_empty()
    }

    fn write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A frame that was begun is ended before another is slipped in.
        if !self.push_injected() {
            return Poll::Pending;
        }
        let Some(end) = &self.end else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let mortal = self
            .dies_at
            .map_or(usize::MAX, |at| at - at.min(self.written));
        let mut most = bytes.len().min(self.write_left).min(mortal);
        if !self.injected.is_empty() {
            most = most.min(self.until_boundary());
        }
        if most == 0 {
            return Poll::Pending;
        }
        match end.write(&bytes[..most]) {
            Err(error) => {
                self.failed = true;
                Poll::Ready(Err(error))
            }
            Ok(0) => Poll::Pending,
            Ok(n) => {
                self.write_left -= n;
                self.written += n;
                self.walk(&bytes[..n]);
                Poll::Ready(Ok(n))
            }
        }
    }

    fn until_boundary(&self) -> usize {
        match self.frame_left {
            0 => 9 - self.frame_head.len(),
            left => left,
        }
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = self.until_boundary().min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            bytes = rest;
            if self.frame_left > 0 {
                self.frame_left -= n;
                if let Some(code) = &mut self.code {
                    code.extend_from_slice(now);
                    if self.frame_left == 0 {
                        self.refused += u32::from(code[..] == 7u32.to_be_bytes());
                        self.code = None;
                    }
                }
                continue;
            }
            self.frame_head.extend_from_slice(now);
            if let [a, b, c, kind, _, _, _, _, _] = self.frame_head[..] {
                self.code = (kind == RST_STREAM).then(Vec::new);
                self.frame_left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.frame_head.clear();
            }
        }
    }
}

struct Pipe(Rc<RefCell<Wire>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        let most = into.remaining().min(wire.read_left);
        let Some(end) = &wire.end else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let mut bytes = Vec::new();
        match end.read(&mut bytes, most) {
            Arrival::Nothing => Poll::Pending,
            Arrival::Bytes(n) => {
                wire.read_left -= n;
                into.put_slice(&bytes);
                Poll::Ready(Ok(()))
            }
            Arrival::End => Poll::Ready(Ok(())),
            Arrival::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().write(bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = &self.0.borrow().end {
            end.shutdown();
        }
        Poll::Ready(Ok(()))
    }
}
