//! Many clients: they are shared by the cores of one port, no core takes more than it may, and none of them is held up by
//! those who do not read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wharf::core::{Command, Flow};
use wharf::upstream::settings::STREAM_WINDOW_BYTES;
use wharf::wire::Reason;

use crate::backend::{Backend, Peer, Seen};
use crate::client::{Client, message, request};
use crate::world::{PATIENCE, Plan, Stepped, World};

const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn r_20_the_cores_of_one_port_share_its_clients_and_each_serves_its_own() {
    const CLIENTS: usize = 64;
    let first = Stepped::new(Plan::default(), &[]);
    let second = Stepped::obeying(Plan::default().snapshot(&[]), first.address.port());
    let mut cores = [first, second];
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::new(cores[0].address))
        .collect();
    for client in &mut clients {
        client.send(LIVE);
    }
    let until = Instant::now() + PATIENCE;
    let connected = |core: &Stepped| core.core.census().0;
    while cores.iter().map(connected).sum::<usize>() < CLIENTS {
        assert!(Instant::now() < until, "somebody waits for ever");
        cores.iter_mut().for_each(Stepped::turn);
    }
    // What was accepted in the last turn is answered in the next ones.
    for _ in 0..3 {
        cores.iter_mut().for_each(Stepped::turn);
    }
    // The kernel decides by a hash of the addresses: that all fall to one of two has the chance of 2 in 2^64.
    assert!(cores.iter().all(|core| connected(core) > 0), "both serve");
    for client in &mut clients {
        assert_eq!(client.answer().body, b"ok\n");
    }
}

/// How many clients each core has.
fn shares<const CORES: usize>(cores: &[Stepped; CORES]) -> [usize; CORES] {
    std::array::from_fn(|core| cores[core].core.census().0)
}

/// So many clients of one core, all of whom ask something, and none of whom has been accepted.
fn clients_of(core: &Stepped, count: usize) -> Vec<Client> {
    let ask = |mut client: Client| {
        client.send(LIVE);
        client
    };
    let clients = (0..count).map(|_| ask(Client::new(core.address)));
    clients.collect()
}

fn turn_all<const CORES: usize>(cores: &mut [Stepped; CORES], turns: usize) {
    for _ in 0..turns {
        cores.iter_mut().for_each(Stepped::turn);
    }
}

fn r_20_few_clients_of_one_core<const CORES: usize>() {
    const CLIENTS: usize = 8;
    let mut cores = Stepped::sharing::<CORES>(Plan::default);
    // The hash could not do worse: all of them come to the last one.
    let mut clients = clients_of(&cores[CORES - 1], CLIENTS);
    let until = Instant::now() + PATIENCE;
    while shares(&cores).iter().sum::<usize>() < CLIENTS {
        assert!(Instant::now() < until, "somebody waits for ever");
        turn_all(&mut cores, 1);
    }
    assert_eq!(shares(&cores), [CLIENTS / CORES; CORES]);
    turn_all(&mut cores, 3);
    for client in &mut clients {
        assert_eq!(client.answer().body, b"ok\n");
    }
    // Whoever leaves makes room where it was, and the next ones fill it.
    drop(clients.split_off(CLIENTS / 2));
    while shares(&cores).iter().sum::<usize>() > CLIENTS / 2 {
        assert!(Instant::now() < until, "somebody never leaves");
        turn_all(&mut cores, 1);
    }
    let more = clients_of(&cores[0], CLIENTS / 2);
    while shares(&cores).iter().sum::<usize>() < CLIENTS {
        assert!(Instant::now() < until, "somebody waits for ever");
        turn_all(&mut cores, 1);
    }
    assert_eq!(shares(&cores), [CLIENTS / CORES; CORES]);
    drop((clients, more));
    cores.iter_mut().for_each(Stepped::stop);
    assert!(cores.iter().all(|own| own.core.is_empty()));
}

#[test]
fn r_20_few_clients_who_all_come_to_one_core_are_spread_over_two() {
    r_20_few_clients_of_one_core::<2>();
}

#[test]
fn r_20_few_clients_who_all_come_to_one_core_are_spread_over_four() {
    r_20_few_clients_of_one_core::<4>();
}

#[test]
fn r_20_a_core_that_sleeps_is_woken_for_the_client_that_another_has_accepted() {
    const CLIENTS: usize = 6;
    let [first, second] = World::sharing(Plan::default);
    // One after the other, so that both sleep in between.
    let ask = |_| {
        let mut client = Client::new(first.address);
        client.send(b"GET /nothing/there HTTP/1.1\r\nhost: a\r\n\r\n");
        assert!(client.answer().whole);
        client
    };
    let clients: Vec<Client> = (0..CLIENTS).map(ask).collect();
    for world in [&first, &second] {
        let records = (0..CLIENTS / 2).map(|_| world.record());
        assert!(records.into_iter().all(|own| own.path == "/nothing/there"));
    }
    drop(clients);
}

