//! One HTTP/2 connection to a backend, from the first SYN to its end.
//!
//! Owns the engine of `h2` and its life: connecting, waiting for the peer's SETTINGS, ready, draining after a GOAWAY, gone. It
//! never chooses which call goes where; that is the pool's business.

use std::fmt;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Scheme;
use http::{Request, Uri, Version};

use crate::net::{Bridge, Key, SharedTransport, Socket};
use crate::telemetry::panics;
use crate::upstream::gate::{Gate, Notes, Opening, opening_at_end};
use crate::upstream::settings;
use crate::upstream::stream::{Http2, Open, Slot};
use crate::wire::http2::hpack;
use crate::wire::{OutgoingHead, Reason, Reset};

/// From so many staged bytes on `h2` waits, bytes. Many streams share it, so it is wider than a client's.
const HIGH_WATER: usize = 256 << 10;
/// Heads that `h2` holds for a backend that reads nothing. From then on no call is opened on the connection: those that are
/// cancelled leave their places, but their heads still have to be sent, and each may be as large as a head may be.
const HEADS_WAITING_MAX: usize = 256;
/// In which the gate counts what may come so often and no oftener.
const SECOND: Duration = Duration::from_secs(1);

/// How a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not usable yet.
    Opening,
    /// Takes calls.
    Ready,
    /// Finishes its calls and takes no more.
    Draining,
    /// Over. What its streams are told, they are told by `h2`; this is for those who waited for it.
    Gone(Reset),
}

/// A connection to one address of an endpoint.
pub struct Connection<S: Socket> {
    transport: SharedTransport<S>,
    transport_key: Key,
    phase: Phase<S>,
    open: Rc<Open>,
    /// The most that were ever open at the same time.
    most: usize,
    opening: Option<Opening>,
}

enum Phase<S: Socket> {
    Connecting,
    /// The preface is sent; the peer's SETTINGS are awaited, since they say how many streams it allows.
    Greeting(Engine<S>),
    Ready(Engine<S>),
    Draining(Engine<S>),
    Gone(Reset),
}

struct Engine<S: Socket> {
    connection: h2::client::Connection<Bridge<S, Gate>, Bytes>,
    requests: SendRequest<Bytes>,
    notes: Rc<Notes>,
    /// When the gate began to count anew.
    second: Instant,
}

impl<S: Socket> Connection<S> {
    /// A connection on a transport that is connecting.
    pub fn new(transport: SharedTransport<S>, transport_key: Key) -> Self {
        Self {
            transport,
            transport_key,
            phase: Phase::Connecting,
            open: Rc::default(),
            most: 0,
            opening: None,
        }
    }

