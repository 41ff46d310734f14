//! How often a client of HTTP/2 may do what costs it a few bytes and us more: as often as its row says, and not once oftener. No
//! second turns over meanwhile, because the clock stands still where nobody waits.

use std::time::Duration;

use wharf::net::sim::End;
use wharf::policy::{Limits, RouteKind};

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, field, frame, literal,
};
use crate::http2::greet;
use crate::http2_clock::{call, frames, goaway, resets};
use crate::still::{Manner, Still};

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: u32 = 65_535;
const WINDOW_MAX: u32 = (1 << 31) - 1;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the client of a whole connection may have us find wrong.
const FAULTS_MAX: usize = 100;
/// What is said of who has sent as many heads that are none.
const NO_HEADS: &str = "it sends one head after another that is none";
/// What is said of who has made us reset as many streams.
const NO_STREAMS: &str = "it broke HTTP/2: ";

/// A client that goes as far as it may, and then too far.
struct Pest {
    still: Still,
    end: End,
    /// The next stream.
    next: u32,
    /// When its present second began.
    second: Duration,
}

impl Pest {
    /// With a call open, on stream 1, whose request goes on.
    fn new() -> Self {
        Self::under(Limits::default())
    }

    /// The same under those limits.
    fn under(limits: Limits) -> Self {
        let mut own = Self::beside(Manner::Echo, WINDOW, limits);
        own.fresh();
        own.say(&frame(HEADERS, END_HEADERS, 1, &call()));
        own.rest();
        own
    }

    /// With that window for each stream, where the backend answers so.
    fn beside(manner: Manner, window: u32, limits: Limits) -> Self {
        let mut still = Still::new(RouteKind::Rpc, manner, limits);
        let end = greet(&mut still, window);
        let mut own = Self {
            still,
            end,
            next: 1,
            second: Duration::ZERO,
        };
        own.rest();
        own
    }

    fn fresh(&mut self) -> u32 {
        let own = self.next;
        self.next += 2;
        own
    }

    /// Lets its second go by. The next one begins with its next word.
    fn rest(&mut self) {
        self.still.run_until(self.still.machine.now() + 2 * SECOND);
        self.second = self.still.machine.now();
    }

    /// Says that, and is let go on. What it hears.
    fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (heard, closed) = self.hear(bytes);
        assert_eq!((goaway(&heard), closed), (None, false), "not yet");
        heard
    }

    fn hear(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.still.send(&self.end, bytes);
        self.still.settle();
        let heard = self.still.receive(&self.end);
        let took = self.still.machine.now() - self.second;
        assert!(took < SECOND, "another second has begun");
        heard
    }

    /// It is still listened to. What is sent to that end is no DATA, since that would allow for more.
    fn assert_heard(&mut self) {
        let ping = frame(PING, 0, 0, b"are you?");
        assert_eq!(pongs(&self.say(&ping)), 1);
    }

    /// Says that, and is turned out for it: the last line says why. What it hears.
    fn goes_too_far(mut self, bytes: &[u8], words: &str) -> Vec<u8> {
        let (heard, closed) = self.hear(bytes);
        assert_eq!((goaway(&heard), closed), (Some(ENHANCE_YOUR_CALM), true));
        let told = self.still.records.iter().rfind(|own| own.refusal.is_some());
        let told = told.map(|own| &*own.message).unwrap_or_default();
        assert!(told.starts_with(words), "{told} instead of {words}");
        heard
    }
}

fn pongs(bytes: &[u8]) -> usize {
    let all = frames(bytes);
    let pongs = all.iter().filter(|own| own.0 == PING && own.1 & ACK != 0);
    pongs.count()
}

/// Whether that frame ends that stream.
fn ends(frame: &(u8, u8, u32, Vec<u8>), stream: u32) -> bool {
    let (_, flags, own, _) = frame;
    *own == stream && flags & END_STREAM != 0
}

fn whole_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &call())
}

fn half_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

fn too_much_window(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &WINDOW_MAX.to_be_bytes())
}

fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[7]].concat())
}