#[test]
fn s_08_whoever_stands_at_a_door_when_its_core_begins_to_drain_is_served() {
    const CLIENTS: usize = 8;
    let mut cores = Stepped::sharing::<2>(Plan::default);
    let mut clients = clients_of(&cores[0], CLIENTS);
    let until = Instant::now() + PATIENCE;
    while shares(&cores)[0] < CLIENTS / 2 {
        assert!(Instant::now() < until, "somebody waits for ever");
        cores[0].turn();
    }
    assert_eq!(shares(&cores), [CLIENTS / 2, 0]);
    // The ring of the bell and the order to drain are heard in the same turn, before it has looked at its door.
    cores[1].command(Command::Drain(PATIENCE));
    while cores[1].turn_or_end() == Flow::Running {
        assert!(Instant::now() < until, "it never ends");
    }
    assert!(cores[1].core.is_empty());
    (0..3).for_each(|_| cores[0].turn());
    let answers: Vec<_> = clients.iter_mut().map(Client::answer).collect();
    assert!(answers.iter().all(|own| own.body == b"ok\n"), "{answers:?}");
    let last = answers
        .iter()
        .filter(|own| own.head.contains("connection: close"));
    assert_eq!(last.count(), CLIENTS / 2, "{answers:?}");
    // From now on all are the first one's.
    let mut later = clients_of(&cores[0], CLIENTS);
    while shares(&cores)[0] < CLIENTS + CLIENTS / 2 {
        assert!(Instant::now() < until, "somebody waits for ever");
        cores[0].turn();
    }
    (0..3).for_each(|_| cores[0].turn());
    for client in &mut later {
        assert_eq!(client.answer().body, b"ok\n");
    }
    drop((clients, later));
    cores[0].stop();
}

#[test]
fn s_08_whoever_stands_at_a_door_when_its_core_is_gone_is_not_left_waiting() {
    let [mut first, second] = Stepped::sharing::<2>(Plan::default);
    let mut clients = clients_of(&first, 8);
    let until = Instant::now() + PATIENCE;
    while first.core.census().0 < 4 {
        assert!(Instant::now() < until, "somebody waits for ever");
        first.turn();
    }
    // As after a panic that was not contained: what it had is lost, and what was on its way with it.
    drop(second);
    (0..3).for_each(|_| first.turn());
    // Whom the first one kept, it serves on: which they are is for the order of accepts to say.
    let dropped = clients.iter_mut().map(Client::was_dropped);
    assert_eq!(dropped.filter(|own| *own).count(), 4);
    let mut later = clients_of(&first, 4);
    while first.core.census().0 < 8 {
        assert!(Instant::now() < until, "somebody waits for ever");
        first.turn();
    }
    (0..3).for_each(|_| first.turn());
    for client in &mut later {
        assert_eq!(client.answer().body, b"ok\n");
    }
    first.stop();
}

#[test]
fn r_05_a_client_is_turned_away_only_when_no_core_has_room() {
    let plan = || {
        let mut plan = Plan::default();
        plan.limits.connections_max = 2;
        plan
    };
    let mut cores = Stepped::sharing::<2>(plan);
    let mut clients = clients_of(&cores[0], 4);
    let until = Instant::now() + PATIENCE;
    while shares(&cores) != [2, 2] {
        assert!(Instant::now() < until, "somebody waits for ever");
        turn_all(&mut cores, 1);
    }
    turn_all(&mut cores, 3);
    for client in &mut clients {
        assert_eq!(client.answer().body, b"ok\n");
    }
    let mut one_more = Client::new(cores[0].address);
    turn_all(&mut cores, 3);
    one_more.assert_closed();
    assert_eq!(shares(&cores), [2, 2]);
    cores.iter_mut().for_each(Stepped::stop);
}

#[test]
fn r_05_a_client_too_many_is_turned_away_and_the_others_are_served_on() {
    let mut plan = Plan::default();
    plan.limits.connections_max = 2;
    let world = World::with(plan, &[]);
    let healthy = |client: &mut Client| {
        client.send(LIVE);
        client.answer().body == b"ok\n"
    };
    let [mut first, mut second] = [(); 2].map(|()| Client::new(world.address));
    assert!(healthy(&mut first) && healthy(&mut second));
    for _ in 0..3 {
        Client::new(world.address).assert_closed();
        assert!(healthy(&mut first) && healthy(&mut second));
    }
    // Whose place is free is somebody else's.
    second.finish();
    second.assert_closed();
    assert!(healthy(&mut Client::new(world.address)));
    assert!(healthy(&mut first));
}

