//! Rows D: deadlines, as they are read and told. What hangs on exact time is proven under the simulated clock.

use std::time::Duration;

use wharf::wire::{Party, Reason};

use crate::backend::{Backend, Seen, field_of};
use crate::client::{Client, alone, last, message};
use crate::ends::{Pair, assert_ends};
use crate::time::{TOLD, assert_late, timeout_of};
use crate::world::World;

/// In which nothing comes that should not.
const A_MOMENT: Duration = Duration::from_millis(100);
const HOUR: u64 = 3600;

#[test]
fn d_01_every_unit_and_every_length_is_read_and_told_in_eight_digits() {
    let mut pair = Pair::new();
    // 8 digits of hours are more than any clock counts; what is longer is that.
    let ages = 99_999_999 * HOUR;
    let rows: [(&str, Duration); 20] = [
        ("1H", Duration::from_secs(HOUR)),
        ("99999999H", Duration::from_secs(ages)),
        ("00000001H", Duration::from_secs(HOUR)),
        ("2M", Duration::from_secs(120)),
        ("99999999M", Duration::from_secs(99_999_999 * 60)),
        ("59S", Duration::from_secs(59)),
        ("0000060S", Duration::from_secs(60)),
        ("99999999S", Duration::from_secs(99_999_999)),
        ("60000m", Duration::from_secs(60)),
        ("99999999m", Duration::from_millis(99_999_999)),
        ("60000000u", Duration::from_secs(60)),
        ("99999999u", Duration::from_micros(99_999_999)),
        // As Google's client writes it, with as many digits as it takes.
        ("999999999m", Duration::from_millis(999_999_999)),
        ("60000000000n", Duration::from_secs(60)),
        ("18446744073709551615n", Duration::from_nanos(u64::MAX)),
        ("99999999999999999999n", Duration::from_nanos(u64::MAX)),
        ("99999999999999999999m", Duration::from_secs(ages)),
        ("99999999999999999999H", Duration::from_secs(ages)),
        ("18446744073709551615S", Duration::from_secs(ages)),
        ("00000000000000000060S", Duration::from_secs(60)),
    ];
    for (asked, meant) in rows {
        pair.client
            .post(&format!("grpc-timeout: {asked}\r\n"), &message(b"hi"));
        let request = pair.peer.request();
        let told = request.field("grpc-timeout").expect("a timeout");
        assert!(told.len() <= 9, "{asked}: {told}");
        let left = timeout_of(told);
        // What has passed since, and one unit for the digits that were cut.
        let unit = if told.ends_with('H') { HOUR } else { 60 };
        assert!(left <= meant, "{asked}: {told}");
        assert!(
            left + Duration::from_secs(20 + unit) > meant,
            "{asked}: {told}"
        );
        pair.peer.answer(request.stream, b"");
        assert!(pair.client.answer().whole);
        assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);
    }
    for none in ["0H", "0M", "0S", "0m", "0u", "0n", "00000000000000000000m"] {
        pair.client
            .post(&format!("grpc-timeout: {none}\r\n"), &message(b"hi"));
        assert_eq!(pair.client.answer(), alone(TOLD), "{none}");
        assert_late(&pair.world, false);
        pair.peer.assert_quiet();
    }
    // A nanosecond is longer than nothing: it may get as far as the backend, and is over.
    pair.client.post("grpc-timeout: 1n\r\n", &message(b"hi"));
    assert_eq!(pair.client.answer(), alone(TOLD));
    assert_late(&pair.world, false);
    while let Some(seen) = pair.peer.next_within(A_MOMENT) {
        match seen {
            Seen::Head { fields, .. } => {
                assert_eq!(field_of(&fields, "grpc-timeout"), Some("1n"));
            }
            Seen::Data { .. } | Seen::Reset { code: 8, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn d_02_a_timeout_that_is_none_is_internal_and_reaches_nobody() {
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let bad = "bad grpc-timeout";
    let rows = [
        ("", bad),
        ("5", bad),
        ("S", bad),
        ("-1S", bad),
        ("+1S", bad),
        ("1 S", bad),
        ("1s", bad),
        ("1h", bad),
        ("1ms", bad),
        ("1.5S", bad),
        ("0x1S", bad),
        ("1S;", bad),
        ("1S, 1S", bad),
        ("123456789012345678901m", bad),
        ("1S\r\ngrpc-timeout: x", bad),
        ("x\r\ngrpc-timeout: 1S", bad),
        (
            "1S\r\ngrpc-timeout: 2S",
            "two different grpc-timeout fields",
        ),
        (
            "1S\r\ngrpc-timeout: 1000m\r\ngrpc-timeout: 1001m",
            "two different grpc-timeout fields",
        ),
    ];
    for (value, how) in rows {
        let mut client = Client::new(world.address);
        client.post(&format!("grpc-timeout: {value}\r\n"), &message(b"hi"));
        let told = format!("grpc-status:13\r\ngrpc-message:{how}\r\n");
        assert_eq!(client.answer(), last(&told), "{value}");
        let record = world.record();
        assert_ends(
            &record,
            13,
            Reason::ClientProtocol(how),
            Party::Downstream,
            false,
        );
        client.assert_closed();
    }
    assert!(backend.is_left_alone(A_MOMENT));
}

#[test]
fn d_02_white_space_around_a_timeout_is_https_and_two_that_say_the_same_are_one() {
    let mut pair = Pair::new();
    for value in [
        " \t 60S",
        "60S \t",
        "60S\r\ngrpc-timeout: 60000m",
        "1M\r\ngrpc-timeout: 60S",
    ] {
        pair.client
            .post(&format!("grpc-timeout: {value}\r\n"), &message(b"hi"));
        let request = pair.peer.request();
        let told = request
            .fields
            .iter()
            .filter(|(name, _)| name == "grpc-timeout");
        assert_eq!(told.count(), 1, "{value}");
        pair.peer.answer(request.stream, b"");
        assert!(pair.client.answer().whole);
        assert_ends(&pair.world.record(), 0, Reason::Ok, Party::Upstream, false);
    }
}

#[test]
fn d_03_a_call_whose_time_is_over_at_once_opens_nothing() {
    // Neither a connection where there is none, nor a stream where there is one.
    let backend = Backend::new();
    let world = World::new(&[&backend]);
    let mut client = Client::new(world.address);
    client.post("grpc-timeout: 0m\r\n", &message(b"hi"));
    assert_eq!(client.answer(), alone(TOLD));
    assert_late(&world, false);
    assert!(backend.is_left_alone(A_MOMENT));

    let mut pair = Pair::new();
    for _ in 0..3 {
        pair.client.post("grpc-timeout: 0n\r\n", &message(b"hi"));
        assert_eq!(pair.client.answer(), alone(TOLD));
        let record = pair.world.record();
        assert_ends(&record, 4, Reason::Deadline, Party::Proxy, false);
        assert_eq!(record.attempts, 0);
    }
    pair.peer.assert_quiet();
}