/// `unit` may be said `most` times in a second, second by second, and not once oftener.
fn assert_most_in_a_second(
    most: usize,
    words: &str,
    mut unit: impl FnMut(&mut Pest, usize) -> Vec<u8>,
) {
    let mut pest = Pest::new();
    for second in 0..3 {
        if second > 0 {
            pest.rest();
        }
        let bytes: Vec<u8> = (0..most).flat_map(|n| unit(&mut pest, n)).collect();
        pest.say(&bytes);
        pest.assert_heard();
    }
    let last = unit(&mut pest, most);
    pest.goes_too_far(&last, words);
}

/// Of what a number is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    InASecond,
    InALife,
}

/// `unit`, which ends with a new stream, is answered with a reset of that or, where it names no code, in words, [`FAULTS_MAX`]
/// times, and not once oftener.
fn assert_most_refused(
    mut pest: Pest,
    counted: Counted,
    words: &str,
    mut unit: impl FnMut(&mut Pest, usize) -> (Vec<u8>, Option<u32>),
) {
    let (seconds, rests) = match counted {
        Counted::InASecond => (2, FAULTS_MAX),
        Counted::InALife => (1, 10),
    };
    for n in 0..seconds * FAULTS_MAX {
        if n % rests == 0 {
            pest.rest();
        }
        let (bytes, code) = unit(&mut pest, n);
        let heard = pest.say(&bytes);
        let stream = pest.next - 2;
        assert_eq!(resets(&heard, stream), Vec::from_iter(code), "number {n}");
        let answered = frames(&heard).iter().any(|own| ends(own, stream));
        assert_eq!(answered, code.is_none(), "number {n}");
    }
    pest.assert_heard();
    let (bytes, _) = unit(&mut pest, FAULTS_MAX);
    pest.goes_too_far(&bytes, words);
}

#[test]
fn h2_04_the_101st_call_in_a_second_that_is_reset_without_an_answer_is_too_many() {
    let words = "it resets calls before they are answered";
    assert_most_in_a_second(100, words, |pest, _| {
        let stream = pest.fresh();
        [half_head(stream), reset(stream)].concat()
    });
}

#[test]
fn h2_04_the_201st_reset_in_a_second_is_too_many_though_all_had_been_answered() {
    // Each has its head at once, and its content has no window to come by.
    let mut pest = Pest::beside(Manner::Torrent(100_000), 0, Limits::default());
    let answered = |pest: &mut Pest, count: usize| {
        let streams: Vec<u32> = (0..count).map(|_| pest.fresh()).collect();
        let heads: Vec<u8> = streams.iter().flat_map(|&own| whole_head(own)).collect();
        let heard = frames(&pest.say(&heads));
        for stream in &streams {
            assert!(heard.iter().any(|own| own.0 == HEADERS && own.2 == *stream));
        }
        streams.into_iter().flat_map(reset).collect::<Vec<u8>>()
    };
    for second in 0..3 {
        if second > 0 {
            pest.rest();
        }
        for _ in 0..2 {
            let resets = answered(&mut pest, 100);
            pest.say(&resets);
        }
        pest.assert_heard();
    }
    let last = answered(&mut pest, 1);
    pest.goes_too_far(&last, "it floods RST_STREAM");
}

#[test]
fn h2_05_b_the_101st_window_beyond_the_largest_is_too_many() {
    assert_most_refused(Pest::new(), Counted::InALife, NO_STREAMS, |pest, _| {
        let stream = pest.fresh();
        let bytes = [half_head(stream), too_much_window(stream)].concat();
        (bytes, Some(FLOW_CONTROL_ERROR))
    });
}

#[test]
fn h2_05_d_the_101st_priority_on_itself_is_too_many() {
    assert_most_refused(Pest::new(), Counted::InALife, NO_STREAMS, |pest, _| {
        let stream = pest.fresh();
        let bytes = [half_head(stream), priority(stream, stream)].concat();
        (bytes, Some(PROTOCOL_ERROR))
    });
}

/// With as many calls open as may be.
fn crowded() -> Pest {
    let mut pest = Pest::new();
    let heads: Vec<u8> = (1..100).flat_map(|_| half_head(pest.fresh())).collect();
    pest.say(&heads);
    pest
}

