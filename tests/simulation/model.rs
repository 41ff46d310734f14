//! What a call may have come to, given what was done to it.

use std::time::Duration;

use wharf::telemetry::Record;
use wharf::upstream::pool::PENDING_TIMEOUT;
use wharf::wire::{Party, Reason};

use wharf::net::sim::Arrival;

use crate::answer::{Answer, Content};
use crate::browser::Browser;
use crate::caller::{Call, Caller, Ended, FieldList};
use crate::plan::{Broken, CutBy, Deed, Facts, Faults, Form, Play, began, frame};
use crate::world::{CONNECT_TIMEOUT, World};

/// How long a client of HTTP/2 may take to acknowledge SETTINGS.
const SETTINGS_TIME: Duration = Duration::from_secs(10);

/// Panics where something came to what it may not.
pub(crate) fn judge(world: &mut World) {
    let ledger = world.ledger.borrow();
    world.tally.seeds += 1;
    world.tally.turns += world.turns;
    world.tally.rests += world.rests;
    for facts in &ledger.calls {
        let id = facts.plan.id;
        assert!(
            facts.processed <= 1,
            "call {id} was processed twice: {facts:?}"
        );
        assert!(
            facts.records.len() <= 1,
            "call {id} has two records: {facts:?}"
        );
        if facts.processed > 0 {
            assert_eq!(
                facts.records.len(),
                1,
                "call {id} was processed and has no record"
            );
        }
    }
    for browser in &world.browsers {
        for (index, sent) in browser.calls.iter().enumerate() {
            let facts = &ledger.calls[sent.id];
            world.tally.calls += 1;
            let judge = Judge {
                client: Client::of_browser(browser, world.lost.contains(&browser.link)),
                facts,
                faults: &ledger.weather,
            };
            if let Some(answer) = browser.reader.answers.get(index) {
                world.tally.whole += 1;
                judge.whole(answer);
            } else if index == browser.reader.answers.len()
                && let Some(answer) = browser.reader.partial()
            {
                world.tally.cut += 1;
                judge.cut(answer);
            } else {
                world.tally.unanswered += 1;
                judge.unanswered(browser, index, browser.sent >= sent.end.max(sent.head_end));
            }
            if let [record] = &facts.records[..] {
                judge.record(record);
            }
        }
        let extra = browser
            .reader
            .answers
            .len()
            .saturating_sub(browser.calls.len());
        assert!(
            extra <= usize::from(browser.garbage),
            "an answer to nothing"
        );
    }
    for caller in &world.callers {
        let lost = world.lost.contains(&caller.link);
        world.tally.goaways += u64::from(caller.told.is_some());
        for call in &caller.calls {
            world.tally.reset += u64::from(call.reset);
            let client = Client::of_caller(caller, call, lost);
            let Some(id) = call.id else {
                client.hold_stray(call, &ledger.weather);
                continue;
            };
            let facts = &ledger.calls[id];
            world.tally.calls += 1;
            world.tally.shared += 1;
            world.tally.native += u64::from(facts.plan.form == Form::Native);
            let judge = Judge {
                client,
                facts,
                faults: &ledger.weather,
            };
            match call.ended {
                Some(Ended::Whole) => world.tally.whole += 1,
                Some(Ended::Reset(_)) => world.tally.cut += 1,
                Some(Ended::Unprocessed) | None => world.tally.unanswered += 1,
            }
            judge.stream(caller, call);
            if let [record] = &facts.records[..] {
                judge.record(record);
            }
        }
    }
}

/// What is known of a client's connection, whatever it speaks.
#[derive(Clone, Copy, Debug)]
struct Client {
    link: usize,
    /// It has gone, or has given cause to be sent away.
    left: bool,
    /// The machine has lost its connection.
    lost: bool,
    stalled: bool,
    /// It may be found too slow.
    slow: bool,
    all_sent: bool,
    ended: Option<Arrival>,
    ended_at: Duration,
    /// Its calls share it.
    shared: bool,
    /// It has reset this call.
    reset: bool,
    /// Its connection was ended with a reason.
    evicted: bool,
}

