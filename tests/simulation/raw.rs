//! A gRPC server that writes its own frames: whatever HTTP/2 allows and nobody expects, and, where it is to harm, whatever it
//! forbids. It holds the core to RFC 9113: windows, stream numbers, the limit on streams, nothing after an end.
//!
//! Windows that are shut, one byte wide, or shrink under what is on its way; a limit of no stream for a while; bursts of PING
//! and SETTINGS; empty, padded and one-byte frames; frames of forgotten streams; interim heads; field blocks in pieces:
//! all of that harms no call. RST_STREAM at any point, GOAWAY at any point and twice, and one violation at any frame do, and
//! each is written into the ledger when it happens.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use httlib_hpack::Decoder;
use wharf::net::sim::{Arrival, End};

use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_MAX, GOAWAY, HEADERS, PADDED,
    PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW, WINDOW_UPDATE, field,
    number,
};
use crate::plan::{CutBy, Deed, Plan, Play, frame as envelope};
use crate::server::Stage;

/// So that a connection comes to rest one day.
const MISCHIEF_MAX: u8 = 80;
/// Empty DATA that is padded is counted by `h2`, and the 101st is one too many.
const PADDED_EMPTY_MAX: u32 = 40;

pub(crate) struct Raw {
    end: Option<End>,
    address: SocketAddr,
    stage: Stage,
    inbox: Vec<u8>,
    greeted: bool,
    decoder: Decoder<'static>,
    out: Vec<u8>,
    calls: BTreeMap<u32, Call>,
    /// Streams that the core has reset, and those that came to their end.
    reset: Vec<u32>,
    past: Vec<u32>,
    seen: u32,
    /// What we may send: to a new stream, and in all.
    send_initial: i64,
    send: i64,
    /// What the core may send, by what it has acknowledged.
    recv_initial: i64,
    recv: i64,
    streams_max: Option<u32>,
    announced: VecDeque<Announced>,
    pings: u32,
    habits: Habits,
    frames: u32,
    padded_empty: u32,
    mischief_left: u8,
    goaway_at: Option<u32>,
    last: Option<u32>,
    doom: Option<(u32, u8)>,
    doomed: Option<Duration>,
    sleeps_until: Option<Duration>,
    opens_at: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    initial: Option<i64>,
    streams: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Out of 256 and step: mischief that harms nobody.
    mischief: u8,
    /// DATA in single bytes, where there are few.
    crumbs: bool,
    /// Windows are given in drops.
    drops: bool,
    padded: bool,
    /// Out of 256 and call: it is reset before its time.
    resets: u8,
    read_max: usize,
    write_max: usize,
}

struct Call {
    plan: Plan,
    expected: Vec<u8>,
    received: usize,
    request_over: bool,
    window: i64,
    recv: i64,
    queue: Vec<u8>,
    queued: bool,
    echoed: usize,
    headed: bool,
    said: bool,
    interims: u8,
    /// After so many bytes of the answer, with that code.
    reset: Option<(usize, u32)>,
    sent: usize,
}

impl Raw {
    pub(crate) fn new(
        end: End,
        address: SocketAddr,
        harmless: bool,
        stage: Stage,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut raw = Self {
            end: Some(end),
            address,
            stage,
            inbox: Vec::new(),
            greeted: false,
            decoder: Decoder::with_dynamic_size(4096),
            out: Vec::new(),
            calls: BTreeMap::new(),
            reset: Vec::new(),
            past: Vec::new(),
            seen: 0,
            send_initial: WINDOW,
            send: WINDOW,
            recv_initial: WINDOW,
            recv: WINDOW,
            streams_max: None,
            announced: VecDeque::new(),
            pings: 0,
            habits: Habits {
                mischief: [0, 20, 120][rng.usize(..3)],
                crumbs: rng.u8(..4) == 0,
                drops: rng.u8(..3) == 0,
                padded: rng.u8(..3) == 0,
                resets: if harmless { 0 } else { rng.u8(..80) },
                read_max: [1 << 17, 1 << 17, 1 << 10, 60][rng.usize(..4)],
                write_max: [1 << 17, 1 << 17, 1 << 10, 60][rng.usize(..4)],
            },
            frames: 0,
            padded_empty: 0,
            mischief_left: MISCHIEF_MAX,
            goaway_at: (!harmless && rng.u8(..3) == 0).then(|| rng.u32(..20)),
            last: None,
            doom: (!harmless && rng.u8(..3) == 0).then(|| (rng.u32(..25), rng.u8(..24))),
            doomed: None,
            sleeps_until: None,
            opens_at: None,
        };
        let initial = [0, rng.u32(1..20), 65_535, 1 << 20][rng.usize(..4)];
        let streams = [None, None, Some(0), Some(1), Some(rng.u32(1..10))][rng.usize(..5)];
        raw.settings((rng.u8(..4) != 0).then_some(initial), streams, rng);
        raw
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.end.is_none()
    }