/// What a backend has sent on some streams, and what it still may.
struct Poured {
    windows: BTreeMap<u32, i64>,
    bytes: u64,
}

impl Poured {
    fn new(streams: impl IntoIterator<Item = u32>) -> Self {
        let windows = streams.into_iter();
        Self {
            windows: windows
                .map(|own| (own, STREAM_WINDOW_BYTES.into()))
                .collect(),
            bytes: 0,
        }
    }

    /// Sends on all streams as much as it is let, until it is not let for so long, or something else comes.
    fn pour(&mut self, peer: &mut Peer, time: Duration) -> Option<Seen> {
        let piece = message(&[0; 16 << 10]);
        loop {
            let mut sent = false;
            for (&stream, window) in &mut self.windows {
                if *window >= piece.len() as i64 {
                    peer.data(stream, &piece, false);
                    *window -= piece.len() as i64;
                    self.bytes += piece.len() as u64;
                    sent = true;
                }
            }
            let wait = if sent { Duration::from_micros(1) } else { time };
            match peer.next_or_windows(wait) {
                Some(Ok((stream, more))) => {
                    if let Some(window) = self.windows.get_mut(&stream) {
                        *window += i64::from(more);
                    }
                }
                Some(Err(seen)) => return Some(seen),
                None if sent => {}
                None => return None,
            }
        }
    }
}

/// What a client leaves unread waits in its backend. In between it takes one window of HTTP/2, our own output, and as much in
/// the kernel; left to itself, the kernel would take megabytes for each.
const UNREAD_BYTES_MAX: u64 = 512 << 10;

#[test]
fn r_24_an_answer_that_is_not_read_takes_little_memory_in_the_kernel_too() {
    let backend = Backend::new();
    let mut plan = Plan::default();
    plan.limits.stall_timeout = Duration::from_millis(500);
    let world = World::with(plan, &[&backend]);
    let mut client = Client::narrow(world.address, 4 << 10);
    client.post("", &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    let mut poured = Poured::new([stream]);
    // As long as anything moves, the client is not given up.
    let seen = poured.pour(&mut peer, PATIENCE);
    assert!(matches!(seen, Some(Seen::Reset { .. })), "{seen:?}");
    assert_eq!(world.record().reason, Reason::ClientTooSlow);
    let bytes = poured.bytes;
    assert!(
        bytes >= STREAM_WINDOW_BYTES.into(),
        "{bytes} bytes are not even a window"
    );
    assert!(
        bytes <= UNREAD_BYTES_MAX,
        "{bytes} bytes were taken for nobody"
    );
    drop(client);
}

#[test]
fn r_03_a_reader_that_is_slow_is_not_taken_for_one_that_stands_still() {
    const READ_BYTES: usize = 16 << 10;
    const PAUSE: Duration = Duration::from_millis(50);
    let backend = Backend::new();
    let mut plan = Plan::default();
    // 16 KiB in this time are asked for; this client reads about forty times as much.
    plan.limits.stall_timeout = Duration::from_secs(2);
    let world = World::with(plan, &[&backend]);
    let mut client = Client::narrow(world.address, 32 << 10);
    client.post("", &message(b"hi"));
    let mut peer = backend.accept();
    let stream = peer.request().stream;
    peer.grpc_head(stream);
    let reader = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(6);
        let mut read = 0;
        while Instant::now() < until {
            std::thread::sleep(PAUSE);
            read += READ_BYTES;
            assert!(client.skip(READ_BYTES), "cut before byte {read}");
        }
        client
    });
    // The reader's end is what it waits for.
    let mut poured = Poured::new([stream]);
    while !reader.is_finished() {
        let seen = poured.pour(&mut peer, PAUSE);
        assert_eq!(seen, None, "after {} bytes", poured.bytes);
    }
    let client = reader.join().expect("it could read on");
    drop(client);
    assert_eq!(world.record().reason, Reason::ClientLeft);
}

