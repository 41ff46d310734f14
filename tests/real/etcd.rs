//! etcd behind wharf. Messages: etcd-io/etcd `api/etcdserverpb/rpc.proto`, `api/mvccpb/kv.proto`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{Call, Mode};
use crate::message::{self, Message};
use crate::peers::Wharf;
use crate::peers::etcd::Etcd;
use crate::peers::program::note;

fn put(address: SocketAddr, key: &str, value: &str) {
    let request = Message::new().bytes(1, key).bytes(2, value).done();
    let answer = Call::new("/etcdserverpb.KV/Put")
        .message(request)
        .make(address);
    answer.assert_shape();
    assert_eq!(answer.status(), 0, "{answer:?}");
}

/// Key and value of an etcd `KeyValue`.
fn pair(bytes: &[u8]) -> (String, String) {
    (message::text(bytes, 1), message::text(bytes, 5))
}

#[test]
fn etcd_answers_a_range_in_both_modes() {
    let etcd = Etcd::start();
    let wharf = Wharf::before(etcd.address);
    for number in 0..3 {
        put(
            wharf.address,
            &format!("key-{number}"),
            &format!("value-{number}"),
        );
    }
    let request = Message::new().bytes(1, "key-").bytes(2, "key.").done();
    for mode in [Mode::Binary, Mode::Text] {
        let call = Call::new("/etcdserverpb.KV/Range")
            .mode(mode)
            .message(&request);
        let answer = call.make(wharf.address);
        answer.assert_shape();
        assert_eq!(answer.status(), 0);
        assert_eq!(answer.messages.len(), 1);
        let pairs: Vec<_> = message::all_bytes(&answer.messages[0], 2)
            .iter()
            .map(|it| pair(it))
            .collect();
        let expected = (0..3).map(|number| (format!("key-{number}"), format!("value-{number}")));
        assert_eq!(pairs, expected.collect::<Vec<_>>());
    }
}

#[test]
fn etcd_s_own_errors_arrive_with_their_message() {
    let etcd = Etcd::start();
    let wharf = Wharf::before(etcd.address);
    let answer = Call::new("/etcdserverpb.KV/Range")
        .message([])
        .make(wharf.address);
    answer.assert_shape();
    assert_eq!(answer.status(), 3);
    assert_eq!(answer.status_message(), "etcdserver: key is not provided");
}

#[test]
fn a_watch_tells_each_change_and_goes_when_its_caller_goes() {
    let etcd = Etcd::start();
    let wharf = Wharf::before(etcd.address);
    for mode in [Mode::Binary, Mode::Text] {
        let create = Message::new().bytes(1, "watched").done();
        let request = Message::new().bytes(1, create).done();
        let call = Call::new("/etcdserverpb.Watch/Watch")
            .mode(mode)
            .message(request);
        let mut watching = call.begin(wharf.address);
        assert_eq!(message::number(&watching.message(), 3), 1, "created");
        etcd.wait_watchers(1);
        for number in 0..5 {
            let value = format!("{mode:?}-{number}");
            put(wharf.address, "watched", &value);
            let events = message::all_bytes(&watching.message(), 11);
            assert_eq!(events.len(), 1);
            assert_eq!(
                pair(&message::bytes(&events[0], 2)),
                ("watched".to_owned(), value)
            );
        }
        drop(watching);
        let gone = etcd.wait_watchers(0);
        note(&format!(
            "etcd had no watcher {gone:?} after its caller had left ({mode:?})"
        ));
        assert!(gone < Duration::from_secs(1), "{gone:?}");
    }
}
