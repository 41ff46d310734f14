//! What becomes of a request: an answer at once, a status at once, or an exchange.
//!
//! `decide` is a pure function of the snapshot, the head and the time; the methods of `Core` carry it out. Nothing of a
//! body is touched here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode, Version};

use crate::core::client::Seat;
use crate::core::drain::Drain;
use crate::core::messages::Report;
use crate::core::relief::Backlog;
use crate::core::turn::{Call, Core};
use crate::downstream::{Refused, Share, Stream};
use crate::exchange::outcome::{message_of, status_of};
use crate::exchange::{Exchange, Terms};
use crate::net::{Alarm, Driver, Key, Now, Socket, Task};
use crate::policy::filter::{Filter, LocalAnswer};
use crate::policy::{Peer, RouteKind, Snapshot, Verdict, Versions};
use crate::rpc::{Dialect, ResponseCodec, classify, is_rpc_path};
use crate::telemetry::{Record, panics};
use crate::tripwire::{Place, trip};
use crate::wire::http1::{HeadFault, HeadLimits, names_protocol};
use crate::wire::{
    Code, Fields, Part, Party, Reason, RequestHead, Reset, ResponseHead, Sink, Status, metadata,
    timeout,
};

/// What becomes of a request.
#[derive(Debug)]
enum Decision {
    /// This answer, and no backend.
    Answer {
        answer: Box<LocalAnswer>,
        whose: Whose,
        silent: bool,
    },
    /// The end of an RPC that never began, in its caller's dialect.
    End {
        dialect: Dialect,
        status: Status,
        reason: Reason,
        by: Party,
        route: Option<usize>,
    },
    /// An exchange.
    Exchange {
        dialect: Dialect,
        route: usize,
        time: Option<Duration>,
    },
}

/// Whose filters see an answer of ours.
#[derive(Clone, Copy, Debug)]
enum Whose {
    /// Nobody's: it is for no page.
    Nobody,
    /// Those of what no route takes.
    Unrouted,
    /// This route's.
    Route(usize),
}

impl Whose {
    fn filters(self, snapshot: &Snapshot) -> &[Box<dyn Filter>] {
        match self {
            Self::Nobody => &[],
            Self::Unrouted => &snapshot.unrouted,
            Self::Route(route) => match snapshot.routes.get(route) {
                Some(route) => &route.filters,
                None => &[],
            },
        }
    }
}

/// Decides about a request. The head may be changed by the route's filters.
fn decide(snapshot: &Snapshot, head: &mut RequestHead, version: Version, peer: &Peer) -> Decision {
    if snapshot.live_path.as_deref() == Some(head.path.path())
        && matches!(head.method, Method::GET | Method::HEAD)
    {
        let answer = text(StatusCode::OK, "ok\n".into(), None);
        return Decision::Answer {
            answer,
            whose: Whose::Nobody,
            silent: true,
        };
    }
    let found = snapshot.route(head);
    let whose = found.map_or(Whose::Unrouted, |(index, _)| Whose::Route(index));
    for filter in whose.filters(snapshot) {
        match filter.request(head, peer) {
            Verdict::Continue => {}
            Verdict::Respond(answer) => {
                // The others see it, as they see every answer: a page shall be able to read it.
                return Decision::Answer {
                    answer,
                    whose,
                    silent: false,
                };
            }
        }
    }
    let Some((index, route)) = found else {
        return no_route(head, version);
    };
    let dialect = match route.kind {
        RouteKind::Plain => Dialect::Plain,
        RouteKind::Rpc => match classify(head, version) {
            Ok(dialect) => dialect,
            Err(refusal) => {
                let listener = snapshot.listeners.get(peer.listener);
                let message = match listener.map(|listener| listener.versions) {
                    Some(Versions::Http1) if refusal.needs_http2 => GRPC_AT_HTTP1.to_owned(),
                    _ => refusal.message,
                };
                let answer = refuse_rpc(head, refusal.status, refusal.word, message);
                return Decision::Answer {
                    answer,
                    whose,
                    silent: false,
                };
            }
        },
    };
    if !dialect.is_rpc() {
        return Decision::Exchange {
            dialect,
            route: index,
            time: None,
        };
    }
    let end = |code, message: &'static str, reason, by| Decision::End {
        dialect,
        status: Status::new(code, message),
        reason,
        by,
        route: Some(index),
    };
    if !is_rpc_path(head.path.path()) {
        let message = "not a method: a path is /package.Service/Method";
        return end(Code::UNIMPLEMENTED, message, Reason::NoRoute, Party::Proxy);
    }
    if metadata::via_hops(&head.headers) >= metadata::VIA_HOPS_MAX {
        let message = "the call has been through this proxy too often";
        return end(Code::INTERNAL, message, Reason::Loop, Party::Proxy);
    }
    match timeout::of(&head.headers) {
        Ok(time) => Decision::Exchange {
            dialect,
            route: index,
            time,
        },
        Err(fault) => {
            let how = fault.detail();
            end(
                Code::INTERNAL,
                how,
                Reason::ClientProtocol(how),
                Party::Downstream,
            )
        }
    }
}

