//! Records of calls, from what an exchange knows to whoever prints them.
//!
//! Owns what a record says and which way it goes; a record is made once for each call, whatever became of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use http::HeaderValue;
use http::header::{ORIGIN, USER_AGENT};

use crate::core::messages::{REPORTS_MAX, Report};
use crate::core::turn::{Call, Core};
use crate::exchange::Outcome;
use crate::net::{Driver, Key, Now};
use crate::telemetry::Record;
use crate::telemetry::record::Traffic;
use crate::wire::fields::X_USER_AGENT;
use crate::wire::{Party, Reason, RequestHead};

/// Whose address is not known any more.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The way of the records past the control thread.
pub(super) struct Ledger {
    pub(super) records: Sender<Report>,
    /// Records that have been read, to be written on again.
    pub(super) spent: Receiver<Box<Record>>,
}

impl<D: Driver> Core<D> {
    /// What a call that has ended came to.
    pub(super) fn record(&self, call: &Call<D::Socket>, outcome: Outcome, now: Now) -> Box<Record> {
        let exchange = &call.exchange;
        let terms = exchange.terms();
        let route = terms.snapshot.routes.get(terms.route);
        let backend = route.and_then(|route| terms.snapshot.backend(route.backend));
        let peer = self
            .connections
            .get(call.connection)
            .map(|connection| connection.peer.address());
        let (request, response) = exchange.traffic();
        let rpc = terms.dialect.is_rpc();
        let ledger = self.ledger.as_ref();
        let spent = ledger.and_then(|own| own.spent.try_recv().ok());
        let mut record = spent.unwrap_or_else(|| Box::new(Record::blank()));
        begin_record(&mut record, &terms.head, peer, call.started);
        record.elapsed = now.instant.duration_since(terms.started);
        record.first_byte = exchange.first_byte();
        record.protocol = terms.dialect.name();
        record.route = route.map(|route| Arc::clone(&route.name));
        record.backend = backend.map(|backend| Arc::clone(&backend.name));
        record.endpoint = exchange.ticket().address();
        record.attempts = exchange.ticket().attempts();
        record.code = rpc.then_some(outcome.status.code);
        record.http_status = exchange.http_status();
        record.reason = outcome.reason;
        record.by = outcome.by;
        record.message.push_str(&outcome.status.message);
        record.aborted = outcome.aborted;
        record.request = request;
        record.response = response;
        record
    }

    /// A record with what the request's head says, and nothing else.
    pub(super) fn blank_record(
        head: &RequestHead,
        peer: Option<SocketAddr>,
        started: Now,
    ) -> Record {
        let mut record = Record::blank();
        begin_record(&mut record, head, peer, started.wall);
        record
    }

    pub(super) fn peer(&self, key: Key) -> SocketAddr {
        let connection = self.connections.get(key);
        connection.map_or(NOBODY, |connection| connection.peer.address())
    }

    pub(super) fn report_attempts(&mut self) {
        for attempt in self.pool.take_attempts() {
            self.report(Report::Attempt(Box::new(attempt)));
        }
    }

    /// Tells the control thread, or whoever keeps the records; where too many wait it costs the report, never the turn.
    pub(super) fn report(&mut self, report: Report) {
        let is_record = u64::from(matches!(report, Report::Record(_)));
        self.records += is_record;
        let way = match (&report, &self.ledger) {
            (Report::Record(_), Some(ledger)) => &ledger.records,
            (Report::Attempt(attempt), Some(ledger)) => {
                let _ = tell(&ledger.records, Report::Attempt(attempt.clone()));
                &self.reports
            }
            _ => &self.reports,
        };
        if !tell(way, report) {
            self.records_dropped += is_record;
        }
    }
}

/// Whether the report is on its way. A channel may have a bound of its own as well.
pub(super) fn tell(way: &Sender<Report>, report: Report) -> bool {
    way.len() < REPORTS_MAX && way.try_send(report).is_ok()
}

/// Writes on a record what the request's head says, and takes away all else that is on it. Its texts keep their memory.
fn begin_record(on: &mut Record, head: &RequestHead, peer: Option<SocketAddr>, at: SystemTime) {
    // By name, each of them: a field that is forgotten here would tell of another call.
    let Record {
        started,
        elapsed,
        first_byte,
        client,
        verb,
        path,
        origin,
        library,
        protocol,
        route,
        backend,
        endpoint,
        attempts,
        code,
        http_status,
        reason,
        refusal,
        by,
        message,
        aborted,
        request,
        response,
    } = on;
    *started = at;
    *elapsed = Duration::ZERO;
    *first_byte = None;
    *client = peer.unwrap_or(NOBODY);
    verb.clear();
    verb.push_str(head.method.as_str());
    path.clear();
    path.push_str(head.path.path());
    write_field(origin, head.headers.get(ORIGIN));
    let named = head.headers.get(X_USER_AGENT);
    write_field(library, named.or_else(|| head.headers.get(USER_AGENT)));
    *protocol = "http";
    *route = None;
    *backend = None;
    *endpoint = None;
    *attempts = 0;
    *code = None;
    *http_status = None;
    *reason = Reason::Ok;
    *refusal = None;
    *by = Party::Proxy;
    message.clear();
    *aborted = false;
    *request = Traffic::default();
    *response = Traffic::default();
}

fn write_field(on: &mut Option<String>, value: Option<&HeaderValue>) {
    let Some(value) = value else {
        *on = None;
        return;
    };
    let on = on.get_or_insert_default();
    on.clear();
    match value.to_str() {
        Ok(text) => on.push_str(text),
        Err(_) => on.push_str(&String::from_utf8_lossy(value.as_bytes())),
    }
}