#[test]
fn h2_06_the_101st_stream_beyond_the_hundred_that_may_be_open_is_too_many() {
    assert_most_refused(crowded(), Counted::InALife, NO_STREAMS, |pest, _| {
        (half_head(pest.fresh()), Some(REFUSED_STREAM))
    });
}

#[test]
fn h2_06_streams_beyond_the_limit_and_resets_that_are_asked_for_are_one_count() {
    assert_most_refused(Pest::new(), Counted::InALife, NO_STREAMS, |pest, n| {
        let mut bytes = Vec::new();
        if n == 50 {
            // From now on every place is taken.
            bytes = (1..100).flat_map(|_| half_head(pest.fresh())).collect();
        }
        let stream = pest.fresh();
        bytes.extend(half_head(stream));
        let code = match n {
            ..25 => {
                bytes.extend(too_much_window(stream));
                FLOW_CONTROL_ERROR
            }
            25..50 => {
                bytes.extend(priority(stream, stream));
                PROTOCOL_ERROR
            }
            _ => REFUSED_STREAM,
        };
        (bytes, Some(code))
    });
}

/// Pieces of a head on stream 3 and its CONTINUATION frames, `count` of them. The last one has those flags.
fn in_pieces(count: usize, end: u8) -> Vec<u8> {
    let block = call();
    let (first, rest) = block.split_at(10);
    let mut bytes = frame(HEADERS, END_STREAM, 3, first);
    for n in 0..count - 1 {
        bytes.extend(frame(CONTINUATION, 0, 3, &rest[n..=n]));
    }
    bytes.extend(frame(CONTINUATION, end, 3, &rest[count - 1..]));
    bytes
}

#[test]
fn h2_07_a_head_may_have_as_many_continuations_as_its_limit_needs_and_never_more_than_twenty() {
    for (head_bytes_max, open) in [(16 << 10, 5), (64 << 10, 20)] {
        let limits = || Limits {
            head_bytes_max,
            ..Limits::default()
        };
        // A head in so many pieces is one like any other.
        let mut pest = Pest::under(limits());
        let heard = pest.say(&in_pieces(open, END_HEADERS));
        assert!(frames(&heard).iter().any(|own| ends(own, 3)), "{open}");
    }
    // Where six do not end it, `h2` finds that too many when it is whole.
    let pest = Pest::new();
    pest.goes_too_far(&in_pieces(7, END_HEADERS), "it broke HTTP/2: ");
    // Beyond twenty it is of no interest whether it would have ended.
    let mut pest = Pest::under(Limits {
        head_bytes_max: 64 << 10,
        ..Limits::default()
    });
    pest.say(&in_pieces(20, 0));
    let another = &frame(CONTINUATION, END_HEADERS, 3, b"a")[..9];
    pest.goes_too_far(another, "a head without end");
}

#[test]
fn h2_07_the_first_byte_of_a_head_beyond_65_kib_is_too_many() {
    const HEAD_BYTES: usize = 9;
    const PIECE: usize = 16 << 10;
    let begun = frame(HEADERS, END_STREAM, 3, &[0; PIECE]);
    let more = frame(CONTINUATION, 0, 3, &[0; PIECE]).repeat(3);
    let left = (65 << 10) - begun.len() - more.len() - HEAD_BYTES;
    for (bytes, may) in [(left, true), (left + 1, false)] {
        let mut pest = Pest::new();
        pest.say(&[&begun[..], &more].concat());
        let last = frame(CONTINUATION, 0, 3, &vec![0; bytes]);
        match may {
            true => drop(pest.say(&last[..HEAD_BYTES])),
            false => drop(pest.goes_too_far(&last[..HEAD_BYTES], "a head without end")),
        }
    }
}

/// What is said of who sends frames in which nothing stands.
const EMPTY: &str = "it floods empty frames";

#[test]
fn h2_08_the_101st_empty_frame_in_a_second_is_too_many() {
    assert_most_in_a_second(100, EMPTY, |_, _| frame(DATA, 0, 1, b""));
}

