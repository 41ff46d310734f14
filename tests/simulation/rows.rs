//! Rows of the catalogue that want a machine under control: one fault at one operation, a wake-up too many, a peer at line rate,
//! a clock that passes everything at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use wharf::net::Timers;
use wharf::net::sim::{Fault, Weather};
use wharf::wire::Reason;

use crate::answer::Answer;
use crate::plan::{Form, Plan, Play};
use crate::world::World;

/// What a core reads of one socket in one turn, bytes.
const TURN_BYTES_MAX: usize = 256 << 10;

/// Nothing goes wrong, and a mebibyte is on its way at most.
fn fair() -> Weather {
    Weather {
        buffer_bytes_min: 1 << 20,
        ..Weather::fair()
    }
}

fn call(id: usize, requests: &[usize], play: Play) -> Plan {
    Plan {
        id,
        backend: 'A',
        requests: requests.to_vec(),
        play,
        timeout: None,
        form: Form::Web,
        broken: None,
    }
}

fn stream(sizes: &[usize]) -> Play {
    let sizes = sizes.to_vec();
    let (code, early) = (0, false);
    Play::Stream { sizes, code, early }
}

/// Two browsers: two calls one after the other on the first, one in text on the second.
fn ordinary() -> Vec<Vec<Plan>> {
    let text = Plan {
        form: Form::Text,
        ..call(2, &[20], stream(&[100, 0, 700]))
    };
    vec![
        vec![
            call(0, &[5, 300], Play::Echo { code: 0 }),
            call(1, &[], Play::TrailersOnly { code: 5 }),
        ],
        vec![text],
    ]
}

fn answers(world: &World) -> Vec<Vec<(u16, Vec<u8>)>> {
    let of = |answers: &[Answer]| {
        let answers = answers.iter();
        answers.map(|own| (own.status, own.body.clone())).collect()
    };
    let browsers = world.browsers.iter();
    browsers.map(|own| of(&own.reader.answers)).collect()
}

#[test]
fn x_01_one_fault_at_any_operation_changes_nothing_or_ends_as_it_may() {
    let mut whole = World::plain(ordinary(), fair(), Instant::now());
    whole.run();
    let expected = answers(&whole);
    assert_eq!(expected.iter().map(Vec::len).sum::<usize>(), 3);
    let operations = whole.machine.operations();
    assert!(operations > 20, "{operations} operations");
    let mut lost = 0;
    for fault in [
        Fault::Crumb,
        Fault::Blocks,
        Fault::Interrupted,
        Fault::Breaks,
    ] {
        for k in 0..operations {
            let mut world = World::plain(ordinary(), fair(), Instant::now());
            world.machine.fate(k, fault);
            // The model judges it: what a lost connection did not touch has come to its own end.
            let result = catch_unwind(AssertUnwindSafe(|| world.run()));
            assert!(result.is_ok(), "{fault:?} at operation {k}");
            let same = answers(&world) == expected;
            if fault == Fault::Breaks {
                lost += u32::from(!same);
            } else {
                assert!(same, "{fault:?} at operation {k}: another answer");
            }
        }
    }
    assert!(lost > 5, "a lost connection is seen: {lost}");
}

#[test]
fn x_03_who_stops_before_the_kernel_is_empty_goes_on_by_himself() {
    // Three megabytes each way, through pipes of one: every turn stops at its budget, and no event follows.
    let plans = vec![
        vec![call(0, &[], stream(&[1_000_000; 3]))],
        vec![call(1, &[1_000_000; 3], stream(&[]))],
    ];
    let mut world = World::plain(plans, fair(), Instant::now());
    world.run();
    assert_eq!(answers(&world).iter().map(Vec::len).sum::<usize>(), 2);
    let links = 0..world.machine.links();
    let most = links.map(|link| world.machine.read_most(link)).max();
    assert_eq!(most, Some(TURN_BYTES_MAX), "a turn stopped at its budget");
    // Whenever the core rested, every socket was asked for bytes of which nobody would tell.
    assert!(world.rests > 0);
    let ends = world.browsers.iter().map(|own| own.done_at).max().unwrap();
    assert!(ends < Duration::from_secs(1), "nobody slept: {ends:?}");
}