    /// Goes on as far as it can: connects, reads, writes.
    pub fn advance(
        &mut self,
        reset_stream_duration: Duration,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Condition {
        if matches!(self.phase, Phase::Connecting) {
            let (failed, connected) = {
                let transport = self.transport.borrow();
                (transport.failed(), transport.is_connected())
            };
            self.phase = match failed {
                Some(kind) => Phase::Gone(Reset::proxy(connect_reason(kind))),
                None if !connected => return Condition::Opening,
                None => match self.greet(reset_stream_duration, now) {
                    Some(engine) => Phase::Greeting(engine),
                    None => Phase::Gone(Reset::proxy(Reason::BackendConnectRefused)),
                },
            };
        }
        let transport = &self.transport;
        let opening = &mut self.opening;
        let (over, turned_away) = match &mut self.phase {
            Phase::Greeting(engine) | Phase::Ready(engine) | Phase::Draining(engine) => {
                let (over, turned_away) = engine.poll(now, cx);
                if !transport.borrow().has_refused() {
                    engine.notes.note_no_heads();
                }
                engine.cancel(now, cx);
                // `h2` would go on until all it has to say is written; but whoever has ended its side answers nothing more,
                // and may never read again.
                let over = over || transport.borrow().has_ended();
                if over {
                    engine.lose(transport, now);
                }
                (over, turned_away)
            }
            Phase::Connecting => return Condition::Opening,
            Phase::Gone(reset) => return Condition::Gone(*reset),
        };
        // Take the phase apart and put the next one in its place.
        let phase = std::mem::replace(
            &mut self.phase,
            Phase::Gone(Reset::upstream(Reason::BackendClosed)),
        );
        self.phase = match phase {
            Phase::Greeting(engine) => match engine.notes.opening() {
                Some(Opening::Http2) if !over => Phase::Ready(engine),
                Some(Opening::Http2) => Phase::Gone(Reset::upstream(Reason::BackendClosed)),
                found if found.is_some() || over => {
                    *opening = found.or_else(|| opening_at_end(transport.borrow().unread()));
                    Phase::Gone(Reset::proxy(greeting_reason(opening.as_ref())))
                }
                _ => Phase::Greeting(engine),
            },
            _ if over => Phase::Gone(Reset::upstream(Reason::BackendClosed)),
            Phase::Ready(engine) if turned_away => Phase::Draining(engine),
            // `h2` would keep it open for as long as somebody could ask for a stream.
            Phase::Draining(_) if self.open.streams() == 0 => {
                Phase::Gone(Reset::upstream(Reason::BackendClosed))
            }
            phase => phase,
        };
        self.condition()
    }

    fn greet(&self, reset_stream_duration: Duration, now: Instant) -> Option<Engine<S>> {
        let gate = Gate::new();
        let notes = gate.notes();
        let bridge = Bridge::new(Rc::clone(&self.transport), gate, HIGH_WATER);
        let builder = settings::builder(reset_stream_duration);
        let handshake = pin!(builder.handshake(bridge));
        // With a write-behind the handshake has nothing to wait for: it stages the preface and is done.
        match handshake.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((requests, connection))) => Some(Engine {
                connection,
                requests,
                notes,
                second: now,
            }),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// How many more calls may be opened now. `h2` would park what is beyond the peer's limit, and a parked call that is cancelled
    /// is still sent later; so nothing is ever beyond it.
    pub fn room(&self) -> usize {
        match &self.phase {
            Phase::Ready(engine) => {
                let allowed = engine.requests.current_max_send_streams();
                let stuck = self.transport.borrow().has_refused()
                    && engine.notes.heads() >= HEADS_WAITING_MAX;
                match stuck {
                    true => 0,
                    false => allowed
                        .min(settings::STREAMS_MAX)
                        .saturating_sub(self.open.streams()),
                }
            }
            _ => 0,
        }
    }

    /// Whether one more call may be opened now.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Opens a stream and sends `head` on it. `authority` is for calls that bring none. `Err`: nothing was sent;
    /// [`Reason::BackendRefused`]: and nothing will be, by anybody.
    pub fn open(
        &mut self,
        head: OutgoingHead,
        authority: &str,
        connection: &Waker,
    ) -> Result<Http2, Reset> {
        let Phase::Ready(engine) = &mut self.phase else {
            return Err(Reset::upstream(Reason::BackendRefused));
        };
        let request = request_of(head, authority).ok_or(Reset::proxy(Reason::NoEndpoint))?;
        let takes = engine.notes.head_bytes_max();
        if !hpack::fits(&request, takes as usize) {
            // Servers end the whole connection for a head that is far over it, with the calls of everybody else.
            return Err(Reset::proxy(Reason::MetadataTooLargeThere(takes)));
        }
        let slot = Slot::new(&self.open, connection);
        self.most = self.most.max(self.open.streams());
        // Its head comes behind all that is said already.
        let begins = self.transport.borrow().staged_total();
        // A clone, because the original would remember a stream that fills the last slot, refuse the next call for its sake,
        // and put its own waker in the place of that stream's.
        match engine.requests.clone().send_request(request, false) {
            Ok((answer, body)) => {
                let notes = Rc::clone(&engine.notes);
                notes.note_head();
                Ok(Http2::new(answer, body, slot, notes, begins))
            }
            // It never left: as safe to repeat as a refusal.
            Err(_) if engine.is_turned_away() => Err(Reset::upstream(Reason::BackendRefused)),
            // The connection takes calls, but not this one: no other would, and none is to suffer for it.
            Err(error) => {
                log::debug!("a request cannot be said in HTTP/2: {error}");
                Err(Reset::proxy(Reason::ClientProtocol(
                    "it cannot be said in HTTP/2",
                )))
            }
        }
    }

    /// How it stands.
    pub fn condition(&self) -> Condition {
        match &self.phase {
            Phase::Connecting | Phase::Greeting(_) => Condition::Opening,
            Phase::Ready(_) => Condition::Ready,
            Phase::Draining(_) => Condition::Draining,
            Phase::Gone(reset) => Condition::Gone(*reset),
        }
    }

    /// Gives up on it: nothing is read or written any more, its streams learn that it is lost.
    pub fn abandon(&mut self, reset: Reset) {
        self.phase = Phase::Gone(reset);
    }

    /// Takes no more calls.
    pub fn drain(&mut self) {
        self.phase = match std::mem::replace(
            &mut self.phase,
            Phase::Gone(Reset::upstream(Reason::BackendClosed)),
        ) {
            Phase::Ready(engine) => Phase::Draining(engine),
            phase => phase,
        };
    }

    /// Whether somebody has panicked under `h2`'s lock: it can only be dropped. Its streams ask for themselves.
    pub fn is_poisoned(&self) -> bool {
        let Some(engine) = self.engine() else {
            return false;
        };
        panics::quietly(|| engine.requests.current_max_send_streams()).is_none()
    }

    /// What the peer's first bytes said, where they were not HTTP/2's.
    pub fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// How many empty frames of the peer were taken out on the way to `h2`.
    pub fn dropped(&self) -> u64 {
        self.engine().map_or(0, |own| own.notes.dropped())
    }

    /// Of how many of its streams the call is over and the backend is not told yet.
    pub fn cancelled(&self) -> usize {
        self.engine().map_or(0, |own| own.notes.cancelled().len())
    }

    /// When to be asked again though nothing has happened.
    pub fn wake_at(&self) -> Option<Instant> {
        self.engine()?.notes.cancelled().wake_at()
    }

    fn engine(&self) -> Option<&Engine<S>> {
        match &self.phase {
            Phase::Greeting(engine) | Phase::Ready(engine) | Phase::Draining(engine) => {
                Some(engine)
            }
            Phase::Connecting | Phase::Gone(_) => None,
        }
    }

    /// How many streams are open on it, those included.
    pub fn streams(&self) -> usize {
        self.open.streams()
    }

    /// How many were at the same time, at the most.
    pub fn streams_most(&self) -> usize {
        self.most
    }

    /// Its transport's place.
    pub fn transport_key(&self) -> Key {
        self.transport_key
    }

    /// Its transport.
    pub fn transport(&self) -> &SharedTransport<S> {
        &self.transport
    }
}

impl<S: Socket> Drop for Engine<S> {
    fn drop(&mut self) {
        // They have their connection's places, and would keep them.
        self.notes.cancelled().end();
    }
}

impl<S: Socket> Engine<S> {
    /// Reads and writes. Whether the connection is over, and whether it takes no more calls.
    fn poll(&mut self, now: Instant, cx: &mut Context<'_>) -> (bool, bool) {
        if now >= self.second + SECOND {
            self.second = now;
            self.notes.next_second();
        }
        let over = pin!(&mut self.connection).poll(cx).is_ready();
        (over, self.is_turned_away())
    }

