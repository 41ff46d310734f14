//! Rows: descriptors, accept, hashing, churn, full channels; and S-08 under a stream of clients.

use std::cell::RefCell;
use std::fs;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use http::HeaderName;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wharf::core::{Command, Flow, Report};

use crate::backend::Backend;
use crate::client::{Client, message};
use crate::faulty::{Faulty, Script, alone, hear_the_log, heard};
use crate::world::{PATIENCE, Plan, Stepped, World};

const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

fn faulty() -> (Stepped<Faulty>, Rc<RefCell<Script>>) {
    let script = Rc::new(RefCell::new(Script::default()));
    let snapshot = Plan::default().snapshot(&[]);
    let world = Stepped::driven(snapshot, 0, None, |driver| Faulty::new(driver, &script));
    (world, script)
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

#[test]
fn r_06_without_descriptors_clients_are_closed_and_not_forgotten() {
    alone(
        "faults::resources::r_06_without_descriptors_clients_are_closed_and_not_forgotten",
        || {
            let mut world = Stepped::new(Plan::default(), &[]);
            world.turn();
            let mut clients: Vec<Client> = (0..20).map(|_| Client::new(world.address)).collect();
            let before = getrlimit(Resource::Nofile);
            // The listing itself holds one.
            let open = descriptors() as u64 - 1;
            let few = Rlimit {
                current: Some(open + 5),
                maximum: before.maximum,
            };
            setrlimit(Resource::Nofile, few).expect("a lower limit");
            (0..20).for_each(|_| world.turn());
            // One or two more where the numbers of descriptors have gaps.
            let served = world.core.census().0;
            assert!((5..15).contains(&served), "{served} are served");
            for client in clients.drain(served..) {
                let mut client = client;
                client.assert_closed();
            }
            // Those who are served go on, the others cost no turns, and whoever comes now is closed as well.
            assert!(
                world.turns_within(Duration::from_millis(500)) <= 20,
                "it spins"
            );
            for client in &mut clients {
                client.send(LIVE);
                (0..3).for_each(|_| world.turn());
                assert_eq!(client.answer().body, b"ok\n");
            }
            // With room again, no event is needed: the listener is asked once more by itself.
            setrlimit(Resource::Nofile, before).expect("the old limit");
            let mut late = Client::new(world.address);
            late.send(LIVE);
            let until = Instant::now() + PATIENCE;
            while world.core.census().0 == served {
                assert!(Instant::now() < until, "the listener is forgotten");
                world.turn();
            }
            (0..3).for_each(|_| world.turn());
            assert_eq!(late.answer().body, b"ok\n");
        },
    );
}

#[test]
fn r_06_it_is_said_how_many_were_closed_and_nothing_where_nobody_was() {
    alone(
        "faults::resources::r_06_it_is_said_how_many_were_closed_and_nothing_where_nobody_was",
        || {
            const EMFILE: i32 = 24;
            hear_the_log();
            let (mut world, script) = faulty();
            // Where no descriptor is left, accept says so even with nobody in the queue.
            script.borrow_mut().accept_errors.push_back(EMFILE);
            (0..3).for_each(|_| world.turn());
            assert!(script.borrow().accept_errors.is_empty());
            assert_eq!(heard(), [""; 0]);
            let mut close = |clients: usize| {
                world.turns_within(Duration::from_millis(150));
                let clients: Vec<Client> =
                    (0..clients).map(|_| Client::new(world.address)).collect();
                script.borrow_mut().accept_errors.push_back(EMFILE);
                (0..3).for_each(|_| world.turn());
                for mut client in clients {
                    client.assert_closed();
                }
                world.turns_within(Duration::from_millis(1_000));
            };
            let said = |count: usize| {
                format!(
                    "WARN clients turned away, since no descriptor is left: {count} (Too many open files (os error 24)); allow more with  ulimit -n"
                )
            };
            close(1);
            assert_eq!(heard(), [said(1)]);
            close(3);
            assert_eq!(heard(), [said(3)]);
        },
    );
}

#[test]
fn r_07_no_error_of_accept_loses_the_listener_or_the_next_client() {
    // ECONNABORTED, EINTR, EPERM, EPROTO, ENETDOWN, EHOSTUNREACH; then those that want a pause: ENOBUFS, ENOMEM, EINVAL, EIO.
    for errno in [103, 4, 1, 71, 100, 113, 105, 12, 22, 5] {
        let (mut world, script) = faulty();
        world.turn();
        script.borrow_mut().accept_errors.extend([errno; 3]);
        let mut client = Client::new(world.address);
        client.send(LIVE);
        let until = Instant::now() + PATIENCE;
        while world.core.census().0 == 0 {
            assert!(
                Instant::now() < until,
                "errno {errno}: the client waits for ever"
            );
            world.turns_within(Duration::from_millis(20));
        }
        (0..3).for_each(|_| world.turn());
        assert_eq!(client.answer().body, b"ok\n", "errno {errno}");
        assert!(script.borrow().accept_errors.is_empty());
    }
    // EMFILE, ENFILE: who waits is closed, the next one is served.
    for errno in [24, 23] {
        let (mut world, script) = faulty();
        world.turn();
        script.borrow_mut().accept_errors.push_back(errno);
        let mut first = Client::new(world.address);
        (0..3).for_each(|_| world.turn());
        first.assert_closed();
        let mut next = Client::new(world.address);
        next.send(LIVE);
        let until = Instant::now() + PATIENCE;
        while world.core.census().0 == 0 {
            assert!(
                Instant::now() < until,
                "errno {errno}: the listener is forgotten"
            );
            world.turns_within(Duration::from_millis(20));
        }
        (0..3).for_each(|_| world.turn());
        assert_eq!(next.answer().body, b"ok\n", "errno {errno}");
    }
    // One that never ends costs few turns and few tries.
    for errno in [1, 4, 103, 12] {
        let (mut world, script) = faulty();
        world.turn();
        script
            .borrow_mut()
            .accept_errors
            .extend(std::iter::repeat_n(errno, 100_000));
        let _client = Client::new(world.address);
        let before = script.borrow().accepts;
        let turns = world.turns_within(Duration::from_millis(300));
        let accepts = script.borrow().accepts - before;
        assert!(turns <= 20, "errno {errno}: {turns} turns");
        assert!(accepts <= 1_000, "errno {errno}: {accepts} tries");
    }
}

#[test]
fn s_08_a_drain_begins_though_clients_never_cease_to_come() {
    let script = Rc::new(RefCell::new(Script::default()));
    let mut plan = Plan::default();
    plan.limits.connections_max = 4;
    let rules = plan.snapshot(&[]);
    let mut world = Stepped::driven(rules, 0, None, |driver| Faulty::new(driver, &script));
    world.turn();
    script.borrow_mut().endless = Some(world.address);
    world.stop();
    let accepts = script.borrow().accepts;
    assert!(
        accepts >= 4096,
        "{accepts}: whoever was in the queue was served"
    );
    assert!(accepts < 10_000, "{accepts}: and not more than it can hold");
    assert!(world.core.is_empty());
}

/// FNV-1a, which `http` uses as long as it sees no collisions.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[test]
fn r_12_names_that_were_made_to_collide_cost_no_more_than_others_and_nothing_is_lost() {
    let bucket = |name: &str| {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        HeaderName::from_bytes(name.as_bytes())
            .expect("a name")
            .hash(&mut hasher);
        hasher.finish() & 0x7fff
    };
    let wanted = bucket("x-0");
    let names: Vec<String> = (0..)
        .map(|n| format!("x-{n}"))
        .filter(|name| bucket(name) == wanted)
        .take(60)
        .collect();
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let fields: String = names
        .iter()
        .map(|name| format!("{name}: {name}\r\n"))
        .collect();
    let mut client = Client::new(world.address);
    client.post(&fields, &message(b"hi"));
    let mut peer = backend.accept();
    let request = peer.request();
    for name in &names {
        assert_eq!(request.field(name), Some(name.as_str()));
    }
    peer.answer(request.stream, &message(b"answer"));
    assert!(client.answer().whole);
    // The number of fields is what bounds the work, whatever they hash to.
    let more: String = (0..100).map(|n| format!("y-{n}: y\r\n")).collect();
    client.post(&more, &message(b"hi"));
    assert!(client.answer().head.starts_with("HTTP/1.1 431 "));
}

#[test]
fn r_12_no_table_of_ours_hashes_without_a_key() {
    fn look(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("src").flatten() {
            let path = entry.path();
            if path.is_dir() {
                look(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let weak = [
                    "FxHash",
                    "FnvHash",
                    "BuildHasherDefault",
                    "DefaultHasher",
                    "ahash",
                    "with_hasher",
                ];
                found.extend(
                    weak.iter()
                        .filter(|word| text.contains(**word))
                        .map(|word| format!("{}: {word}", path.display())),
                );
            }
        }
    }
    let mut found = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    look(&root.join("src"), &mut found);
    assert!(
        found.is_empty(),
        "a stranger may choose these hashes: {found:?}"
    );
}

#[test]
fn r_15_three_thousand_clients_that_come_and_go_leave_nothing_behind() {
    alone(
        "faults::resources::r_15_three_thousand_clients_that_come_and_go_leave_nothing_behind",
        || {
            let mut world = Stepped::new(Plan::default(), &[]);
            world.turn();
            let before = descriptors();
            for round in 0..3_000 {
                let mut client = Client::new(world.address);
                match round % 4 {
                    0 => {
                        client.send(LIVE);
                        (0..3).for_each(|_| world.turn());
                        assert_eq!(client.answer().body, b"ok\n");
                    }
                    1 => client.send(&LIVE[..9]),
                    2 => client.finish(),
                    _ => {
                        client.send(LIVE);
                        client.abort();
                    }
                }
                world.turn();
            }
            let until = Instant::now() + PATIENCE;
            while world.core.census().0 > 0 {
                assert!(Instant::now() < until, "{:?}", world.core);
                world.turn();
            }
            assert_eq!(descriptors(), before);
            world.stop();
            assert!(world.core.is_empty());
        },
    );
}

#[test]
fn r_16_a_control_thread_that_does_not_listen_costs_records_and_never_a_turn() {
    const ROOM: usize = 3;
    let channel = bounded(ROOM);
    let heard = channel.1.clone();
    let rules = Plan::default().snapshot(&[]);
    let mut world = Stepped::driven(rules, 0, Some(channel), |driver| driver);
    let mut client = Client::new(world.address);
    for _ in 0..10 {
        // A refusal: it has a record, and the connection stays.
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        (0..4).for_each(|_| world.turn());
        assert!(client.answer().head.starts_with("HTTP/1.1 405 "));
    }
    // These are reports too, but nobody's record.
    for _ in 0..5 {
        let rules = Plan::default().snapshot(&[]);
        world.command(Command::Adopt(std::sync::Arc::new(rules)));
        world.turn();
    }
    let records = heard
        .try_iter()
        .filter(|report| matches!(report, Report::Record(_)));
    assert_eq!(records.count(), ROOM);
    world.command(Command::Stop);
    while world.core.turn() == Flow::Running {}
    let last = heard.try_iter().last().expect("the last word");
    let Report::Stopped {
        records_dropped, ..
    } = last
    else {
        panic!("instead of the last word: {last:?}");
    };
    assert_eq!(records_dropped, 10 - ROOM as u64);
}
