//! Requests that are whole and ask for work that nobody has use for.

use wharf::wire::Reason;

use super::{Scene, assert_told};
use crate::caller::{Heard, call_with};
use crate::frames::{CANCEL, ENHANCE_YOUR_CALM};

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
        assert_eq!(call.reason, Reason::ClientLeft);
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