    /// Cancels what may be cancelled now, and asks for the rest. Where a head waits, the question would overtake it.
    fn cancel(&mut self, now: Instant, cx: &Context<'_>) {
        let cancelled = self.notes.cancelled();
        let ask = cancelled.go_on(now) && self.notes.heads() == 0;
        // What is set is what was set before: it is the answer that is wanted.
        if ask
            && self
                .connection
                .set_initial_window_size(settings::STREAM_WINDOW_BYTES)
                .is_ok()
        {
            cancelled.note_asked(now);
            cx.waker().wake_by_ref();
        }
    }

    /// `h2` tells nobody of a GOAWAY but the streams above its id: one has to ask.
    fn is_turned_away(&mut self) -> bool {
        let asked = self
            .requests
            .poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(asked, Poll::Ready(Err(_)))
    }

    /// It is over. What has not left by now never will, so that a call whose head is behind it was never made.
    fn lose(&self, transport: &SharedTransport<S>, now: Instant) {
        let mut transport = transport.borrow_mut();
        transport.flush(now);
        transport.give_up();
        self.notes.note_lost(transport.written_total());
        self.notes.cancelled().end();
        if let Some(fault) = self.notes.fault() {
            log::debug!("a backend is given up: {}", fault.reason.word());
        }
    }
}

fn connect_reason(kind: io::ErrorKind) -> Reason {
    match kind {
        io::ErrorKind::TimedOut => Reason::BackendConnectTimeout,
        // Somebody took the connection and gave it up before we had looked.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Reason::BackendClosed,
        _ => Reason::BackendConnectRefused,
    }
}

fn greeting_reason(opening: Option<&Opening>) -> Reason {
    match opening {
        Some(Opening::Tls) => Reason::BackendTls,
        Some(Opening::Http1(_) | Opening::Noise) => Reason::BackendNotGrpc(0),
        Some(Opening::Http2) | None => Reason::BackendClosed,
    }
}

fn request_of(head: OutgoingHead, authority: &str) -> Option<Request<()>> {
    let mut target = http::uri::Parts::default();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(match head.authority {
        Some(own) => own,
        None => authority.parse().ok()?,
    });
    target.path_and_query = Some(head.path);
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = head.headers;
    Some(request)
}

impl<S: Socket> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("condition", &self.condition())
            .field("streams", &self.open.streams())
            .finish_non_exhaustive()
    }
}
