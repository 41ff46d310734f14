//! A hand-written client speaks to a connection without a socket: what is answered, and what the windows hold back.

use super::*;
use crate::call;
use crate::frames::PADDED;

/// What the server said, frame by frame.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    id: u32,
    payload: Vec<u8>,
}

struct Client {
    server: Speech,
    /// What was said and not heard as a whole yet.
    bytes: Vec<u8>,
}

impl Client {
    /// Connects with these settings, and swallows what is said in greeting.
    fn new(conduct: Conduct, settings: &[(u16, u32)]) -> Self {
        let mut client = Self {
            server: Speech::new(conduct),
            bytes: PREFACE.to_vec(),
        };
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        client.say(SETTINGS, 0, 0, &payload);
        let greeting = client.heard();
        let kinds: Vec<_> = greeting
            .iter()
            .map(|frame| (frame.kind, frame.flags))
            .collect();
        assert_eq!(kinds, [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]);
        client
    }

    fn say(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        frame(&mut self.bytes, kind, flags, id, payload.len());
        self.bytes.extend_from_slice(payload);
        let taken = self.server.hear(&self.bytes).expect("a right frame");
        assert_eq!(taken, self.bytes.len());
        self.bytes.clear();
    }

    /// A whole call, its head in two pieces and its body in frames.
    fn call(&mut self, id: u32, body: &[u8]) {
        self.say(HEADERS, 0, id, b"undecoded");
        self.say(9, END_HEADERS, id, b"more of it");
        let mut pieces = body.chunks(FRAME_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() {
                END_STREAM
            } else {
                0
            };
            self.say(DATA, flags, id, piece);
        }
    }

    /// What the next turns write, until nothing more can be.
    fn heard(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            self.server.fill();
            let out = std::mem::take(&mut self.server.out);
            if out.is_empty() {
                return frames;
            }
            let mut rest = &out[..];
            while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                frames.push(Frame {
                    kind: head[3],
                    flags: head[4],
                    id: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                    payload: after[..length].to_vec(),
                });
                rest = &after[length..];
            }
        }
    }
}

fn data(frames: &[Frame]) -> Vec<u8> {
    let data = frames.iter().filter(|frame| frame.kind == DATA);
    data.flat_map(|frame| frame.payload.clone()).collect()
}

fn more(bytes: u32) -> [u8; 4] {
    bytes.to_be_bytes()
}

#[test]
fn a_small_call_is_answered_by_a_head_its_own_bytes_and_a_status() {
    let mut client = Client::new(Conduct::Echo, &[]);
    client.call(1, b"\0\0\0\0\x02hi");
    let frames = client.heard();
    let shape: Vec<_> = frames
        .iter()
        .map(|frame| (frame.kind, frame.flags, frame.id))
        .collect();
    assert_eq!(
        shape,
        [
            (HEADERS, END_HEADERS, 1),
            (DATA, 0, 1),
            (HEADERS, END_HEADERS | END_STREAM, 1)
        ]
    );
    assert_eq!(frames[0].payload, HEAD);
    assert_eq!(frames[1].payload, b"\0\0\0\0\x02hi");
    assert_eq!(frames[2].payload, TRAILERS);
    assert!(client.server.streams.is_empty());
    assert_eq!(client.server.calls, 1);
}

#[test]
fn a_frame_may_come_in_any_pieces() {
    let mut whole = PREFACE.to_vec();
    frame(&mut whole, HEADERS, END_HEADERS, 3, 1);
    whole.push(0x82);
    frame(&mut whole, DATA, END_STREAM | PADDED, 3, 9);
    whole.extend_from_slice(b"\x03\0\0\0\0\0pad");
    for split in 0..whole.len() {
        let mut server = Speech::new(Conduct::Echo);
        let taken = server.hear(&whole[..split]).unwrap();
        assert!(taken <= split);
        assert_eq!(server.hear(&whole[taken..]).unwrap(), whole.len() - taken);
        server.fill();
        let answered = server.out.windows(5).any(|five| five == b"\0\0\0\0\0");
        assert!(answered, "{split}");
        assert_eq!(server.calls, 1, "{split}");
    }
}

#[test]
fn no_more_is_sent_than_both_windows_allow() {
    let body = call::payload(200_000);
    let mut client = Client::new(Conduct::Echo, &[(4, 100_000)]);
    client.call(1, &body);
    let first = client.heard();
    // The window of the connection is the smaller one, and it is as HTTP/2 begins.
    assert_eq!(data(&first), body[..65_535]);
    assert!(
        first
            .iter()
            .all(|frame| frame.payload.len() <= FRAME_BYTES_MAX)
    );
    client.say(WINDOW_UPDATE, 0, 0, &more(1_000_000));
    let second = client.heard();
    assert_eq!(data(&second), body[65_535..100_000]);
    client.say(WINDOW_UPDATE, 0, 1, &more(10));
    assert_eq!(data(&client.heard()), body[100_000..100_010]);
    // A larger setting opens the streams that are there.
    client.say(SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0]);
    let last = client.heard();
    assert_eq!(data(&last), body[100_010..]);
    assert_eq!(last.last().unwrap().payload, TRAILERS);
    assert!(client.server.streams.is_empty());
}

#[test]
fn a_smaller_setting_makes_a_window_less_than_nothing_and_nothing_is_sent() {
    let mut client = Client::new(Conduct::Echo, &[(4, 10)]);
    client.call(1, &[7; 30]);
    assert_eq!(data(&client.heard()), [7; 10]);
    client.say(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 5]);
    client.say(WINDOW_UPDATE, 0, 1, &more(5));
    assert!(data(&client.heard()).is_empty());
    client.say(WINDOW_UPDATE, 0, 1, &more(20));
    assert_eq!(data(&client.heard()), [7; 20]);
}

