//! A browser's connection: requests as bytes, sent at its own pace, and whatever comes back.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wharf::net::sim::{Arrival, End, Machine};

use crate::answer::Reader;
use crate::plan::{Broken, Form, Plan};

/// How long a browser waits for `100 Continue` before it sends its body all the same.
pub(crate) const CONTINUE_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Browser {
    pub(crate) end: Option<End>,
    pub(crate) link: usize,
    pub(crate) calls: Vec<Sent>,
    pub(crate) reader: Reader,
    pub(crate) left: bool,
    /// It has stood still with bytes unread or unsent.
    pub(crate) stalled: bool,
    /// What follows the calls is no HTTP.
    pub(crate) garbage: bool,
    /// How the connection ended, where it was not the browser that ended it.
    pub(crate) ended: Option<Arrival>,
    pub(crate) ended_at: Duration,
    pub(crate) sent: usize,
    pub(crate) done: bool,
    pub(crate) done_at: Duration,
    out: Vec<u8>,
    barriers: Vec<(usize, Barrier)>,
    leave: Option<(Point, Way)>,
    stall: Option<(Point, Duration)>,
    sleeps_until: Option<Duration>,
    write_max: usize,
    read_max: usize,
    patience: Duration,
    /// It does not read while it has something to write.
    pub(crate) may_stall: bool,
    scratch: Vec<u8>,
}

/// Where a call's request stands in the bytes.
pub(crate) struct Sent {
    pub(crate) id: usize,
    pub(crate) head_end: usize,
    pub(crate) end: usize,
}

#[derive(Clone, Copy, Debug)]
enum Barrier {
    /// So many answers must have come.
    Answers(usize),
    /// So many `100 Continue`, or the time since it is waited for.
    Continue(usize, Option<Duration>),
}

#[derive(Clone, Copy, Debug)]
enum Point {
    Sent(usize),
    Received(usize),
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Reset,
    Close,
    Half,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Progress,
    Idle,
    /// Its bytes have no room.
    Waits,
    Sleeps(Duration),
}