#[test]
fn h2_08_the_101st_frame_of_padding_alone_in_a_second_is_too_many() {
    assert_most_in_a_second(100, EMPTY, |_, _| frame(DATA, PADDED, 1, &[9; 10]));
}

#[test]
fn h2_08_the_101st_empty_headers_in_a_second_are_too_many() {
    // Each is followed by its fields, and so by a call like any other.
    assert_most_in_a_second(100, EMPTY, |pest, _| {
        let stream = pest.fresh();
        let mut bytes = frame(HEADERS, END_STREAM, stream, b"");
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, &call()));
        bytes
    });
}

#[test]
fn h2_08_the_101st_empty_continuation_in_a_second_is_too_many() {
    assert_most_in_a_second(100, EMPTY, |pest, _| {
        let stream = pest.fresh();
        let mut bytes = frame(HEADERS, END_STREAM, stream, &call());
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, b""));
        bytes
    });
}

#[test]
fn h2_10_the_101st_head_of_too_many_fields_is_too_many() {
    let mut block = call();
    literal(0x40, "a", "", &mut block);
    // References to what came last into the table (RFC 7541 §2.3.3).
    block.extend([0x80 | 62; 200]);
    assert_most_refused(Pest::new(), Counted::InASecond, NO_HEADS, |pest, _| {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, pest.fresh(), &block);
        (head, Some(ENHANCE_YOUR_CALM))
    });
}

#[test]
fn h2_16_the_51st_settings_in_a_second_are_too_many() {
    assert_most_in_a_second(50, "it floods SETTINGS", |_, _| frame(SETTINGS, 0, 0, b""));
}

#[test]
fn h2_16_the_101st_ping_in_a_second_is_too_many() {
    let ping = frame(PING, 0, 0, b"are you?");
    let mut pest = Pest::new();
    for second in 0..3 {
        if second > 0 {
            pest.rest();
        }
        assert_eq!(pongs(&pest.say(&ping.repeat(100))), 100);
    }
    pest.goes_too_far(&ping, "it floods PING");
}

#[test]
fn h2_16_the_1001st_frame_in_a_second_that_says_nothing_is_too_many_whatever_its_type() {
    let words = "it floods frames that say nothing";
    assert_most_in_a_second(1_000, words, |_, n| match n % 3 {
        0 => priority(1, 0),
        1 => frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        _ => frame(0x77, 0xff, 5, b"what"),
    });
}

/// A head that is none: a call with that field.
fn bad_head(stream: u32, name: &str, value: &str) -> Vec<u8> {
    let mut block = call();
    field(name, value, &mut block);
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

#[test]
fn h2_19_at_the_101st_malformed_head_whose_answers_nobody_reads_nothing_more_is_read() {
    let mut pest = Pest::new();
    let count = FAULTS_MAX + 1;
    let heads: Vec<u8> = (0..count)
        .flat_map(|_| bad_head(pest.fresh(), "te", "gzip"))
        .collect();
    let last = pest.next - 2;
    let heard = pest.goes_too_far(&heads, NO_STREAMS);
    for stream in (3..last).step_by(2) {
        assert_eq!(resets(&heard, stream), [PROTOCOL_ERROR], "{stream}");
    }
    assert_eq!(resets(&heard, last), [0; 0]);
}

#[test]
fn h2_24_the_101st_head_that_is_no_request_is_too_many() {
    // What `h2` finds, and what we find.
    for (name, value, counted, words) in [
        ("te", "gzip", Counted::InALife, NO_STREAMS),
        ("x-a", " a", Counted::InASecond, NO_HEADS),
    ] {
        assert_most_refused(Pest::new(), counted, words, |pest, _| {
            (bad_head(pest.fresh(), name, value), Some(PROTOCOL_ERROR))
        });
    }
}

#[test]
fn h2_27_the_101st_head_that_contradicts_itself_is_too_many_though_each_is_answered() {
    assert_most_refused(Pest::new(), Counted::InASecond, NO_HEADS, |pest, _| {
        (bad_head(pest.fresh(), "host", "b"), None)
    });
}