impl Client {
    fn of_browser(browser: &Browser, lost: bool) -> Self {
        Self {
            link: browser.link,
            left: browser.left,
            lost,
            stalled: browser.stalled,
            slow: browser.stalled || browser.may_stall,
            all_sent: browser.all_sent(),
            ended: browser.ended,
            ended_at: browser.ended_at,
            shared: false,
            reset: false,
            evicted: false,
        }
    }

    fn of_caller(caller: &Caller, call: &Call, lost: bool) -> Self {
        Self {
            link: caller.link,
            left: caller.left,
            lost,
            stalled: caller.stalled,
            slow: caller.stalled || caller.left || call.slow || caller.drips(call),
            all_sent: caller.all_sent(),
            ended: caller.ended,
            ended_at: caller.ended_at,
            shared: true,
            reset: call.reset,
            evicted: caller.told.is_some_and(|(_, code)| code != 0),
        }
    }

    /// What is no call is answered, or refused.
    fn hold_stray(&self, call: &Call, faults: &Faults) {
        let holds = match call.ended {
            Some(Ended::Whole) => call.head.is_some(),
            Some(Ended::Reset(7)) => faults.draining,
            Some(Ended::Reset(8)) => self.slow || !faults.leaps.is_empty(),
            Some(Ended::Reset(code)) => code == 1,
            Some(Ended::Unprocessed) => true,
            None => call.head_at == 0 || self.ended.is_some() || self.left || self.stalled,
        };
        assert!(holds, "a stray of {self:?}: {call:?}");
    }
}

struct Judge<'a> {
    client: Client,
    facts: &'a Facts,
    faults: &'a Faults,
}