#[test]
fn r_25_readers_that_stand_still_hold_up_nobody_on_their_connection_and_are_given_up() {
    const READERS: usize = 150;
    const ROUNDS: usize = 20;
    let backend = Backend::new();
    let mut plan = Plan::default();
    // Longer than all of what follows takes, but for its end.
    plan.limits.stall_timeout = Duration::from_secs(4);
    let world = World::with(plan, &[&backend]);
    let mut readers: Vec<Client> = (0..READERS)
        .map(|_| Client::narrow(world.address, 4 << 10))
        .collect();
    for reader in &mut readers {
        reader.post("", &message(b"much"));
    }
    let mut peer = backend.accept();
    let streams: Vec<u32> = peer
        .requests(READERS)
        .iter()
        .map(|own| own.stream)
        .collect();
    for &stream in &streams {
        peer.grpc_head(stream);
    }
    let mut poured = Poured::new(streams);
    assert_eq!(poured.pour(&mut peer, Duration::from_millis(500)), None);
    let each = poured.bytes / READERS as u64;
    assert!(
        each >= STREAM_WINDOW_BYTES.into(),
        "{each} bytes are not even a window"
    );
    assert!(
        each <= UNREAD_BYTES_MAX,
        "{each} bytes were taken for nobody"
    );
    // All of it is held by now, on the very connection that the next calls take.
    let mut other = Client::new(world.address);
    for round in 0..ROUNDS {
        other.post("", &message(b"little"));
        let request = match peer.next() {
            Seen::Head { stream, .. } => stream,
            other => panic!("instead of a call: {other:?}"),
        };
        assert_eq!(peer.body(request), message(b"little"));
        peer.answer(request, &message(b"enough"));
        let answer = other.answer();
        assert!(
            answer.whole && answer.body.starts_with(&message(b"enough")),
            "round {round}"
        );
        assert_eq!(world.record().reason, Reason::Ok);
    }
    // Each stands still by itself, and each is given up.
    for _ in 0..READERS {
        let record = world.record();
        assert_eq!(
            (record.reason, record.aborted),
            (Reason::ClientTooSlow, true)
        );
    }
    drop(readers);
}

#[test]
fn r_26_bytes_of_a_message_that_come_one_by_one_are_gathered_so_that_no_small_frames_add_up() {
    const PIECE: usize = 256;
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let body = message(&[7; 600]);
    let mut client = Client::new(world.address);
    let whole = request("", &body);
    let (head, _) = whole.split_at(whole.len() - body.len());
    client.send(head);
    let mut peer = backend.accept();
    let stream = match peer.next() {
        Seen::Head {
            stream, end: false, ..
        } => stream,
        other => panic!("instead of a head: {other:?}"),
    };
    // A backend can do nothing with it yet.
    for byte in &body[..PIECE - 1] {
        client.send(&[*byte]);
    }
    assert_eq!(peer.next_within(Duration::from_millis(200)), None);
    // Enough for a frame, which leaves though the message has not ended.
    client.send(&body[PIECE - 1..PIECE + 1]);
    let mut seen = Vec::new();
    while seen.len() < PIECE {
        match peer.next() {
            Seen::Data {
                bytes, end: false, ..
            } => {
                assert!(bytes.len() >= PIECE, "a frame of {} bytes", bytes.len());
                seen.extend(bytes);
            }
            other => panic!("instead of data: {other:?}"),
        }
    }
    client.send(&body[PIECE + 1..]);
    seen.extend(peer.body(stream));
    assert_eq!(seen, body);
    peer.answer(stream, b"");
    assert!(client.answer().whole);
}

#[test]
fn r_26_a_message_that_is_whole_does_not_wait_for_more() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let (one, two) = (message(b""), message(b"two"));
    let mut client = Client::new(world.address);
    let whole = request("", &[&one[..], &two].concat());
    let (most, last) = whole.split_at(whole.len() - 1);
    client.send(most);
    let mut peer = backend.accept();
    let stream = match peer.next() {
        Seen::Head {
            stream, end: false, ..
        } => stream,
        other => panic!("instead of a head: {other:?}"),
    };
    client.send(last);
    assert_eq!(peer.body(stream), [&one[..], &two].concat());
    // In a chunked body, whose end nobody knows yet.
    let mut client = Client::new(world.address);
    let chunked = String::from_utf8(whole[..whole.len() - one.len() - two.len()].to_vec())
        .expect("ASCII")
        .replace("content-length: 13", "transfer-encoding: chunked");
    client.send(chunked.as_bytes());
    // With the beginning of a third, which must not hold it up.
    client.send(&[&b"b\r\n"[..], &two, &two[..3], b"\r\n"].concat());
    let stream = match peer.next() {
        Seen::Head {
            stream, end: false, ..
        } => stream,
        other => panic!("instead of a head: {other:?}"),
    };
    match peer.next() {
        Seen::Data {
            stream: own,
            bytes,
            end: false,
        } => {
            assert!(own == stream && bytes.starts_with(&two), "{bytes:?}");
        }
        other => panic!("instead of a message: {other:?}"),
    }
}