/// Deciding has panicked: an RPC ends as one, whatever else is answered in HTTP. The head may have been changed by half.
fn excuse(snapshot: &Snapshot, head: &RequestHead, version: Version) -> Decision {
    let reset = Reset::proxy(Reason::Panic);
    let message = message_of(reset, "");
    let route = panics::contained(|| snapshot.route(head).map(|(index, _)| index)).flatten();
    match panics::contained(|| classify(head, version)) {
        Some(Ok(dialect)) => Decision::End {
            dialect,
            status: Status::new(status_of(reset.reason).0, message),
            reason: reset.reason,
            by: reset.by,
            route,
        },
        Some(Err(_)) | None => Decision::Answer {
            answer: text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{message}\n"),
                Some((reset.reason.word(), message.into_owned())),
            ),
            whose: route.map_or(Whose::Unrouted, Whose::Route),
            silent: false,
        },
    }
}

fn no_route(head: &RequestHead, version: Version) -> Decision {
    match classify(head, version) {
        Ok(dialect) => Decision::End {
            dialect,
            status: Status::new(Code::UNIMPLEMENTED, "no route takes this method"),
            reason: Reason::NoRoute,
            by: Party::Proxy,
            route: None,
        },
        Err(_) => {
            let refusal = ("no_route", "no route takes this path".to_owned());
            let answer = text(
                StatusCode::NOT_FOUND,
                "no route takes this path\n".into(),
                Some(refusal),
            );
            Decision::Answer {
                answer,
                whose: Whose::Unrouted,
                silent: false,
            }
        }
    }
}

fn text(
    status: StatusCode,
    body: String,
    refusal: Option<(&'static str, String)>,
) -> Box<LocalAnswer> {
    let mut head = ResponseHead::new(status);
    head.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    head.headers
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Box::new(LocalAnswer {
        head,
        body: body.into(),
        refusal,
    })
}

/// The answer to a request that is no RPC where only RPCs are served: a browser tab gets a small page, others a line.
fn refuse_rpc(
    head: &RequestHead,
    status: StatusCode,
    word: &'static str,
    message: String,
) -> Box<LocalAnswer> {
    let wants_page = head.headers.get_all(ACCEPT).any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    });
    let mut answer = if wants_page && matches!(head.method, Method::GET | Method::HEAD) {
        let mut answer = text(status, String::new(), None);
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        answer.head.headers.insert(CONTENT_TYPE, html);
        answer.body = Bytes::from_static(include_bytes!("not_a_page.html"));
        answer
    } else {
        text(status, format!("{message}\n"), None)
    };
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer
            .head
            .headers
            .insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    }
    answer.refusal = Some((word, message));
    answer
}

impl<D: Driver> Core<D> {
    /// Answers bytes that are no request, and closes after it.
    pub(super) fn refuse(&mut self, key: Key, refused: Refused, now: Now) {
        if let Some(stream) = self.lend(key) {
            self.turn_down(key, stream, refused, "bad_http", Party::Downstream, now);
        }
    }

    /// Refuses a head that has begun to come, because too much is held of such heads.
    pub(super) fn refuse_for_want_of_room(&mut self, key: Key, now: Now) {
        if let Some(stream) = self.lend(key) {
            let refused = match &stream {
                Stream::Http1(engine) => engine.refuse(NO_ROOM),
                Stream::Http2(_) => Refused {
                    fault: NO_ROOM,
                    head: None,
                },
            };
            self.turn_down(key, stream, refused, "overloaded", Party::Proxy, now);
        }
    }