impl Judge<'_> {
    fn hold(&self, holds: bool, why: &str) {
        assert!(
            holds,
            "call {}: {why}; {:?}; client #{} {:?}",
            self.facts.plan.id, self.facts, self.client.link, self.client,
        );
    }

    fn content(&self, body: &[u8]) -> Content {
        match Content::of(body, self.facts.plan.form == Form::Text) {
            Ok(content) => content,
            Err(why) => {
                self.hold(false, &why);
                Content::default()
            }
        }
    }

    fn head(&self, answer: &Answer) {
        let expected = self.facts.plan.form.content_type();
        self.hold(answer.status == 200, "a gRPC-Web answer is a 200");
        self.hold(
            answer.field("content-type") == Some(expected),
            &format!("its content type, {:?}", answer.field("content-type")),
        );
        self.hold(
            answer.field("grpc-status").is_none(),
            "no status in the head",
        );
    }

    /// The head did not come whole in time, so it never was a call.
    fn came_too_late(&self, answer: &Answer) -> bool {
        let late = answer.status == 408
            && (self.client.stalled || !self.faults.leaps.is_empty())
            && self.facts.records.is_empty();
        self.hold(
            !late || answer.closes(),
            "a refused head ends the connection",
        );
        late
    }

    /// An answer that HTTP says is whole.
    fn whole(&self, answer: &Answer) {
        if self.came_too_late(answer) {
            return;
        }
        self.head(answer);
        let content = self.content(&answer.body);
        let code = content.code();
        self.told(content, code);
    }

    /// What is whole: its messages, its trailers and its one status.
    fn told(&self, content: Content, code: Option<u8>) {
        self.hold(content.rest.is_empty(), "what is whole holds no half frame");
        let Some(code) = code else {
            return self.hold(false, "what is whole has one status");
        };
        let [record] = &self.facts.records[..] else {
            return self.hold(false, "an answered call has a record");
        };
        self.hold(!record.aborted, "an aborted call is not answered wholly");
        self.hold(
            record.code.map(|code| code.number()) == Some(u32::from(code)),
            "the browser and the record are told the same status",
        );
        let replies = self.facts.plan.replies();
        self.hold(
            replies.starts_with(&content.messages),
            "the messages are the server's",
        );
        if matches!(record.reason, Reason::Ok | Reason::BackendStatus) {
            let count = if matches!(self.facts.plan.play, Play::Cut { .. }) {
                usize::MAX
            } else {
                replies.len()
            };
            self.hold(content.messages.len() == count, "all messages came");
            let trailers = content.trailers.unwrap_or_default();
            let stamp = trailers.iter().find(|(name, _)| name == "x-call");
            self.hold(
                stamp.is_some_and(|(_, id)| *id == self.facts.plan.id.to_string()),
                "the trailers are the call's own",
            );
        }
        self.hold(
            record.response.messages == content.messages.len() as u64,
            "the record counts the messages",
        );
    }

    /// An answer that was begun and not ended.
    fn cut(&self, answer: &Answer) {
        if self.came_too_late(answer) {
            return;
        }
        self.head(answer);
        self.begun(&self.content(&answer.body));
        let aborted = self.facts.records.iter().any(|record| record.aborted);
        self.hold(aborted || self.lost(), "what was cut was aborted");
    }

    /// What came of an answer is the server's, and in order.
    fn begun(&self, content: &Content) {
        let replies = self.facts.plan.replies();
        self.hold(
            replies.starts_with(&content.messages),
            "the messages are the server's",
        );
        if let Some(next) = replies.get(content.messages.len())
            && content.rest.first() == Some(&0)
        {
            self.hold(
                frame(next).starts_with(&content.rest),
                "and so is the begun one",
            );
        } else {
            self.hold(
                matches!(content.rest.first(), None | Some(0x80)),
                "nothing else follows",
            );
        }
    }

    /// What came of a call on a stream of HTTP/2.
    fn stream(&self, caller: &Caller, call: &Call) {
        let aborted = self.facts.records.iter().any(|record| record.aborted);
        let content = self.content(&call.body);
        self.begun(&content);
        if let Some(head) = &call.head {
            self.stream_head(head, call);
        }
        if let (Some(silent), [record]) = (call.silent_at, &self.facts.records[..]) {
            let ended = began(record) + record.elapsed;
            self.hold(ended <= silent, "a call that was reset ends at once");
        }
        match call.ended {
            // It was cut off in the middle of what had been under way.
            _ if self.client.reset => {}
            Some(Ended::Whole) => {
                let code = match self.facts.plan.form {
                    Form::Web | Form::Text => {
                        self.hold(call.trailers.is_none(), "gRPC-Web has no trailers");
                        content.code()
                    }
                    Form::Native => {
                        self.hold(content.trailers.is_none(), "gRPC has no trailer frame");
                        status_of(call.trailers.as_ref().or(call.head.as_ref()))
                    }
                };
                let native = call.trailers.clone().or_else(|| call.head.clone());
                let trailers = match self.facts.plan.form {
                    Form::Native => native,
                    Form::Web | Form::Text => content.trailers,
                };
                let content = Content {
                    trailers,
                    ..content
                };
                self.told(content, code);
            }
            Some(Ended::Reset(1)) => self.hold(
                self.facts.plan.broken == Some(Broken::Framing),
                "only what breaks HTTP/2 is told so",
            ),
            Some(Ended::Reset(7)) => {
                self.hold(self.facts.records.is_empty(), "who is refused never was");
                self.hold(
                    caller.told.is_some() || self.faults.draining,
                    "nobody is refused without a GOAWAY",
                );
            }
            // Its call may have ended in order, and what was left of its answer was not read.
            Some(Ended::Reset(8)) => self.hold(
                (self.client.slow || self.lost()) && !self.facts.records.is_empty(),
                "who is not too slow is not cut off for it",
            ),
            Some(Ended::Reset(code)) => {
                // The end of a drain cuts also what is left of an answer whose call has ended in order.
                let drained = code == 2 && self.faults.draining && self.client.slow;
                self.hold(
                    aborted || (drained && !self.facts.records.is_empty()),
                    "what was cut was aborted",
                );
                self.hold(code == 2, &format!("cut with {code}"));
            }
            Some(Ended::Unprocessed) => self.hold(
                self.facts.records.is_empty() && self.facts.processed == 0,
                "what a GOAWAY denies never was",
            ),
            None => self.hold(
                !caller.has_begun(call)
                    || self.lost()
                    || self.drained(caller)
                    // Its connection was ended; what for is held below.
                    || self.client.evicted
                    // Nobody had looked at it when the drain began.
                    || (self.faults.draining && !caller.greeted),
                "a call that was made comes to its end",
            ),
        }
        if let Some((_, code)) = caller.told {
            // Whoever reads in drops may say more in a second than anybody should; whoever writes in drops may be late with its
            // SETTINGS.
            let slow = match code {
                4 => caller.ended_at.saturating_sub(caller.born_at) >= SETTINGS_TIME,
                11 => caller.calls.iter().any(|call| caller.drips(call)),
                _ => false,
            };
            self.hold(
                code == 0 || slow || self.client.left || self.client.stalled || self.leapt(),
                &format!("a GOAWAY of {code} to who has done nothing"),
            );
        }
    }

    fn stream_head(&self, head: &FieldList, call: &Call) {
        let field = |name: &str| head.iter().find(|(own, _)| own == name);
        let value = |name: &str| field(name).map(|(_, value)| value.as_str());
        self.hold(value(":status") == Some("200"), "a gRPC answer is a 200");
        self.hold(
            value("content-type") == Some(self.facts.plan.form.content_type()),
            &format!("its content type, {:?}", value("content-type")),
        );
        let alone = call.ended == Some(Ended::Whole) && call.trailers.is_none();
        let native = self.facts.plan.form == Form::Native;
        self.hold(
            field("grpc-status").is_none() || (native && alone && call.body.is_empty()),
            "a status in the head of trailers-only alone",
        );
    }

    /// Whether the drain's patience ended before the stream did.
    fn drained(&self, caller: &Caller) -> bool {
        let until = self.faults.drained_until;
        caller.ended.is_some() && until.is_some_and(|until| caller.ended_at >= until)
    }

    /// Whether the client cannot know what was sent to it.
    fn lost(&self) -> bool {
        let until = self.faults.drained_until;
        self.client.left
            || self.client.lost
            || self.leapt()
            || self.reset_early()
            || self.client.stalled
            || self.faults.drained_hard
            || until.is_some_and(|until| self.client.ended_at >= until)
    }

    /// Whether an hour passed between the call's beginning and the end of its connection: every patience ends then.
    fn leapt(&self) -> bool {
        let began = self.facts.records.first().map_or(Duration::ZERO, began);
        let mut leaps = self.faults.leaps.iter();
        leaps.any(|&leap| began <= leap && leap <= self.client.ended_at)
    }

    /// Whether the connection was reset before its answers were safe: a browser that has sent everything is lingered for.
    fn reset_early(&self) -> bool {
        let began = !self.facts.records.is_empty();
        self.client.ended == Some(Arrival::Reset)
            && (!began || !self.client.all_sent || self.faults.oversleeps)
    }

    fn unanswered(&self, browser: &Browser, index: usize, whole: bool) {
        if let [record] = &self.facts.records[..] {
            self.hold(record.aborted || self.lost(), "an ended call is answered");
            return;
        }
        let reader = &browser.reader;
        let mut before = reader.answers.iter().take(index);
        let earlier = before.any(Answer::closes) || reader.partial().is_some();
        let earlier_aborted = reader.answers.len() < index;
        self.hold(
            !whole
                || self.lost()
                || self.faults.draining
                || earlier
                || earlier_aborted
                || browser.stalled
                || self.leapt(),
            "a call that was made is answered",
        );
    }

    /// Whether that end is one that this call may have had.
    fn record(&self, record: &Record) {
        let Facts { plan, .. } = self.facts;
        let faults = self.faults;
        let late = plan
            .timeout
            .is_some_and(|timeout| record.elapsed >= timeout);
        let code = record.code.map(|code| code.number());
        let Client { left, lost, .. } = self.client;
        let gone = left || lost || self.client.reset || self.client.ended == Some(Arrival::Reset);
        // A connection that is too slow about its SETTINGS or its heads takes its calls with it.
        let evicted = self.client.shared
            && (self.client.stalled || self.client.evicted || faults.leapt(record));
        let met = |deeds: &[Deed]| faults.met(deeds, plan.backend, record);
        let (may, expected) = match record.reason {
            Reason::Ok | Reason::BackendStatus => {
                self.hold(self.facts.finished, "the server said so");
                self.hold(
                    self.facts.told.is_none_or(|code| code == 0),
                    "whose answer was taken whole has done nothing wrong",
                );
                self.hold(
                    !self.facts.request_ended
                        || record.request.messages == plan.requests.len() as u64,
                    "the record counts the messages of the request",
                );
                (plan.code().is_some(), plan.code().map(u32::from))
            }
            Reason::BackendReset(h2) => {
                let may = match &plan.play {
                    Play::Reset { h2: own, .. }
                    | Play::Cut {
                        by: CutBy::Reset(own),
                        ..
                    } => *own == h2,
                    _ => false,
                };
                let may = may || self.facts.resets.contains(&h2);
                let code = match h2 {
                    7 => 14,
                    8 => 1,
                    11 => 8,
                    12 => 7,
                    _ => 13,
                };
                (may, Some(code))
            }
            Reason::BackendRefused => (
                // Or its head had not left when the connection was lost, twice.
                met(&[Deed::GoesAway, Deed::Dies, Deed::Violates, Deed::Crowded])
                    || matches!(plan.play, Play::Refuse { .. })
                    || matches!(plan.play, Play::Reset { sizes: None, h2: 7 }),
                Some(14),
            ),
            Reason::BackendClosed => (met(&[Deed::Dies, Deed::GoesAway, Deed::Violates]), Some(14)),
            Reason::BackendConnectRefused => (met(&[Deed::Refuses]), Some(14)),
            Reason::BackendConnectTimeout => {
                (met(&[Deed::Silent]) || faults.leapt(record), Some(14))
            }
            Reason::BackendNotGrpc(0) => (met(&[Deed::Foreign, Deed::Violates]), Some(14)),
            Reason::BackendTls => (met(&[Deed::Tls]), Some(14)),
            Reason::BackendNoTrailers => (
                matches!(plan.play, Play::NoTrailers { .. }),
                Some(if record.response.messages == 0 { 2 } else { 13 }),
            ),
            Reason::BackendProtocol(_) => (
                matches!(
                    plan.play,
                    Play::Cut {
                        by: CutBy::End | CutBy::Trailers,
                        ..
                    }
                ) || met(&[Deed::Violates]),
                Some(13),
            ),
            Reason::ClientLeft => (gone || evicted, Some(1)),
            Reason::ClientProtocol(_) => (plan.broken.is_some() || gone || evicted, Some(13)),
            Reason::ClientTooSlow => (self.client.slow || evicted || faults.leapt(record), Some(4)),
            Reason::Deadline => (late, Some(4)),
            Reason::Draining => (faults.draining, Some(14)),
            // A server that takes one call at a time may be busy with the others for longer than anybody waits.
            Reason::PendingOverflow => (
                faults.pending_max_small || record.elapsed >= CONNECT_TIMEOUT + PENDING_TIMEOUT,
                Some(14),
            ),
            _ => (false, None),
        };
        self.hold(may, &format!("nobody gave cause for {:?}", record.reason));
        self.hold(
            code == expected,
            &format!("code {code:?} for {:?}, not {expected:?}", record.reason),
        );
        let silent = matches!(record.reason, Reason::Ok | Reason::BackendStatus);
        self.hold(!silent || record.by == Party::Upstream, "whose end it was");
    }
}

/// The one status of those fields.
pub(crate) fn status_of(fields: Option<&FieldList>) -> Option<u8> {
    let mut codes = fields?.iter().filter(|(name, _)| name == "grpc-status");
    let code = codes.next()?.1.parse().ok()?;
    codes.next().is_none().then_some(code)
}