    pub(crate) fn kill(&mut self, rng: &mut fastrand::Rng) {
        self.stage.commit(self.address, Deed::Dies);
        self.close(rng.bool());
    }

    pub(crate) fn close(&mut self, reset: bool) {
        for (_, call) in std::mem::take(&mut self.calls) {
            self.leave(&call);
        }
        if let Some(end) = self.end.take()
            && reset
        {
            end.reset();
        }
    }

    fn leave(&self, call: &Call) {
        self.stage.ledger.borrow_mut().calls[call.plan.id].open -= 1;
    }

    pub(crate) fn step(&mut self, rng: &mut fastrand::Rng) -> (bool, Option<Duration>) {
        let now = self.stage.machine.now();
        if let Some(until) = self.doomed
            && now >= until
        {
            self.kill(rng);
            return (true, None);
        }
        if let Some(until) = self.sleeps_until {
            if now < until {
                return (false, Some(until));
            }
            self.sleeps_until = None;
        }
        let mut acted = self.read(rng);
        if self.is_gone() {
            return (true, None);
        }
        if self.doomed.is_none() {
            acted |= self.act(now, rng);
        }
        acted |= self.write();
        let wake = match self.doomed {
            // It does nothing more.
            Some(until) => Some(until),
            None => self.sleeps_until.into_iter().chain(self.opens_at).min(),
        };
        (acted, wake)
    }

    fn read(&mut self, rng: &mut fastrand::Rng) -> bool {
        let Some(end) = &self.end else {
            return false;
        };
        match end.read(&mut self.inbox, rng.usize(1..=self.habits.read_max)) {
            Arrival::Nothing => return false,
            Arrival::End | Arrival::Reset => {
                self.close(false);
                return true;
            }
            Arrival::Bytes(_) => {}
        }
        if !self.greeted {
            if self.inbox.len() < PREFACE.len() {
                return true;
            }
            assert!(self.inbox.starts_with(PREFACE), "the preface");
            self.inbox.drain(..PREFACE.len());
            self.greeted = true;
        }
        for frame in frames::take_whole(&mut self.inbox) {
            // Who is doomed has said what nobody may say, and hears nothing any more.
            if self.doomed.is_none() {
                self.take(frame.kind, frame.flags, frame.stream, &frame.payload, rng);
            }
        }
        true
    }

