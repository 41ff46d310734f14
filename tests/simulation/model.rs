//! What a call may have come to, given what was done to it.

use std::time::Duration;

use wharf::telemetry::Record;
use wharf::upstream::pool::PENDING_TIMEOUT;
use wharf::wire::{Party, Reason};

use wharf::net::sim::Arrival;

use crate::answer::{Answer, Content};
use crate::browser::Browser;
use crate::plan::{CutBy, Deed, Facts, Faults, Play, began, frame};
use crate::world::{CONNECT_TIMEOUT, World};

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
                browser,
                facts,
                faults: &ledger.weather,
                lost: world.lost.contains(&browser.link),
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
                judge.unanswered(index, browser.sent >= sent.end.max(sent.head_end));
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
}

struct Judge<'a> {
    browser: &'a Browser,
    facts: &'a Facts,
    faults: &'a Faults,
    /// The machine has lost its connection.
    lost: bool,
}

impl Judge<'_> {
    fn hold(&self, holds: bool, why: &str) {
        assert!(
            holds,
            "call {}: {why}; {:?}; browser #{} left {} ended {:?}",
            self.facts.plan.id,
            self.facts,
            self.browser.link,
            self.browser.left,
            self.browser.ended,
        );
    }

    fn content(&self, answer: &Answer) -> Content {
        match Content::of(&answer.body, self.facts.plan.text) {
            Ok(content) => content,
            Err(why) => {
                self.hold(false, &why);
                Content::default()
            }
        }
    }

    fn head(&self, answer: &Answer) {
        let form = if self.facts.plan.text { "-text" } else { "" };
        let expected = format!("application/grpc-web{form}+proto");
        self.hold(answer.status == 200, "a gRPC-Web answer is a 200");
        self.hold(
            answer.field("content-type") == Some(&expected),
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
            && (self.browser.stalled || !self.faults.leaps.is_empty())
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
        let content = self.content(answer);
        self.hold(content.rest.is_empty(), "what is whole holds no half frame");
        let Some(code) = content.code() else {
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
        let content = self.content(answer);
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
        let aborted = self.facts.records.iter().any(|record| record.aborted);
        self.hold(aborted || self.lost(), "what was cut was aborted");
    }

    /// Whether the browser cannot know what was sent to it.
    fn lost(&self) -> bool {
        let until = self.faults.drained_until;
        self.browser.left
            || self.lost
            || self.leapt()
            || self.reset_early()
            || self.browser.stalled
            || self.faults.drained_hard
            || until.is_some_and(|until| self.browser.ended_at >= until)
    }

    /// Whether an hour passed between the call's beginning and the end of its connection: every patience ends then.
    fn leapt(&self) -> bool {
        let began = self.facts.records.first().map_or(Duration::ZERO, began);
        let mut leaps = self.faults.leaps.iter();
        leaps.any(|&leap| began <= leap && leap <= self.browser.ended_at)
    }

    /// Whether the connection was reset before its answers were safe: a browser that has sent everything is lingered for.
    fn reset_early(&self) -> bool {
        let began = !self.facts.records.is_empty();
        self.browser.ended == Some(Arrival::Reset)
            && (!began || !self.browser.all_sent() || self.faults.oversleeps)
    }

    fn unanswered(&self, index: usize, whole: bool) {
        if let [record] = &self.facts.records[..] {
            self.hold(record.aborted || self.lost(), "an ended call is answered");
            return;
        }
        let earlier = self
            .browser
            .reader
            .answers
            .iter()
            .take(index)
            .any(Answer::closes)
            || self.browser.reader.partial().is_some();
        let earlier_aborted = self.browser.reader.answers.len() < index;
        self.hold(
            !whole
                || self.lost()
                || self.faults.draining
                || earlier
                || earlier_aborted
                || self.browser.stalled
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
        let gone = self.browser.left || self.lost || self.browser.ended == Some(Arrival::Reset);
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
                met(&[Deed::GoesAway, Deed::Dies, Deed::Violates])
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
            Reason::ClientLeft => (gone, Some(1)),
            Reason::ClientProtocol(_) => (plan.broken.is_some() || gone, Some(13)),
            Reason::ClientTooSlow => (
                self.browser.stalled || self.browser.may_stall || faults.leapt(record),
                Some(4),
            ),
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