#[test]
fn x_05_a_storm_of_wake_ups_changes_nothing() {
    let mut calm = World::plain(ordinary(), fair(), Instant::now());
    calm.run();
    let mut stormy = World::plain(ordinary(), fair(), Instant::now());
    stormy.storm = 1_000;
    stormy.run();
    assert_eq!(answers(&stormy), answers(&calm));
    assert_eq!(stormy.machine.operations(), calm.machine.operations());
    // And so it is when the weather is bad: the model judges these.
    for seed in 1..40 {
        let mut world = World::new(seed, Instant::now(), None);
        world.storm = 3;
        let result = catch_unwind(AssertUnwindSafe(|| world.run()));
        assert!(result.is_ok(), "seed {seed} in a storm");
    }
}

#[test]
fn r_13_a_million_deadlines_cost_what_lives_of_them() {
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(13);
    let mut timers = Timers::default();
    let mut alive = vec![None; 1_000];
    for n in 0..1_000_000u32 {
        let place = rng.usize(..alive.len());
        timers.cancel(&mut alive[place]);
        let at = start + Duration::from_micros(rng.u64(..1 << 40));
        timers.set(&mut alive[place], Some(at), n);
        assert!(timers.len() <= alive.len());
    }
    let mut last = start;
    let mut fired = 0;
    while let Some(at) = timers.next() {
        assert!(last <= at, "in their order");
        last = at;
        assert_eq!(timers.expired(at - Duration::from_nanos(1)), None);
        assert!(timers.expired(at).is_some());
        fired += 1;
    }
    assert_eq!(fired, alive.iter().flatten().count());
}

#[test]
fn r_13_a_clock_that_passes_every_deadline_at_once_ends_every_call_once() {
    let calls = 300;
    let plans = (0..calls).map(|id| {
        let play = Play::Silent { sizes: vec![9] };
        let timeout = Some(Duration::from_millis(5_000 + 10 * id as u64));
        vec![Plan {
            timeout,
            ..call(id, &[10], play)
        }]
    });
    let mut world = World::plain(plans.collect(), fair(), Instant::now());
    let mut turns = 0;
    while world.core().census().1 < calls || !world.machine.is_quiet() {
        world.turn();
        turns += 1;
        assert!(turns < 10_000, "the calls begin");
    }
    world.machine.leap();
    world.turn();
    assert_eq!(world.core().census().1, 0, "all ended in one turn");
    world.run();
    for facts in &world.ledger.borrow().calls {
        let [record] = &facts.records[..] else {
            panic!("one record each: {facts:?}");
        };
        assert_eq!(record.reason, Reason::Deadline);
    }
}

/// How many turns it takes until all but the first browser have their answers, and how far the first one is then.
fn race(hog: Option<Plan>) -> (u64, usize) {
    let mut plans: Vec<Vec<Plan>> = Vec::new();
    plans.push(hog.into_iter().collect());
    plans.extend((1..=20).map(|id| vec![call(id, &[40], Play::Echo { code: 0 })]));
    if plans[0].is_empty() {
        plans[0].push(call(0, &[], Play::TrailersOnly { code: 0 }));
    }
    let mut world = World::plain(plans, fair(), Instant::now());
    let small = |world: &World| {
        let mut small = world.browsers.iter().skip(1);
        world.browsers.len() > 20 && small.all(|own| !own.reader.answers.is_empty())
    };
    while !small(&world) {
        world.turn();
        assert!(world.turns < 10_000, "they are served");
    }
    let turns = world.turns;
    let far = world.browsers[0].reader.answers.len();
    world.run();
    let links = 0..world.machine.links();
    for link in links {
        let most = world.machine.read_most(link);
        assert!(most <= TURN_BYTES_MAX, "#{link}: {most} bytes in one turn");
    }
    assert_eq!(world.browsers[0].reader.answers.len(), 1);
    (turns, far)
}

#[test]
fn r_14_a_peer_at_line_rate_has_its_share_of_a_turn_and_no_more() {
    let (alone, _) = race(None);
    let uploads = call(0, &[500_000; 16], stream(&[1]));
    let downloads = call(0, &[], stream(&[500_000; 16]));
    for hog in [uploads, downloads] {
        let (turns, far) = race(Some(hog));
        assert_eq!(far, 0, "it is still at it");
        assert!(
            turns <= 2 * alone,
            "{turns} turns for others beside it, {alone} without"
        );
    }
}