    /// Answers what is no request.
    pub(super) fn turn_down(
        &mut self,
        key: Key,
        mut stream: Stream<D::Socket>,
        refused: Refused,
        word: &'static str,
        by: Party,
        now: Now,
    ) {
        let peer = self.peer(key);
        let Refused { fault, head } = refused;
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::BAD_REQUEST);
        let message = match &stream {
            Stream::Http1(engine) => {
                let transport = engine.transport().borrow();
                self.explain(key, fault, transport.unread())
            }
            Stream::Http2(_) => self.explain(key, fault, &[]),
        };
        let mut answer = text(status, format!("{message}\n"), None);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer
                .head
                .headers
                .insert(ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
        }
        let known = head.is_some();
        let head = head.map_or_else(blank_head, |head| *head);
        // A page may read why it was refused, as it may read every other answer.
        let whose = match self.snapshot.route(&head) {
            Some((route, _)) if known => Whose::Route(route),
            _ => Whose::Unrouted,
        };
        apply(whose.filters(&self.snapshot), &head, &mut answer.head);
        // Who does not even say HTTP would not understand an answer.
        let heard = match &stream {
            Stream::Http1(engine) => names_protocol(engine.transport().borrow().unread()),
            Stream::Http2(_) => true,
        };
        if heard {
            stream.respond(answer.head, answer.body);
        }
        if matches!(stream, Stream::Http1(_)) {
            // What came of it is nobody's head any more.
            self.hold_head(key, 0);
        }
        self.take_back(key, stream, now);
        let mut record = Record {
            http_status: heard.then_some(status.as_u16()),
            refusal: Some(word),
            by,
            message,
            ..Self::blank_record(&head, Some(peer), now)
        };
        if !known {
            record.verb.clear();
            record.path.clear();
        }
        self.report(Report::Record(Box::new(record)));
    }

    /// What was wrong, and where the first bytes, the limit or the listener tell it, what to do.
    fn explain(&self, key: Key, fault: HeadFault, unread: &[u8]) -> String {
        let what = fault.detail;
        if unread.first() == Some(&TLS_HANDSHAKE) {
            return TLS_CAME.to_owned();
        }
        if fault.status == 505
            && fault != ONLY_HTTP1
            && unread.trim_ascii_start().starts_with(b"PRI * HTTP/2.0")
        {
            return "HTTP/2 begins with its preface, whole, and with nothing before it".to_owned();
        }
        match fault {
            ONLY_HTTP1 => self.explain_version(key, fault, "HTTP/1.1"),
            ONLY_HTTP2 => self.explain_version(key, fault, "HTTP/2 by prior knowledge"),
            HeadFault::LINE_TOO_LONG => format!("{what}: limits.line_bytes bounds it"),
            HeadFault::HEAD_TOO_LARGE => format!("{what}: limits.header_bytes bounds it"),
            HeadFault::TOO_MANY_FIELDS => format!("{what}: limits.header_fields bounds it"),
            HeadFault::NAME_TOO_LONG => {
                let most = HeadLimits::default().name_bytes_max;
                format!("{what}: it may have {most} bytes")
            }
            _ => what.to_owned(),
        }
    }

    /// The same with both ways out: what to speak, and what to write where, since an operator may have several listeners.
    fn explain_version(&self, key: Key, fault: HeadFault, instead: &str) -> String {
        let what = fault.detail;
        let connection = self.connections.get(key);
        let index = connection.and_then(|one| usize::try_from(one.peer.listener()).ok());
        let listener = index.and_then(|index| self.snapshot.listeners.get(index));
        let place = match listener {
            Some(listener) => format!("[[listener]] \"{}\"", listener.name),
            None => "its [[listener]]".to_owned(),
        };
        format!("{what}; use {instead}, or write  protocol = \"auto\"  in {place}")
    }

    /// What could not even be answered is told.
    pub(super) fn record_malformed(
        &mut self,
        key: Key,
        word: &'static str,
        message: String,
        by: Party,
        now: Now,
    ) {
        let record = Record {
            refusal: Some(word),
            by,
            message,
            verb: String::new(),
            path: String::new(),
            ..Self::blank_record(&blank_head(), Some(self.peer(key)), now)
        };
        self.report(Report::Record(Box::new(record)));
    }

    /// Carries out what is decided about a whole head.
    pub(super) fn admit(
        &mut self,
        key: Key,
        mut stream: Stream<D::Socket>,
        mut head: RequestHead,
        version: Version,
        now: Now,
    ) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let (address, listener) = (connection.peer.address(), connection.peer.listener());
        let peer = self.who_asks(address, listener, now);
        if self.drain != Drain::No {
            stream.condemn();
        }
        let snapshot = self.snapshot.clone();
        let decided = panics::contained(|| {
            trip(Place::Admit);
            decide(&snapshot, &mut head, version, &peer)
        });
        let decision = match decided {
            Some(decision) => decision,
            None => {
                self.count_panic(now);
                excuse(&snapshot, &head, version)
            }
        };
        match decision {
            Decision::Answer {
                mut answer,
                whose,
                silent,
            } => {
                apply(whose.filters(&snapshot), &head, &mut answer.head);
                let status = answer.head.status.as_u16();
                stream.respond(answer.head, answer.body);
                if !silent {
                    let (refusal, message) = answer.refusal.unzip();
                    let record = Record {
                        http_status: Some(status),
                        refusal,
                        message: message.unwrap_or_default(),
                        ..Self::blank_record(&head, Some(peer.address), now)
                    };
                    self.report(Report::Record(Box::new(record)));
                }
                self.take_back(key, stream, now);
            }
            Decision::End {
                dialect,
                status,
                reason,
                by,
                route,
            } => {
                let filters = route.map_or(Whose::Unrouted, Whose::Route);
                let filters = filters.filters(&snapshot);
                let route = route.and_then(|route| snapshot.routes.get(route));
                if by == Party::Downstream {
                    stream.condemn();
                }
                end_at_once(&mut stream, dialect, &status, filters, &head);
                let record = Record {
                    protocol: dialect.name(),
                    code: Some(status.code),
                    http_status: Some(200),
                    reason,
                    by,
                    route: route.map(|route| Arc::clone(&route.name)),
                    message: status.message.into_owned(),
                    ..Self::blank_record(&head, Some(peer.address), now)
                };
                self.report(Report::Record(Box::new(record)));
                self.take_back(key, stream, now);
            }
            Decision::Exchange {
                dialect,
                route,
                time,
            } => {
                let ticket = snapshot
                    .routes
                    .get(route)
                    .and_then(|route| self.pool.ticket(route.backend));
                let Some(ticket) = ticket else {
                    // Every route of a snapshot has a backend of the same snapshot, and the pool has adopted it.
                    debug_assert!(false, "a route without a backend");
                    stream.condemn();
                    return self.take_back(key, stream, now);
                };
                let terms = Terms {
                    head,
                    version,
                    dialect,
                    snapshot,
                    route,
                    deadline: time.and_then(|time| now.instant.checked_add(time)),
                    started: now.instant,
                };
                trip(Place::Lend);
                let lent = matches!(stream, Stream::Http1(_));
                let exchange = Exchange::new(stream, ticket, terms);
                let share = Share::of(&self.budget);
                let reactor = &self.reactor;
                let own = self.exchanges.insert_with(|own| Call {
                    exchange,
                    connection: key,
                    wakeup: reactor.wakeup(Task::Exchange(own)),
                    alarm: Alarm::default(),
                    share,
                    backlog: Backlog::default(),
                    started: now.wall,
                });
                trip(Place::Lend);
                if lent && let Some(connection) = self.connections.get_mut(key) {
                    connection.seat = Seat::Lent(own);
                }
                if let Some(call) = self.exchanges.get(own) {
                    call.wakeup.wake();
                }
            }
        }
    }
}