impl Browser {
    /// `plain`: it does what it is to do, and nothing else.
    pub(crate) fn new(
        machine: &Machine,
        rng: &mut fastrand::Rng,
        plans: &[Plan],
        plain: bool,
    ) -> Option<Self> {
        let end = machine.dial_in(0)?;
        let one_in = |many: u8, rng: &mut fastrand::Rng| rng.u8(..many) == 0 && !plain;
        let pipelined = one_in(4, rng);
        let mut out = Vec::new();
        let mut barriers = Vec::new();
        let mut calls = Vec::new();
        let mut continues = 0;
        for (index, plan) in plans.iter().enumerate() {
            if index > 0 && !pipelined {
                barriers.push((out.len(), Barrier::Answers(index)));
            }
            let expect = one_in(8, rng);
            let head_end = write_request(plan, expect, rng, &mut out);
            if expect && out.len() > head_end {
                continues += 1;
                barriers.push((head_end, Barrier::Continue(continues, None)));
            }
            calls.push(Sent {
                id: plan.id,
                head_end,
                end: out.len(),
            });
        }
        let replies = plans
            .iter()
            .flat_map(Plan::replies)
            .map(|reply| reply.len())
            .sum();
        let garbage = one_in(12, rng);
        if garbage {
            match rng.u8(..5) {
                0 => out.extend_from_slice(b"GET / HTTP/1.1\nHost: x\n\n"),
                1 => out.extend(std::iter::repeat_with(|| rng.u8(..)).take(300)),
                2 => out.extend_from_slice(b"POST /sim.A/c0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
                3 => out.extend_from_slice(&[b'a'; 20_000]),
                _ => out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            }
        }
        let point = |rng: &mut fastrand::Rng| match rng.bool() {
            true => Point::Sent(rng.usize(..=out.len())),
            false => Point::Received(rng.usize(1..2_000)),
        };
        let leave = one_in(5, rng).then(|| {
            let way = [Way::Reset, Way::Close, Way::Half][rng.usize(..3)];
            (point(rng), way)
        });
        let stall = one_in(6, rng).then(|| {
            // The last is for ever.
            let time = [2_000, 2_000, 120_000, 10_000_000][rng.usize(..4)];
            (point(rng), Duration::from_millis(rng.u64(1..time)))
        });
        let mut pace = |bytes: usize| match rng.u8(..6) {
            _ if plain => 1 << 20,
            // So slow, but not so slow that it takes a thousand turns.
            0 => rng.usize(1..8) + bytes / 300,
            1 | 2 => rng.usize(1..700) + bytes / 300,
            _ => 1 << 20,
        };
        let (write_max, read_max) = (pace(out.len()), pace(replies));
        Some(Self {
            link: end.id(),
            end: Some(end),
            calls,
            reader: Reader::default(),
            left: false,
            stalled: false,
            garbage,
            ended: None,
            ended_at: Duration::ZERO,
            sent: 0,
            done: false,
            done_at: Duration::ZERO,
            out,
            barriers,
            leave,
            stall,
            sleeps_until: None,
            write_max,
            read_max,
            patience: match rng.u8(..6) {
                _ if plain => Duration::ZERO,
                0 => Duration::from_secs(100),
                1 => Duration::from_secs(3),
                _ => Duration::ZERO,
            },
            may_stall: one_in(5, rng),
            scratch: Vec::new(),
        })
    }

    /// Nothing of its requests is left to be sent.
    pub(crate) fn all_sent(&self) -> bool {
        self.sent == self.out.len()
    }

    pub(crate) fn step(&mut self, now: Duration, rng: &mut fastrand::Rng) -> Result<Step, String> {
        if self.done {
            return Ok(Step::Idle);
        }
        self.done_at = now;
        if let Some(until) = self.sleeps_until {
            if now < until {
                return Ok(Step::Sleeps(until));
            }
            self.sleeps_until = None;
        }
        if let Some((point, time)) = self.stall
            && self.reached(point)
        {
            self.stall = None;
            self.stalled = true;
            self.sleeps_until = Some(now + time);
            return Ok(Step::Sleeps(now + time));
        }
        if let Some((point, way)) = self.leave
            && self.reached(point)
        {
            self.leave = None;
            self.left = true;
            match (way, &self.end) {
                (Way::Half, Some(end)) => end.shutdown(),
                (Way::Reset, Some(end)) => {
                    end.reset();
                    self.finish();
                }
                _ => self.finish(),
            }
            return Ok(Step::Progress);
        }
        let wrote = self.write(now, rng);
        let writing = self.may_stall && matches!(wrote, Step::Progress | Step::Waits);
        let read = !writing && self.read(now, rng)?;
        if self.done || read {
            return Ok(Step::Progress);
        }
        let rest = self.calls.len() + usize::from(self.garbage);
        if self.reader.answers.len() >= rest && self.reader.at_rest() && self.all_sent() {
            // It has what it wanted, and closes at once or keeps the connection for a while.
            if self.patience.is_zero() {
                self.finish();
                return Ok(Step::Progress);
            }
            let until = now + std::mem::take(&mut self.patience);
            self.sleeps_until = Some(until);
            return Ok(Step::Sleeps(until));
        }
        Ok(wrote)
    }

    fn finish(&mut self) {
        self.end = None;
        self.done = true;
    }

    fn reached(&self, point: Point) -> bool {
        match point {
            Point::Sent(n) => self.sent >= n,
            Point::Received(n) => self.reader.total >= n,
        }
    }

    fn write(&mut self, now: Duration, rng: &mut fastrand::Rng) -> Step {
        let Some(end) = &self.end else {
            return Step::Idle;
        };
        let mut upto = self.out.len();
        while let Some((place, barrier)) = self.barriers.first_mut() {
            let open = match barrier {
                Barrier::Answers(count) => self.reader.answers.len() >= *count,
                Barrier::Continue(count, until) => {
                    if self.sent >= *place && until.is_none() {
                        *until = Some(now + CONTINUE_WAIT);
                    }
                    self.reader.continues >= *count || until.is_some_and(|until| now >= until)
                }
            };
            if !open {
                upto = *place;
                break;
            }
            self.barriers.remove(0);
        }
        if self.sent < upto && !(self.left) {
            let most = (upto - self.sent).min(rng.usize(1..=self.write_max));
            // An error shows itself to the reading side.
            if let Ok(n) = end.write(&self.out[self.sent..self.sent + most]) {
                self.sent += n;
                return if n > 0 { Step::Progress } else { Step::Waits };
            }
            return Step::Idle;
        }
        match self.barriers.first() {
            Some((_, Barrier::Continue(_, Some(until)))) => Step::Sleeps(*until),
            _ => Step::Idle,
        }
    }

    fn read(&mut self, now: Duration, rng: &mut fastrand::Rng) -> Result<bool, String> {
        let Some(end) = &self.end else {
            return Ok(false);
        };
        self.scratch.clear();
        match end.read(&mut self.scratch, rng.usize(1..=self.read_max)) {
            Arrival::Nothing => Ok(false),
            Arrival::Bytes(_) => {
                self.reader.feed(&self.scratch)?;
                Ok(true)
            }
            ended @ (Arrival::End | Arrival::Reset) => {
                self.ended = Some(ended);
                self.ended_at = now;
                self.finish();
                Ok(true)
            }
        }
    }
}

/// The content of a request, as its caller writes it.
pub(crate) fn body_of(plan: &Plan, rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = plan.request_bytes();
    match plan.broken {
        Some(Broken::Flag) => {
            body.push([0x80, 0x02, 0x81, 0xff][rng.usize(..4)]);
            body.extend([0, 0, 0, 2, b'h', b'i']);
        }
        Some(Broken::Short) => {
            let whole = plan.unended();
            body.extend(&whole[..rng.usize(1..whole.len())]);
        }
        Some(Broken::Base64 | Broken::Framing) | None => {}
    }
    if plan.form == Form::Text {
        body = encode(&body, rng);
        if plan.broken == Some(Broken::Base64) {
            body.extend_from_slice([b"A*==", b"=AAA", b"\0AAA"][rng.usize(..3)]);
        }
    }
    body
}

/// Writes one request, and says where its head ends.
fn write_request(plan: &Plan, expect: bool, rng: &mut fastrand::Rng, out: &mut Vec<u8>) -> usize {
    let body = body_of(plan, rng);
    let chunked = rng.bool() || plan.broken == Some(Broken::Framing);
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: sim.test\r\nContent-Type: {}\r\nX-Call: {}\r\n",
        plan.path(),
        plan.form.content_type(),
        plan.id
    );
    if plan.form == Form::Text {
        head += "Accept: application/grpc-web-text\r\n";
    }
    if let Some(timeout) = plan.timeout {
        head += &format!("Grpc-Timeout: {}m\r\n", timeout.as_millis());
    }
    if expect {
        head += "Expect: 100-continue\r\n";
    }
    if chunked {
        head += "Transfer-Encoding: chunked\r\n\r\n";
    } else {
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
    }
    out.extend_from_slice(head.as_bytes());
    let head_end = out.len();
    if !chunked {
        out.extend_from_slice(&body);
        return head_end;
    }
    let mut rest = &body[..];
    while !rest.is_empty() {
        let most = if rng.bool() { 9 } else { 4_000 };
        let (chunk, tail) = rest.split_at(rng.usize(1..=rest.len().min(most)));
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = tail;
    }
    match plan.broken {
        Some(Broken::Framing) => {
            let wrong: [&[u8]; 8] = [
                b"zz\r\n",
                b"\r\n",
                b"5 \r\n",
                b"5\n",
                b"0x5\r\n",
                b"-1\r\n",
                b"FFFFFFFFFFFFFFFFF\r\n",
                b"5;a\nb\r\n",
            ];
            out.extend_from_slice(wrong[rng.usize(..wrong.len())]);
        }
        _ => out.extend_from_slice(b"0\r\n\r\n"),
    }
    head_end
}

/// Base64 as a client may write it: in segments, each padded for itself.
fn encode(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = if rng.bool() {
            rest.len()
        } else {
            rng.usize(1..=rest.len())
        };
        let (segment, tail) = rest.split_at(at);
        text.extend_from_slice(STANDARD.encode(segment).as_bytes());
        rest = tail;
    }
    text
}