#[test]
fn what_was_read_is_given_back() {
    let mut client = Client::new(Conduct::Echo, &[]);
    let whole = vec![1; FRAME_BYTES_MAX];
    client.say(HEADERS, END_HEADERS, 1, b"x");
    let mut updates = Vec::new();
    for _ in 0..(CONNECTION_WINDOW as usize / FRAME_BYTES_MAX) {
        client.say(DATA, 0, 1, &whole);
        updates.extend(client.heard());
    }
    let told = |id: u32| -> u32 {
        let of = updates
            .iter()
            .filter(|frame| frame.kind == WINDOW_UPDATE && frame.id == id);
        of.map(|frame| u32::from_be_bytes(frame.payload[..].try_into().unwrap()))
            .sum()
    };
    assert_eq!(told(0), CONNECTION_WINDOW);
    assert_eq!(told(1), CONNECTION_WINDOW);
}

#[test]
fn streams_are_served_in_turns_each_message_in_a_frame_of_its_own() {
    let message = call::envelope(&call::payload(100));
    let conduct = Conduct::Messages(message.clone().into(), 2000);
    let mut client = Client::new(conduct, &[(4, 1 << 30)]);
    client.say(WINDOW_UPDATE, 0, 0, &more(1 << 30));
    client.call(1, b"\0\0\0\0\0");
    client.call(3, b"\0\0\0\0\0");
    let frames = client.heard();
    let sent: Vec<_> = frames.iter().filter(|frame| frame.kind == DATA).collect();
    assert_eq!(sent.len(), 4000);
    assert!(sent.iter().all(|frame| frame.payload == message));
    // The second stream does not wait for the first one's end.
    let first_of_second = sent.iter().position(|frame| frame.id == 3).unwrap();
    assert!(first_of_second < 1000, "{first_of_second}");
    assert_eq!(client.server.calls, 2);
    assert_eq!(client.server.messages, 4000);
}

#[test]
fn a_large_message_is_cut_at_the_largest_frame() {
    let message: Arc<[u8]> = call::envelope(&call::payload(65_536)).into();
    let mut client = Client::new(Conduct::Messages(message.clone(), 3), &[(4, 1 << 30)]);
    client.say(WINDOW_UPDATE, 0, 0, &more(1 << 30));
    client.call(1, b"\0\0\0\0\0");
    let frames = client.heard();
    assert_eq!(data(&frames), message.repeat(3));
}

#[test]
fn a_call_that_was_cancelled_is_forgotten() {
    let message: Arc<[u8]> = call::envelope(&call::payload(100)).into();
    let mut client = Client::new(Conduct::Messages(message, 1_000_000), &[]);
    client.call(1, b"\0\0\0\0\0");
    assert_eq!(data(&client.heard()).len(), 65_535);
    client.say(RST_STREAM, 0, 1, &[0, 0, 0, 8]);
    client.say(WINDOW_UPDATE, 0, 0, &more(1000));
    client.say(WINDOW_UPDATE, 0, 1, &more(1000));
    assert_eq!(client.heard(), []);
    assert!(client.server.streams.is_empty());
}

#[test]
fn ticks_come_by_the_clock_and_carry_it() {
    let message: Arc<[u8]> = call::envelope(&call::payload(16)).into();
    let mut client = Client::new(Conduct::Ticks(message, 10), &[]);
    client.call(1, b"\0\0\0\0\0");
    let mut stamps = Vec::new();
    for now_ns in 100..130 {
        client.server.tick(now_ns);
        for frame in client.heard().iter().filter(|frame| frame.kind == DATA) {
            let stamp = u64::from_be_bytes(frame.payload[5..13].try_into().unwrap());
            assert_eq!(stamp, now_ns);
            stamps.push(stamp);
        }
    }
    assert_eq!(stamps, [100, 110, 120]);
}

#[test]
fn silence_is_a_head_and_nothing_more() {
    let mut client = Client::new(Conduct::Silence, &[]);
    client.call(1, b"\0\0\0\0\0");
    let frames = client.heard();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].payload, HEAD);
    client.say(WINDOW_UPDATE, 0, 1, &more(5));
    assert_eq!(client.heard(), []);
}

#[test]
fn a_ping_is_answered_and_a_table_that_was_made_smaller_is_acknowledged() {
    let mut client = Client::new(Conduct::Echo, &[(1, 0)]);
    client.say(PING, 0, 0, b"12345678");
    let pong = client.heard();
    assert_eq!((pong[0].kind, pong[0].flags), (PING, ACK));
    assert_eq!(pong[0].payload, b"12345678");
    client.call(1, b"\0\0\0\0\0");
    client.call(3, b"\0\0\0\0\0");
    let frames = client.heard();
    let heads: Vec<_> = frames
        .iter()
        .filter(|frame| frame.flags == END_HEADERS)
        .collect();
    assert_eq!(heads[0].payload, [TABLE_EMPTY, HEAD].concat());
    assert_eq!(heads[1].payload, HEAD);
}

#[test]
fn who_speaks_no_http_2_is_hung_up_on() {
    assert!(
        Speech::new(Conduct::Echo)
            .hear(b"GET / HTTP/1.1\r\n")
            .is_err()
    );
    let mut large = PREFACE.to_vec();
    frame(&mut large, DATA, 0, 1, FRAME_BYTES_MAX + 1);
    assert!(Speech::new(Conduct::Echo).hear(&large).is_err());
}
