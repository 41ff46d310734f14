//! What each call is to be: drawn from the seed, known to the browser that makes it, the server that plays it, and the model
//! that judges it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use wharf::telemetry::Record;

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) id: usize,
    pub(crate) backend: char,
    /// Sizes of the request's messages.
    pub(crate) requests: Vec<usize>,
    pub(crate) play: Play,
    pub(crate) timeout: Option<Duration>,
    pub(crate) form: Form,
    pub(crate) broken: Option<Broken>,
}

/// What its caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// gRPC-Web in bytes, and in base64.
    Web,
    Text,
    /// gRPC itself, which only HTTP/2 carries.
    Native,
}

impl Form {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Web => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text+proto",
            Self::Native => "application/grpc+proto",
        }
    }
}

/// How large messages may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Mixed,
    /// Every call has large ones.
    Flood,
}

/// What the server does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Play {
    /// Each message comes back as it was, then a status.
    Echo {
        code: u8,
    },
    /// Messages of those sizes, then a status. `early`: without waiting for the request.
    Stream {
        sizes: Vec<usize>,
        code: u8,
        early: bool,
    },
    TrailersOnly {
        code: u8,
    },
    /// Messages of those sizes (`None`: not even a head), then RST_STREAM with this code.
    Reset {
        sizes: Option<Vec<usize>>,
        h2: u32,
    },
    /// END_STREAM on DATA.
    NoTrailers {
        sizes: Vec<usize>,
    },
    /// The last message is not whole.
    Cut {
        sizes: Vec<usize>,
        by: CutBy,
    },
    /// REFUSED_STREAM, so many times.
    Refuse {
        times: u32,
    },
    /// Messages of those sizes, then nothing any more. Such a call has a timeout.
    Silent {
        sizes: Vec<usize>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutBy {
    End,
    Trailers,
    Reset(u32),
}

/// How the client breaks its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A message with a flag that a request must not have.
    Flag,
    /// The content ends inside a message.
    Short,
    /// A character that base64 does not have.
    Base64,
    /// A chunk without a length; in HTTP/2 a `content-length` that is not kept.
    Framing,
}