    fn take(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8], rng: &mut fastrand::Rng) {
        match kind {
            SETTINGS if flags & ACK != 0 => {
                let own = self.announced.pop_front().expect("an ACK of nothing");
                if let Some(initial) = own.initial {
                    for call in self.calls.values_mut() {
                        call.recv += initial - self.recv_initial;
                    }
                    self.recv_initial = initial;
                }
                self.streams_max = own.streams.or(self.streams_max);
            }
            SETTINGS => {
                for six in payload.chunks_exact(6) {
                    let value = i64::from(number(&six[2..]));
                    if six[1] == 4 {
                        for call in self.calls.values_mut() {
                            call.window += value - self.send_initial;
                        }
                        self.send_initial = value;
                    }
                }
                self.frame(SETTINGS, ACK, 0, &[]);
            }
            PING => {
                assert_ne!(flags & ACK, 0, "it sends no PINGs of its own");
                self.pings = self
                    .pings
                    .checked_sub(1)
                    .expect("an answer to no PING of ours");
            }
            WINDOW_UPDATE => {
                let more = i64::from(number(payload));
                assert!(more > 0, "a window that grows by nothing");
                if id == 0 {
                    self.send += more;
                } else if let Some(call) = self.calls.get_mut(&id) {
                    call.window += more;
                }
            }
            HEADERS => self.take_up(flags, id, payload, rng),
            DATA => self.take_data(flags, id, payload),
            RST_STREAM => {
                assert!(id <= self.seen || self.last.is_some(), "a reset of nothing");
                if let Some(call) = self.calls.remove(&id) {
                    self.leave(&call);
                    self.stage.ledger.borrow_mut().calls[call.plan.id].told = Some(number(payload));
                }
                self.reset.push(id);
            }
            // What is wrong with us is told; then it closes.
            GOAWAY | PRIORITY => {}
            other => panic!("a frame of kind {other}"),
        }
    }

    fn take_up(&mut self, flags: u8, id: u32, block: &[u8], rng: &mut fastrand::Rng) {
        assert_eq!(flags, END_HEADERS, "a short head that ends nothing");
        assert!(id % 2 == 1 && id > self.seen, "the number of a stream");
        let mut fields = Vec::new();
        let decoded = self.decoder.decode(&mut block.to_vec(), &mut fields);
        decoded.expect("a field block");
        let field = |name: &str| {
            let own = fields.iter().find(|(own, ..)| own == name.as_bytes())?;
            Some(String::from_utf8(own.1.clone()).expect("ASCII"))
        };
        if self.last.is_some_and(|last| id > last) {
            return;
        }
        self.seen = id;
        let limit = self.streams_max.unwrap_or(u32::MAX);
        assert!(
            self.calls.len() < limit as usize,
            "more streams than the {limit} that were allowed"
        );
        let call: usize = field("x-call")
            .expect("a call's number")
            .parse()
            .expect("a number");
        let mut ledger = self.stage.ledger.borrow_mut();
        let facts = &mut ledger.calls[call];
        let plan = facts.plan.clone();
        assert_eq!(field(":path"), Some(plan.path()));
        assert_eq!(field(":method").as_deref(), Some("POST"));
        assert_eq!(field("te").as_deref(), Some("trailers"));
        assert_eq!(
            field("content-type").as_deref(),
            Some("application/grpc+proto")
        );
        assert_eq!(field("grpc-timeout").is_some(), plan.timeout.is_some());
        if let Play::Refuse { times } = plan.play
            && facts.refused < times
        {
            facts.refused += 1;
            drop(ledger);
            self.past.push(id);
            return self.frame(RST_STREAM, 0, id, &7u32.to_be_bytes());
        }
        facts.processed += 1;
        facts.open += 1;
        drop(ledger);
        let reset = (rng.u8(..) < self.habits.resets).then(|| {
            // Who says "refused" must not have begun: such a one says so when its head is out.
            let code = rng.u32(..14);
            (rng.usize(usize::from(code == 7)..60), code)
        });
        let call = Call {
            expected: plan.offered_bytes(),
            plan,
            received: 0,
            request_over: false,
            window: self.send_initial,
            recv: self.recv_initial,
            queue: Vec::new(),
            queued: false,
            echoed: 0,
            headed: false,
            said: false,
            interims: if rng.u8(..4) == 0 { rng.u8(1..3) } else { 0 },
            reset,
            sent: 0,
        };
        self.calls.insert(id, call);
    }

    fn take_data(&mut self, flags: u8, id: u32, payload: &[u8]) {
        assert_eq!(flags & !END_STREAM, 0, "no padding");
        assert!(payload.len() <= FRAME_MAX, "a frame's length");
        let length = payload.len() as i64;
        assert!(length <= self.recv, "the window of the connection");
        self.recv -= length;
        assert!(!self.reset.contains(&id), "nothing after a reset");
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        assert!(!call.request_over, "nothing after an end");
        assert!(
            length == 0 || length <= call.recv,
            "{length} bytes in a window of {}",
            call.recv
        );
        call.recv -= length;
        let next = call.expected.get(call.received..);
        assert!(
            next.is_some_and(|next| next.starts_with(payload)),
            "call {}: the request's bytes are its own",
            call.plan.id
        );
        call.received += payload.len();
        if flags & END_STREAM != 0 {
            assert_eq!(
                call.received,
                call.expected.len(),
                "what ends cleanly is whole"
            );
            assert_eq!(call.plan.broken, None, "what is broken never ends cleanly");
            call.request_over = true;
            self.stage.ledger.borrow_mut().calls[call.plan.id].request_ended = true;
            // Said both ways it is over at once: the next one may be on its heels.
            if call.said
                && let Some(call) = self.calls.remove(&id)
            {
                self.leave(&call);
                self.past.push(id);
            }
        }
    }

    fn act(&mut self, now: Duration, rng: &mut fastrand::Rng) -> bool {
        // What is not written yet is enough.
        if self.out.len() > 1 << 16 {
            return false;
        }
        let before = self.out.len();
        if self.opens_at.is_some_and(|at| now >= at) {
            self.opens_at = None;
            let streams = rng.u32(1..50);
            self.settings(None, Some(streams), rng);
        }
        if self.opens_at.is_none() && self.promised() == Some(0) {
            self.opens_at = Some(now + Duration::from_millis(rng.u64(..2_000)));
        }
        if self.goaway_at.is_some_and(|at| self.frames >= at) {
            self.goaway_at = None;
            self.go_away(rng);
        }
        if let Some((at, how)) = self.doom
            && self.frames >= at
        {
            self.doom = None;
            self.violate(how, rng);
            self.doomed = Some(now + Duration::from_millis(rng.u64(..3_000)));
            return true;
        }
        if self.mischief_left > 0 && rng.u8(..) < self.habits.mischief {
            self.mischief_left -= 1;
            self.mischief(now, rng);
        }
        let owes = self.grant(rng);
        let ids: Vec<u32> = self.calls.keys().copied().collect();
        for id in ids {
            if rng.u8(..4) != 0 {
                self.play(id, rng);
            }
        }
        // Who was passed over has something to say all the same.
        let all: Vec<u32> = self.calls.keys().copied().collect();
        if self.out.len() == before {
            for id in all {
                self.play(id, rng);
            }
        }
        if self.last.is_some() && self.calls.is_empty() && self.out.is_empty() && rng.u8(..8) == 0 {
            self.close(false);
            return true;
        }
        owes || self.out.len() > before
    }

    /// The limit on streams that the core will know of last.
    fn promised(&self) -> Option<u32> {
        let mut announced = self.announced.iter().rev();
        announced.find_map(|own| own.streams).or(self.streams_max)
    }

    /// Opens windows, now or later. Whether one is owed.
    fn grant(&mut self, rng: &mut fastrand::Rng) -> bool {
        let mut owes = false;
        if self.recv <= 0 || (!self.habits.drops && self.recv < 40_000) {
            let more = if self.habits.drops && rng.bool() {
                300
            } else {
                60_000
            };
            self.recv += more;
            self.frame(WINDOW_UPDATE, 0, 0, &(more as u32).to_be_bytes());
        }
        let mut grants = Vec::new();
        for (&id, call) in &mut self.calls {
            let least = if self.habits.drops { 0 } else { 1_000 };
            if call.request_over || call.recv > least {
                continue;
            }
            if rng.u8(..4) == 0 {
                owes = true;
                continue;
            }
            // In drops, but not in more than a few hundred.
            let drop = 1 + (call.expected.len() / 200) as i64;
            let more = match self.habits.drops {
                true => drop + (-call.recv).max(0),
                false => 30_000 + (-call.recv).max(0),
            };
            call.recv += more;
            grants.push((id, more as u32));
        }
        for (id, more) in grants {
            self.frame(WINDOW_UPDATE, 0, id, &more.to_be_bytes());
        }
        owes
    }

    fn play(&mut self, id: u32, rng: &mut fastrand::Rng) {
        let Some(mut call) = self.calls.remove(&id) else {
            return;
        };
        if !call.said {
            self.advance(id, &mut call, rng);
        }
        if call.said && call.request_over {
            self.leave(&call);
            self.past.push(id);
        } else {
            self.calls.insert(id, call);
        }
    }

    fn advance(&mut self, id: u32, call: &mut Call, rng: &mut fastrand::Rng) {
        let last = call.fill();
        let early = matches!(call.plan.play, Play::Reset { sizes: None, .. });
        if call.queue.is_empty() && !last {
            return;
        }
        if let Some((at, code)) = call.reset
            && (call.sent >= at || call.queue.is_empty())
            && (call.headed || code != 7)
        {
            let mut ledger = self.stage.ledger.borrow_mut();
            ledger.calls[call.plan.id].resets.push(code);
            drop(ledger);
            self.cancel(id, call, code);
            return;
        }
        if let Play::Reset { sizes: None, h2 } = call.plan.play
            && early
        {
            return self.cancel(id, call, h2);
        }
        if !call.headed {
            while call.interims > 0 {
                call.interims -= 1;
                let mut interim = Vec::new();
                field(":status", "103", &mut interim);
                self.frame(HEADERS, END_HEADERS, id, &interim);
            }
            call.headed = true;
            let mut block = vec![0x88];
            field("content-type", "application/grpc+proto", &mut block);
            let only = matches!(call.plan.play, Play::TrailersOnly { .. });
            if only {
                call.status(&mut block);
            }
            self.block(id, only, &block, rng);
            if only {
                self.say(call);
            }
            return;
        }
        for _ in 0..rng.u8(1..6) {
            if call.queue.is_empty() {
                break;
            }
            let window = call.window.min(self.send).max(0) as usize;
            let pad = match self.habits.padded && rng.bool() {
                true => Some(rng.usize(..20)),
                false => None,
            };
            let overhead = pad.map_or(0, |pad| 1 + pad);
            if window <= overhead {
                break;
            }
            let most = call.queue.len().min(FRAME_MAX - overhead);
            let most = most.min(window - overhead);
            let n = match rng.u8(..4) {
                _ if self.habits.crumbs && call.queue.len() < 300 => 1,
                0 => rng.usize(1..=most.min(30)),
                1 => rng.usize(1..=most),
                _ => most,
            };
            let bytes: Vec<u8> = call.queue.drain(..n).collect();
            call.sent += n;
            call.window -= (n + overhead) as i64;
            self.send -= (n + overhead) as i64;
            let end = call.queue.is_empty() && last && call.ends_on_data() && rng.bool();
            let flags = if end { END_STREAM } else { 0 };
            match pad {
                Some(pad) => {
                    let mut payload = vec![pad as u8];
                    payload.extend(bytes);
                    payload.extend(vec![0; pad]);
                    self.frame(DATA, flags | PADDED, id, &payload);
                }
                None => self.frame(DATA, flags, id, &bytes),
            }
            if end {
                return self.say(call);
            }
        }
        if !call.queue.is_empty() || !last {
            return;
        }
        match call.plan.play {
            Play::NoTrailers { .. } | Play::Cut { by: CutBy::End, .. } => {
                self.frame(DATA, END_STREAM, id, &[]);
            }
            Play::Reset { h2, .. }
            | Play::Cut {
                by: CutBy::Reset(h2),
                ..
            } => return self.cancel(id, call, h2),
            Play::Silent { .. } => return,
            _ => {
                let mut block = Vec::new();
                call.status(&mut block);
                self.block(id, true, &block, rng);
            }
        }
        self.say(call);
        if rng.u8(..6) == 0 {
            // The answer is whole: so much of the request is enough.
            call.request_over = true;
            self.frame(RST_STREAM, 0, id, &0u32.to_be_bytes());
        }
    }

    fn say(&self, call: &mut Call) {
        call.said = true;
        self.stage.ledger.borrow_mut().calls[call.plan.id].finished = true;
    }

    fn cancel(&mut self, id: u32, call: &mut Call, code: u32) {
        self.say(call);
        call.request_over = true;
        self.frame(RST_STREAM, 0, id, &code.to_be_bytes());
    }

    /// A field block, whole or in pieces.
    fn block(&mut self, id: u32, end: bool, block: &[u8], rng: &mut fastrand::Rng) {
        let end = if end { END_STREAM } else { 0 };
        if rng.u8(..4) != 0 {
            return self.frame(HEADERS, END_HEADERS | end, id, block);
        }
        let (first, rest) = block.split_at(rng.usize(..=block.len()));
        self.frame(HEADERS, end, id, first);
        let (second, third) = rest.split_at(rng.usize(..=rest.len()));
        self.frame(CONTINUATION, 0, id, second);
        self.frame(CONTINUATION, END_HEADERS, id, third);
    }

    fn settings(&mut self, initial: Option<u32>, streams: Option<u32>, rng: &mut fastrand::Rng) {
        let mut payload = Vec::new();
        let mut set = |id: u16, value: u32| {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        };
        if let Some(initial) = initial {
            set(4, initial);
        }
        if let Some(streams) = streams {
            set(3, streams);
        }
        if rng.bool() {
            // Of what nobody knows.
            set(0xeeee, rng.u32(..));
        }
        self.announced.push_back(Announced {
            initial: initial.map(i64::from),
            streams,
        });
        self.frame(SETTINGS, 0, 0, &payload);
    }

    /// What HTTP/2 allows.
    fn mischief(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        let some = |of: &[u32], rng: &mut fastrand::Rng| rng.choice(of).copied();
        let open: Vec<u32> = self.calls.keys().copied().collect();
        match rng.u8(..14) {
            0 => {
                for _ in 0..rng.u8(1..30) {
                    self.pings += 1;
                    self.frame(PING, 0, 0, &[7; 8]);
                }
            }
            1 => {
                for _ in 0..rng.u8(1..8) {
                    self.settings(None, None, rng);
                }
            }
            2 => {
                let initial = [0, 1, rng.u32(..70_000)][rng.usize(..3)];
                self.settings(Some(initial), None, rng);
            }
            3 => {
                let streams = [0, 1, rng.u32(1..9)][rng.usize(..3)];
                self.settings(None, Some(streams), rng);
            }
            4 => {
                // Empty DATA, which means nothing, many of it.
                if let Some(id) = some(&open, rng)
                    && self.calls[&id].headed
                    && !self.calls[&id].said
                {
                    for _ in 0..rng.u8(1..60) {
                        self.frame(DATA, 0, id, &[]);
                    }
                }
            }
            5 => {
                if let Some(id) = some(&open, rng)
                    && let Some(call) = self.calls.get_mut(&id)
                    && call.headed
                    && !call.said
                    && call.window > 300
                    && self.send > 300
                    && self.padded_empty < PADDED_EMPTY_MAX
                {
                    let pad = rng.usize(..200);
                    call.window -= 1 + pad as i64;
                    self.send -= 1 + pad as i64;
                    self.padded_empty += 1;
                    let mut payload = vec![0; pad + 1];
                    payload[0] = pad as u8;
                    self.frame(DATA, PADDED, id, &payload);
                }
            }
            6 => self.frame(0xee, rng.u8(..), rng.u32(..1 << 31), b"nobody knows it"),
            7 => {
                let id = 1 + 2 * rng.u32(..50);
                self.frame(PRIORITY, 0, id, &[0, 0, 0, 0, rng.u8(..)]);
            }
            8 | 9 => {
                // Late frames of streams that the core has given up.
                let Some(id) = some(&self.reset, rng) else {
                    return;
                };
                match rng.u8(..4) {
                    0 if self.send > 100 => {
                        self.send -= 10;
                        self.frame(DATA, 0, id, &[0; 10]);
                    }
                    1 => {
                        let end = if rng.bool() { END_STREAM } else { 0 };
                        self.frame(HEADERS, END_HEADERS | end, id, &[0x88]);
                    }
                    2 => self.frame(WINDOW_UPDATE, 0, id, &1u32.to_be_bytes()),
                    _ => self.frame(RST_STREAM, 0, id, &rng.u32(..14).to_be_bytes()),
                }
            }
            10 => {
                if let Some(id) = some(&self.past, rng) {
                    match rng.bool() {
                        true => self.frame(WINDOW_UPDATE, 0, id, &9u32.to_be_bytes()),
                        false => self.frame(RST_STREAM, 0, id, &8u32.to_be_bytes()),
                    }
                }
            }
            11 => {
                self.recv += 1;
                self.frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
            }
            _ => {
                let time = if rng.u8(..4) == 0 { 3_000 } else { 30 };
                self.sleeps_until = Some(now + Duration::from_millis(rng.u64(..time)));
            }
        }
    }

    fn go_away(&mut self, rng: &mut fastrand::Rng) {
        self.stage.commit(self.address, Deed::GoesAway);
        self.last = Some(self.seen);
        let code = if rng.bool() { 0 } else { rng.u32(..14) };
        let mut lasts = vec![self.seen];
        if rng.bool() {
            lasts.insert(0, 0x7fff_ffff);
        }
        if rng.bool() {
            lasts.push(self.seen);
        }
        for last in lasts {
            let mut payload = last.to_be_bytes().to_vec();
            payload.extend(code.to_be_bytes());
            payload.extend_from_slice(b"enough");
            self.frame(GOAWAY, 0, 0, &payload);
        }
    }

    /// What HTTP/2 forbids, or no word any more.
    fn violate(&mut self, how: u8, rng: &mut fastrand::Rng) {
        self.stage.commit(self.address, Deed::Violates);
        let idle = self.seen + 2 + 2 * rng.u32(..9);
        let open = self.calls.keys().next().copied().unwrap_or(idle);
        match how {
            0 => self
                .out
                .extend(std::iter::repeat_with(|| rng.u8(..)).take(60)),
            1 => {
                self.out.extend([0, 0, 40, DATA, 0, 0, 0]);
                self.doom_fin();
            }
            2 => self.frame(DATA, 0, 0, b"x"),
            3 => self.frame(HEADERS, END_HEADERS, idle, &[0x88]),
            4 => self.frame(DATA, 0, idle, b"x"),
            5 => self.frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            6 => self.frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
            7 => self.frame(
                PUSH_PROMISE,
                END_HEADERS,
                open,
                &[0, 0, 0, 2, 0x82, 0x84, 0x86],
            ),
            8 => self.frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            9 => self.frame(SETTINGS, 0, 0, &[0, 4, 0]),
            10 => self.frame(PING, 0, 0, &[0; 7]),
            11 => self.frame(CONTINUATION, END_HEADERS, open, &[0x88]),
            12 => self.frame(DATA, 0, open, &[0; FRAME_MAX + 1]),
            13 => {
                self.frame(HEADERS, 0, open, &[0x88]);
                self.frame(DATA, 0, open, b"x");
            }
            14 => self.frame(HEADERS, END_HEADERS, open, &[0x80, 0xff, 0xff, 0xff]),
            15 => self.frame(RST_STREAM, 0, open, &[0; 3]),
            16 => self.frame(RST_STREAM, 0, idle, &[0; 4]),
            17 => self.frame(GOAWAY, 0, 0, &[0; 3]),
            18 => self.frame(WINDOW_UPDATE, 0, open, &[0x7f, 255, 255, 255]),
            19 => self.frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            20 => self.frame(DATA, PADDED, open, &[9, 0, 0]),
            21 => self.doom_fin(),
            22 => self.close(true),
            // Silence.
            _ => {}
        }
    }

    fn doom_fin(&mut self) {
        self.write();
        if let Some(end) = &self.end {
            end.shutdown();
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.frames += 1;
        frames::write(kind, flags, stream, payload, &mut self.out);
    }

    fn write(&mut self) -> bool {
        let Some(end) = &self.end else {
            return false;
        };
        let most = self.out.len().min(self.habits.write_max);
        // An error shows itself to the reading side.
        match end.write(&self.out[..most]) {
            Ok(n) => {
                self.out.drain(..n);
                n > 0
            }
            Err(_) => {
                self.out.clear();
                false
            }
        }
    }
}

