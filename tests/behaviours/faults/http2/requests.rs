//! Requests that are whole and ask for work that nobody has use for.

use std::thread;
use std::time::Duration;

use wharf::wire::{Party, Reason};

use super::{BROKEN, Scene, assert_good, assert_told};
use crate::caller::{CALL, Caller, Heard, call, call_with};
use crate::client::message;
use crate::frames::{CANCEL, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, frame};
use crate::world::Plan;

#[test]
fn h2_04_a_call_that_was_told_to_go_on_is_not_answered_yet() {
    let scene = Scene::new();
    let mut caller = scene.caller();
    let expecting = call_with(&[("expect", "100-continue")]);
    // Ninety are not too many in a second, and twice ninety are.
    'flood: for _ in 0..10 {
        let streams: Vec<u32> = (0..90).map(|_| caller.open(&expecting, false)).collect();
        for _ in &streams {
            match caller.next() {
                Heard::Head { fields, end, .. } => {
                    assert_eq!(fields, [(":status".to_owned(), "100".to_owned())]);
                    assert!(!end);
                }
                Heard::GoAway { code, .. } => {
                    assert_eq!(code, ENHANCE_YOUR_CALM);
                    break 'flood;
                }
                other => panic!("{other:?}"),
            }
        }
        for &stream in &streams {
            caller.reset(stream, CANCEL);
        }
    }
    let records = scene.end();
    let (told, calls): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|own| own.refusal.is_some());
    assert_told(&told, &["it resets calls before they are answered"]);
    for call in calls {
        // Reset before the connection ended, or in the turn in which it did.
        let reason = call.reason;
        assert!([Reason::ClientLeft, BROKEN].contains(&reason), "{reason:?}");
    }
}

#[test]
fn h2_27_heads_that_are_answered_though_they_are_none_are_counted() {
    let scene = Scene::new();
    let mut caller = scene.caller();
    let contradicts = call_with(&[("host", "other.test")]);
    for _ in 0..100 {
        let stream = caller.open(&contradicts, true);
        let answer = caller.answer(stream);
        assert_eq!((answer.told().0, answer.whole), ("400", true));
    }
    caller.open(&contradicts, true);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    let records = scene.end();
    let last = records.last().map(|own| &*own.message);
    assert_eq!(last, Some("it sends one head after another that is none"));
    assert!((101..=102).contains(&records.len()), "{}", records.len());
}

/// A core where half a head of each of four connections is too much, and what they send of one.
fn crowded(bytes_each: usize) -> (Scene, Vec<Caller>) {
    let mut plan = Plan::default();
    plan.limits.heads_bytes_max = 40 << 10;
    let scene = Scene::with(plan);
    let half = frame(HEADERS, END_HEADERS, 1, &[b'a'; 16 << 10]);
    let callers = (0..10).map(|_| {
        let mut caller = scene.caller();
        caller.raw(&half[..bytes_each]);
        caller
    });
    let callers = callers.collect();
    (scene, callers)
}

/// A call whose head comes in two pieces comes to its good end.
fn assert_serves_in_two_pieces(scene: &mut Scene, caller: &mut Caller, stream: u32) {
    let whole = call(stream, &message(b"hi"));
    let (one, other) = whole.split_at(20);
    caller.raw(one);
    thread::sleep(Duration::from_millis(50));
    caller.raw(other);
    let request = scene.peer.request();
    scene.peer.answer(request.stream, &message(b"well"));
    assert_good(&caller.answer(stream), b"well");
}

#[test]
fn r_08_what_a_head_announces_and_has_not_sent_is_not_held() {
    let (mut scene, _callers) = crowded(9);
    let mut caller = scene.caller();
    assert_serves_in_two_pieces(&mut scene, &mut caller, 1);
    assert_eq!(scene.world.record().reason, Reason::Ok);
    assert_told(&scene.end(), &[]);
}

#[test]
fn r_08_half_heads_share_a_budget_in_http2_and_small_ones_are_spared() {
    let (mut scene, mut callers) = crowded(12 << 10);
    let turned_out = |caller: &mut Caller| match caller.next_within(Duration::from_millis(500)) {
        Some(Heard::GoAway { code, .. }) => {
            assert_eq!(code, ENHANCE_YOUR_CALM);
            true
        }
        None => false,
        Some(other) => panic!("{other:?}"),
    };
    let left = callers
        .iter_mut()
        .filter_map(|own| (!turned_out(own)).then_some(()));
    assert_eq!(
        left.count(),
        2,
        "three times 12 KiB are under 40; of four those two go that have been coming for longest"
    );
    // Somebody whose head comes in two pieces is served beside them, and his open call goes on.
    let mut caller = scene.caller();
    let open = caller.open(&CALL, false);
    let begun = scene.begun().stream;
    assert_serves_in_two_pieces(&mut scene, &mut caller, 3);
    caller.data(open, &message(b"hi"), true);
    assert_eq!(scene.peer.body(begun), message(b"hi"));
    scene.peer.answer(begun, &message(b"well"));
    assert_good(&caller.answer(open), b"well");
    let refused = scene.end();
    let refused: Vec<_> = refused.iter().filter_map(|own| own.refusal).collect();
    assert_eq!(refused, ["overloaded"; 8]);
}

#[test]
fn r_08_the_calls_of_whoever_is_sent_away_for_half_a_head_are_told_why() {
    let mut scene = Scene::with({
        let mut plan = Plan::default();
        plan.limits.heads_bytes_max = 8 << 10;
        plan
    });
    let mut caller = scene.caller();
    caller.open(&CALL, false);
    scene.begun();
    caller.raw(&frame(HEADERS, END_HEADERS, 3, &[b'a'; 16 << 10])[..12 << 10]);
    caller.assert_turned_out(ENHANCE_YOUR_CALM);
    let mut ends: Vec<_> = scene
        .end()
        .iter()
        .map(|own| (own.refusal, own.reason.word(), own.by))
        .collect();
    ends.sort_by_key(|own| own.0);
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[0], (None, "overloaded", Party::Proxy));
    assert_eq!(ends[1].0, Some("overloaded"));
}