impl Plan {
    /// `shared`: its connection speaks HTTP/2.
    pub(crate) fn draw(id: usize, size: Size, shared: bool, rng: &mut fastrand::Rng) -> Self {
        let big = size != Size::Small;
        let mut sizes = |most: usize| -> Vec<usize> {
            let count = rng.usize(0..=most);
            (0..count)
                .map(|_| match rng.u8(..8) {
                    0 => 0,
                    1 if big => rng.usize(..40_000),
                    2 | 3 => rng.usize(..if big { 2_000 } else { 300 }),
                    _ => rng.usize(..60),
                })
                .collect()
        };
        let (mut requests, mut replies) = (sizes(4), sizes(6));
        let bulk = size == Size::Flood || (big && rng.u8(..12) == 0);
        if bulk {
            replies.extend([70_000, 90_000, 120_000]);
        }
        if size == Size::Flood && rng.bool() {
            requests.extend([150_000, 200_000, 150_000]);
        }
        let code = if rng.bool() { 0 } else { rng.u8(..=16) };
        // Not 7: who says "refused" must not have begun.
        let h2 = [0, 1, 2, 3, 5, 9, 8, 11, 12, 13][rng.usize(..10)];
        let play = match rng.u8(..24) {
            0..=6 => Play::Echo { code },
            7..=11 => Play::Stream {
                sizes: replies,
                code,
                early: rng.bool(),
            },
            12..=13 => Play::TrailersOnly { code },
            14..=16 => Play::Reset {
                sizes: rng.bool().then_some(replies),
                h2,
            },
            17 => Play::NoTrailers { sizes: replies },
            18..=19 => {
                replies.push(rng.usize(1..if big { 3_000 } else { 200 }));
                let by = match rng.u8(..3) {
                    0 => CutBy::End,
                    1 => CutBy::Trailers,
                    _ => CutBy::Reset(h2),
                };
                Play::Cut { sizes: replies, by }
            }
            20..=21 => Play::Refuse {
                times: rng.u32(1..=3),
            },
            _ => Play::Silent { sizes: replies },
        };
        let silent = matches!(play, Play::Silent { .. });
        let timeout = (silent || rng.u8(..6) == 0).then(|| {
            let most = if rng.bool() { 50 } else { 20_000 };
            Duration::from_millis(rng.u64(1..most))
        });
        let form = match rng.u8(..3) {
            0 => Form::Text,
            1 if shared => Form::Native,
            _ => Form::Web,
        };
        let broken = (rng.u8(..14) == 0).then(|| match rng.u8(..4) {
            0 => Broken::Flag,
            1 => Broken::Short,
            2 if form == Form::Text => Broken::Base64,
            _ => Broken::Framing,
        });
        Self {
            id,
            backend: if rng.u8(..3) == 0 { 'B' } else { 'A' },
            requests,
            play,
            timeout,
            form,
            broken,
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("/sim.{}/c{}", self.backend, self.id)
    }

    /// The messages that the request holds, as gRPC frames them.
    pub(crate) fn request_bytes(&self) -> Vec<u8> {
        let messages = self.requests.iter().enumerate();
        messages
            .flat_map(|(index, &size)| frame(&message(self.id, 'q', index, size)))
            .collect()
    }

    /// What a server may see of them: what a message has that is never ended is passed on as it comes.
    pub(crate) fn offered_bytes(&self) -> Vec<u8> {
        let mut bytes = self.request_bytes();
        if self.broken == Some(Broken::Short) {
            bytes.extend(self.unended());
        }
        bytes
    }

    /// The message that a short request begins.
    pub(crate) fn unended(&self) -> Vec<u8> {
        frame(&message(self.id, 'q', 99, 40))
    }

    /// The messages of the answer, if it comes to its end.
    pub(crate) fn replies(&self) -> Vec<Vec<u8>> {
        let sizes = match &self.play {
            Play::Echo { .. } => {
                let messages = self.requests.iter().enumerate();
                return messages
                    .map(|(index, &size)| message(self.id, 'q', index, size))
                    .collect();
            }
            Play::Stream { sizes, .. }
            | Play::NoTrailers { sizes }
            | Play::Cut { sizes, .. }
            | Play::Silent { sizes }
            | Play::Reset {
                sizes: Some(sizes), ..
            } => sizes,
            Play::TrailersOnly { .. } | Play::Refuse { .. } | Play::Reset { sizes: None, .. } => {
                return Vec::new();
            }
        };
        let messages = sizes.iter().enumerate();
        messages
            .map(|(index, &size)| message(self.id, 'r', index, size))
            .collect()
    }

    /// The status that the server gives, if it gives one. A refused call that is not refused any more is answered OK.
    pub(crate) fn code(&self) -> Option<u8> {
        match self.play {
            Play::Echo { code } | Play::Stream { code, .. } | Play::TrailersOnly { code } => {
                Some(code)
            }
            Play::Refuse { times } => (times <= 1).then_some(0),
            _ => None,
        }
    }
}

/// A message that shows whose it is, and in each part which: no two are alike where they are long enough to tell.
pub(crate) fn message(id: usize, direction: char, index: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 256);
    while bytes.len() < size {
        let stamp = format!("{id}{direction}{index}:{size}@{}|", bytes.len());
        bytes.extend_from_slice(stamp.as_bytes());
        bytes.extend_from_slice(&[b'.'; 200]);
    }
    bytes.truncate(size);
    bytes
}

pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

/// What has happened so far, as each side saw it.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) calls: Vec<Facts>,
    pub(crate) weather: Faults,
}