/// Too many heads that have not come whole.
pub(super) const NO_ROOM: HeadFault = HeadFault {
    status: 503,
    detail: "too many requests have begun and have not come whole",
};

/// What a listener does not speak, because its configuration says so.
pub(super) const ONLY_HTTP1: HeadFault = HeadFault {
    status: 505,
    detail: "HTTP/2 is not spoken here",
};
pub(super) const ONLY_HTTP2: HeadFault = HeadFault {
    status: 505,
    detail: "HTTP/1.1 is not spoken here",
};

/// To native gRPC over HTTP/1.1 where HTTP/2 would be refused as well.
const GRPC_AT_HTTP1: &str = "native gRPC needs HTTP/2, and this listener speaks HTTP/1.1 alone (protocol = \"http1\"): \
     call one that speaks HTTP/2, or send application/grpc-web+proto";

/// To whoever begins with TLS.
const TLS_CAME: &str = "TLS came to a plaintext port; write http://, not https://, and give a gRPC client an insecure \
     channel (grpcurl -plaintext)";

/// The first byte of a record of type handshake (RFC 8446 §5.1), and of nothing that is HTTP.
const TLS_HANDSHAKE: u8 = 0x16;

/// Tells an RPC's caller its end though no exchange has begun.
fn end_at_once<S: Socket>(
    stream: &mut Stream<S>,
    dialect: Dialect,
    status: &Status,
    filters: &[Box<dyn Filter>],
    head: &RequestHead,
) {
    let mut codec = ResponseCodec::new(dialect, &head.headers, 0);
    let _ = codec.end(status, &mut |mut part| {
        if let Part::Head(answer) = &mut part {
            apply(filters, head, answer);
        }
        stream.send(part);
    });
    let noop = &mut std::task::Context::from_waker(std::task::Waker::noop());
    stream.settle(noop);
}

/// Those filters on the head of an answer, in reverse.
fn apply(filters: &[Box<dyn Filter>], request: &RequestHead, head: &mut ResponseHead) {
    for filter in filters.iter().rev() {
        filter.response(request, head);
    }
}

pub(super) fn blank_head() -> RequestHead {
    RequestHead {
        method: Method::GET,
        path: http::uri::PathAndQuery::from_static("/"),
        authority: None,
        headers: Fields::new(),
    }
}