impl Call {
    /// Fills `queue` as the play goes. Whether it is the end of it.
    fn fill(&mut self) -> bool {
        match &self.plan.play {
            Play::Echo { .. } => {
                let mut at: usize = self.plan.requests[..self.echoed]
                    .iter()
                    .map(|size| size + 5)
                    .sum();
                while let Some(&size) = self.plan.requests.get(self.echoed) {
                    if at + 5 + size > self.received {
                        break;
                    }
                    self.queue
                        .extend_from_slice(&self.expected[at..at + 5 + size]);
                    at += 5 + size;
                    self.echoed += 1;
                }
                self.request_over
            }
            Play::Stream { early, .. } if !early && !self.request_over => false,
            Play::Refuse { .. } | Play::TrailersOnly { .. } => true,
            play => {
                if !self.queued {
                    self.queued = true;
                    let replies = self.plan.replies();
                    self.queue = replies.iter().flat_map(|reply| envelope(reply)).collect();
                    if let Play::Cut { sizes, .. } = play {
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

    fn ends_on_data(&self) -> bool {
        matches!(
            self.plan.play,
            Play::NoTrailers { .. } | Play::Cut { by: CutBy::End, .. }
        )
    }

    fn status(&self, block: &mut Vec<u8>) {
        let code = match self.plan.play {
            Play::Cut { .. } | Play::Refuse { .. } => 0,
            _ => self.plan.code().unwrap_or_default(),
        };
        field("grpc-status", &code.to_string(), block);
        field("x-call", &self.plan.id.to_string(), block);
    }
}