/// What is known of one call.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) plan: Plan,
    /// How often a server took it up.
    pub(crate) processed: u32,
    pub(crate) refused: u32,
    /// The server has said its last word.
    pub(crate) finished: bool,
    /// The server has read the request to a clean end.
    pub(crate) request_ended: bool,
    /// Where a server's end of it still stands open.
    pub(crate) open: u32,
    /// The code that the core reset its stream with.
    pub(crate) told: Option<u32>,
    /// Codes that its stream was reset with before its time.
    pub(crate) resets: Vec<u32>,
    pub(crate) records: Vec<Record>,
}

impl Facts {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            processed: 0,
            refused: 0,
            finished: false,
            request_ended: false,
            open: 0,
            told: None,
            resets: Vec::new(),
            records: Vec::new(),
        }
    }
}

/// Something that the world did to a server or to the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The connection could not be made.
    Refuses,
    /// It was made, or not, and nothing was heard of it.
    Silent,
    /// What came was no HTTP/2.
    Foreign,
    /// It wanted TLS.
    Tls,
    /// A connection was lost.
    Dies,
    /// A frame that HTTP/2 forbids.
    Violates,
    /// GOAWAY.
    GoesAway,
    /// It refused a stream for a limit that was kept: it had not forgotten one that was over.
    Crowded,
}

/// How long after a deed a call that begins may still fail for it: a refused endpoint rests for a second, a silent one is
/// waited for, and a machine may sleep too long.
const AFTERMATH: Duration = Duration::from_secs(12);
/// How long it may take until a lost connection is known to be lost.
const NEWS: Duration = Duration::from_secs(1);

/// Which faults the world has committed, when and against whom, so that a call may fail for those that touched it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) deeds: Vec<(Duration, SocketAddr, Deed)>,
    /// When the clock leapt, and for how long.
    pub(crate) leaps: Vec<Duration>,
    pub(crate) draining: bool,
    /// When the drain's patience ends.
    pub(crate) drained_until: Option<Duration>,
    pub(crate) drained_hard: bool,
    pub(crate) pending_max_small: bool,
    /// The machine sleeps longer than it was asked to, so that what is patient seems impatient.
    pub(crate) oversleeps: bool,
}

impl Faults {
    /// Whether one of those deeds against a server of that backend may have met a call that lived so long.
    pub(crate) fn met(&self, deeds: &[Deed], backend: char, record: &Record) -> bool {
        let began = began(record);
        let ended = began + record.elapsed;
        self.deeds.iter().any(|(at, address, deed)| {
            let news = match deed {
                Deed::Dies | Deed::Violates | Deed::GoesAway | Deed::Crowded => NEWS,
                Deed::Refuses | Deed::Silent | Deed::Foreign | Deed::Tls => AFTERMATH,
            };
            // Every clock of the world leaps at once, so an hour that nobody lived does not count.
            let leapt = self
                .leaps
                .iter()
                .filter(|leap| at < leap && **leap <= began);
            let leapt = Duration::from_secs(3600) * leapt.count() as u32;
            deeds.contains(deed)
                && serves(backend, *address)
                && *at <= ended
                && began.saturating_sub(*at).saturating_sub(leapt) <= news
        })
    }

    /// Whether the clock leapt while the call lived.
    pub(crate) fn leapt(&self, record: &Record) -> bool {
        let began = began(record);
        let ended = began + record.elapsed;
        let mut leaps = self.leaps.iter();
        // What failed at a leap is remembered for a second.
        leaps.any(|&leap| began <= leap + NEWS && leap <= ended)
    }
}

/// When a call began, on the machine's clock.
pub(crate) fn began(record: &Record) -> Duration {
    let began = record.started.duration_since(SystemTime::UNIX_EPOCH);
    began.unwrap_or_default()
}

/// Whether that backend has, or had, that server.
fn serves(backend: char, address: SocketAddr) -> bool {
    let first = [server(1), server(2)].contains(&address);
    first == (backend == 'A')
}

/// The address of a server.
pub(crate) fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 50_051))
}

pub(crate) type SharedLedger = Rc<RefCell<Ledger>>;
